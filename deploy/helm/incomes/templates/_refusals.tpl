{{/* Values that are well-formed and still wrong: each is refused with a sentence. Types and names are the schema's matter. */}}

{{- define "incomes.refusals" -}}
{{- $cluster := include "incomes.cluster" . -}}
{{- $many := or (gt (int .Values.replicaCount) 1) (gt (int .Values.compression.replicas) 0) .Values.autoscaling.enabled -}}
{{- if and $many (not $cluster) -}}
{{- fail "replicaCount above 1, compression.replicas and autoscaling need cluster.enabled: without a Ray cluster each server keeps its own list of replicas, and an edit acknowledged as active by one could still be missing in another." -}}
{{- end -}}
{{- if and $cluster (ne .Values.database.kind "postgresql") -}}
{{- fail "several engines share an edit store in PostgreSQL, not in SQLite, a file of one machine. Set database.kind: postgresql." -}}
{{- end -}}
{{- if and .Values.cluster.enabled (eq .Values.mode "deployment") (not .Values.cluster.token.existingSecret) -}}
{{- fail "cluster.token.existingSecret is empty: whoever reaches a Ray cluster without a token runs code in it. Make a secret with a random token, and name it here." -}}
{{- end -}}
{{- if and $cluster .Values.persistence.cache.enabled (not .Values.persistence.cache.existingClaim) (ne .Values.persistence.cache.accessMode "ReadWriteMany") -}}
{{- fail "persistence.cache is a claim for one node, and the pods of a cluster are on several. Set accessMode: ReadWriteMany with a storage class that has it, name an existingClaim that has it, or enabled: false, and each pod downloads the model." -}}
{{- end -}}
{{- if and .Values.autoscaling.enabled (eq .Values.mode "deployment") (not .Values.autoscaling.prometheus) -}}
{{- fail "autoscaling.prometheus is empty: KEDA asks Prometheus for running requests and waiting edits. Name its address." -}}
{{- end -}}
{{- if and .Values.autoscaling.enabled (eq .Values.mode "deployment") (not .Values.serviceMonitor.enabled) -}}
{{- fail "autoscaling needs serviceMonitor.enabled: Prometheus has to read the metrics that KEDA asks it for." -}}
{{- end -}}
{{- range $what, $many := dict "engines" .Values.autoscaling.engines "compressors" .Values.autoscaling.compressors -}}
{{- if gt (int $many.min) (int $many.max) -}}
{{- fail (printf "autoscaling.%s: min is above max." $what) -}}
{{- end -}}
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
