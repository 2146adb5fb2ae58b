variable "name" {
  description = "Name of the dashboard and of its objects."
  type        = string
  default     = "runner-dashboard"

  validation {
    condition     = can(regex("^[a-z]([a-z0-9-]{0,38}[a-z0-9])?$", var.name))
    error_message = "name must be a DNS label of at most 40 characters: suffixes are added to it."
  }
}

variable "namespace" {
  description = "Namespace, which must be there."
  type        = string

  validation {
    condition     = can(regex("^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$", var.namespace))
    error_message = "namespace must be a DNS label."
  }
}

variable "labels" {
  description = "Labels that all objects get beside the recommended ones."
  type        = map(string)
  default     = {}
}

variable "image" {
  description = "The dashboard's image, by version or digest."
  type        = string

  validation {
    condition     = can(regex("(:[A-Za-z0-9_][A-Za-z0-9._-]*|@sha256:[0-9a-f]{64})$", var.image)) && !endswith(var.image, ":latest")
    error_message = "image must name a version or a digest, and not latest."
  }
}

variable "gitlab_url" {
  description = "URL of the GitLab whose runners and pipelines it shows."
  type        = string
  default     = "https://gitlab.com"

  validation {
    condition     = can(regex("^https://[A-Za-z0-9.-]+(:[0-9]{1,5})?$", var.gitlab_url))
    error_message = "gitlab_url must be https and without a path."
  }
}

variable "gitlab_token" {
  description = "Secret, and its key, with a token of the scope read_api."
  type = object({
    secret = string
    key    = optional(string, "token")
  })
}

variable "prometheus_url" {
  description = "URL of Prometheus."
  type        = string
  default     = "http://prometheus-operated.monitoring.svc:9090"
}

variable "runner_namespaces" {
  description = "Namespaces whose workloads it shows."
  type        = list(string)
  default     = ["bates-ils-runners"]
}

variable "route" {
  description = "How it is reached, as hpa-deployment's route; only inside the cluster when null."
  type = object({
    kind          = string
    host          = string
    gateway       = optional(object({ name = string, namespace = string, section = optional(string) }))
    ingress_class = optional(string)
    tls_secret    = optional(string)
    annotations   = optional(map(string), {})
  })
  default = null
}

variable "clients" {
  description = "Namespaces that may connect: the gateway's."
  type        = list(string)
  default     = []
}

variable "replicas" {
  description = "How many replicas the autoscaler keeps."
  type = object({
    min = optional(number, 2)
    max = optional(number, 4)
  })
  default = {}
}

variable "wait" {
  description = "Wait until the rollout is complete."
  type        = bool
  default     = true
}
