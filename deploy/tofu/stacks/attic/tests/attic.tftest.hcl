# Run once for each tfvars file.
mock_provider "kubectl" {}
mock_provider "random" {}

run "the_cluster_s_own_values" {
  command = plan

  assert {
    condition     = output.url == "https://attic-cache.${var.domain}" && output.grpc_host == "attic-cache-grpc.${var.domain}"
    error_message = "The cache is at ${output.url} and ${output.grpc_host}."
  }
  assert {
    condition     = output.object_store == "minio" && contains(keys(output.manifests), "minio/tenant") && !contains(keys(output.manifests), "seaweedfs/gateway")
    error_message = "MinIO is not the default."
  }
  assert {
    condition     = yamldecode(output.manifests["minio/tenant"]).spec.pools[0].servers == (var.domain == "rigel.bates.edu" ? 4 : 1)
    error_message = "MinIO has another size."
  }
  assert {
    condition     = length(kubectl_manifest.namespace) == 0 && length(kubectl_manifest.s3) == 0
    error_message = "The namespace, or a secret for an external store, is made."
  }
}

run "seaweedfs_is_one_variable_away" {
  command = plan

  variables {
    object_store = "seaweedfs"
  }

  assert {
    condition     = contains(keys(output.manifests), "seaweedfs/gateway") && !contains(keys(output.manifests), "minio/tenant")
    error_message = "The store is not SeaweedFS, or MinIO is still there."
  }
  assert {
    condition     = contains([for e in yamldecode(output.manifests["cache/deployment"]).spec.template.spec.containers[0].env : try(e.value, "")], "http://attic-cache-s3.attic-cache.svc:8333")
    error_message = "The server still goes to MinIO."
  }
}

run "use_minio_false_is_external" {
  command = plan

  variables {
    object_store         = null
    use_minio            = false
    s3_endpoint          = "https://s3.example.org:9443"
    s3_bucket_name       = "packs"
    s3_access_key_id     = "id"
    s3_secret_access_key = "key"
  }

  assert {
    condition     = output.object_store == "external" && length(kubectl_manifest.s3) == 1 && !contains(keys(output.manifests), "minio/tenant")
    error_message = "The store is ${output.object_store}."
  }
  assert {
    condition     = contains([for e in yamldecode(output.manifests["cache/deployment"]).spec.template.spec.containers[0].env : try(e.value, "")], "s3://packs/packs")
    error_message = "Packs go elsewhere."
  }
  assert {
    condition     = yamldecode(output.manifests["cache/networkpolicy"]).spec.egress[2].ports[0].port == 9443
    error_message = "The policy keeps the server from the store."
  }
}

run "a_review_environment_makes_its_namespace" {
  command = plan

  variables {
    environment      = "review/my-branch"
    namespace        = "attic-cache-review-my-branch"
    host             = "attic-cache-review-my-branch.beehive.bates.edu"
    create_namespace = true
    deployer         = { group = "gitlab:project_env_tier:42:development" }
  }

  assert {
    condition     = yamldecode(kubectl_manifest.namespace["attic-cache-review-my-branch"].yaml_body).metadata.labels["pod-security.kubernetes.io/enforce"] == "restricted"
    error_message = "The admission policy would refuse the namespace."
  }
  assert {
    condition     = yamldecode(kubectl_manifest.deployer["deployer"].yaml_body).roleRef.name == "attic-cache-deployer"
    error_message = "The job would have no rights in its namespace."
  }
  assert {
    condition     = output.url == "https://attic-cache-review-my-branch.beehive.bates.edu" && alltrue([for text in values(output.manifests) : yamldecode(text).metadata.namespace == "attic-cache-review-my-branch"])
    error_message = "Something is outside the environment's namespace."
  }
}

