locals {
  types = {
    docker = { tags = ["docker", "linux", "amd64"], image = "docker.io/library/debian:13.1-slim" }
    dind   = { tags = ["docker", "dind", "privileged"], image = "docker.io/library/docker:28.5.2-cli" }
    rocky8 = { tags = ["rocky8", "rhel8", "linux"], image = "docker.io/rockylinux/rockylinux:8.10" }
    rocky9 = { tags = ["rocky9", "rhel9", "linux"], image = "docker.io/rockylinux/rockylinux:9.6" }
    nix    = { tags = ["nix", "flakes"], image = "docker.io/nixos/nix:2.28.3" }
  }
  type       = local.types[var.type]
  privileged = var.type == "dind"

  # fallback: a cache that is away must cost time, not the build.
  nix_config = var.cache == null ? "" : join("\n", concat(
    [
      "experimental-features = nix-command flakes",
      "extra-substituters = ${var.cache.url}",
      "fallback = true",
      "connect-timeout = 5",
    ],
    var.cache.public_key == "" ? [] : ["extra-trusted-public-keys = ${var.cache.public_key}"],
  ))
  environment = merge(
    var.type == "nix" ? { NIX_CONFIG = local.nix_config, ATTIC_CACHE_URL = var.cache.url } : {},
    local.privileged ? { DOCKER_TLS_CERTDIR = "/certs" } : {},
    var.environment,
  )

  selector = {
    "app.kubernetes.io/name"     = "gitlab-runner"
    "app.kubernetes.io/instance" = var.name
  }
  labels = merge(var.labels, local.selector, {
    "app.kubernetes.io/part-of"    = "runners"
    "app.kubernetes.io/managed-by" = "opentofu"
  })
  job_namespace = coalesce(var.job_namespace, var.namespace)

  runner = {
    name          = var.name
    namespace     = var.namespace
    job_namespace = local.job_namespace
    type          = var.type
    gitlab_url    = var.gitlab_url
    image         = coalesce(var.job_image, local.type.image)
    privileged    = local.privileged
    concurrent    = var.concurrent
    job           = var.job_resources
    environment   = [for k, v in local.environment : "${k}=${v}"]
    stop_seconds  = var.stop_seconds
  }
  config   = templatefile("${path.module}/templates/config.toml", local.runner)
  template = templatefile("${path.module}/templates/template.toml", local.runner)

  values = {
    name          = var.name
    namespace     = var.namespace
    job_namespace = local.job_namespace
    labels        = local.labels
    selector      = local.selector
    image         = var.image
    gitlab_url    = var.gitlab_url
    token_secret  = var.token_secret
    config        = local.config
    template      = local.template
    concurrent    = var.concurrent
    replicas      = var.replicas
    resources     = var.resources
    stop_seconds  = var.stop_seconds
    monitoring    = var.monitoring
  }
  wanted = {
    serviceaccount     = true
    job-serviceaccount = true
    role               = true
    rolebinding        = true
    config             = true
    deployment         = true
    autoscaler         = true
    disruptionbudget   = true
    networkpolicy      = true
    service            = true
    servicemonitor     = var.monitoring.enabled
    prometheusrule     = var.monitoring.enabled
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
  wait_for_rollout  = var.wait
}
