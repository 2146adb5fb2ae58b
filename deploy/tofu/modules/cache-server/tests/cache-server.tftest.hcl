mock_provider "kubectl" {}

variables {
  namespace    = "cache"
  image        = "registry.example.org/attic-cache:v1.2.3"
  database     = { secret = "db-app" }
  object_store = { endpoint = "http://minio.cache.svc", bucket = "packs", secret = "s3" }
}

run "replicas_share_a_database_and_a_bucket" {
  command = plan

  assert {
    condition     = toset(keys(output.manifests)) == toset(["serviceaccount", "deployment", "autoscaler", "disruptionbudget", "service", "service-grpc", "networkpolicy", "servicemonitor", "prometheusrule"])
    error_message = "The objects are ${join(", ", keys(output.manifests))}."
  }
  assert {
    condition     = !can(yamldecode(output.manifests["deployment"]).spec.replicas)
    error_message = "The Deployment fixes the replicas, so that each apply would undo what the autoscaler did."
  }
  assert {
    condition     = yamldecode(output.manifests["autoscaler"]).spec.minReplicas == 2 && yamldecode(output.manifests["autoscaler"]).spec.maxReplicas == 10
    error_message = "The autoscaler does not keep 2 to 10 replicas."
  }
  assert {
    condition = { for e in yamldecode(output.manifests["deployment"]).spec.template.spec.containers[0].env : e.name => try(e.value, e.valueFrom.secretKeyRef.name) } == {
      CACHESERVER_BAZEL_RETENTION = "30d"
      CACHESERVER_DATA            = "/data"
      CACHESERVER_DRAIN_DELAY     = "5s"
      CACHESERVER_DRAIN_TIME      = "90s"
      CACHESERVER_GRPC_LISTEN     = "0.0.0.0:9092"
      CACHESERVER_INDEX           = "db-app"
      CACHESERVER_LISTEN          = "0.0.0.0:8080"
      CACHESERVER_LOG_FORMAT      = "json"
      CACHESERVER_LOG_LEVEL       = "info"
      CACHESERVER_PACK_CACHE      = "20GiB"
      CACHESERVER_RETENTION       = "90d"
      CACHESERVER_S3_ENDPOINT     = "http://minio.cache.svc"
      CACHESERVER_S3_PATH_STYLE   = "true"
      CACHESERVER_STORAGE         = "s3://packs"
      S3_ACCESS_KEY_ID            = "s3"
      S3_SECRET_ACCESS_KEY        = "s3"
      TMPDIR                      = "/tmp"
    }
    error_message = "The server's environment is not what it was."
  }
}

run "the_pod_has_no_more_rights_than_it_needs" {
  command = plan

  assert {
    condition = alltrue([
      yamldecode(output.manifests["deployment"]).spec.template.spec.automountServiceAccountToken == false,
      yamldecode(output.manifests["deployment"]).spec.template.spec.securityContext.runAsNonRoot,
      yamldecode(output.manifests["deployment"]).spec.template.spec.securityContext.seccompProfile.type == "RuntimeDefault",
      yamldecode(output.manifests["deployment"]).spec.template.spec.containers[0].securityContext.readOnlyRootFilesystem,
      yamldecode(output.manifests["deployment"]).spec.template.spec.containers[0].securityContext.allowPrivilegeEscalation == false,
      contains(yamldecode(output.manifests["deployment"]).spec.template.spec.containers[0].securityContext.capabilities.drop, "ALL"),
    ])
    error_message = "The pod is not as locked down as Pod Security's level restricted asks."
  }
}

run "kubernetes_does_not_kill_a_server_that_drains" {
  command = plan

  variables {
    drain = { pre_stop = 3, delay = 10, time = 120 }
  }

  assert {
    condition     = yamldecode(output.manifests["deployment"]).spec.template.spec.terminationGracePeriodSeconds > 3 + 10 + 120
    error_message = "The grace period ends before the drain does."
  }
  assert {
    condition     = yamldecode(output.manifests["deployment"]).spec.template.spec.containers[0].lifecycle.preStop.sleep.seconds == 3
    error_message = "There is no pause before SIGTERM."
  }
}

