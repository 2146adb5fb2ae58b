output "url" {
  description = "Where it is reached."
  value       = module.deployment.url
}

output "workload" {
  description = "Kind and name of the workload, as kubectl rollout takes them."
  value       = module.deployment.workload
}

output "manifests" {
  description = "The objects as YAML, by name of template."
  value       = merge(module.deployment.manifests, { for name, text in local.manifests : name => yamlencode(yamldecode(text)) })
}
