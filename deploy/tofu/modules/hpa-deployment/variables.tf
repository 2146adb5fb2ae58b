variable "name" {
  description = "Name of the deployment and of its objects."
  type        = string

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
  description = "Image, by version or digest."
  type        = string

  validation {
    condition     = can(regex("(:[A-Za-z0-9_][A-Za-z0-9._-]*|@sha256:[0-9a-f]{64})$", var.image)) && !endswith(var.image, ":latest")
    error_message = "image must name a version or a digest, and not latest."
  }
}

variable "args" {
  description = "Arguments; the image's when null."
  type        = list(string)
  default     = null
}

variable "environment" {
  description = "Environment variables. Not for secrets."
  type        = map(string)
  default     = {}
}

variable "secret_environment" {
  description = "Environment variables from secrets."
  type        = map(object({ secret = string, key = string }))
  default     = {}

  validation {
    condition     = length(setintersection(keys(var.secret_environment), concat(["PORT"], keys(var.environment)))) == 0
    error_message = "A variable is in environment and in secret_environment, or is PORT: Kubernetes refuses a container with two of a name."
  }
}

variable "port" {
  description = "Port on which it speaks HTTP."
  type        = number
  default     = 8080

  validation {
    condition     = var.port >= 1024 && var.port <= 65535 && floor(var.port) == var.port
    error_message = "port must be a whole number from 1024 to 65535: below, only root may listen."
  }
}

variable "probes" {
  description = "Paths that say whether it lives and whether it is ready."
  type = object({
    live  = optional(string, "/healthz")
    ready = optional(string, "/readyz")
  })
  default = {}
}

variable "user" {
  description = "User and group that it runs as; never root."
  type        = number
  default     = 65532

  validation {
    condition     = var.user > 0 && floor(var.user) == var.user
    error_message = "user must be a whole number, and not root's 0."
  }
}

variable "replicas" {
  description = "How many replicas the autoscaler keeps, and the CPU use, in percent of what is requested, that it aims at."
  type = object({
    min = optional(number, 2)
    max = optional(number, 10)
    cpu = optional(number, 70)
  })
  default = {}

  validation {
    condition     = var.replicas.min >= 1 && var.replicas.max >= var.replicas.min && floor(var.replicas.min) == var.replicas.min && floor(var.replicas.max) == var.replicas.max
    error_message = "replicas must be whole numbers, 1 <= min <= max."
  }
  validation {
    condition     = var.replicas.cpu > 0 && floor(var.replicas.cpu) == var.replicas.cpu
    error_message = "replicas.cpu is a percentage, a whole number above 0."
  }
}

variable "resources" {
  description = "What a replica requests, and the memory it may take."
  type = object({
    cpu          = optional(string, "100m")
    memory       = optional(string, "128Mi")
    memory_limit = optional(string, "512Mi")
  })
  default = {}

  validation {
    condition     = alltrue([for q in values(var.resources) : can(regex("^[0-9]+(\\.[0-9]+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?$", q))])
    error_message = "resources must be quantities such as 500m and 2Gi."
  }
}

variable "service_account" {
  description = "Its ServiceAccount's token is mounted only where it talks to Kubernetes."
  type = object({
    mount_token = optional(bool, false)
    annotations = optional(map(string), {})
  })
  default = {}
}

variable "stop_seconds" {
  description = "How long a replica has to end."
  type        = number
  default     = 30

  validation {
    condition     = var.stop_seconds > 5 && floor(var.stop_seconds) == var.stop_seconds
    error_message = "stop_seconds must be a whole number, more than the 5 seconds for which it goes on taking connections."
  }
}

variable "route" {
  description = "Host name and the Gateway (kind gateway) or the ingress class (kind ingress) it is reached by; none when null."
  type = object({
    kind          = string
    host          = string
    gateway       = optional(object({ name = string, namespace = string, section = optional(string) }))
    ingress_class = optional(string)
    tls_secret    = optional(string)
    annotations   = optional(map(string), {})
  })
  default = null

  validation {
    condition     = var.route == null || contains(["gateway", "ingress"], try(var.route.kind, ""))
    error_message = "route.kind must be gateway or ingress."
  }
  validation {
    condition     = try(var.route.kind, "") != "gateway" || try(var.route.gateway, null) != null
    error_message = "route.gateway must name the Gateway that the route attaches to."
  }
  validation {
    condition     = var.route == null || can(regex("^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)+$", try(var.route.host, "")))
    error_message = "route.host must be a host name such as app.example.org."
  }
}

variable "clients" {
  description = "Namespaces that may connect, beside its own."
  type        = list(string)
  default     = []
}

variable "metrics" {
  description = "ServiceMonitor on path; none when path is null."
  type = object({
    path      = optional(string)
    namespace = optional(string, "monitoring")
    labels    = optional(map(string), {})
  })
  default = {}
}

variable "wait" {
  description = "Wait until the rollout is complete."
  type        = bool
  default     = true
}
