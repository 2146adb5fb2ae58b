locals {
  name   = "attic-cache"
  host   = coalesce(var.host, "${local.name}.${var.domain}")
  labels = { "attic-cache/environment" = replace(var.environment, "/", ".") }

  kind = coalesce(var.object_store, var.use_minio == false ? "external" : "minio")
  # The packs, and the database's backups.
  buckets = { packs = "attic-cache", backups = "attic-cache-db" }

  store = {
    minio = local.kind != "minio" ? null : merge(module.minio[0].credentials, {
      endpoint = module.minio[0].endpoint, bucket = local.buckets.packs, prefix = "", region = "", path_style = true
    })
    seaweedfs = local.kind != "seaweedfs" ? null : merge(module.seaweedfs[0].credentials, {
      endpoint = module.seaweedfs[0].endpoint, bucket = local.buckets.packs, prefix = "", region = "", path_style = true
    })
    external = local.kind != "external" ? null : {
      endpoint          = var.s3_endpoint
      bucket            = var.s3_bucket_name
      prefix            = "packs"
      region            = var.s3_region
      path_style        = var.s3_endpoint != ""
      secret            = "attic-cache-s3"
      access_key_id     = "access-key-id"
      secret_access_key = "secret-access-key"
    }
  }[local.kind]

  # What is outside the namespace and so outside its policy. A host name can be
  # any address.
  s3_port = local.kind != "external" ? 0 : try(tonumber(regex(":([0-9]+)$", var.s3_endpoint)[0]), startswith(var.s3_endpoint, "http://") ? 80 : 443)
  egress  = concat(local.kind == "external" ? [{ cidr = "0.0.0.0/0", ports = [local.s3_port] }] : [], var.egress)

  clients = distinct(concat(var.clients, compact([try(var.routing.gateway.namespace, "")])))
  routing = merge(var.routing, { host = local.host, grpc_host = null })
}

resource "kubectl_manifest" "namespace" {
  for_each = var.create_namespace ? toset([var.namespace]) : []

  yaml_body = yamlencode({
    apiVersion = "v1"
    kind       = "Namespace"
    metadata = {
      name = each.key
      labels = merge(local.labels, {
        "app.kubernetes.io/managed-by"       = "opentofu"
        "pod-security.kubernetes.io/enforce" = "restricted"
        "pod-security.kubernetes.io/warn"    = "restricted"
      })
    }
  })
  server_side_apply = true
  wait              = true
}

# A review environment's job may make its namespace, and bind this one role in it.
resource "kubectl_manifest" "deployer" {
  for_each = var.deployer == null ? {} : { deployer = var.deployer }

  yaml_body = yamlencode({
    apiVersion = "rbac.authorization.k8s.io/v1"
    kind       = "RoleBinding"
    metadata   = { name = each.value.role, namespace = var.namespace, labels = local.labels }
    roleRef    = { apiGroup = "rbac.authorization.k8s.io", kind = "ClusterRole", name = each.value.role }
    subjects   = [{ apiGroup = "rbac.authorization.k8s.io", kind = "Group", name = each.value.group }]
  })
  server_side_apply = true

  depends_on = [kubectl_manifest.namespace]
}

module "minio" {
  source = "../../modules/minio-tenant"
  count  = local.kind == "minio" ? 1 : 0

  namespace          = var.namespace
  labels             = local.labels
  mode               = var.minio.mode
  servers            = var.minio.servers
  volumes_per_server = var.minio.volumes_per_server
  volume_size        = var.minio.volume_size
  storage_class      = var.storage_class
  buckets            = values(local.buckets)
  clients            = [local.name]
  client_clusters    = [var.postgresql.name]
  rotation           = var.rotation
  monitoring         = var.monitoring

  depends_on = [kubectl_manifest.deployer]
}

module "seaweedfs" {
  source = "../../modules/seaweedfs"
  count  = local.kind == "seaweedfs" ? 1 : 0