run "replicas_serve_what_they_hold_while_the_bucket_is_away" {
  command = plan

  assert {
    condition = (
      yamldecode(output.manifests["deployment"]).spec.template.spec.containers[0].readinessProbe.httpGet.path == "/readyz?degraded=ok" &&
      yamldecode(output.manifests["deployment"]).spec.template.spec.containers[0].startupProbe.httpGet.path == "/readyz"
    )
    error_message = "No replica would be asked, or one be rolled out that never saw its bucket."
  }
}

run "clusters_before_1_30_have_no_sleep" {
  command = plan

  variables {
    drain = { pre_stop = 0 }
  }

  assert {
    condition     = !can(yamldecode(output.manifests["deployment"]).spec.template.spec.containers[0].lifecycle)
    error_message = "lifecycle.preStop.sleep is there, which an older API server refuses."
  }
}

run "one_replica_on_its_own_volume" {
  command = plan

  variables {
    single       = { size = "80Gi", storage_class = "fast" }
    database     = null
    object_store = null
  }

  assert {
    condition     = contains(keys(output.manifests), "statefulset") && !contains(keys(output.manifests), "autoscaler") && output.workload == "statefulset/attic-cache"
    error_message = "A single server is scaled: two would write one SQLite file."
  }
  assert {
    condition     = yamldecode(output.manifests["statefulset"]).spec.volumeClaimTemplates[0].spec.resources.requests.storage == "80Gi" && yamldecode(output.manifests["statefulset"]).spec.persistentVolumeClaimRetentionPolicy.whenDeleted == "Retain"
    error_message = "The volume has another size, or goes with the server."
  }
  assert {
    condition     = [for v in yamldecode(output.manifests["statefulset"]).spec.template.spec.volumes : v.name] == ["tmp"]
    error_message = "The pod has an ephemeral volume in the place of the claim."
  }
}

run "gateway_routes_do_not_share_a_host_name" {
  command = plan

  variables {
    routing = { kind = "gateway", host = "attic-cache.example.org", gateway = { name = "public", namespace = "gateways", section = "https" } }
  }

  assert {
    condition     = yamldecode(output.manifests["httproute"]).spec.hostnames == ["attic-cache.example.org"] && yamldecode(output.manifests["grpcroute"]).spec.hostnames == ["attic-cache-grpc.example.org"]
    error_message = "The routes are not for attic-cache and attic-cache-grpc."
  }
  assert {
    condition     = yamldecode(output.manifests["httproute"]).spec.rules[0].timeouts.request == "0s"
    error_message = "The gateway's own time limit ends long answers."
  }
  assert {
    condition     = output.url == "https://attic-cache.example.org" && output.grpc_host == "attic-cache-grpc.example.org"
    error_message = "The outputs name other hosts: ${output.url}, ${output.grpc_host}."
  }
}

run "ingress_streams_bodies_of_any_size" {
  command = plan

  variables {
    routing = { kind = "ingress", host = "attic-cache.example.org", ingress_class = "nginx", ingress_controller = "nginx", tls_secret = "tls" }
  }

  assert {
    condition = alltrue([
      yamldecode(output.manifests["ingress"]).metadata.annotations["nginx.ingress.kubernetes.io/proxy-body-size"] == "0",
      yamldecode(output.manifests["ingress"]).metadata.annotations["nginx.ingress.kubernetes.io/proxy-request-buffering"] == "off",
      yamldecode(output.manifests["ingress"]).metadata.annotations["nginx.ingress.kubernetes.io/proxy-buffering"] == "off",
    ])
    error_message = "The Ingress limits or buffers bodies."
  }
  assert {
    condition     = yamldecode(output.manifests["ingress-grpc"]).metadata.annotations["nginx.ingress.kubernetes.io/backend-protocol"] == "GRPC"
    error_message = "The Ingress speaks HTTP/1 to the gRPC port."
  }
}

run "traefik_speaks_h2c" {
  command = plan

  variables {
    routing = { kind = "ingress", host = "attic-cache.example.org", ingress_controller = "traefik" }
  }

  assert {
    condition     = yamldecode(output.manifests["service-grpc"]).metadata.annotations["traefik.ingress.kubernetes.io/service.serversscheme"] == "h2c"
    error_message = "Traefik speaks HTTP/1 to the gRPC port."
  }
}

