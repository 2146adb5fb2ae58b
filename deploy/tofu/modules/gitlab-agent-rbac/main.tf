locals {
  labels = merge(var.labels, {
    "app.kubernetes.io/part-of"    = "attic-cache"
    "app.kubernetes.io/managed-by" = "opentofu"
  })
  deployer = "${var.name}-deployer"
  viewer   = "${var.name}-viewer"
  reviewer = "${var.name}-reviewer"

  # Groups that the agent gives to a job when it impersonates it (access_as: ci_job).
  review_group = var.review == null ? "" : "gitlab:project_env_tier:${var.project_id}:${var.review.tier}"
  groups       = { for namespace, e in var.environments : namespace => "gitlab:project_env:${var.project_id}:${e.environment}" }

  values = {
    name         = var.name
    labels       = local.labels
    deployer     = local.deployer
    viewer       = local.viewer
    reviewer     = local.reviewer
    review       = var.review
    review_group = local.review_group
  }
  review = ["reviewer", "reviewer-binding", "review-policy", "review-policy-binding"]
  manifests = merge(
    { for name in ["deployer", "viewer"] : name => templatefile("${path.module}/templates/${name}.yaml", local.values) },
    { for name in local.review : name => templatefile("${path.module}/templates/${name}.yaml", local.values) if var.review != null },
    { for namespace, group in local.groups : "namespace/${namespace}" => templatefile(
      "${path.module}/templates/namespace.yaml", merge(local.values, { namespace = namespace })
    ) },
    { for namespace, group in local.groups : "deployer/${namespace}" => templatefile(
      "${path.module}/templates/binding.yaml",
      merge(local.values, { namespace = namespace, group = group, role = local.deployer })
    ) },
    { for namespace in var.viewers : "viewer/${namespace}" => templatefile(
      "${path.module}/templates/binding.yaml",
      merge(local.values, { namespace = namespace, group = "gitlab:project:${var.project_id}", role = local.viewer })
    ) },
  )
}

resource "kubectl_manifest" "namespace" {
  for_each = { for name, text in local.manifests : name => yamlencode(yamldecode(text)) if startswith(name, "namespace/") }

  yaml_body         = each.value
  server_side_apply = true
  # With a namespace go the database and the packs.
  apply_only = true
}

resource "kubectl_manifest" "this" {
  # Decoded and encoded again, so that a template that is no YAML fails the plan.
  for_each = { for name, text in local.manifests : name => yamlencode(yamldecode(text)) if !startswith(name, "namespace/") }

  yaml_body         = each.value
  server_side_apply = true

  depends_on = [kubectl_manifest.namespace]
}
