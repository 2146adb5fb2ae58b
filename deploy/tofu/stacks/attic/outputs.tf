output "url" {
  description = "The cache, for substituters."
  value       = module.cache.url
}

output "grpc_host" {
  description = "The cache's host name for gRPC, for bazel --remote_cache."
  value       = module.cache.grpc_host
}

output "bazel_url" {
  description = "The server for Bazel, from outside the cluster; the first one where there is no second, and empty where gRPC has no host name."
  value = try(module.bazel_cache[0].grpc_url, module.cache.grpc_host == "" ? "" : join("://", [
    startswith(module.cache.url, "https") ? "grpcs" : "grpc", module.cache.grpc_host
  ]))
}

output "namespace" {
  description = "The namespace."
  value       = var.namespace
}

output "object_store" {
  description = "What keeps the packs."
  value       = local.kind
}

output "workloads" {
  description = "What must be rolled out before the deployment is complete."
  value       = concat([module.cache.workload], module.bazel_cache[*].workload)
}

output "manifests" {
  description = "All objects but secrets, as YAML, by module and template."
  value = merge([
    for part, m in {
      cache       = module.cache.manifests
      postgresql  = module.postgresql.manifests
      minio       = try(module.minio[0].manifests, {})
      seaweedfs   = try(module.seaweedfs[0].manifests, {})
      bazel_cache = try(module.bazel_cache[0].manifests, {})
      dns         = try(module.dns[0].manifests, {})
    } : { for name, text in m : "${part}/${name}" => text }
  ]...)
}
