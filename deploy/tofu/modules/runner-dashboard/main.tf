module "deployment" {
  source = "../hpa-deployment"

  name      = var.name
  namespace = var.namespace
  labels    = var.labels
  image     = var.image
  port      = 3000
  replicas  = var.replicas
  route     = var.route
  clients   = var.clients
  wait      = var.wait

  environment = merge({
    GITLAB_URL        = var.gitlab_url
    PROMETHEUS_URL    = var.prometheus_url
    RUNNER_NAMESPACES = join(",", var.runner_namespaces)
  }, var.route == null ? {} : { ORIGIN = "${var.route.kind == "ingress" && var.route.tls_secret == null ? "http" : "https"}://${var.route.host}" })
  secret_environment = { GITLAB_TOKEN = { secret = var.gitlab_token.secret, key = var.gitlab_token.key } }

  # It reads the state of workloads.
  service_account = { mount_token = true }
}

locals {
  labels = merge(var.labels, { "app.kubernetes.io/instance" = var.name, "app.kubernetes.io/managed-by" = "opentofu" })
  manifests = merge([for namespace in var.runner_namespaces : {
    for kind in ["role", "rolebinding"] : "${kind}/${namespace}" => templatefile("${path.module}/templates/${kind}.yaml", {
      name = var.name, namespace = var.namespace, labels = local.labels, runners = namespace
    })
  }]...)
}

resource "kubectl_manifest" "this" {
  # Decoded and encoded again, so that a template that is no YAML fails the plan.
  for_each = { for name, text in local.manifests : name => yamlencode(yamldecode(text)) }

  yaml_body         = each.value
  server_side_apply = true
}
