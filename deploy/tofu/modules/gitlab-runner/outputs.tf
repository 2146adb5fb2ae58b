output "tags" {
  description = "The tags that the runner must have in GitLab."
  value       = local.type.tags
}

output "privileged" {
  description = "Whether jobs run privileged, so that their namespace must allow it."
  value       = local.privileged
}

output "workload" {
  description = "Kind and name of the workload, as kubectl rollout takes them."
  value       = "deployment/${var.name}"
}

output "config" {
  description = "The runner's configuration: what is global, and the template of its one runner, to which the token is added when it starts."
  value       = { global = local.config, template = local.template }
}

output "manifests" {
  description = "The objects as YAML, by name of template. Secrets are not among them."
  value       = { for name, text in local.manifests : name => yamlencode(yamldecode(text)) }
}
