variable "namespace" {
  description = "Namespace in which jobs run."
  type        = string

  validation {
    condition     = can(regex("^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$", var.namespace))
    error_message = "namespace must be a DNS label."
  }
}

variable "create_namespace" {
  description = "Make the namespace, with its Pod Security labels. Where it is there already, false leaves it, and its labels, alone."
  type        = bool
  default     = true
}

variable "labels" {
  description = "Labels that all objects get beside the recommended ones."
  type        = map(string)
  default     = {}
}

variable "pod_security" {
  description = "Pod Security level that is enforced: restricted, baseline or privileged. Only Docker-in-Docker needs privileged."
  type        = string
  default     = "baseline"

  validation {
    condition     = contains(["restricted", "baseline", "privileged"], var.pod_security)
    error_message = "pod_security must be restricted, baseline or privileged."
  }
}

variable "quota" {
  description = "What all jobs together may take."
  type = object({
    pods            = optional(number, 60)
    cpu_requests    = optional(string, "64")
    memory_requests = optional(string, "128Gi")
    memory_limits   = optional(string, "256Gi")
    disk_requests   = optional(string, "500Gi")
  })
  default = {}
}

variable "limits" {
  description = "What a container gets that asks for nothing, and the most that one may have."
  type = object({
    default_cpu    = optional(string, "500m")
    default_memory = optional(string, "1Gi")
    max_cpu        = optional(string, "16")
    max_memory     = optional(string, "32Gi")
  })
  default = {}
}

variable "forbidden_cidrs" {
  description = "What jobs may not reach: the cluster's own networks and the nodes' metadata service, from which jobs could take the nodes' identity."
  type        = list(string)
  default     = ["169.254.0.0/16", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"]

  validation {
    condition     = alltrue([for c in var.forbidden_cidrs : can(cidrhost(c, 0))])
    error_message = "forbidden_cidrs must be CIDRs such as 10.0.0.0/8."
  }
  validation {
    condition     = anytrue([for c in var.forbidden_cidrs : contains(["169.254.0.0/16", "169.254.169.254/32"], c)])
    error_message = "forbidden_cidrs must have the metadata service's 169.254.0.0/16 or 169.254.169.254/32 among them."
  }
}

variable "allowed" {
  description = "What jobs may reach although it is forbidden: CIDRs with ports (an internal GitLab, the gateway), and namespaces with ports (the cache)."
  type = object({
    cidrs      = optional(list(object({ cidr = string, ports = list(number) })), [])
    namespaces = optional(map(list(number)), {})
  })
  default = {}

  validation {
    condition     = alltrue([for c in var.allowed.cidrs : can(cidrhost(c.cidr, 0)) && length(c.ports) > 0])
    error_message = "allowed.cidrs needs CIDRs, each with a port at least."
  }
}
