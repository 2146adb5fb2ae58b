output "secrets" {
  description = "The secret that has the token, by runner."
  value       = { for name, r in var.runners : name => r.secret }
}

output "config" {
  description = "The file that the command reads."
  value       = local.values.config
}

output "manifests" {
  description = "The objects as YAML, by name of template. Secrets are not among them."
  value       = { for name, text in local.manifests : name => yamlencode(yamldecode(text)) }
}
