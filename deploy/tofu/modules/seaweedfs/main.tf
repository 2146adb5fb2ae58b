locals {
  labels = merge(var.labels, {
    "app.kubernetes.io/name"       = "seaweedfs"
    "app.kubernetes.io/instance"   = var.name
    "app.kubernetes.io/part-of"    = "attic-cache"
    "app.kubernetes.io/managed-by" = "opentofu"
  })
  masters = join(",", [
    for i in range(var.masters) : "${var.name}-master-${i}.${var.name}-master.${var.namespace}.svc:9333"
  ])
  filer = "${var.name}-filer.${var.namespace}.svc:8888"

  # Each process by what it is started with; ports are its HTTP port and, always
  # 10000 above, its gRPC port.
  components = {
    master = {
      replicas = var.masters
      port     = 9333
      size     = var.storage.master
      ready    = "/cluster/status"
      args = [
        "master", "-ip=$(POD_NAME).${var.name}-master.${var.namespace}.svc", "-ip.bind=0.0.0.0", "-port=9333",
        "-mdir=/data", "-peers=${local.masters}", "-defaultReplication=${var.replication}",
        "-volumeSizeLimitMB=1024", "-metricsPort=9327",
      ]
    }
    volume = {
      replicas = var.volume_servers
      port     = 8080
      size     = var.storage.volume
      ready    = "/status"
      args = [
        "volume", "-ip=$(POD_NAME).${var.name}-volume.${var.namespace}.svc", "-ip.bind=0.0.0.0", "-port=8080",
        "-dir=/data", "-max=0", "-mserver=${local.masters}", "-minFreeSpace=5", "-metricsPort=9327",
      ]
    }
    filer = {
      replicas = 1
      port     = 8888
      size     = var.storage.filer
      ready    = "/"
      args = [
        "filer", "-ip=$(POD_NAME).${var.name}-filer.${var.namespace}.svc", "-ip.bind=0.0.0.0", "-port=8888",
        "-master=${local.masters}", "-defaultStoreDir=/data", "-defaultReplicaPlacement=${var.replication}", "-metricsPort=9327",
      ]
    }
  }

  values = {
    name            = var.name
    namespace       = var.namespace
    labels          = local.labels
    image           = var.image
    gateways        = var.gateways
    storage_class   = var.storage.storage_class
    masters         = local.masters
    filer           = local.filer
    buckets         = var.buckets
    clients         = var.clients
    client_clusters = var.client_clusters
    resources       = var.resources
    rotation        = var.rotation
    monitoring      = var.monitoring
    volume_servers  = var.volume_servers
  }
  wanted = {
    serviceaccount   = true
    gateway          = true
    gateway-service  = true
    disruptionbudget = var.gateways > 1
    networkpolicy    = true
    buckets          = true
    servicemonitor   = var.monitoring.enabled
    prometheusrule   = var.monitoring.enabled
  }
  manifests = merge(
    { for name, wanted in local.wanted : name => templatefile("${path.module}/templates/${name}.yaml", local.values) if wanted },
    { for name, c in local.components : name => templatefile(
      "${path.module}/templates/statefulset.yaml", merge(local.values, { component = name, c = c })
    ) },
    { for name, c in local.components : "${name}-service" => templatefile(
      "${path.module}/templates/service.yaml", merge(local.values, { component = name, c = c })
    ) },
  )
}

resource "random_password" "key" {
  for_each = toset(["access", "secret"])

  length  = each.key == "access" ? 20 : 40
  special = false
  keepers = { rotation = var.rotation }
}

resource "kubectl_manifest" "secret" {
  yaml_body = yamlencode({
    apiVersion = "v1"
    kind       = "Secret"
    metadata   = { name = "${var.name}-client", namespace = var.namespace, labels = local.labels }
    type       = "Opaque"
    stringData = {
      "access-key-id"     = random_password.key["access"].result
      "secret-access-key" = random_password.key["secret"].result
      "s3.json" = jsonencode({
        identities = [{
          name = "cache"
          credentials = [{
            accessKey = random_password.key["access"].result
            secretKey = random_password.key["secret"].result
          }]
          actions = flatten([for b in var.buckets : [for a in ["Read", "Write", "List", "Tagging"] : "${a}:${b}"]])
        }]
      })
    }
  })
  sensitive_fields  = ["stringData"]
  server_side_apply = true
}

resource "kubectl_manifest" "this" {
  # Decoded and encoded again, so that a template that is no YAML fails the plan.
  for_each = { for name, text in local.manifests : name => yamlencode(yamldecode(text)) }

  yaml_body         = each.value
  server_side_apply = true
  wait_for_rollout  = var.wait

  depends_on = [kubectl_manifest.secret]
}
