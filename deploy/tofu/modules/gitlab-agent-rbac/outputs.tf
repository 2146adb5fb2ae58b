output "deployer_role" {
  description = "ClusterRole with what a deployment needs inside its namespace."
  value       = local.deployer
}

output "review_group" {
  description = "Group of the jobs that deploy review environments; empty without them."
  value       = local.review_group
}

output "groups" {
  description = "The group that may deploy, by namespace."
  value       = local.groups
}

output "manifests" {
  description = "The objects as YAML, by name of template. Secrets are not among them."
  value       = { for name, text in local.manifests : name => yamlencode(yamldecode(text)) }
}
