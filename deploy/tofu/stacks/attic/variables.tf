variable "kube_context" {
  description = "Context of the kubeconfig: in jobs, path/to/agents:agent. The current one when null."
  type        = string
  default     = null
}

variable "environment" {
  description = "Name of the environment, which objects get as a label."
  type        = string
  default     = "development"

  validation {
    condition     = can(regex("^[A-Za-z0-9]([A-Za-z0-9_./-]{0,61}[A-Za-z0-9])?$", var.environment))
    error_message = "environment must be a name such as staging or review/my-branch, of at most 63 characters."
  }
}

variable "domain" {
  description = "Domain of the cluster, under which host names are made."
  type        = string

  validation {
    condition     = can(regex("^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)+$", var.domain))
    error_message = "domain must be a domain such as rigel.bates.edu."
  }
}

variable "host" {
  description = "Host name of the cache; attic-cache under domain when null."
  type        = string
  default     = null
}

variable "namespace" {
  description = "Namespace of everything."
  type        = string
  default     = "attic-cache"

  validation {
    condition     = can(regex("^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$", var.namespace))
    error_message = "namespace must be a DNS label."
  }
}

variable "create_namespace" {
  description = "Make the namespace, as review environments do, and delete it with the rest. Otherwise the stack cluster has made it."
  type        = bool
  default     = false
}

variable "deployer" {
  description = "Group and ClusterRole that a review environment's job binds in the namespace it makes (outputs of the stack cluster); null where rights are there already."
  type = object({
    group = string
    role  = optional(string, "attic-cache-deployer")
  })
  default = null

  validation {
    condition     = var.deployer == null || var.create_namespace
    error_message = "deployer is for namespaces that the stack makes: set create_namespace."
  }
}

variable "image" {
  description = "The server's image, by version or digest."
  type        = string
  default     = "registry.gitlab.com/bates-ils/projects/iac/attic-cache:v1.0.0"
}

variable "replicas" {
  description = "How many replicas the autoscaler keeps, and the CPU use in percent that it aims at."
  type = object({
    min = optional(number, 2)
    max = optional(number, 10)
    cpu = optional(number, 70)
  })
  default = {}
}

variable "pack_cache" {
  description = "How much of the packs each replica keeps on a volume that lives as long as it, in GiB, and that volume's storage class."
  type = object({
    gib           = optional(number, 20)
    storage_class = optional(string)
  })
  default = {}
}

variable "retention" {
  description = "How long paths live after their last use."
  type        = string
  default     = "90d"
}

variable "max_size" {
  description = "How much the packs may take; keep it below what the object store holds. No limit when null."
  type        = string
  default     = null
}

variable "config" {
  description = "TOML for the server: caches, and who may do what."
  type        = string
  default     = ""
}

variable "config_secret" {
  description = "Secret with files that config names."
  type        = string
  default     = null
}

variable "routing" {
  description = "How clients reach the cache: kind gateway (Gateway API), ingress or none, and its Gateway or ingress class, as in the module cache-server."
  type = object({
    kind                = optional(string, "gateway")
    gateway             = optional(object({ name = string, namespace = string, section = optional(string) }))
    ingress_class       = optional(string)
    ingress_controller  = optional(string, "other")
    ingress_annotations = optional(map(string), {})
    tls_secret          = optional(string)
  })
  default = {}
}

variable "dns_target" {
  description = "What the host names point to: the gateway's host name, or an address. No records when null, as where a wildcard covers them."
  type        = string
  default     = null
}

variable "clients" {
  description = "Namespaces that reach the cache inside the cluster: gateways', runners'."
  type        = list(string)
  default     = []
}

variable "egress" {
  description = "What the servers may reach outside the namespace beside the external object store, by CIDR and ports: upstreams of caches, an issuer of tokens, a collector of traces."
  type = list(object({
    cidr  = string
    ports = list(number)
  }))
  default = []
}

variable "object_store" {
  description = "Where packs are: minio or seaweedfs in the namespace, or external by the s3_ variables."
  type        = string
  default     = null

  validation {
    condition     = var.object_store == null || contains(["minio", "seaweedfs", "external"], coalesce(var.object_store, "-"))
    error_message = "object_store must be minio, seaweedfs or external."
  }
}

