locals {
  labels = merge(var.labels, {
    "app.kubernetes.io/name"       = "runner-tokens"
    "app.kubernetes.io/instance"   = var.name
    "app.kubernetes.io/part-of"    = "runners"
    "app.kubernetes.io/managed-by" = "opentofu"
  })
  values = {
    name          = var.name
    namespace     = var.namespace
    labels        = local.labels
    image         = var.image
    config        = templatefile("${path.module}/templates/runners.toml", { url = var.gitlab_url, group = var.group_id, project = var.project_id, runners = var.runners })
    secrets       = [for r in var.runners : r.secret]
    token         = var.token_secret
    schedule      = var.schedule
    rotate_before = var.rotate_before
    stale_after   = var.stale_after
  }
  manifests = {
    for name in ["serviceaccount", "role", "rolebinding", "config", "cronjob", "networkpolicy"] :
    name => templatefile("${path.module}/templates/${name}.yaml", local.values)
  }
}

resource "kubectl_manifest" "this" {
  # Decoded and encoded again, so that a template that is no YAML fails the plan.
  for_each = { for name, text in local.manifests : name => yamlencode(yamldecode(text)) }

  yaml_body         = each.value
  server_side_apply = true
  wait_for_rollout  = false
}
