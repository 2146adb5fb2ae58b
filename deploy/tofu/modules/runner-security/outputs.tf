output "namespace" {
  description = "The namespace, once all that limits it is there."
  value       = var.namespace

  depends_on = [kubectl_manifest.this]
}

output "manifests" {
  description = "The objects as YAML, by name of template. Secrets are not among them."
  value       = { for name, text in local.manifests : name => yamlencode(yamldecode(text)) }
}
