output "tags" {
  description = "The tags by runner, as GitLab must have them."
  value       = { for type, m in module.runner : type => m.tags }
}

output "workloads" {
  description = "What must be rolled out before the deployment is complete."
  value       = [for m in module.runner : m.workload]
}

output "namespace" {
  description = "The namespace of the runners."
  value       = var.namespace
}

output "configs" {
  description = "The runners' configurations."
  value       = { for type, m in module.runner : type => m.config }
}

output "manifests" {
  description = "All objects as YAML, by module and template."
  value = merge(
    merge([for key, m in module.jobs : { for name, text in m.manifests : "${key}/${name}" => text }]...),
    merge([for key, m in module.runner : { for name, text in m.manifests : "${key}/${name}" => text }]...),
    { for name, text in try(module.tokens[0].manifests, {}) : "tokens/${name}" => text },
  )
}
