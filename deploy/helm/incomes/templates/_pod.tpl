{{/* Labels, annotations and specification of a pod. The argument is a dict: `root`, and `part`, one of
     engine (serves; in mode rayservice a worker that has engines), compress (makes gists only), ray (the head of the cluster). */}}

{{- define "incomes.podMeta" -}}
{{- $root := .root -}}
labels:
  {{- if eq $root.Values.mode "rayservice" }}
  {{- include "incomes.member" . | nindent 2 }}
  {{- else }}
  {{- include "incomes.partLabels" . | nindent 2 }}
  {{- end }}
  {{- with $root.Values.podLabels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- /* The head reads no settings, and a change of theirs must not end it: all engines would start anew. */}}
{{- with merge (dict) $root.Values.podAnnotations (ternary (dict) (dict "checksum/settings" (include "incomes.settings" $root | sha256sum)) (eq .part "ray")) }}
annotations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "incomes.podSpec" -}}
{{- $part := .part -}}
{{- with .root -}}
{{- $engine := eq $part "engine" -}}
{{- $head := eq $part "ray" -}}
{{- $kuberay := eq .Values.mode "rayservice" -}}
{{- $cluster := include "incomes.cluster" . -}}
{{- $postgresql := and $engine (eq .Values.database.kind "postgresql") -}}
{{- $encrypted := and $engine .Values.encryption.existingSecret -}}
{{- $nvidia := and (eq .Values.accelerator "nvidia") (not $head) -}}
{{- $resources := dict "engine" .Values.resources "compress" .Values.compression.resources "ray" .Values.cluster.head.resources | dig $part dict -}}
serviceAccountName: {{ include "incomes.serviceAccount" . }}
automountServiceAccountToken: {{ and $kuberay $head .Values.autoscaling.enabled }}
enableServiceLinks: false
terminationGracePeriodSeconds: {{ include "incomes.graceSeconds" . }}
{{- with .Values.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- if and $nvidia .Values.gpu.runtimeClassName }}
runtimeClassName: {{ .Values.gpu.runtimeClassName }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {type: RuntimeDefault}
containers:
  - name: {{ $kuberay | ternary ($head | ternary "ray-head" "ray-worker") ($engine | ternary "incomes" $part) }}
    image: {{ include "incomes.image" . | quote }}
    imagePullPolicy: {{ .Values.image.pullPolicy }}
    {{- if $kuberay }}
    {{- /* KubeRay writes the command: `ray start` with the group's parameters. */}}
    {{- else if $head }}
    command: [tini, --, ray]
    args: [start, --head, --port=6379, --num-cpus=0, --object-store-memory=104857600, --include-dashboard=false, --block]
    {{- else }}
    {{- if $cluster }}
    {{- /* Ray wants a node of its cluster beside each process that takes part. It ends with the container. */}}
    command:
      - tini
      - --
      - sh
      - -c
      - ray start --address={{ include "incomes.rayAddress" . }} --num-cpus=0 --num-gpus=0 --object-store-memory=104857600 && exec incomes "$@"
      - incomes
    {{- end }}
    args:
      - {{ $engine | ternary "serve" "compress" }}
      - --config
      - /etc/incomes/settings.yaml
      {{- with .Values.vllmArgs }}
      - --
      {{- range . }}
      - {{ . | quote }}
      {{- end }}
      {{- end }}
    {{- end }}
    env:
      {{- if not $head }}
      - name: INCOMES_API_KEYS_FILE
        value: /run/secrets/incomes/{{ .Values.apiKeys.key }}
      {{- end }}
      {{- if $encrypted }}
      - name: INCOMES_ENCRYPTION_KEY_FILE
        value: /run/secrets/incomes-encryption/{{ .Values.encryption.key }}
      {{- end }}
      {{- if $postgresql }}
      - name: INCOMES_EDIT_STORE_FILE
        value: /run/secrets/incomes-store/{{ .Values.database.key }}
      {{- else if $engine }}
      - name: INCOMES_EDIT_STORE
        value: sqlite:////var/lib/incomes/edits.db
      {{- end }}
      {{- if and $engine (not $kuberay) }}
      - name: INCOMES_REPLICA_NAME
        valueFrom: {fieldRef: {fieldPath: metadata.name}}
      {{- end }}
      {{- if $cluster }}
      - {name: RAY_USAGE_STATS_ENABLED, value: "0"}
      - {name: RAY_task_events_report_interval_ms, value: "0"}
      {{- if $kuberay }}
      - {name: RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH, value: "incomes_server.boot.front:middlewares"}
      {{- else }}
      - {name: RAY_AUTH_MODE, value: token}
      - {name: RAY_AUTH_TOKEN_PATH, value: "/run/secrets/incomes-ray/{{ .Values.cluster.token.key }}"}
      {{- end }}
      {{- end }}
      {{- if .Values.tracing.enabled }}
      - name: OTEL_SERVICE_NAME
        value: {{ include "incomes.fullname" . }}
      - name: OTEL_EXPORTER_OTLP_ENDPOINT
        value: {{ .Values.tracing.endpoint | quote }}
      - name: OTEL_EXPORTER_OTLP_PROTOCOL
        value: {{ .Values.tracing.protocol }}
      - name: OTEL_TRACES_SAMPLER
        value: {{ .Values.tracing.sampler }}
      - name: OTEL_TRACES_SAMPLER_ARG
        value: {{ .Values.tracing.samplerArg | quote }}
      {{- end }}
      {{- with .Values.extraEnv }}
      {{- toYaml . | nindent 6 }}
      {{- end }}
    ports:
      {{- if $head }}
      - {name: gcs-server, containerPort: 6379}
      {{- if $kuberay }}
      - {name: dashboard, containerPort: 8265}
      - {name: serve, containerPort: 8000}
      {{- end }}
      {{- else }}
      {{- if $engine }}
      - {name: {{ $kuberay | ternary "serve" "chat" }}, containerPort: 8000}
      {{- end }}
      - {name: admin, containerPort: 8001}
      {{- end }}
    {{- if $kuberay }}
    {{- /* KubeRay brings its probes: of Ray's node, and of Serve's proxy where requests arrive. */}}
    {{- else if $head }}
    readinessProbe:
      tcpSocket: {port: gcs-server}
      periodSeconds: 5
    livenessProbe:
      tcpSocket: {port: gcs-server}
      initialDelaySeconds: 60
      periodSeconds: 5
    {{- else }}
    # The ports answer once the model is loaded and the canary has run. A canary that fails leaves the pod alive and
    # not ready, so that /readyz can say why.
    startupProbe:
      httpGet: {path: /livez, port: admin}
      periodSeconds: 5
      timeoutSeconds: 3
      failureThreshold: {{ div (add .Values.startupSeconds 4) 5 }}
    readinessProbe:
      httpGet: {path: /readyz, port: {{ $engine | ternary "chat" "admin" }}}
      periodSeconds: 5
      timeoutSeconds: 3
      failureThreshold: 1
    livenessProbe:
      httpGet: {path: /livez, port: admin}
      periodSeconds: 5
      timeoutSeconds: 3
      failureThreshold: 3
    {{- end }}
    lifecycle:
      preStop:
        exec: {command: [sleep, "{{ .Values.drainSeconds }}"]}
    resources:
      {{- if $nvidia }}
      {{- $gpu := dict .Values.gpu.resource 1 }}
      requests: {{- toYaml (merge (deepCopy $gpu) (default dict $resources.requests)) | nindent 8 }}
      limits: {{- toYaml (merge (deepCopy $gpu) (default dict $resources.limits)) | nindent 8 }}
      {{- else }}
      {{- toYaml $resources | nindent 6 }}
      {{- end }}
    securityContext:
      allowPrivilegeEscalation: false
      readOnlyRootFilesystem: true
      capabilities: {drop: [ALL]}
    volumeMounts:
      {{- if not $head }}
      - {name: settings, mountPath: /etc/incomes, readOnly: true}
      - {name: api-keys, mountPath: /run/secrets/incomes, readOnly: true}
      {{- end }}
      {{- if $encrypted }}
      - {name: encryption, mountPath: /run/secrets/incomes-encryption, readOnly: true}
      {{- end }}
      {{- if $postgresql }}
      - {name: store-url, mountPath: /run/secrets/incomes-store, readOnly: true}
      {{- else if $engine }}
      - {name: edits, mountPath: /var/lib/incomes}
      {{- end }}
      {{- if and $cluster (not $kuberay) }}
      - {name: ray-token, mountPath: /run/secrets/incomes-ray, readOnly: true}
      {{- end }}
      - {name: cache, mountPath: /var/cache/incomes}
      - {name: tmp, mountPath: /tmp}
      - {name: shm, mountPath: /dev/shm}
volumes:
  {{- if not $head }}
  - name: settings
    configMap: {name: {{ include "incomes.fullname" . }}}
  - name: api-keys
    secret: {secretName: {{ .Values.apiKeys.existingSecret }}, defaultMode: 0440}
  {{- end }}
  {{- if $encrypted }}
  - name: encryption
    secret: {secretName: {{ .Values.encryption.existingSecret }}, defaultMode: 0440}
  {{- end }}
  {{- if $postgresql }}
  - name: store-url
    secret: {secretName: {{ .Values.database.existingSecret }}, defaultMode: 0440}
  {{- else if $engine }}
  - name: edits
    persistentVolumeClaim: {claimName: {{ include "incomes.editsClaim" . }}}
  {{- end }}
  {{- if and $cluster (not $kuberay) }}
  - name: ray-token
    secret: {secretName: {{ .Values.cluster.token.existingSecret }}, defaultMode: 0440}
  {{- end }}
  - name: cache
    {{- if $head }}
    emptyDir: {sizeLimit: 1Gi}  # the user's home; it has no model
    {{- else if .Values.persistence.cache.enabled }}
    persistentVolumeClaim: {claimName: {{ include "incomes.cacheClaim" . }}}
    {{- else }}
    emptyDir: {sizeLimit: {{ .Values.persistence.cache.size }}}
    {{- end }}
  - name: tmp
    emptyDir: {sizeLimit: {{ .Values.tmpSize }}}
  - name: shm
    emptyDir: {medium: Memory, sizeLimit: {{ .Values.sharedMemory }}}
{{- with .Values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with (ternary (concat .Values.tolerations .Values.gpu.tolerations) .Values.tolerations $nvidia) }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}
{{- end -}}
