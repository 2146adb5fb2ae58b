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

  validation {
    condition     = var.quota.pods >= 0 && floor(var.quota.pods) == var.quota.pods && alltrue([for k, q in var.quota : k == "pods" || can(regex("^[0-9]+(\\.[0-9]+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?$", q))])
    error_message = "quota must be a whole number of pods, and quantities such as 64 and 128Gi."
  }
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

  validation {
    condition     = alltrue([for q in values(var.limits) : can(regex("^[0-9]+(\\.[0-9]+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?$", q))])
    error_message = "limits must be quantities such as 500m and 1Gi."
  }
}

variable "forbidden_cidrs" {
  description = "What jobs may not reach: the cluster's own networks and the nodes' metadata service, from which jobs could take the nodes' identity."
  type        = list(string)
  default     = ["169.254.0.0/16", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"]

  validation {
    condition     = alltrue([for c in var.forbidden_cidrs : can(cidrhost(c, 0)) && !strcontains(c, ":") && !endswith(c, "/0")])
    error_message = "forbidden_cidrs must be parts of IPv4's addresses such as 10.0.0.0/8. Of IPv6, jobs reach nothing but what is allowed."
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
  validation {
    condition     = alltrue([for ports in values(var.allowed.namespaces) : length(ports) > 0])
    error_message = "allowed.namespaces needs a port at least for each: none would open all of them."
  }
  validation {
    condition     = alltrue([for p in concat(flatten([for c in var.allowed.cidrs : c.ports]), flatten(values(var.allowed.namespaces))) : p >= 1 && p <= 65535 && floor(p) == p])
    error_message = "Ports are whole numbers from 1 to 65535."
  }
}
