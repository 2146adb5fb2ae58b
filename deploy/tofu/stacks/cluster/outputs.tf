output "deployer" {
  description = "For the variable deployer of the stack attic, in review environments."
  value       = { group = module.rbac.review_group, role = module.rbac.deployer_role }
}

output "groups" {
  description = "The group that may deploy, by namespace."
  value       = module.rbac.groups
}

output "images" {
  description = "Images that the operators run."
  value       = concat(try(module.cnpg[0].images, []), try(module.minio[0].images, []))
}

output "manifests" {
  description = "All objects but the operators', as YAML."
  value       = module.rbac.manifests
}