variable "use_minio" {
  description = "The older name: true is object_store = minio, false is external. minio when neither is set."
  type        = bool
  default     = null

  validation {
    condition     = var.use_minio == null || var.object_store == null || (var.use_minio == true) == (var.object_store == "minio")
    error_message = "use_minio and object_store contradict each other: leave use_minio out."
  }
}

variable "minio" {
  description = "MinIO: standalone (one server, one volume) or distributed, and sizes, as in the module minio-tenant."
  type = object({
    mode               = optional(string, "standalone")
    servers            = optional(number, 4)
    volumes_per_server = optional(number, 4)
    volume_size        = optional(string)
  })
  default = {}
}

variable "seaweedfs" {
  description = "SeaweedFS: how many of each, copies and volume sizes, as in the module seaweedfs."
  type = object({
    masters        = optional(number, 1)
    volume_servers = optional(number, 1)
    gateways       = optional(number, 1)
    replication    = optional(string, "000")
    volume_size    = optional(string, "10Gi")
  })
  default = {}
}

variable "storage_class" {
  description = "Storage class of the database's and the object store's volumes; the cluster's default when null."
  type        = string
  default     = null
}

variable "s3_endpoint" {
  description = "URL of the external S3 service; empty for AWS."
  type        = string
  default     = ""
}

variable "s3_region" {
  description = "Region of the external bucket."
  type        = string
  default     = ""
}

variable "s3_bucket_name" {
  description = "Bucket on the external S3 service."
  type        = string
  default     = ""

  validation {
    condition     = var.s3_bucket_name != "" || coalesce(var.object_store, var.use_minio == false ? "external" : "minio") != "external"
    error_message = "With an external object store, s3_bucket_name, s3_access_key_id and s3_secret_access_key are required: set the variables S3_BUCKET_NAME, S3_ACCESS_KEY_ID and S3_SECRET_ACCESS_KEY of the project."
  }
}

variable "s3_access_key_id" {
  description = "ID of the access key of the external bucket."
  type        = string
  default     = ""
  sensitive   = true
}

variable "s3_secret_access_key" {
  description = "Secret of the access key of the external bucket."
  type        = string
  default     = ""
  sensitive   = true

  validation {
    condition     = (var.s3_access_key_id != "" && var.s3_secret_access_key != "") || coalesce(var.object_store, var.use_minio == false ? "external" : "minio") != "external"
    error_message = "With an external object store, s3_access_key_id and s3_secret_access_key are required: set the variables S3_ACCESS_KEY_ID and S3_SECRET_ACCESS_KEY of the project."
  }
}

variable "postgresql" {
  description = "PostgreSQL: instances, volumes, backup_method and restore, as in the module postgresql-cnpg; backups to the object store, and how long they are kept (none when null)."
  type = object({
    instances = optional(number, 1)
    size      = optional(string, "10Gi")
    wal_size  = optional(string)
    backups   = optional(string)
    name      = optional(string, "attic-cache-db")
    restore   = optional(object({ name = string, time = optional(string) }))

    backup_method = optional(string, "in-tree")
  })
  default = {}
}

variable "bazel_cache" {
  description = "A second server for Bazel with a store of its own, and with a config of its own, which may name files of config_secret; null for none, and then Bazel uses the first."
  type = object({
    max_size  = optional(string, "100GB")
    retention = optional(string, "14d")
    volume    = optional(string, "120Gi")
    config    = optional(string, "")
  })
  default = null

  validation {
    condition     = var.bazel_cache == null || !can(regex("(?m)^\\s*(\\[+\\s*)?auth\\b", var.config)) || can(regex("(?m)^\\s*(\\[+\\s*)?auth\\b", var.bazel_cache.config))
    error_message = "config has [auth], and bazel_cache.config has none: everybody could write to the second server."
  }
}

variable "monitoring" {
  description = "ServiceMonitors, PodMonitors and alerts, the namespace of Prometheus, and the labels it selects them by."
  type = object({
    enabled   = optional(bool, true)
    namespace = optional(string, "monitoring")
    labels    = optional(map(string), {})
  })
  default = {}
}

variable "rotation" {
  description = "Change it for new keys of the object store in the namespace: 1, 2, 3 …"
  type        = string
  default     = "1"
}

variable "wait" {
  description = "Wait until rollouts are complete. flywheel deploy waits itself, and says why one failed."
  type        = bool
  default     = true
}
