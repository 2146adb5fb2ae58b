variable "kube_context" {
  description = "Context of the kubeconfig: in jobs, path/to/agents:agent. The current one when null."
  type        = string
  default     = null
}

variable "gitlab_url" {
  description = "URL of the GitLab."
  type        = string
  default     = "https://gitlab.com"
}

variable "namespace" {
  description = "Namespace of the runners; that of their jobs is it with -jobs behind."
  type        = string
  default     = "gitlab-runners"
}

variable "runners" {
  description = "Runners of single projects by name: their type (not dind: this namespace allows no privileged pods), and the secret with their token."
  type = map(object({
    type         = optional(string, "docker")
    token_secret = string
    concurrent   = optional(number, 4)
    max          = optional(number, 2)
  }))

  validation {
    condition     = alltrue([for r in var.runners : r.type != "dind"])
    error_message = "Docker-in-Docker runs in the fleet only (stack bates-ils-runners), which has a namespace for it."
  }
}

variable "cache" {
  description = "The Nix cache of runners of the type nix."
  type = object({
    url        = string
    public_key = optional(string, "")
  })
  default = null
}

variable "allowed" {
  description = "What jobs may reach inside the network: CIDRs with ports, such as the gateway's and an internal GitLab's, and namespaces with ports."
  type = object({
    cidrs      = optional(list(object({ cidr = string, ports = list(number) })), [])
    namespaces = optional(map(list(number)), {})
  })
  default = { namespaces = { attic-cache = [8080, 9092] } }
}

variable "monitoring" {
  description = "ServiceMonitors and alerts, the namespace of Prometheus, and the labels it selects them by."
  type = object({
    enabled   = optional(bool, true)
    namespace = optional(string, "monitoring")
    labels    = optional(map(string), {})
  })
  default = {}
}

variable "wait" {
  description = "Wait until rollouts are complete. They are not before the tokens' secrets are there."
  type        = bool
  default     = false
}
