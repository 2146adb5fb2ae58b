output "url" {
  description = "Where the dashboard is."
  value       = module.dashboard.url
}

output "workloads" {
  description = "What must be rolled out before the deployment is complete."
  value       = [module.dashboard.workload]
}

output "namespace" {
  description = "The namespace."
  value       = var.namespace
}

output "manifests" {
  description = "All objects as YAML."
  value       = module.dashboard.manifests
}
