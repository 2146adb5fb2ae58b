# What a cluster has once, and what only its administrator may make: the
# operators, which several environments share, and the rights of the jobs that
# deploy. With the stack attic, stopping one environment would take the operators
# from the others.
module "cnpg" {
  source = "../../modules/cnpg-operator"
  count  = var.operators.cnpg == null ? 0 : 1

  manifest_file   = var.operators.cnpg
  manifest_sha256 = var.cnpg_sha256
}

module "minio" {
  source = "../../modules/minio-operator"
  count  = var.operators.minio == null ? 0 : 1

  manifest_file = var.operators.minio
}

module "rbac" {
  source = "../../modules/gitlab-agent-rbac"

  project_id   = var.project_id
  environments = var.environments
  review       = var.review
  viewers      = var.viewers
}
