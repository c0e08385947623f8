{{/* sidecar.yaml, changed by the values. */}}
{{- define "audit-log.parts" -}}
{{- $parts := .Files.Get "sidecar.yaml" | fromYaml }}
{{- $_ := set $parts.container "image" .Values.image }}
{{- $_ := set $parts.container "resources" .Values.resources }}
{{- range $parts.volumes }}
  {{- with .persistentVolumeClaim }}{{ $_ := set . "claimName" $.Values.claim.name }}{{ end }}
  {{- with .configMap }}{{ $_ := set . "name" $.Values.configMap.name }}{{ end }}
{{- end }}
{{- toYaml $parts }}
{{- end }}

{{/* CEL: the images that the policies take. */}}
{{- define "audit-log.images" -}}
{{ prepend .Values.acceptedImages .Values.image | toJson }}
{{- end }}

{{/*
A value as a CEL literal: `value`, with lines below the first behind `indent`.

CEL's literals are JSON's, but Kubernetes wants all values of a map or list to be of exactly one type. `dyn` takes it from
those that are not all strings. (Literals of `Object` types would do without, but a list of them panics the API server:
kubernetes/kubernetes#142181.)
*/}}
{{- define "audit-log.literal" -}}
{{- $flat := true }}
{{- if or (kindIs "map" .value) (kindIs "slice" .value) }}
  {{- range .value }}
    {{- if not (kindIs "string" .) }}{{ $flat = false }}{{ end }}
  {{- end }}
{{- end }}
{{- $indent := printf "%s  " .indent }}
{{- if $flat }}
  {{- toJson .value }}
{{- else if kindIs "map" .value }}
  {{- $one := eq (len .value) 1 }}
  {{- "{" }}
  {{- range $key, $item := .value }}
    {{- printf "\n%s%s: " $indent (toJson $key) }}
    {{- include "audit-log.literal" (dict "value" $item "indent" $indent) | printf ($one | ternary "%s" "dyn(%s)") }}
    {{- "," }}
  {{- end }}
  {{- printf "\n%s}" .indent }}
{{- else }}
  {{- "[" }}
  {{- range .value }}
    {{- include "audit-log.literal" (dict "value" . "indent" $indent) | printf "\n%sdyn(%s)," $indent }}
  {{- end }}
  {{- printf "\n%s]" .indent }}
{{- end }}
{{- end }}

{{/* CEL: whether the pod is one of a Job. */}}
{{- define "audit-log.of-a-job" -}}
has(object.metadata.labels) && "batch.kubernetes.io/job-name" in object.metadata.labels
{{- end }}

{{/*
CEL: whether the pod is not the sweep, which has the whole claim and no sidecar. What runs in it, and by what rule, must
be beyond doubt: probes and hooks are commands as well.
*/}}
{{- define "audit-log.not-the-sweep" -}}
{{- $parts := include "audit-log.parts" . | fromYaml -}}
!(
  object.spec.containers.size() == 1 && !has(object.spec.initContainers) &&
  object.spec.containers.all(c,
    c.image in {{ include "audit-log.images" . }} &&
    has(c.command) && c.command in [
      ["/audit-log", "sweep", "/audit"], ["/audit-log", "sweep", "/audit", "--dry-run"],
    ] && !has(c.args) &&
    !has(c.env) && !has(c.envFrom) && !has(c.lifecycle) && !has(c.volumeDevices) &&
    !has(c.startupProbe) && !has(c.livenessProbe) && !has(c.readinessProbe) &&
    has(c.volumeMounts) && c.volumeMounts.size() == {{ len $parts.container.volumeMounts }} && c.volumeMounts.all(m,
      {{- range $i, $mount := $parts.container.volumeMounts }}
      {{ if $i }}|| {{ end }}m.name == {{ toJson $mount.name }} && m.mountPath == {{ toJson $mount.mountPath }}
      {{- end }}
    )
  ) &&
  has(object.spec.volumes) &&
  {{ include "audit-log.has-the-volumes" (dict "volumes" $parts.volumes "in" "object.spec.volumes" "indent" "  ") }}
)
{{- end }}

{{/* CEL: whether the list of volumes `in` has those that are given. */}}
{{- define "audit-log.has-the-volumes" -}}
{{- range $i, $volume := .volumes }}
{{- if $i }}{{ printf " &&\n%s" $.indent }}{{ end }}
{{- printf "%s.exists(v, v.name == %s &&\n%s  " $.in (toJson $volume.name) $.indent }}
{{- with $volume.persistentVolumeClaim }}has(v.persistentVolumeClaim) && v.persistentVolumeClaim.claimName == {{ toJson .claimName }}{{ end }}
{{- with $volume.configMap }}has(v.configMap) && v.configMap.name == {{ toJson .name }}{{ end }}
{{- printf "\n%s)" $.indent }}
{{- end }}
{{- end }}

{{/* The two bindings of the policy `name`, whose kind is `kind`. */}}
{{- define "audit-log.bindings" -}}
{{- range $selector, $what := dict "objectSelector" "pods" "namespaceSelector" "namespaces" }}
---
apiVersion: admissionregistration.k8s.io/v1
kind: {{ $.kind }}Binding
metadata:
  name: {{ $what }}.{{ $.name }}
spec:
  policyName: {{ $.name }}
  {{- if eq $.kind "ValidatingAdmissionPolicy" }}
  validationActions: [Deny]
  {{- end }}
  matchResources:
    {{ $selector }}:
      matchLabels:
        audit-log.dev/inject: "true"
{{- end }}
{{- end }}
