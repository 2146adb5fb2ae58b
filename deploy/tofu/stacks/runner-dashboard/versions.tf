terraform {
  required_version = ">= 1.9.0"

  required_providers {
    kubectl = {
      source  = "gavinbunney/kubectl"
      version = "1.19.0"
    }
  }

  # GitLab's state, by TF_HTTP_ADDRESS and its like: what stood here would be
  # written into saved plans.
  backend "http" {}
}

provider "kubectl" {
  config_context    = var.kube_context
  apply_retry_count = 3
}
