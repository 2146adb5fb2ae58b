locals {
  labels = merge(var.labels, {
    "app.kubernetes.io/name"       = "postgresql"
    "app.kubernetes.io/instance"   = var.name
    "app.kubernetes.io/part-of"    = "attic-cache"
    "app.kubernetes.io/managed-by" = "opentofu"
  })

  store = var.backup == null ? null : merge(
    {
      destinationPath = "s3://${join("/", compact([var.backup.bucket, trim(var.backup.prefix, "/")]))}"
      s3Credentials = {
        accessKeyId     = { name = var.backup.secret, key = var.backup.access_key_id }
        secretAccessKey = { name = var.backup.secret, key = var.backup.secret_access_key }
      }
      wal  = { compression = "gzip" }
      data = { compression = "gzip" }
    },
    var.backup.endpoint == "" ? {} : { endpointURL = var.backup.endpoint },
  )

  # What a cluster says of itself or, restored, of the one whose backups it reads.
  plugin = "barman-cloud.cloudnative-pg.io"
  source = var.restore_from == null ? null : {
    in-tree = { barmanObjectStore = merge(local.store, { serverName = var.restore_from.name }) }
    plugin  = { plugin = { name = local.plugin, parameters = { barmanObjectName = var.name, serverName = var.restore_from.name } } }
  }[var.backup_method]

  parameters = merge({
    max_connections = tostring(var.max_connections)
    # The index is small rows that are found by key.
    random_page_cost = "1.1"
    # What a runaway query may take before it is ended.
    statement_timeout                   = "10min"
    idle_in_transaction_session_timeout = "5min"
  }, var.parameters)

  values = {
    name               = var.name
    namespace          = var.namespace
    labels             = local.labels
    image              = var.image
    instances          = var.instances
    synchronous        = var.synchronous && var.instances >= 3
    database           = var.database
    storage            = var.storage
    resources          = var.resources
    parameters         = local.parameters
    backup             = var.backup
    backup_method      = var.backup_method
    plugin             = local.plugin
    store              = local.store
    source             = local.source
    restore_from       = var.restore_from
    clients            = var.clients
    operator_namespace = var.operator_namespace
    monitoring         = var.monitoring
  }
  wanted = {
    cluster         = true
    objectstore     = var.backup != null && var.backup_method == "plugin"
    scheduledbackup = var.backup != null
    networkpolicy   = true
    podmonitor      = var.monitoring.enabled
    prometheusrule  = var.monitoring.enabled
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
  wait_for_rollout  = false
}
