locals {
  distributed = var.mode == "distributed"
  labels = merge(var.labels, {
    "app.kubernetes.io/name"       = "minio"
    "app.kubernetes.io/instance"   = var.name
    "app.kubernetes.io/part-of"    = "attic-cache"
    "app.kubernetes.io/managed-by" = "opentofu"
  })

  values = {
    name               = var.name
    namespace          = var.namespace
    labels             = local.labels
    image              = var.image
    servers            = local.distributed ? var.servers : 1
    volumes            = local.distributed ? var.volumes_per_server : 1
    volume_size        = coalesce(var.volume_size, local.distributed ? "50Gi" : "10Gi")
    storage_class      = var.storage_class
    buckets            = var.buckets
    clients            = var.clients
    client_clusters    = var.client_clusters
    operator_namespace = var.operator_namespace
    resources          = var.resources
    monitoring         = var.monitoring
  }
  wanted = {
    tenant         = true
    networkpolicy  = true
    servicemonitor = var.monitoring.enabled
    prometheusrule = var.monitoring.enabled
  }
  manifests = {
    for name, wanted in local.wanted : name => templatefile("${path.module}/templates/${name}.yaml", local.values) if wanted
  }
}

resource "random_password" "key" {
  for_each = toset(["root", "client"])

  length  = 40
  special = false
  keepers = { rotation = var.rotation }
}

resource "kubectl_manifest" "secret" {
  for_each = {
    # What the operator starts the servers with.
    configuration = {
      name = "${var.name}-configuration"
      data = {
        "config.env" = <<-EOT
          export MINIO_ROOT_USER="root"
          export MINIO_ROOT_PASSWORD="${random_password.key["root"].result}"
          export MINIO_BROWSER="off"
          export MINIO_PROMETHEUS_AUTH_TYPE="public"
        EOT
      }
    }
    # The clients' user: the operator makes it from the keys that it calls so.
    client = {
      name = "${var.name}-client"
      data = {
        CONSOLE_ACCESS_KEY = "cache"
        CONSOLE_SECRET_KEY = random_password.key["client"].result
      }
    }
  }

  yaml_body = yamlencode({
    apiVersion = "v1"
    kind       = "Secret"
    metadata   = { name = each.value.name, namespace = var.namespace, labels = local.labels }
    type       = "Opaque"
    stringData = each.value.data
  })
  sensitive_fields  = ["stringData"]
  server_side_apply = true
}

resource "kubectl_manifest" "this" {
  # Decoded and encoded again, so that a template that is no YAML fails the plan.
  for_each = { for name, text in local.manifests : name => yamlencode(yamldecode(text)) }

  yaml_body         = each.value
  server_side_apply = true
  wait_for_rollout  = false

  depends_on = [kubectl_manifest.secret]
}
