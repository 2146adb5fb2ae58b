mock_provider "kubectl" {}
mock_provider "random" {}

variables {
  namespace = "cache"
}

run "one_of_each_by_default" {
  command = plan

  assert {
    condition     = alltrue([for c in ["master", "volume", "filer"] : yamldecode(output.manifests[c]).spec.replicas == 1])
    error_message = "There is more than one of something."
  }
  assert {
    condition     = !contains(keys(output.manifests), "disruptionbudget")
    error_message = "A budget for one gateway keeps its node from being drained."
  }
  assert {
    condition     = alltrue([for c in ["master", "volume", "filer"] : yamldecode(output.manifests[c]).spec.template.spec.containers[0].securityContext.readOnlyRootFilesystem && yamldecode(output.manifests[c]).spec.persistentVolumeClaimRetentionPolicy.whenDeleted == "Retain"])
    error_message = "A process may write outside its volume, or its volume goes with it."
  }
}

run "what_survives_a_node" {
  command = plan

  variables {
    masters        = 3
    volume_servers = 3
    gateways       = 2
    replication    = "001"
  }

  assert {
    condition     = contains(yamldecode(output.manifests["master"]).spec.template.spec.containers[0].args, "-peers=attic-cache-s3-master-0.attic-cache-s3-master.cache.svc:9333,attic-cache-s3-master-1.attic-cache-s3-master.cache.svc:9333,attic-cache-s3-master-2.attic-cache-s3-master.cache.svc:9333")
    error_message = "The masters do not know each other."
  }
  assert {
    condition     = yamldecode(output.manifests["volume"]).spec.template.spec.topologySpreadConstraints[0].whenUnsatisfiable == "DoNotSchedule"
    error_message = "Both copies may lie on one node."
  }
  assert {
    condition     = contains(yamldecode(output.manifests["filer"]).spec.template.spec.containers[0].args, "-defaultReplicaPlacement=001")
    error_message = "What is written has one copy."
  }
}

run "other_buckets_are_another_job" {
  command = plan

  variables {
    buckets = ["one", "two"]
  }

  assert {
    condition     = yamldecode(output.manifests["buckets"]).metadata.name != "attic-cache-s3-buckets-${substr(sha256(jsonencode([["attic-cache"], var.image])), 0, 8)}"
    error_message = "The Job would have to be changed, which Kubernetes refuses."
  }
  assert {
    condition     = anytrue([for e in yamldecode(output.manifests["buckets"]).spec.template.spec.containers[0].env : e.value == "one two"])
    error_message = "The Job makes other buckets."
  }
}

run "no_key_stands_in_a_manifest" {
  command = apply

  assert {
    condition     = !strcontains(join("", values(output.manifests)), random_password.key["secret"].result)
    error_message = "A key stands in the manifests."
  }
  assert {
    condition     = output.endpoint == "http://attic-cache-s3.cache.svc:8333"
    error_message = "The endpoint is ${output.endpoint}."
  }
}

run "refuses_two_masters" {
  command = plan

  variables {
    masters = 2
  }
  expect_failures = [var.masters]
}

run "refuses_more_copies_than_servers" {
  command = plan

  variables {
    replication = "001"
  }
  expect_failures = [var.volume_servers]
}

run "other_masters_are_another_job" {
  command = plan

  variables {
    masters = 3
  }

  assert {
    condition     = yamldecode(output.manifests["buckets"]).metadata.name != "attic-cache-s3-buckets-${substr(sha256(jsonencode([var.buckets, var.image])), 0, 8)}"
    error_message = "The Job would have to be changed, which Kubernetes refuses."
  }
}

run "the_only_volume_server_that_is_away_is_an_alert" {
  command = plan

  assert {
    condition     = anytrue([for r in yamldecode(output.manifests["prometheusrule"]).spec.groups[0].rules : strcontains(r.expr, "or vector(0)) < 1") if r.alert == "SeaweedFSVolumeServerDown"])
    error_message = "A count of nothing has no value: the alert never fires."
  }
}

run "refuses_a_bucket_that_is_an_address" {
  command = plan

  variables {
    buckets = ["192.0.2.1"]
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
