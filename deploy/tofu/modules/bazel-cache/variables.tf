variable "name" {
  description = "Name of the server and of its objects."
  type        = string
  default     = "bazel-cache"

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

variable "image" {
  description = "The server's image, as `dagger call publish-image` publishes it, by version or digest."
  type        = string

  validation {
    condition     = can(regex("(:[A-Za-z0-9_][A-Za-z0-9._-]*|@sha256:[0-9a-f]{64})$", var.image)) && !endswith(var.image, ":latest")
    error_message = "image must name a version or a digest, and not latest: with latest a rollback deploys what it rolls back from."
  }
}

variable "image_pull_secret" {
  description = "Secret with the registry's credentials; none when null."
  type        = string
  default     = null
}

variable "labels" {
  description = "Labels that all objects get beside the recommended ones."
  type        = map(string)
  default     = {}
}

variable "single" {
  description = "One replica with SQLite and packs on a volume of its own, instead of replicas over a database and an object store. Volume sizes are Kubernetes quantities."
  type = object({
    size          = optional(string, "120Gi")
    storage_class = optional(string)
  })
  default = null

  validation {
    condition     = var.single == null || can(regex("^[1-9][0-9]*(Gi|Ti)$", var.single.size))
    error_message = "single.size must be a quantity such as 50Gi."
  }
  validation {
    condition     = var.single != null || (var.database != null && var.object_store != null)
    error_message = "Without single, database and object_store say where the replicas keep what they share."
  }
  validation {
    condition     = var.single == null || (var.database == null && var.object_store == null)
    error_message = "single keeps everything on its volume: leave database and object_store out."
  }
}

variable "database" {
  description = "Secret, and its key, with the URI of the PostgreSQL database that holds the index."
  type = object({
    secret = string
    key    = optional(string, "uri")
  })
  default = null
}

variable "object_store" {
  description = "S3 service and bucket that hold the packs, and the secret with its keys. Empty endpoint: AWS. ca_secret: a secret whose ca.crt signs the service's certificate."
  type = object({
    endpoint          = optional(string, "")
    bucket            = string
    prefix            = optional(string, "")
    region            = optional(string, "")
    path_style        = optional(bool, true)
    secret            = string
    access_key_id     = optional(string, "access-key-id")
    secret_access_key = optional(string, "secret-access-key")
    ca_secret         = optional(string)
  })
  default = null

  validation {
    condition     = var.object_store == null || can(regex("^(https?://([A-Za-z0-9._-]+|\\[[0-9A-Fa-f:.]+\\])(:[0-9]{1,5})?)?$", var.object_store.endpoint))
    error_message = "object_store.endpoint must be a URL without a path, such as https://minio.example.org:9000."
  }
  validation {
    condition     = var.object_store == null || (can(regex("^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$", var.object_store.bucket)) && !can(regex("\\.\\.|\\.-|-\\.|^[0-9]+(\\.[0-9]+){3}$", var.object_store.bucket)))
    error_message = "object_store.bucket must be the name of an S3 bucket: 3 to 63 lower-case letters, digits, dots and hyphens, no dot beside another or a hyphen, and no address."
  }
  validation {
    condition     = var.object_store == null || alltrue([for part in split("/", trim(var.object_store.prefix, "/")) : can(regex("^[A-Za-z0-9._-]*$", part)) && !contains([".", ".."], part) && (part != "" || trim(var.object_store.prefix, "/") == "")])
    error_message = "object_store.prefix must be names of letters, digits, dots, underscores and hyphens with / between them."
  }
}

variable "replicas" {
  description = "How many replicas the autoscaler keeps, and the CPU use, in percent of what is requested, that it aims at."
  type = object({
    min = optional(number, 2)
    max = optional(number, 6)
    cpu = optional(number, 70)
  })
  default = {}

  validation {
    condition     = var.replicas.min >= 1 && var.replicas.max >= var.replicas.min && var.replicas.max <= 100 && floor(var.replicas.min) == var.replicas.min && floor(var.replicas.max) == var.replicas.max
    error_message = "replicas must be whole numbers, 1 <= min <= max <= 100."
  }
  validation {
    condition     = var.replicas.cpu > 0 && var.replicas.cpu <= 100 && floor(var.replicas.cpu) == var.replicas.cpu
    error_message = "replicas.cpu is a percentage, a whole number above 0 and at most 100."
  }
}

variable "pack_cache" {
  description = "How much of the packs each replica keeps on a volume that lives as long as the replica, in GiB, and that volume's storage class."
  type = object({
    gib           = optional(number, 50)
    storage_class = optional(string)
  })
  default = {}

  validation {
    condition     = var.pack_cache.gib >= 1 && floor(var.pack_cache.gib) == var.pack_cache.gib
    error_message = "pack_cache.gib must be a whole number of GiB, 1 or more."
  }
}

variable "bazel_retention" {
  description = "How long Bazel's blobs and action results live after their last use; more than 6h where max_size is to evict some."
  type        = string
  default     = "14d"

  validation {
    condition     = can(regex("^[1-9][0-9]*(d|h)$", var.bazel_retention)) && try(tonumber(trimsuffix(trimsuffix(var.bazel_retention, "d"), "h")) * (endswith(var.bazel_retention, "d") ? 24 : 1) <= 200 * 365 * 24, false)
    error_message = "bazel_retention must be days such as 30d, or hours such as 36h, of at most 200 years."
  }
}

variable "max_size" {
  description = "How much the packs may take, such as 200GB; no limit when null. What was used longest ago goes first."
  type        = string
  default     = "100GB"

  validation {
    condition     = var.max_size == null || can(regex("^[1-9][0-9]{0,5}(\\.[0-9]+)?[KMGT]i?B$", var.max_size))
    error_message = "max_size must be a size such as 200GB or 1.5TiB, with at most six digits before the unit."
  }
  validation {
    condition = var.single == null || var.max_size == null || try(
      tonumber(regex("^[0-9.]+", var.max_size)) * pow(strcontains(var.max_size, "i") ? 1024 : 1000, index(["K", "M", "G", "T"], regex("[KMGT]", var.max_size)) + 1)
      <= tonumber(regex("^[0-9]+", var.single.size)) * pow(1024, endswith(var.single.size, "Ti") ? 4 : 3), true
    )
    error_message = "max_size is more than the volume of single: it would be full, and pushes refused, before anything is evicted."
  }
}

variable "config" {
  description = "TOML for the server's --config: caches, and who may do what. Settings that this module makes itself go before it."
  type        = string
  default     = ""
}

variable "config_secret" {
  description = "Secret with files that config names, such as hs256.key; mounted at /etc/cacheserver/secrets."
  type        = string
  default     = null
}

variable "routing" {
  description = "How clients reach the server: kind gateway (Gateway API), ingress or none. gRPC, which Bazel speaks, has a host name of its own, since an HTTPRoute and a GRPCRoute may not share one; null makes it from host (cache.example.org: cache-grpc.example.org), an empty one leaves gRPC out."
  type = object({
    kind      = optional(string, "none")
    host      = optional(string, "")
    grpc_host = optional(string)
    gateway = optional(object({
      name      = string
      namespace = string
      section   = optional(string)
    }))
    ingress_class       = optional(string)
    ingress_controller  = optional(string, "other")
    ingress_annotations = optional(map(string), {})
    tls_secret          = optional(string)
  })
  default = {}

  validation {
    condition     = contains(["gateway", "ingress", "none"], var.routing.kind)
    error_message = "routing.kind must be gateway, ingress or none."
  }
  validation {
    condition     = var.routing.kind == "none" || can(regex("^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)+$", var.routing.host))
    error_message = "routing.host must be a host name such as attic-cache.example.org."
  }
  validation {
    condition     = var.routing.kind != "gateway" || var.routing.gateway != null
    error_message = "routing.gateway must name the Gateway that routes attach to."
  }
  validation {
    condition     = contains(["nginx", "traefik", "other"], var.routing.ingress_controller)
    error_message = "routing.ingress_controller must be nginx, traefik or other: it decides which annotations streaming and gRPC need."
  }
  validation {
    condition     = var.routing.grpc_host == null || var.routing.grpc_host == "" || var.routing.grpc_host != var.routing.host
    error_message = "routing.grpc_host must differ from routing.host."
  }
  validation {
    condition     = coalesce(var.routing.grpc_host, "-") == "-" || can(regex("^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)+$", var.routing.grpc_host))
    error_message = "routing.grpc_host must be a host name such as attic-cache-grpc.example.org."
  }
}

variable "network" {
  description = "Who may reach the server, by namespace, and what it may reach beyond the pods of its own namespace and DNS. clients: namespaces of gateways and of in-cluster clients; monitoring: Prometheus's; egress: CIDRs and ports of databases and object stores elsewhere."
  type = object({
    enabled    = optional(bool, true)
    clients    = optional(list(string), [])
    monitoring = optional(string, "monitoring")
    egress = optional(list(object({
      cidr  = string
      ports = list(number)
    })), [])
  })
  default = {}

  validation {
    condition     = alltrue([for e in var.network.egress : can(cidrhost(e.cidr, 0)) && length(e.ports) > 0 && alltrue([for p in e.ports : p >= 1 && p <= 65535 && floor(p) == p])])
    error_message = "network.egress needs CIDRs such as 10.0.0.0/8, each with a port at least, from 1 to 65535."
  }
}

variable "monitoring" {
  description = "ServiceMonitor and PrometheusRule, where the Prometheus operator's resource definitions are there; labels are those that Prometheus selects them by."
  type = object({
    enabled = optional(bool, true)
    labels  = optional(map(string), {})
  })
  default = {}
}

variable "wait" {
  description = "Wait until the rollout is complete."
  type        = bool
  default     = true
}
