output "images" {
  description = "Images that the release runs, for mirrors and scanners."
  value = distinct(flatten([
    for o in local.documents : [for c in o.spec.template.spec.containers : c.image] if contains(["Deployment", "DaemonSet", "StatefulSet"], o.kind)
  ]))
}

output "manifests" {
  description = "The objects as YAML, by kind, namespace and name."
  value       = { for name, o in local.objects : name => yamlencode(o) }
}
