locals {
  labels = merge(var.labels, {
    "app.kubernetes.io/part-of"    = "runners"
    "app.kubernetes.io/managed-by" = "opentofu"
  })
  values = {
    namespace       = var.namespace
    labels          = local.labels
    pod_security    = var.pod_security
    quota           = var.quota
    limits          = var.limits
    forbidden_cidrs = var.forbidden_cidrs
    allowed         = var.allowed
  }
  wanted = {
    namespace     = var.create_namespace
    networkpolicy = true
    resourcequota = true
    limitrange    = true
  }
  manifests = {
    for name, wanted in local.wanted : name => templatefile("${path.module}/templates/${name}.yaml", local.values) if wanted
  }
}

resource "kubectl_manifest" "namespace" {
  for_each = var.create_namespace ? toset(["namespace"]) : []

  yaml_body         = yamlencode(yamldecode(local.manifests["namespace"]))
  server_side_apply = true
}

resource "kubectl_manifest" "this" {
  # Decoded and encoded again, so that a template that is no YAML fails the plan.
  for_each = { for name, text in local.manifests : name => yamlencode(yamldecode(text)) if name != "namespace" }

  yaml_body         = each.value
  server_side_apply = true

  depends_on = [kubectl_manifest.namespace]
}
