output "endpoint" {
  description = "URL of the S3 service, from the same cluster."
  value       = "http://${var.name}.${var.namespace}.svc:8333"
}

output "buckets" {
  description = "The buckets."
  value       = var.buckets
}

output "credentials" {
  description = "Secret with the clients' keys, and what they are called in it."
  value = {
    secret            = "${var.name}-client"
    access_key_id     = "access-key-id"
    secret_access_key = "secret-access-key"
  }
}

output "manifests" {
  description = "The objects as YAML, by name of template. Secrets are not among them."
  value       = { for name, text in local.manifests : name => yamlencode(yamldecode(text)) }
}
