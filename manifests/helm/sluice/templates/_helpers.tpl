{{- define "sluice.labels" -}}
app.kubernetes.io/name: sluice
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
{{- end }}

{{- define "sluice.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}{{ with .Values.image.digest }}@{{ . }}{{ end }}
{{- end }}

{{- /* What every container of the image has. */ -}}
{{- define "sluice.container" -}}
image: {{ include "sluice.image" . }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
{{- end }}

{{- /* Where metrics, /healthz and /readyz are served: port and host; empty: nowhere. */ -}}
{{- define "sluice.metricsPort" -}}
{{ regexFind "[0-9]+$" .Values.config.metrics_address }}
{{- end }}

{{- define "sluice.metricsHost" -}}
{{- $host := regexReplaceAll ":[0-9]+$" .Values.config.metrics_address "" | trimPrefix "[" | trimSuffix "]" }}
{{- get (dict "0.0.0.0" "127.0.0.1" "::" "::1") $host | default $host }}
{{- end }}

{{- define "sluice.get" -}}
httpGet:
  # The container's network is the node's.
  host: {{ include "sluice.metricsHost" .root | quote }}
  port: {{ include "sluice.metricsPort" .root }}
  path: {{ .path }}
{{- end }}

{{- /* The pod's part that says where it runs. */ -}}
{{- define "sluice.place" -}}
# The network that the agent makes, and none that it would have to make first.
hostNetwork: true
dnsPolicy: Default
priorityClassName: {{ .Values.priorityClassName }}
nodeSelector: {{- toYaml .Values.nodeSelector | nindent 2 }}
{{- with .Values.affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
tolerations: {{- toYaml .Values.tolerations | nindent 2 }}
{{- with .Values.image.pullSecrets }}
imagePullSecrets: {{- range . }}
  - name: {{ . }}
{{- end }}
{{- end }}
{{- end }}

{{- /* How a pod that works on nodes is confined. */ -}}
{{- define "sluice.securityContext" -}}
# Only root may load programs, and the node's files are root's.
runAsUser: 0
runAsGroup: 0
# It lets bpf and setns through for who has the capabilities below.
seccompProfile: {{- toYaml .Values.seccompProfile | nindent 2 }}
# A container's own type may neither load programs nor write to the node's directories. Without SELinux it means nothing.
seLinuxOptions: {{- toYaml .Values.seLinuxOptions | nindent 2 }}
{{- end }}

{{- /* The agent's settings. Helm takes those that are null away; here they are again, for who looks what can be set. */ -}}
{{- define "sluice.settings" -}}
{{- $settings := deepCopy .Values.config }}
{{- range list "cgroup" "ipam" "plugin_log_file" }}
{{- if not (hasKey $settings .) }}{{ $_ := set $settings . nil }}{{ end }}
{{- end }}
{{- toYaml $settings }}
{{- end }}

{{- /* Refuses what the agent would, and no schema can say: settings that contradict one another. */ -}}
{{- define "sluice.check" -}}
{{- with .Values.config.masquerade }}
{{- if ge (int .port_first) (int .port_last) }}
{{- fail (printf "config.masquerade.port_first %v and port_last %v are no range of ports" .port_first .port_last) }}
{{- end }}
{{- end }}
{{- if and (eq .Values.config.dsr "ipip") (not .Values.config.maglev) }}
{{- fail "config.dsr needs config.maglev, by which all nodes choose the same backends" }}
{{- end }}
{{- range .Values.config.pod_cidr_pool }}
{{- $least := regexFind "[0-9]+$" .cidr | int }}
{{- $most := contains ":" .cidr | ternary 126 30 }}
{{- if or (lt (int .block) $least) (gt (int .block) $most) }}
{{- fail (printf "config.pod_cidr_pool has blocks of /%v for %s; they are to be of /%d to /%d" .block .cidr $least $most) }}
{{- end }}
{{- end }}
{{- end }}
