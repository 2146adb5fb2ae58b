output "uri_secret" {
  description = "Secret that the operator makes, and its key with the database's URI."
  value       = { secret = "${var.name}-app", key = "uri" }
}

output "host" {
  description = "Host name of the primary, from the same cluster."
  value       = "${var.name}-rw.${var.namespace}.svc"
}

output "manifests" {
  description = "The objects as YAML, by name of template. Secrets are not among them."
  value       = { for name, text in local.manifests : name => yamlencode(yamldecode(text)) }
}
