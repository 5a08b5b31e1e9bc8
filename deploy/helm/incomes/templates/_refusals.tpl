{{/* Values that are well-formed and still wrong: each is refused with a sentence. Types and names are the schema's matter. */}}

{{- define "incomes.refusals" -}}
{{- if ne .Values.mode "deployment" -}}
{{- fail "mode rayservice is refused: servers can share the edit store of a Ray cluster (docs/cluster.md), but no RayService of them has run on a Kubernetes cluster yet. Set mode: deployment." -}}
{{- end -}}
{{- if gt (int .Values.replicaCount) 1 -}}
{{- fail "replicaCount must be 1: each server keeps its own list of replicas, so an edit acknowledged as active by one could still be missing in another. Scale up the pod (resources, GPU), or run one release with its own store for each group of tenants." -}}
{{- end -}}
{{- if not .Values.image.repository -}}
{{- fail "image.repository is empty: build deploy/docker/cpu.Dockerfile or cuda.Dockerfile, push the image to a registry of yours, and name it here." -}}
{{- end -}}
{{- if not .Values.apiKeys.existingSecret -}}
{{- fail "apiKeys.existingSecret is empty: a server that other machines reach needs keys. Make a secret with a line `project:key` for each, and name it here." -}}
{{- end -}}
{{- if and (eq .Values.database.kind "postgresql") (not .Values.database.existingSecret) -}}
{{- fail "database.existingSecret is empty: with database.kind postgresql, name a secret that holds the SQLAlchemy URL (postgresql+psycopg://user:password@host/name)." -}}
{{- end -}}
{{- if and (eq .Values.strategy "RollingUpdate") (ne .Values.database.kind "postgresql") -}}
{{- fail "strategy RollingUpdate is refused with database.kind sqlite: two pods would write one file. Use Recreate, or PostgreSQL." -}}
{{- end -}}
{{- if and .Values.ingress.enabled (not .Values.ingress.host) -}}
{{- fail "ingress.host is empty: name the host under which the chat port is reached." -}}
{{- end -}}
{{- if and .Values.httpRoute.enabled (not .Values.httpRoute.parentRefs) -}}
{{- fail "httpRoute.parentRefs is empty: name the Gateway that the route belongs to." -}}
{{- end -}}
{{- if and .Values.tracing.enabled (not .Values.tracing.endpoint) -}}
{{- fail "tracing.endpoint is empty: name the OTLP address of your collector." -}}
{{- end -}}
{{- end -}}
