variable "name" {
  description = "Name of the cluster and of its objects."
  type        = string
  default     = "attic-cache-db"

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
  description = "PostgreSQL's image, as CloudNativePG's operand images are."
  type        = string
  default     = "ghcr.io/cloudnative-pg/postgresql:17.5"

  validation {
    condition     = can(regex("(:[A-Za-z0-9_][A-Za-z0-9._-]*|@sha256:[0-9a-f]{64})$", var.image)) && !endswith(var.image, ":latest")
    error_message = "image must name a version or a digest, and not latest."
  }
}

variable "instances" {
  description = "One primary and its replicas: 1 for development, 3 for what must survive a node."
  type        = number
  default     = 1

  validation {
    condition     = var.instances >= 1 && var.instances <= 9 && floor(var.instances) == var.instances
    error_message = "instances must be a whole number from 1 to 9."
  }
}

variable "synchronous" {
  description = "A commit waits for a replica, so that no acknowledged push is lost with the primary's node. With 3 instances or more; it goes on alone when no replica is there."
  type        = bool
  default     = true
}

variable "database" {
  description = "Name of the database."
  type        = string
  default     = "cache"

  validation {
    condition     = can(regex("^[a-z_][a-z0-9_]{0,62}$", var.database)) && !startswith(var.database, "pg_") && !contains(["postgres", "template0", "template1", "public", "none"], var.database)
    error_message = "database must be lower-case letters, digits and underscores, and no name that PostgreSQL keeps to itself: it is its owner's name, too."
  }
}

variable "storage" {
  description = "Volume of each instance, and one for its write-ahead log (none when wal_size is null)."
  type = object({
    size          = optional(string, "10Gi")
    wal_size      = optional(string)
    storage_class = optional(string)
  })
  default = {}

  validation {
    condition     = can(regex("^[1-9][0-9]*(Gi|Ti)$", var.storage.size))
    error_message = "storage.size must be a quantity such as 10Gi."
  }
  validation {
    condition     = var.storage.wal_size == null || can(regex("^[1-9][0-9]*(Gi|Ti)$", var.storage.wal_size))
    error_message = "storage.wal_size must be a quantity such as 5Gi, or null."
  }
}

variable "resources" {
  description = "What an instance requests, and the memory it may take."
  type = object({
    cpu    = optional(string, "500m")
    memory = optional(string, "1Gi")
  })
  default = {}

  validation {
    condition     = alltrue([for q in values(var.resources) : can(regex("^[0-9]+(\\.[0-9]+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?$", q))])
    error_message = "resources must be quantities such as 500m and 2Gi."
  }
}

variable "parameters" {
  description = "PostgreSQL's settings."
  type        = map(string)
  default     = {}
}

variable "max_connections" {
  description = "How many connections PostgreSQL takes: more than all replicas of the servers together open."
  type        = number
  default     = 300

  validation {
    condition     = var.max_connections >= 20 && var.max_connections <= 5000 && floor(var.max_connections) == var.max_connections
    error_message = "max_connections must be a whole number from 20 to 5000."
  }
}

variable "backup" {
  description = "Where backups and the write-ahead log go: an S3 bucket, the secret with its keys, how long backups are kept, and when base backups are made (cron with seconds); sidecar is what the plugin's container requests, and the memory it may take. None when null."
  type = object({
    endpoint          = optional(string, "")
    bucket            = string
    prefix            = optional(string, "")
    secret            = string
    access_key_id     = optional(string, "access-key-id")
    secret_access_key = optional(string, "secret-access-key")
    retention         = optional(string, "14d")
    schedule          = optional(string, "0 30 2 * * *")
    sidecar = optional(object({
      cpu    = optional(string, "100m")
      memory = optional(string, "512Mi")
    }), {})
  })
  default = null

  validation {
    condition     = var.backup == null || can(regex("^[1-9][0-9]*[dwm]$", var.backup.retention))
    error_message = "backup.retention must be a number of days, weeks or months, such as 14d."
  }
  validation {
    condition     = var.backup == null || length(split(" ", var.backup.schedule)) == 6
    error_message = "backup.schedule has six fields, the first of them seconds."
  }
  validation {
    condition     = var.backup == null || (can(regex("^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$", var.backup.bucket)) && !can(regex("\\.\\.|\\.-|-\\.|^[0-9]+(\\.[0-9]+){3}$", var.backup.bucket)))
    error_message = "backup.bucket must be the name of an S3 bucket: 3 to 63 lower-case letters, digits, dots and hyphens, no dot beside another or a hyphen, and no address."
  }
  validation {
    condition     = var.backup == null || can(regex("^(https?://[^/\\s]+/?)?$", var.backup.endpoint))
    error_message = "backup.endpoint must be a URL without a path, such as https://minio.example.org:9000."
  }
}

variable "backup_method" {
  description = "How backups are made and read: in-tree by the operator itself, deprecated since its release 1.26 and still in 1.27, which the stack cluster pins; plugin by the Barman Cloud plugin, which must be installed beside the operator."
  type        = string
  default     = "in-tree"

  validation {
    condition     = contains(["in-tree", "plugin"], var.backup_method)
    error_message = "backup_method must be in-tree or plugin."
  }
}

variable "restore_from" {
  description = "Begin with a backup instead of an empty database: the name under which the lost cluster backed up to backup's bucket, and up to when (RFC 3339; all that is there when null)."
  type = object({
    name = string
    time = optional(string)
  })
  default = null

  validation {
    condition     = try(var.restore_from.time, null) == null || can(formatdate("YYYY", var.restore_from.time))
    error_message = "restore_from.time must be a time such as 2026-11-23T16:30:00Z."
  }
  validation {
    condition     = var.restore_from == null || var.backup != null
    error_message = "restore_from needs backup, which says where the backups are."
  }
  validation {
    condition     = var.restore_from == null || try(var.restore_from.name, "") != var.name
    error_message = "restore_from.name must differ from name: the new cluster may not write its log over the old one's."
  }
}

variable "clients" {
  description = "Values of app.kubernetes.io/instance of the pods in the same namespace that may connect."
  type        = list(string)
  default     = ["attic-cache"]
}

variable "operator_namespace" {
  description = "Namespace of the operator."
  type        = string
  default     = "cnpg-system"
}

variable "monitoring" {
  description = "PodMonitor, PrometheusRule and what the metrics come through; namespace is Prometheus's."
  type = object({
    enabled   = optional(bool, true)
    namespace = optional(string, "monitoring")
    labels    = optional(map(string), {})
  })
  default = {}
}
