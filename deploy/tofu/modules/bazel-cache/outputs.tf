output "url" {
  description = "For bazel --remote_cache over HTTP."
  value       = module.server.url
}

output "grpc_url" {
  description = "For bazel --remote_cache over gRPC; empty where gRPC has no host name."
  value       = module.server.grpc_host == "" ? "" : "${startswith(module.server.url, "https") ? "grpcs" : "grpc"}://${module.server.grpc_host}"
}

output "internal_url" {
  description = "For bazel --remote_cache of pods of the same cluster."
  value       = "grpc://${var.name}-grpc.${var.namespace}.svc:9092"
}

output "workload" {
  description = "Kind and name of what runs the server, as kubectl rollout takes them."
  value       = module.server.workload
}

output "manifests" {
  description = "The objects as YAML, by name of template."
  value       = module.server.manifests
}
