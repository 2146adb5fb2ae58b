locals {
  selector = {
    "app.kubernetes.io/name"     = var.name
    "app.kubernetes.io/instance" = var.name
  }
  labels = merge(var.labels, local.selector, { "app.kubernetes.io/managed-by" = "opentofu" })

  values = {
    name               = var.name
    namespace          = var.namespace
    image              = var.image
    args               = var.args
    environment        = merge({ PORT = tostring(var.port) }, var.environment)
    secret_environment = var.secret_environment
    port               = var.port
    probes             = var.probes
    user               = var.user
    replicas           = var.replicas
    resources          = var.resources
    service_account    = var.service_account
    stop_seconds       = var.stop_seconds
    route              = var.route
    clients            = var.clients
    metrics            = var.metrics
    labels             = local.labels
    selector           = local.selector
  }
  wanted = {
    serviceaccount   = true
    deployment       = true
    service          = true
    autoscaler       = true
    disruptionbudget = var.replicas.min > 1
    networkpolicy    = true
    httproute        = try(var.route.kind, "") == "gateway"
    ingress          = try(var.route.kind, "") == "ingress"
    servicemonitor   = var.metrics.path != null
  }
  manifests = {
    for name, wanted in local.wanted : name => templatefile("${path.module}/templates/${name}.yaml", local.values) if wanted
  }
}

resource "kubectl_manifest" "this" {
  # Decoded and encoded again, so that a template that is no YAML fails the plan.
  for_each = { for name, text in local.manifests : name => yamlencode(yamldecode(text)) }

  yaml_body         = each.value
  server_side_apply = true
  wait_for_rollout  = var.wait
}
