# Runners of single projects, from before the fleet. New projects use the fleet's
# tags; this stack is destroyed when the last of these has moved.
resource "kubectl_manifest" "namespace" {
  yaml_body = yamlencode({
    apiVersion = "v1"
    kind       = "Namespace"
    metadata = {
      name = var.namespace
      labels = {
        "app.kubernetes.io/managed-by"       = "opentofu"
        "pod-security.kubernetes.io/enforce" = "restricted"
        "pod-security.kubernetes.io/warn"    = "restricted"
      }
    }
  })
  server_side_apply = true
}

# Not the runners' own namespace: they talk to the API server, jobs may not.
module "jobs" {
  source = "../../modules/runner-security"

  namespace    = "${var.namespace}-jobs"
  pod_security = "baseline"
  allowed      = var.allowed
  quota        = { pods = 20, cpu_requests = "16", memory_requests = "32Gi", memory_limits = "64Gi" }
}

module "runner" {
  source   = "../../modules/gitlab-runner"
  for_each = var.runners

  name          = each.key
  type          = each.value.type
  namespace     = var.namespace
  job_namespace = module.jobs.namespace
  gitlab_url    = var.gitlab_url
  token_secret  = each.value.token_secret
  concurrent    = each.value.concurrent
  replicas      = { min = 1, max = each.value.max }
  cache         = each.value.type == "nix" ? var.cache : null
  monitoring    = var.monitoring
  wait          = var.wait

  depends_on = [kubectl_manifest.namespace]
}
