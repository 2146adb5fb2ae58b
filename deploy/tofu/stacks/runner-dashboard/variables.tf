variable "kube_context" {
  description = "Context of the kubeconfig: in jobs, path/to/agents:agent. The current one when null."
  type        = string
  default     = null
}

variable "domain" {
  description = "Domain of the cluster."
  type        = string
}

variable "namespace" {
  description = "Namespace of the dashboard."
  type        = string
  default     = "runner-dashboard"
}

variable "image" {
  description = "The dashboard's image, by version or digest."
  type        = string
  default     = "registry.gitlab.com/bates-ils/projects/iac/attic-cache/runner-dashboard:v1.0.0"
}

variable "gitlab_url" {
  description = "URL of the GitLab."
  type        = string
  default     = "https://gitlab.com"
}

variable "gitlab_token_secret" {
  description = "Secret with a token of the scope read_api, as token."
  type        = string
  default     = "runner-dashboard-gitlab"
}

variable "runner_namespaces" {
  description = "Namespaces whose runners it shows."
  type        = list(string)
  default     = ["bates-ils-runners"]
}

variable "gateway" {
  description = "The Gateway that its route attaches to; only inside the cluster when null."
  type        = object({ name = string, namespace = string, section = optional(string) })
  default     = null
}

variable "wait" {
  description = "Wait until the rollout is complete."
  type        = bool
  default     = true
}