run "grpc_can_be_left_out" {
  command = plan

  variables {
    routing = { kind = "gateway", host = "attic-cache.example.org", grpc_host = "", gateway = { name = "public", namespace = "gateways" } }
  }

  assert {
    condition     = !contains(keys(output.manifests), "grpcroute") && output.grpc_host == ""
    error_message = "There is a route for gRPC."
  }
}

run "a_changed_configuration_is_a_rollout" {
  command = plan

  variables {
    config        = "[[cache]]\nname = \"team\"\n"
    config_secret = "keys"
  }

  assert {
    condition     = yamldecode(output.manifests["config"]).data["config.toml"] == "[[cache]]\nname = \"team\"\n"
    error_message = "The ConfigMap has another text."
  }
  assert {
    condition     = yamldecode(output.manifests["deployment"]).spec.template.metadata.annotations["attic-cache/config"] == sha256("[[cache]]\nname = \"team\"\n")
    error_message = "The pods would go on with the old configuration."
  }
}

run "only_named_namespaces_reach_it" {
  command = plan

  variables {
    network = { clients = ["gateways"], monitoring = "prom", egress = [{ cidr = "10.1.2.3/32", ports = [5432] }] }
  }

  assert {
    condition     = [for f in yamldecode(output.manifests["networkpolicy"]).spec.ingress[0].from : try(f.namespaceSelector.matchLabels["kubernetes.io/metadata.name"], "own")] == ["own", "gateways"]
    error_message = "Other namespaces than gateways reach the server."
  }
  assert {
    condition     = yamldecode(output.manifests["networkpolicy"]).spec.egress[2].to[0].ipBlock.cidr == "10.1.2.3/32"
    error_message = "The database elsewhere cannot be reached."
  }
}

run "without_the_prometheus_operator" {
  command = plan

  variables {
    monitoring = { enabled = false }
  }

  assert {
    condition     = !contains(keys(output.manifests), "servicemonitor") && !contains(keys(output.manifests), "prometheusrule")
    error_message = "Objects of the Prometheus operator are there although it is not."
  }
}

run "refuses_latest" {
  command = plan

  variables {
    image = "registry.example.org/attic-cache:latest"
  }
  expect_failures = [var.image]
}

run "refuses_an_image_without_a_version" {
  command = plan

  variables {
    image = "registry.example.org:5000/attic-cache"
  }
  expect_failures = [var.image]
}

run "refuses_to_keep_bazels_blobs_for_ever" {
  command = plan

  variables {
    bazel_retention = "off"
  }
  expect_failures = [var.bazel_retention]
}

run "refuses_a_volume_and_a_bucket_together" {
  command = plan

  variables {
    single = {}
  }
  expect_failures = [var.single]
}

run "refuses_replicas_that_share_nothing" {
  command = plan

  variables {
    database     = null
    object_store = null
  }
  expect_failures = [var.single]
}

run "refuses_fewer_replicas_at_most_than_at_least" {
  command = plan

  variables {
    replicas = { min = 5, max = 2 }
  }
  expect_failures = [var.replicas]
}

run "refuses_a_gateway_without_a_name" {
  command = plan

  variables {
    routing = { kind = "gateway", host = "attic-cache.example.org" }
  }
  expect_failures = [var.routing]
}

run "refuses_a_size_that_the_server_would_refuse" {
  command = plan

  variables {
    max_size = "200 apples"
  }
  expect_failures = [var.max_size]
}

run "refuses_an_endpoint_with_a_query" {
  command = plan

  variables {
    object_store = { endpoint = "https://minio.example.org?region=x", bucket = "packs", secret = "s3" }
  }
  expect_failures = [var.object_store]
}

run "refuses_an_endpoint_without_a_host" {
  command = plan

  variables {
    object_store = { endpoint = "http://:9000", bucket = "packs", secret = "s3" }
  }
  expect_failures = [var.object_store]
}

run "refuses_a_bucket_with_two_dots" {
  command = plan

  variables {
    object_store = { bucket = "packs..old", secret = "s3" }
  }
  expect_failures = [var.object_store]
}

run "refuses_a_bucket_that_is_an_address" {
  command = plan

  variables {
    object_store = { bucket = "192.0.2.1", secret = "s3" }
  }
  expect_failures = [var.object_store]
}

