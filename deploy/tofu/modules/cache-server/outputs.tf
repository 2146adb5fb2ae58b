output "url" {
  description = "Where clients reach the server."
  value       = local.url
}

output "grpc_host" {
  description = "Host name for gRPC; empty where it has none."
  value       = local.grpc_host
}

output "internal_url" {
  description = "Where pods of the same cluster reach it."
  value       = "http://${var.name}.${var.namespace}.svc:8080"
}

output "workload" {
  description = "Kind and name of what runs the server, as kubectl rollout takes them."
  value       = local.shared ? "deployment/${var.name}" : "statefulset/${var.name}"
}

output "manifests" {
  description = "The objects as YAML, by name of template."
  value       = { for name, text in local.manifests : name => yamlencode(yamldecode(text)) }
}
