locals {
  selector = {
    "app.kubernetes.io/name"     = "cacheserver"
    "app.kubernetes.io/instance" = var.name
  }
  labels = merge(var.labels, local.selector, {
    "app.kubernetes.io/part-of"    = "attic-cache"
    "app.kubernetes.io/managed-by" = "opentofu"
  })

  shared  = var.single == null
  routed  = var.routing.kind != "none"
  first   = split(".", var.routing.host)[0]
  grpc    = coalesce(var.routing.grpc_host, "-") == "-" ? "" : var.routing.grpc_host
  derived = local.routed && var.routing.grpc_host == null
  # A label has 63 characters at most, which that of a review environment can have.
  # flywheel verify finds it by the same rule.
  short = length(local.first) <= 58 ? local.first : "${substr(local.first, 0, 49)}-${substr(sha256(local.first), 0, 8)}"
  grpc_host = local.derived ? join(".", concat(
    ["${local.short}-grpc"], slice(split(".", var.routing.host), 1, length(split(".", var.routing.host)))
  )) : local.grpc
  scheme = var.routing.kind == "ingress" && var.routing.tls_secret == null ? "http" : "https"
  url    = local.routed ? "${local.scheme}://${var.routing.host}" : "http://${var.name}.${var.namespace}.svc:8080"

  environment = merge(var.environment, {
    CACHESERVER_DATA            = "/data"
    CACHESERVER_LISTEN          = "0.0.0.0:8080"
    CACHESERVER_GRPC_LISTEN     = "0.0.0.0:9092"
    CACHESERVER_RETENTION       = var.retention
    CACHESERVER_BAZEL_RETENTION = var.bazel_retention
    CACHESERVER_DRAIN_DELAY     = "${var.drain.delay}s"
    CACHESERVER_DRAIN_TIME      = "${var.drain.time}s"
    CACHESERVER_LOG_FORMAT      = "json"
    CACHESERVER_LOG_LEVEL       = var.log_level
    TMPDIR                      = "/tmp"
    },
    local.routed ? { CACHESERVER_PUBLIC_URL = local.url } : {},
    var.max_size == null ? {} : { CACHESERVER_MAX_SIZE = var.max_size },
    var.config == "" ? {} : { CACHESERVER_CONFIG = "/etc/cacheserver/config.toml" },
    local.shared ? {
      CACHESERVER_STORAGE       = "s3://${join("/", compact([var.object_store.bucket, trim(var.object_store.prefix, "/")]))}"
      CACHESERVER_PACK_CACHE    = "${var.pack_cache.gib}GiB"
      CACHESERVER_S3_PATH_STYLE = tostring(var.object_store.path_style)
    } : {},
    try(var.object_store.endpoint, "") == "" ? {} : { CACHESERVER_S3_ENDPOINT = var.object_store.endpoint },
    try(var.object_store.region, "") == "" ? {} : { CACHESERVER_S3_REGION = var.object_store.region },
    try(var.object_store.ca_secret, null) == null ? {} : { CACHESERVER_S3_CA_FILE = "/etc/cacheserver/s3/ca.crt" },
  )

  secret_environment = local.shared ? {
    CACHESERVER_INDEX    = { secret = var.database.secret, key = var.database.key }
    S3_ACCESS_KEY_ID     = { secret = var.object_store.secret, key = var.object_store.access_key_id }
    S3_SECRET_ACCESS_KEY = { secret = var.object_store.secret, key = var.object_store.secret_access_key }
  } : {}

  # What the annotations of each controller must say for bodies of any size to be
  # streamed both ways, and for connections that last as long as a NAR takes.
  annotations = {
    nginx = {
      http = {
        "nginx.ingress.kubernetes.io/proxy-body-size"         = "0"
        "nginx.ingress.kubernetes.io/proxy-request-buffering" = "off"
        "nginx.ingress.kubernetes.io/proxy-buffering"         = "off"
        "nginx.ingress.kubernetes.io/proxy-read-timeout"      = "3600"
        "nginx.ingress.kubernetes.io/proxy-send-timeout"      = "3600"
      }
      grpc = {
        "nginx.ingress.kubernetes.io/backend-protocol"   = "GRPC"
        "nginx.ingress.kubernetes.io/proxy-body-size"    = "0"
        "nginx.ingress.kubernetes.io/proxy-read-timeout" = "3600"
        "nginx.ingress.kubernetes.io/proxy-send-timeout" = "3600"
      }
      service = {}
    }
    traefik = {
      http    = {}
      grpc    = {}
      service = { "traefik.ingress.kubernetes.io/service.serversscheme" = "h2c" }
    }
    other = { http = {}, grpc = {}, service = {} }
  }[var.routing.ingress_controller]

  values = {
    name               = var.name
    namespace          = var.namespace
    image              = var.image
    image_pull_secret  = var.image_pull_secret
    labels             = local.labels
    selector           = local.selector
    shared             = local.shared
    single             = var.single
    environment        = local.environment
    secret_environment = local.secret_environment
    config             = var.config
    config_secret      = var.config_secret
    ca_secret          = try(var.object_store.ca_secret, null)
    replicas           = var.replicas
    resources          = var.resources
    pack_cache         = var.pack_cache
    drain              = var.drain
    routing            = var.routing
    host               = var.routing.host
    grpc_host          = local.grpc_host
    annotations        = local.annotations
    network            = var.network
    monitoring         = var.monitoring
    scheduling         = var.scheduling
  }

  pod = yamldecode(templatefile("${path.module}/templates/pod.yaml", local.values))

  wanted = {
    serviceaccount   = true
    config           = var.config != ""
    deployment       = local.shared
    autoscaler       = local.shared
    disruptionbudget = local.shared
    statefulset      = !local.shared
    service          = true
    service-grpc     = true
    networkpolicy    = var.network.enabled
    httproute        = var.routing.kind == "gateway"
    grpcroute        = var.routing.kind == "gateway" && local.grpc_host != ""
    ingress          = var.routing.kind == "ingress"
    ingress-grpc     = var.routing.kind == "ingress" && local.grpc_host != ""
    servicemonitor   = var.monitoring.enabled
    prometheusrule   = var.monitoring.enabled
  }
  manifests = {
    for name, wanted in local.wanted : name => templatefile(
      "${path.module}/templates/${name}.yaml", merge(local.values, { pod = local.pod })
    ) if wanted
  }
}

resource "kubectl_manifest" "this" {
  # Decoded and encoded again, so that a template that is no YAML fails the plan.
  for_each = { for name, text in local.manifests : name => yamlencode(yamldecode(text)) }

  yaml_body         = each.value
  server_side_apply = true
  wait_for_rollout  = var.wait
}
