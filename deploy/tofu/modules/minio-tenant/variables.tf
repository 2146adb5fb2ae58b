variable "name" {
  description = "Name of the tenant and of its objects."
  type        = string
  default     = "attic-cache-minio"

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
  description = "MinIO's image. The default is the last that was published; see the README on what that means, and on building a later one."
  type        = string
  default     = "quay.io/minio/minio:RELEASE.2025-09-07T16-13-09Z"

  validation {
    condition     = can(regex("(:[A-Za-z0-9_][A-Za-z0-9._-]*|@sha256:[0-9a-f]{64})$", var.image)) && !endswith(var.image, ":latest")
    error_message = "image must name a version or a digest, and not latest."
  }
}

variable "mode" {
  description = "standalone: one server with one volume. distributed: several, with erasure coding, which outlive a server and its volumes."
  type        = string
  default     = "standalone"

  validation {
    condition     = contains(["standalone", "distributed"], var.mode)
    error_message = "mode must be standalone or distributed."
  }
}

variable "servers" {
  description = "Servers when distributed."
  type        = number
  default     = 4

  validation {
    condition     = var.servers >= 4 && var.servers <= 32 && floor(var.servers) == var.servers
    error_message = "servers must be a whole number from 4 to 32: erasure coding over fewer survives nothing."
  }
  validation {
    condition     = anytrue([for n in range(2, 17) : var.servers % n == 0])
    error_message = "servers must be divisible by a number from 2 to 16: MinIO spreads its erasure sets evenly, and does not start over 17, 19, 23, 29 or 31."
  }
}

variable "volumes_per_server" {
  description = "Volumes of each server when distributed."
  type        = number
  default     = 4

  validation {
    condition     = var.volumes_per_server >= 1 && var.volumes_per_server <= 16 && floor(var.volumes_per_server) == var.volumes_per_server
    error_message = "volumes_per_server must be a whole number from 1 to 16."
  }
}

variable "volume_size" {
  description = "Size of each volume; 10Gi when standalone and 50Gi when distributed, if null."
  type        = string
  default     = null

  validation {
    condition     = var.volume_size == null || can(regex("^[1-9][0-9]*(Gi|Ti)$", var.volume_size))
    error_message = "volume_size must be a quantity such as 50Gi."
  }
}

variable "storage_class" {
  description = "Storage class of the volumes; the cluster's default when null."
  type        = string
  default     = null
}

variable "buckets" {
  description = "Buckets that are to be there."
  type        = list(string)
  default     = ["attic-cache"]

  validation {
    condition     = alltrue([for b in var.buckets : can(regex("^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$", b)) && !can(regex("\\.\\.|\\.-|-\\.|^[0-9]+(\\.[0-9]+){3}$", b))])
    error_message = "buckets must be names of S3 buckets: 3 to 63 lower-case letters, digits, dots and hyphens, no dot beside another or a hyphen, and no address."
  }
}

variable "clients" {
  description = "Values of app.kubernetes.io/instance of the pods in the same namespace that may connect."
  type        = list(string)
  default     = ["attic-cache"]
}

variable "client_clusters" {
  description = "Names of CloudNativePG clusters in the same namespace that may connect, for their backups."
  type        = list(string)
  default     = []
}

variable "operator_namespace" {
  description = "Namespace of the operator."
  type        = string
  default     = "minio-operator"
}

variable "resources" {
  description = "What a server requests, and the memory it may take."
  type = object({
    cpu    = optional(string, "250m")
    memory = optional(string, "1Gi")
  })
  default = {}

  validation {
    condition     = alltrue([for q in values(var.resources) : can(regex("^[0-9]+(\\.[0-9]+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?$", q))])
    error_message = "resources must be quantities such as 500m and 2Gi."
  }
}

variable "rotation" {
  description = "Change it, to anything, for new keys: 1, 2, 3 … The clients must be restarted then."
  type        = string
  default     = "1"
}

variable "monitoring" {
  description = "ServiceMonitor and PrometheusRule; namespace is Prometheus's."
  type = object({
    enabled   = optional(bool, true)
    namespace = optional(string, "monitoring")
    labels    = optional(map(string), {})
  })
  default = {}
}
