locals {
  labels = { "app.kubernetes.io/part-of" = "runners" }
  # Jobs, by what their pods may do: only Docker-in-Docker's may be privileged, and
  # they have a namespace to themselves.
  job_namespaces = { for type, r in var.runners : type => type == "dind" ? "${var.namespace}-dind" : "${var.namespace}-jobs" }
  default_quota = {
    jobs = { pods = 60, cpu_requests = "64", memory_requests = "128Gi", memory_limits = "256Gi" }
    dind = { pods = 20, cpu_requests = "32", memory_requests = "64Gi", memory_limits = "128Gi" }
  }
  quota = { for k, d in local.default_quota : k => { for f, v in d : f => try(coalesce(var.quota[k][f]), v) } }
}

resource "kubectl_manifest" "namespace" {
  yaml_body = yamlencode({
    apiVersion = "v1"
    kind       = "Namespace"
    metadata = {
      name = var.namespace
      labels = merge(local.labels, {
        "app.kubernetes.io/managed-by"       = "opentofu"
        "pod-security.kubernetes.io/enforce" = "restricted"
        "pod-security.kubernetes.io/warn"    = "restricted"
      })
    }
  })
  server_side_apply = true
}

module "jobs" {
  source   = "../../modules/runner-security"
  for_each = { jobs = "baseline", dind = "privileged" }

  namespace    = "${var.namespace}-${each.key}"
  pod_security = each.value
  labels       = local.labels
  allowed      = var.allowed
  quota        = local.quota[each.key]
}

module "runner" {
  source   = "../../modules/gitlab-runner"
  for_each = var.runners

  name          = "runner-${each.key}"
  type          = each.key
  namespace     = var.namespace
  job_namespace = local.job_namespaces[each.key]
  gitlab_url    = var.gitlab_url
  token_secret  = "runner-${each.key}-token"
  concurrent    = each.value.concurrent
  replicas      = { min = each.value.min, max = each.value.max, jobs_metric = var.jobs_metric }
  job_resources = { cpu = each.value.cpu, memory = each.value.memory, memory_limit = each.value.limit }
  cache         = each.key == "nix" ? var.cache : null
  monitoring    = var.monitoring
  wait          = var.wait

  depends_on = [kubectl_manifest.namespace, module.jobs]
}

module "tokens" {
  source = "../../modules/gitlab-user-runner"
  count  = var.rotation == null ? 0 : 1

  namespace    = var.namespace
  image        = var.rotation.image
  gitlab_url   = var.gitlab_url
  group_id     = var.group_id
  token_secret = { secret = var.rotation.secret }
  runners = {
    for type, m in module.runner : "${var.namespace}-${type}" => {
      tags   = m.tags
      secret = "runner-${type}-token"
    }
  }

  depends_on = [kubectl_manifest.namespace]
}