  namespace       = var.namespace
  labels          = local.labels
  masters         = var.seaweedfs.masters
  volume_servers  = var.seaweedfs.volume_servers
  gateways        = var.seaweedfs.gateways
  replication     = var.seaweedfs.replication
  storage         = { volume = var.seaweedfs.volume_size, storage_class = var.storage_class }
  buckets         = values(local.buckets)
  clients         = [local.name]
  client_clusters = [var.postgresql.name]
  rotation        = var.rotation
  monitoring      = var.monitoring
  wait            = var.wait

  depends_on = [kubectl_manifest.deployer]
}

resource "kubectl_manifest" "s3" {
  for_each = local.kind == "external" ? toset(["attic-cache-s3"]) : []

  yaml_body = yamlencode({
    apiVersion = "v1"
    kind       = "Secret"
    metadata   = { name = each.key, namespace = var.namespace, labels = local.labels }
    type       = "Opaque"
    stringData = {
      "access-key-id"     = var.s3_access_key_id
      "secret-access-key" = var.s3_secret_access_key
    }
  })
  sensitive_fields  = ["stringData"]
  server_side_apply = true

  depends_on = [kubectl_manifest.deployer]
}

module "postgresql" {
  source = "../../modules/postgresql-cnpg"

  name         = var.postgresql.name
  namespace    = var.namespace
  labels       = local.labels
  instances    = var.postgresql.instances
  storage      = { size = var.postgresql.size, wal_size = var.postgresql.wal_size, storage_class = var.storage_class }
  restore_from = var.postgresql.restore
  clients      = [local.name]
  monitoring   = var.monitoring

  backup_method = var.postgresql.backup_method
  backup = var.postgresql.backups == null ? null : {
    endpoint          = local.store.endpoint
    bucket            = local.kind == "external" ? local.store.bucket : local.buckets.backups
    prefix            = local.kind == "external" ? "postgresql" : ""
    secret            = local.store.secret
    access_key_id     = local.store.access_key_id
    secret_access_key = local.store.secret_access_key
    retention         = var.postgresql.backups
  }

  depends_on = [kubectl_manifest.deployer]
}

module "cache" {
  source = "../../modules/cache-server"

  name          = local.name
  namespace     = var.namespace
  labels        = local.labels
  image         = var.image
  replicas      = var.replicas
  pack_cache    = var.pack_cache
  retention     = var.retention
  max_size      = var.max_size
  config        = var.config
  config_secret = var.config_secret
  database      = module.postgresql.uri_secret
  object_store  = local.store
  routing       = local.routing
  network       = { clients = local.clients, monitoring = var.monitoring.namespace, egress = local.egress }
  monitoring    = var.monitoring
  wait          = var.wait

  depends_on = [kubectl_manifest.deployer, kubectl_manifest.s3]
}

module "bazel_cache" {
  source = "../../modules/bazel-cache"
  count  = var.bazel_cache == null ? 0 : 1

  namespace       = var.namespace
  labels          = local.labels
  image           = var.image
  single          = { size = var.bazel_cache.volume, storage_class = var.storage_class }
  bazel_retention = var.bazel_cache.retention
  max_size        = var.bazel_cache.max_size
  config          = var.bazel_cache.config
  config_secret   = var.bazel_cache.config == "" ? null : var.config_secret
  routing         = merge(local.routing, { host = "bazel-${local.host}" })
  network         = { clients = local.clients, monitoring = var.monitoring.namespace, egress = var.egress }
  monitoring      = var.monitoring
  wait            = var.wait

  depends_on = [kubectl_manifest.deployer]
}

module "dns" {
  source = "../../modules/dns-record"
  count  = var.dns_target == null ? 0 : 1

  name      = local.name
  namespace = var.namespace
  labels    = local.labels
  records = {
    for host in compact(concat([local.host, module.cache.grpc_host], flatten([for m in module.bazel_cache : [
      "bazel-${local.host}", try(split("://", m.grpc_url)[1], "")
      ]]))) : host => {
      type    = strcontains(var.dns_target, ":") ? "AAAA" : can(cidrhost("${var.dns_target}/32", 0)) ? "A" : "CNAME"
      targets = [var.dns_target]
    }
  }

  depends_on = [kubectl_manifest.deployer]
}
