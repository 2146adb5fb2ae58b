mock_provider "kubectl" {}
mock_provider "random" {}

variables {
  namespace = "cache"
}

run "standalone_is_one_volume_of_10Gi" {
  command = plan

  assert {
    condition     = yamldecode(output.manifests["tenant"]).spec.pools[0].servers == 1 && yamldecode(output.manifests["tenant"]).spec.pools[0].volumesPerServer == 1 && yamldecode(output.manifests["tenant"]).spec.pools[0].volumeClaimTemplate.spec.resources.requests.storage == "10Gi"
    error_message = "Standalone is not 1 x 10Gi."
  }
  assert {
    condition     = alltrue([for k in ["runAsNonRoot", "readOnlyRootFilesystem"] : yamldecode(output.manifests["tenant"]).spec.pools[0].containerSecurityContext[k]])
    error_message = "The servers have more rights than they need."
  }
}

run "distributed_is_sixteen_volumes_of_50Gi" {
  command = plan

  variables {
    mode = "distributed"
  }

  assert {
    condition     = yamldecode(output.manifests["tenant"]).spec.pools[0].servers == 4 && yamldecode(output.manifests["tenant"]).spec.pools[0].volumesPerServer == 4 && yamldecode(output.manifests["tenant"]).spec.pools[0].volumeClaimTemplate.spec.resources.requests.storage == "50Gi"
    error_message = "Distributed is not 4 x 4 x 50Gi."
  }
  assert {
    condition     = yamldecode(output.manifests["tenant"]).spec.pools[0].topologySpreadConstraints[0].whenUnsatisfiable == "DoNotSchedule"
    error_message = "Two servers may share a node, whose loss would take both."
  }
}

run "credentials_are_where_the_clients_look" {
  command = apply

  assert {
    condition     = output.credentials.secret == "attic-cache-minio-client" && output.credentials.access_key_id == "CONSOLE_ACCESS_KEY"
    error_message = "The clients look elsewhere."
  }
  assert {
    condition     = contains([for u in yamldecode(output.manifests["tenant"]).spec.users : u.name], output.credentials.secret)
    error_message = "The operator makes no user of the clients' keys."
  }
  assert {
    condition     = !strcontains(join("", values(output.manifests)), random_password.key["root"].result)
    error_message = "A password stands in the manifests."
  }
}

run "refuses_two_servers" {
  command = plan

  variables {
    mode    = "distributed"
    servers = 2
  }
  expect_failures = [var.servers]
}

run "refuses_an_unknown_mode" {
  command = plan

  variables {
    mode = "clustered"
  }
  expect_failures = [var.mode]
}

run "refuses_a_bucket_in_capitals" {
  command = plan

  variables {
    buckets = ["Packs"]
  }
  expect_failures = [var.buckets]
}

run "refuses_servers_that_no_erasure_set_divides" {
  command = plan

  variables {
    mode    = "distributed"
    servers = 17
  }
  expect_failures = [var.servers]
}

run "refuses_a_bucket_with_two_dots" {
  command = plan

  variables {
    buckets = ["packs..old"]
  }
  expect_failures = [var.buckets]
}

run "refuses_resources_that_are_no_quantities" {
  command = plan

  variables {
    resources = { memory = "2GB" }
  }
  expect_failures = [var.resources]
}
