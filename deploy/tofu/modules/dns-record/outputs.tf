output "names" {
  description = "The names that have records."
  value       = keys(var.records)
}

output "manifests" {
  description = "The objects as YAML, by name of template. Secrets are not among them."
  value       = { for name, text in local.manifests : name => yamlencode(yamldecode(text)) }
}
