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

module "dashboard" {
  source = "../../modules/runner-dashboard"

  namespace         = var.namespace
  image             = var.image
  gitlab_url        = var.gitlab_url
  gitlab_token      = { secret = var.gitlab_token_secret }
  runner_namespaces = var.runner_namespaces
  route = var.gateway == null ? null : {
    kind    = "gateway"
    host    = "runner-dashboard.${var.domain}"
    gateway = var.gateway
  }
  clients = var.gateway == null ? [] : [var.gateway.namespace]
  wait    = var.wait

  depends_on = [kubectl_manifest.namespace]
}
