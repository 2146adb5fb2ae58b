mock_provider "kubectl" {}

variables {
  namespace = "cache"
}

run "one_instance_without_backups" {
  command = plan

  assert {
    condition     = yamldecode(output.manifests["cluster"]).spec.instances == 1 && yamldecode(output.manifests["cluster"]).spec.enableSuperuserAccess == false
    error_message = "The cluster is not one instance without superuser access."
  }
  assert {
    condition     = !can(yamldecode(output.manifests["cluster"]).spec.backup) && !contains(keys(output.manifests), "scheduledbackup")
    error_message = "Backups go nowhere."
  }
  assert {
    condition     = yamldecode(output.manifests["cluster"]).spec.primaryUpdateMethod == "restart"
    error_message = "One instance cannot switch over: an update would wait for ever."
  }
}

run "three_instances_with_backups" {
  command = plan

  variables {
    instances = 3
    storage   = { size = "20Gi", wal_size = "5Gi" }
    backup    = { endpoint = "http://minio.cache.svc", bucket = "backups", prefix = "/db/", secret = "s3" }
  }

  assert {
    condition     = yamldecode(output.manifests["cluster"]).spec.postgresql.synchronous.dataDurability == "preferred"
    error_message = "A commit does not wait for a replica, or waits for ever when there is none."
  }
  assert {
    condition     = yamldecode(output.manifests["cluster"]).spec.backup.barmanObjectStore.destinationPath == "s3://backups/db"
    error_message = "Backups go elsewhere."
  }
  assert {
    condition     = yamldecode(output.manifests["scheduledbackup"]).spec.immediate
    error_message = "There is nothing to restore from until the first night."
  }
}

run "the_operator_that_is_pinned_backs_up_by_itself" {
  command = plan

  variables {
    backup = { bucket = "backups", secret = "s3" }
  }

  assert {
    condition     = !can(yamldecode(output.manifests["cluster"]).spec.plugins) && !contains(keys(output.manifests), "objectstore") && yamldecode(output.manifests["scheduledbackup"]).spec.method == "barmanObjectStore"
    error_message = "The plugin is used, which nobody has installed."
  }
  assert {
    condition     = strcontains(output.manifests["prometheusrule"], "max(cnpg_collector_last_available_backup_timestamp{")
    error_message = "The alert looks at what only the plugin tells."
  }
}

run "the_plugin_backs_up_to_the_same_place" {
  command = plan

  variables {
    backup        = { endpoint = "http://minio.cache.svc", bucket = "backups", prefix = "/db/", secret = "s3", retention = "7d", sidecar = { memory = "1Gi" } }
    backup_method = "plugin"
  }

  assert {
    condition     = yamldecode(output.manifests["cluster"]).spec.plugins == [{ name = "barman-cloud.cloudnative-pg.io", isWALArchiver = true, parameters = { barmanObjectName = yamldecode(output.manifests["objectstore"]).metadata.name } }]
    error_message = "The log is not archived, or to another store."
  }
  assert {
    condition     = !can(yamldecode(output.manifests["cluster"]).spec.backup)
    error_message = "The operator backs up, too: it refuses both."
  }
  assert {
    condition = alltrue([
      yamldecode(output.manifests["objectstore"]).spec.configuration.destinationPath == "s3://backups/db",
      yamldecode(output.manifests["objectstore"]).spec.configuration.endpointURL == "http://minio.cache.svc",
      !can(yamldecode(output.manifests["objectstore"]).spec.configuration.serverName),
      yamldecode(output.manifests["objectstore"]).spec.retentionPolicy == "7d",
      yamldecode(output.manifests["objectstore"]).spec.instanceSidecarConfiguration.resources == { requests = { cpu = "100m", memory = "1Gi" }, limits = { memory = "1Gi" } },
    ])
    error_message = "The store is not the one that in-tree backups are in."
  }
  assert {
    condition     = yamldecode(output.manifests["scheduledbackup"]).spec.method == "plugin" && yamldecode(output.manifests["scheduledbackup"]).spec.pluginConfiguration.name == "barman-cloud.cloudnative-pg.io"
    error_message = "Base backups fail: the operator is asked for them."
  }
  assert {
    condition     = strcontains(output.manifests["prometheusrule"], "max(barman_cloud_cloudnative_pg_io_last_available_backup_timestamp{")
    error_message = "The alert looks at what the operator does not tell any more, and never fires."
  }
}

