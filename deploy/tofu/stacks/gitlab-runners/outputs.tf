output "tags" {
  description = "The tags by runner, as GitLab must have them."
  value       = { for name, m in module.runner : name => m.tags }
}

output "workloads" {
  description = "What must be rolled out before the deployment is complete."
  value       = [for m in module.runner : m.workload]
}

output "configs" {
  description = "The runners' configurations."
  value       = { for name, m in module.runner : name => m.config }
}

output "manifests" {
  description = "All objects as YAML, by module and template."
  value = merge(
    { for name, text in module.jobs.manifests : "jobs/${name}" => text },
    merge([for key, m in module.runner : { for name, text in m.manifests : "${key}/${name}" => text }]...),
  )
}
