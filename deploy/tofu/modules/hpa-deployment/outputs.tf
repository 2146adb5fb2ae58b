output "workload" {
  description = "Kind and name of the workload, as kubectl rollout takes them."
  value       = "deployment/${var.name}"
}

output "url" {
  description = "Where it is reached: its route's host, or its Service."
  value       = var.route == null ? "http://${var.name}.${var.namespace}.svc" : "${var.route.kind == "ingress" && var.route.tls_secret == null ? "http" : "https"}://${var.route.host}"
}

output "manifests" {
  description = "The objects as YAML, by name of template. Secrets are not among them."
  value       = { for name, text in local.manifests : name => yamlencode(yamldecode(text)) }
}