run "the_plugin_restores_from_the_old_name" {
  command = plan

  variables {
    name          = "db-2"
    backup        = { bucket = "backups", secret = "s3" }
    backup_method = "plugin"
    restore_from  = { name = "db-1" }
  }

  assert {
    condition     = yamldecode(output.manifests["cluster"]).spec.externalClusters == [{ name = "origin", plugin = { name = "barman-cloud.cloudnative-pg.io", parameters = { barmanObjectName = "db-2", serverName = "db-1" } } }]
    error_message = "The restore reads from elsewhere."
  }
  assert {
    condition     = !can(yamldecode(output.manifests["cluster"]).spec.plugins[0].parameters.serverName)
    error_message = "The new cluster writes its log over the old one's."
  }
}

run "the_plugin_does_nothing_without_a_place_for_backups" {
  command = plan

  variables {
    backup_method = "plugin"
  }

  assert {
    condition     = !can(yamldecode(output.manifests["cluster"]).spec.plugins) && !contains(keys(output.manifests), "objectstore")
    error_message = "The cluster waits for a store that nobody makes."
  }
}

run "refuses_an_unknown_backup_method" {
  command = plan

  variables {
    backup_method = "barman"
  }
  expect_failures = [var.backup_method]
}

run "a_restore_reads_the_old_name_and_writes_the_new" {
  command = plan

  variables {
    name         = "db-2"
    backup       = { bucket = "backups", secret = "s3" }
    restore_from = { name = "db-1", time = "2026-01-02T03:04:05Z" }
  }

  assert {
    condition     = yamldecode(output.manifests["cluster"]).spec.externalClusters[0].barmanObjectStore.serverName == "db-1" && yamldecode(output.manifests["cluster"]).spec.bootstrap.recovery.recoveryTarget.targetTime == "2026-01-02T03:04:05Z"
    error_message = "The restore reads from elsewhere, or to another time."
  }
  assert {
    condition     = !can(yamldecode(output.manifests["cluster"]).spec.bootstrap.initdb)
    error_message = "A restored cluster begins empty."
  }
  assert {
    condition     = output.uri_secret.secret == "db-2-app"
    error_message = "The secret is another's."
  }
}

run "only_clients_reach_it" {
  command = plan

  assert {
    condition     = yamldecode(output.manifests["networkpolicy"]).spec.ingress[0].from == [{ podSelector = { matchLabels = { "app.kubernetes.io/instance" = "attic-cache" } } }]
    error_message = "Others than the server reach the database."
  }
}

run "refuses_a_restore_over_its_own_backups" {
  command = plan

  variables {
    backup       = { bucket = "backups", secret = "s3" }
    restore_from = { name = "attic-cache-db" }
  }
  expect_failures = [var.restore_from]
}

run "refuses_a_restore_from_nowhere" {
  command = plan

  variables {
    restore_from = { name = "old" }
  }
  expect_failures = [var.restore_from]
}

run "refuses_half_an_instance" {
  command = plan

  variables {
    instances = 1.5
  }
  expect_failures = [var.instances]
}

run "refuses_a_cron_line_without_seconds" {
  command = plan

  variables {
    backup = { bucket = "backups", secret = "s3", schedule = "30 2 * * *" }
  }
  expect_failures = [var.backup]
}

run "refuses_postgresqls_own_database" {
  command = plan

  variables {
    database = "postgres"
  }
  expect_failures = [var.database]
}

run "refuses_half_a_connection" {
  command = plan

  variables {
    max_connections = 100.5
  }
  expect_failures = [var.max_connections]
}

run "refuses_a_size_that_is_no_quantity" {
  command = plan

  variables {
    storage = { wal_size = "5GB" }
  }
  expect_failures = [var.storage]
}

run "refuses_backups_without_a_bucket" {
  command = plan

  variables {
    backup = { bucket = "", secret = "s3" }
  }
  expect_failures = [var.backup]
}

run "refuses_an_endpoint_without_a_scheme" {
  command = plan

  variables {
    backup = { bucket = "backups", secret = "s3", endpoint = "minio.cache.svc" }
  }
  expect_failures = [var.backup]
}

run "refuses_a_time_that_is_none" {
  command = plan

  variables {
    backup       = { bucket = "backups", secret = "s3" }
    restore_from = { name = "old", time = "yesterday" }
  }
  expect_failures = [var.restore_from]
}

run "refuses_resources_that_are_no_quantities" {
  command = plan

  variables {
    resources = { memory = "2GB" }
  }
  expect_failures = [var.resources]
}
