variable "kube_context" {
  description = "Context of the kubeconfig: in jobs, path/to/agents:agent. The current one when null."
  type        = string
  default     = null
}

variable "project_id" {
  description = "ID of the GitLab project whose jobs deploy."
  type        = number
}

variable "environments" {
  description = "Namespaces that are made, each with the environment (its slug in GitLab) whose jobs may deploy to it."
  type        = map(object({ environment = string }))
  default     = {}
}

variable "review" {
  description = "Rights for review environments, as in the module gitlab-agent-rbac; none when null."
  type = object({
    tier   = optional(string, "development")
    prefix = optional(string, "attic-cache-review-")
  })
  default = null
}

variable "viewers" {
  description = "Namespaces in which jobs of the project may see workloads: [\"bates-ils-runners\"], once that stack has made it."
  type        = list(string)
  default     = []
}

variable "operators" {
  description = "Files with the operators' releases, which deploy/tofu/operators fetches; an operator without a file is not installed."
  type = object({
    cnpg  = optional(string)
    minio = optional(string)
  })
  default = {}
}

variable "cnpg_sha256" {
  description = "SHA-256 of CloudNativePG's manifest: that of release 1.27.0."
  type        = string
  default     = "7be449085a4c5941ff05d2c4aca47d4f1c4c87698181fe2c19c47a9f6a43b268"
}
