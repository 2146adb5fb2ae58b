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

variable "group_id" {
  description = "ID of the GitLab group whose projects use the runners."
  type        = number
}

variable "namespace" {
  description = "Namespace of the runners; those of their jobs are it with -jobs and -dind behind."
  type        = string
  default     = "bates-ils-runners"

  validation {
    condition     = can(regex("^[a-z0-9]([a-z0-9-]{0,55}[a-z0-9])?$", var.namespace))
    error_message = "namespace must be a DNS label, with room for a suffix."
  }
}

variable "runners" {
  description = "The runners, by type: jobs of a replica, and how many replicas the autoscaler keeps."
  type = map(object({
    concurrent = optional(number, 10)
    min        = optional(number, 1)
    max        = optional(number, 5)
    cpu        = optional(string, "1")
    memory     = optional(string, "2Gi")
    limit      = optional(string, "4Gi")
  }))
  default = { docker = {}, dind = {}, rocky8 = {}, rocky9 = {}, nix = {} }

  validation {
    condition     = alltrue([for type, r in var.runners : contains(["docker", "dind", "rocky8", "rocky9", "nix"], type)])
    error_message = "The keys of runners must be docker, dind, rocky8, rocky9 or nix."
  }
}

variable "jobs_metric" {
  description = "Scale by the slots that are taken instead of by CPU, where a metrics adapter serves gitlab_runner_jobs."
  type        = bool
  default     = false
}

variable "cache" {
  description = "The Nix cache of the Nix runners, and its key."
  type = object({
    url        = string
    public_key = optional(string, "")
  })
}

variable "allowed" {
  description = "What jobs may reach inside the network: CIDRs with ports, such as the gateway's and an internal GitLab's, and namespaces with ports."
  type = object({
    cidrs      = optional(list(object({ cidr = string, ports = list(number) })), [])
    namespaces = optional(map(list(number)), {})
  })
  default = { namespaces = { attic-cache = [8080, 9092] } }
}

variable "quota" {
  description = "What all jobs but Docker-in-Docker's may take together, and what those may."
  type = object({
    jobs = optional(object({ pods = optional(number), cpu_requests = optional(string), memory_requests = optional(string), memory_limits = optional(string) }), {})
    dind = optional(object({ pods = optional(number), cpu_requests = optional(string), memory_requests = optional(string), memory_limits = optional(string) }), {})
  })
  default = {}
}

variable "rotation" {
  description = "The CronJob that creates the runners in GitLab and rotates their tokens: flywheel's image, and the secret (key token) with a token of the group's that may do it. Null where the secrets are made by hand."
  type = object({
    image  = string
    secret = optional(string, "gitlab-runner-manager")
  })
  default = null
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
