{{/* Names, labels, and the numbers that several templates share. */}}

{{- define "incomes.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "incomes.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- else if contains (include "incomes.name" .) .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "incomes.name" .) | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "incomes.selector" -}}
app.kubernetes.io/name: {{ include "incomes.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "incomes.labels" -}}
{{ include "incomes.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{/* Pods that are no engines have a name of their own: no service and no deployment of engines selects them. */}}
{{- define "incomes.partSelector" -}}
{{- if eq .part "engine" -}}
{{ include "incomes.selector" .root }}
{{- else -}}
app.kubernetes.io/name: {{ printf "%s-%s" (include "incomes.name" .root) .part }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
{{- end -}}
{{- end -}}

{{- define "incomes.partLabels" -}}
{{ include "incomes.labels" .root | replace (include "incomes.selector" .root) (include "incomes.partSelector" .) }}
{{- if include "incomes.cluster" .root }}
incomes/cluster: {{ include "incomes.fullname" .root }}
{{- end }}
{{- end -}}

{{/* Not empty: the engines are on a Ray cluster. */}}
{{- define "incomes.cluster" -}}
{{- if or .Values.cluster.enabled (eq .Values.mode "rayservice") }}true{{ end -}}
{{- end -}}

{{- define "incomes.rayAddress" -}}
{{ include "incomes.fullname" . }}-ray:6379
{{- end -}}

{{/* Labels of KubeRay's pods. Its services select by app.kubernetes.io/name, which stays its own. */}}
{{- define "incomes.member" -}}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .part }}
incomes/cluster: {{ include "incomes.fullname" .root }}
{{- end -}}

{{/* What selects the engines. */}}
{{- define "incomes.engines" -}}
{{- if eq .Values.mode "rayservice" -}}
{{ include "incomes.member" (dict "root" . "part" "engine") }}
{{- else -}}
{{ include "incomes.selector" . }}
{{- end -}}
{{- end -}}

{{/* The service of the chat port: KubeRay has its own, which changes over to a new cluster. */}}
{{- define "incomes.chatService" -}}
{{ include "incomes.fullname" . }}{{ if eq .Values.mode "rayservice" }}-serve-svc{{ end }}
{{- end -}}

{{- define "incomes.chatPort" -}}
{{ eq .Values.mode "rayservice" | ternary 8000 .Values.service.chatPort }}
{{- end -}}

{{- define "incomes.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "incomes.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "incomes.image" -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest -}}
{{- else -}}
{{- $accelerator := ternary "cuda" "cpu" (eq .Values.accelerator "nvidia") -}}
{{- printf "%s:%s" .Values.image.repository (default (printf "%s-%s" .Chart.AppVersion $accelerator) .Values.image.tag) -}}
{{- end -}}
{{- end -}}

{{/* What the chart decides itself, over the settings of the values. */}}
{{- define "incomes.settings" -}}
{{- $own := dict "host" "0.0.0.0" "port" 8000 "admin_host" "0.0.0.0" "admin_port" 8001 -}}
{{- if eq .Values.mode "rayservice" -}}
{{- $_ := set $own "host" "127.0.0.1" -}}
{{- else if .Values.cluster.enabled -}}
{{- $_ := set $own "ray_address" (include "incomes.rayAddress" .) -}}
{{- end -}}
{{- with and (include "incomes.cluster" .) .Values.cluster.gistStorage -}}
{{- $_ := set $own "gist_storage" . -}}
{{- end -}}
{{- $all := mergeOverwrite (dict "log_format" "json") (deepCopy .Values.settings) $own -}}
{{- /* Helm reads numbers as floats and would write 1000000 as 1e+06, which YAML takes for a text. */ -}}
{{- range $name, $value := $all -}}
{{- if and (kindIs "float64" $value) (eq (floor $value) $value) -}}
{{- $_ := set $all $name (int64 $value) -}}
{{- end -}}
{{- end -}}
{{- toYaml $all -}}
{{- end -}}

{{/* Seconds from the order to end until SIGKILL: drain, running answers, 10 s in which engine and Ray stop, and 5 to spare. */}}
{{- define "incomes.graceSeconds" -}}
{{- add .Values.drainSeconds (ceil .Values.settings.shutdown_timeout_s | int) 10 5 -}}
{{- end -}}

{{- define "incomes.editsClaim" -}}
{{- default (printf "%s-edits" (include "incomes.fullname" .)) .Values.persistence.edits.existingClaim -}}
{{- end -}}

{{- define "incomes.cacheClaim" -}}
{{- default (printf "%s-cache" (include "incomes.fullname" .)) .Values.persistence.cache.existingClaim -}}
{{- end -}}