run "a_second_server_for_bazel" {
  command = plan

  variables {
    bazel_cache = {}
    dns_target  = "gateway.example.org"
  }

  assert {
    condition     = contains(output.workloads, "statefulset/bazel-cache") && output.bazel_url == "grpcs://bazel-attic-cache-grpc.${var.domain}"
    error_message = "Bazel is sent to ${output.bazel_url}."
  }
  assert {
    condition     = toset([for e in yamldecode(output.manifests["dns/endpoint"]).spec.endpoints : e.dnsName]) == toset(["attic-cache.${var.domain}", "attic-cache-grpc.${var.domain}", "bazel-attic-cache.${var.domain}", "bazel-attic-cache-grpc.${var.domain}"])
    error_message = "A host name has no record."
  }
}

run "refuses_an_external_store_without_keys" {
  command = plan

  variables {
    object_store   = "external"
    s3_bucket_name = "packs"
  }
  expect_failures = [var.s3_secret_access_key]
}

run "refuses_an_external_store_without_a_bucket" {
  command = plan

  variables {
    object_store         = "external"
    s3_access_key_id     = "id"
    s3_secret_access_key = "key"
  }
  expect_failures = [var.s3_bucket_name]
}

run "refuses_what_contradicts_itself" {
  command = plan

  variables {
    object_store = "seaweedfs"
    use_minio    = true
  }
  expect_failures = [var.use_minio]
}

run "refuses_an_unknown_store" {
  command = plan

  variables {
    object_store = "floppy"
  }
  expect_failures = [var.object_store]
}

run "refuses_a_domain_with_a_path" {
  command = plan

  variables {
    domain = "https://rigel.bates.edu/"
  }
  expect_failures = [var.domain]
}

run "bazel_is_sent_where_something_answers" {
  command = plan

  variables {
    routing = { kind = "none" }
  }

  assert {
    condition     = output.bazel_url == ""
    error_message = "Bazel is sent to ${output.bazel_url}, and there is no route."
  }
}

run "without_a_certificate_bazel_speaks_plain_grpc" {
  command = plan

  variables {
    routing = { kind = "ingress", ingress_class = "traefik", ingress_controller = "traefik" }
  }

  assert {
    condition     = output.bazel_url == "grpc://attic-cache-grpc.${var.domain}"
    error_message = "Bazel is sent to ${output.bazel_url}, where no certificate is."
  }
}

run "an_address_of_ipv6" {
  command = plan

  variables {
    dns_target = "2001:db8::1"
  }

  assert {
    condition     = alltrue([for e in yamldecode(output.manifests["dns/endpoint"]).spec.endpoints : e.recordType == "AAAA"])
    error_message = "An A record has an address of IPv6."
  }
}

run "upstreams_can_be_reached" {
  command = plan

  variables {
    config = "[[cache]]\nname = \"team\"\n"
    egress = [{ cidr = "0.0.0.0/0", ports = [443] }]
  }

  assert {
    condition     = yamldecode(output.manifests["cache/networkpolicy"]).spec.egress[2].ports[0].port == 443
    error_message = "The policy keeps the server from the upstreams of its caches."
  }
}

run "seaweedfs_needs_no_keys_of_an_external_store" {
  command = plan

  variables {
    object_store = "seaweedfs"
    use_minio    = false
  }

  assert {
    condition     = output.object_store == "seaweedfs"
    error_message = "The store is ${output.object_store}."
  }
}

run "the_second_server_has_a_configuration_of_its_own" {
  command = plan

  variables {
    config        = "[auth]\n"
    config_secret = "keys"
    bazel_cache   = { config = "[auth]\nread = []\n" }
  }

  assert {
    condition     = yamldecode(output.manifests["bazel_cache/config"]).data["config.toml"] == "[auth]\nread = []\n" && contains([for v in yamldecode(output.manifests["bazel_cache/statefulset"]).spec.template.spec.volumes : try(v.secret.secretName, "")], "keys")
    error_message = "The second server does not know who may do what."
  }
}

run "refuses_a_second_server_that_lets_everybody_in" {
  command = plan

  variables {
    config      = "[auth]\n"
    bazel_cache = {}
  }
  expect_failures = [var.bazel_cache]
}