run "refuses_a_prefix_with_an_empty_name" {
  command = plan

  variables {
    object_store = { bucket = "packs", prefix = "team//cache", secret = "s3" }
  }
  expect_failures = [var.object_store]
}

run "refuses_a_prefix_that_leads_out" {
  command = plan

  variables {
    object_store = { bucket = "packs", prefix = "team/../other", secret = "s3" }
  }
  expect_failures = [var.object_store]
}

run "refuses_more_than_200_years" {
  command = plan

  variables {
    retention = "99999d"
  }
  expect_failures = [var.retention]
}

run "refuses_more_than_200_years_of_bazels_blobs" {
  command = plan

  variables {
    bazel_retention = "9999999h"
  }
  expect_failures = [var.bazel_retention]
}

run "refuses_a_size_beyond_64_bits" {
  command = plan

  variables {
    max_size = "99999999TB"
  }
  expect_failures = [var.max_size]
}

run "refuses_more_than_the_volume_holds" {
  command = plan

  variables {
    single       = { size = "50Gi" }
    database     = null
    object_store = null
    max_size     = "100GB"
  }
  expect_failures = [var.max_size]
}

run "refuses_half_a_second" {
  command = plan

  variables {
    drain = { delay = 2.5 }
  }
  expect_failures = [var.drain]
}

run "refuses_half_a_replica" {
  command = plan

  variables {
    replicas = { min = 1.5 }
  }
  expect_failures = [var.replicas]
}

run "refuses_a_percentage_that_the_autoscaler_refuses" {
  command = plan

  variables {
    replicas = { cpu = 66.6 }
  }
  expect_failures = [var.replicas]
}

run "refuses_a_url_as_a_host_for_grpc" {
  command = plan

  variables {
    routing = { kind = "gateway", host = "attic-cache.example.org", grpc_host = "https://grpc.example.org", gateway = { name = "public", namespace = "gateways" } }
  }
  expect_failures = [var.routing]
}

run "a_long_host_has_a_name_for_grpc_that_dns_takes" {
  command = plan

  variables {
    routing = { kind = "ingress", host = "a23456789-123456789-123456789-123456789-123456789-123456789.example.org" }
  }

  assert {
    condition     = output.grpc_host == "a23456789-123456789-123456789-123456789-123456789-f112e6f4-grpc.example.org"
    error_message = "flywheel verify would look elsewhere than at ${output.grpc_host}, or its label has more than 63 characters."
  }
}

run "refuses_port_0" {
  command = plan

  variables {
    network = { egress = [{ cidr = "10.0.0.0/8", ports = [0] }] }
  }
  expect_failures = [var.network]
}

run "refuses_two_variables_of_a_name" {
  command = plan

  variables {
    environment = { S3_ACCESS_KEY_ID = "id" }
  }
  expect_failures = [var.environment]
}

run "sizes_and_prefixes_that_the_server_takes" {
  command = plan

  variables {
    max_size     = "1.5TiB"
    object_store = { endpoint = "https://[2001:db8::1]:9000", bucket = "packs.team-1", prefix = "/team/cache/", secret = "s3" }
  }

  assert {
    condition     = alltrue([for pair in ["CACHESERVER_MAX_SIZE=1.5TiB", "CACHESERVER_STORAGE=s3://packs.team-1/team/cache"] : contains([for e in yamldecode(output.manifests["deployment"]).spec.template.spec.containers[0].env : "${e.name}=${try(e.value, "")}"], pair)])
    error_message = "The server is told something else."
  }
}

run "refuses_resources_that_are_no_quantities" {
  command = plan

  variables {
    resources = { memory = "2GB" }
  }
  expect_failures = [var.resources]
}

run "seconds_of_a_toleration_are_a_number" {
  command = plan

  variables {
    scheduling = { tolerations = [{ key = "node.kubernetes.io/unreachable", operator = "Exists", effect = "NoExecute", tolerationSeconds = 30 }] }
  }

  assert {
    condition     = jsonencode(yamldecode(output.manifests["deployment"]).spec.template.spec.tolerations[0]) == jsonencode({ effect = "NoExecute", key = "node.kubernetes.io/unreachable", operator = "Exists", tolerationSeconds = 30 })
    error_message = "Kubernetes takes no text for tolerationSeconds."
  }
}
