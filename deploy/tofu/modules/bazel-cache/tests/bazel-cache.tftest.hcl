mock_provider "kubectl" {}

variables {
  namespace = "cache"
  image     = "registry.example.org/attic-cache:v1.2.3"
  single    = { size = "120Gi" }
}

run "a_policy_of_its_own" {
  command = plan

  assert {
    condition = alltrue([for k, v in { CACHESERVER_BAZEL_RETENTION = "14d", CACHESERVER_MAX_SIZE = "100GB" } :
      contains([for e in yamldecode(output.manifests["statefulset"]).spec.template.spec.containers[0].env : "${e.name}=${e.value}"], "${k}=${v}")
    ])
    error_message = "Bazel's blobs are kept for longer, or without limit."
  }
  assert {
    condition     = output.internal_url == "grpc://bazel-cache-grpc.cache.svc:9092" && output.grpc_url == ""
    error_message = "The URLs are ${output.internal_url} and ${output.grpc_url}."
  }
}

run "a_route_for_grpc" {
  command = plan

  variables {
    routing = { kind = "gateway", host = "bazel.example.org", gateway = { name = "public", namespace = "gateways" } }
  }

  assert {
    condition     = output.grpc_url == "grpcs://bazel-grpc.example.org"
    error_message = "gRPC is at ${output.grpc_url}."
  }
}

run "refuses_to_keep_blobs_for_ever" {
  command = plan

  variables {
    bazel_retention = "off"
  }
  expect_failures = [var.bazel_retention]
}

run "refuses_no_version" {
  command = plan

  variables {
    image = "registry.example.org/attic-cache"
  }
  expect_failures = [var.image]
}

run "its_volume_holds_what_it_keeps" {
  command = plan

  variables {
    single = {}
  }

  assert {
    condition     = yamldecode(output.manifests["statefulset"]).spec.volumeClaimTemplates[0].spec.resources.requests.storage == "120Gi"
    error_message = "The volume is full before the limit of 100GB evicts anything, and pushes are refused."
  }
}

run "refuses_more_than_the_volume_holds" {
  command = plan

  variables {
    max_size = "200GB"
  }
  expect_failures = [var.max_size]
}

run "refuses_more_than_200_years" {
  command = plan

  variables {
    bazel_retention = "99999d"
  }
  expect_failures = [var.bazel_retention]
}

run "refuses_a_bucket_with_two_dots" {
  command = plan

  variables {
    single       = null
    database     = { secret = "db" }
    object_store = { bucket = "packs..old", secret = "s3" }
  }
  expect_failures = [var.object_store]
}
