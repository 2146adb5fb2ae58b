locals {
  labels = merge(var.labels, { "app.kubernetes.io/managed-by" = "opentofu" })
  manifests = {
    endpoint = templatefile("${path.module}/templates/endpoint.yaml", {
      name      = var.name
      namespace = var.namespace
      labels    = local.labels
      records   = var.records
    })
  }
}

resource "kubectl_manifest" "this" {
  # Decoded and encoded again, so that a template that is no YAML fails the plan.
  for_each = { for name, text in local.manifests : name => yamlencode(yamldecode(text)) }

  yaml_body         = each.value
  server_side_apply = true
  wait_for_rollout  = false
}
