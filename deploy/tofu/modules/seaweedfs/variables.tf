variable "name" {
  description = "Name of the store and of its objects."
  type        = string
  default     = "attic-cache-s3"

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
  description = "SeaweedFS's image."
  type        = string
  default     = "chrislusf/seaweedfs:4.05"

  validation {
    condition     = can(regex("(:[A-Za-z0-9_][A-Za-z0-9._-]*|@sha256:[0-9a-f]{64})$", var.image)) && !endswith(var.image, ":latest")
    error_message = "image must name a version or a digest, and not latest."
  }
}

variable "masters" {
  description = "Masters, which agree on where volumes are: 1, or 3 for what must survive a node."
  type        = number
  default     = 1

  validation {
    condition     = contains([1, 3, 5], var.masters)
    error_message = "masters must be 1, 3 or 5: they decide by majority."
  }
}

variable "volume_servers" {
  description = "Servers that keep the data, each on a volume of its own."
  type        = number
  default     = 1

  validation {
    condition     = var.volume_servers >= 1 && floor(var.volume_servers) == var.volume_servers
    error_message = "volume_servers must be a whole number, 1 or more."
  }
  validation {
    condition     = var.volume_servers > tonumber(substr(var.replication, 2, 1))
    error_message = "replication asks for more copies on different servers than there are volume_servers."
  }
}

variable "replication" {
  description = "Copies, as SeaweedFS writes them: 000 one, 001 two on different servers, 002 three."
  type        = string
  default     = "000"

  validation {
    condition     = can(regex("^00[0-2]$", var.replication))
    error_message = "replication must be 000, 001 or 002."
  }
}

variable "gateways" {
  description = "S3 gateways, which hold no state."
  type        = number
  default     = 1

  validation {
    condition     = var.gateways >= 1 && floor(var.gateways) == var.gateways
    error_message = "gateways must be a whole number, 1 or more."
  }
}

variable "storage" {
  description = "Volumes: of each volume server, of the filer (names, about 1 GiB for a million packs), of each master; and their storage class."
  type = object({
    volume        = optional(string, "10Gi")
    filer         = optional(string, "5Gi")
    master        = optional(string, "1Gi")
    storage_class = optional(string)
  })
  default = {}

  validation {
    condition     = alltrue([for s in [var.storage.volume, var.storage.filer, var.storage.master] : can(regex("^[1-9][0-9]*(Gi|Ti)$", s))])
    error_message = "storage needs quantities such as 10Gi."
  }
}

variable "buckets" {
  description = "Buckets that are to be there."
  type        = list(string)
  default     = ["attic-cache"]

  validation {
    condition     = length(var.buckets) > 0 && alltrue([for b in var.buckets : can(regex("^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$", b)) && !can(regex("\\.\\.|\\.-|-\\.|^[0-9]+(\\.[0-9]+){3}$", b))])
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

variable "resources" {
  description = "What each process requests, and the memory it may take."
  type = object({
    cpu    = optional(string, "100m")
    memory = optional(string, "512Mi")
  })
  default = {}

  validation {
    condition     = alltrue([for q in values(var.resources) : can(regex("^[0-9]+(\\.[0-9]+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?$", q))])
    error_message = "resources must be quantities such as 500m and 2Gi."
  }
}

variable "rotation" {
  description = "Change it, to anything, for new keys: 1, 2, 3 … The gateways are restarted by it; the clients must be."
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

variable "wait" {
  description = "Wait until the rollout is complete."
  type        = bool
  default     = true
}
