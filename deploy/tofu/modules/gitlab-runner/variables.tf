variable "name" {
  description = "Name of the runner and of its objects."
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
  description = "GitLab Runner's image."
  type        = string
  default     = "registry.gitlab.com/gitlab-org/gitlab-runner:alpine-v18.5.0"

  validation {
    condition     = can(regex("(:[A-Za-z0-9_][A-Za-z0-9._-]*|@sha256:[0-9a-f]{64})$", var.image)) && !endswith(var.image, ":latest")
    error_message = "image must name a version or a digest, and not latest."
  }
}

variable "type" {
  description = "docker, dind, rocky8, rocky9 or nix: the tags, the image and the rights of jobs follow from it."
  type        = string

  validation {
    condition     = contains(["docker", "dind", "rocky8", "rocky9", "nix"], var.type)
    error_message = "type must be docker, dind, rocky8, rocky9 or nix."
  }
}

variable "job_namespace" {
  description = "Namespace of the jobs, which must be there; the runner's own when null."
  type        = string
  default     = null
}

variable "gitlab_url" {
  description = "URL of the GitLab."
  type        = string
  default     = "https://gitlab.com"

  validation {
    condition     = can(regex("^https://[A-Za-z0-9.-]+(:[0-9]{1,5})?$", var.gitlab_url))
    error_message = "gitlab_url must be https and without a path: the runner's token goes there."
  }
}

variable "token_secret" {
  description = "Secret with the runner's token (glrt-…) as runner-token. GitLab keeps the tags of such a runner: they are set where it is created."
  type        = string
}

variable "job_image" {
  description = "Image of jobs that name none; the type's when null."
  type        = string
  default     = null

  validation {
    condition     = var.job_image == null || (can(regex("(:[A-Za-z0-9_][A-Za-z0-9._-]*|@sha256:[0-9a-f]{64})$", var.job_image)) && !endswith(coalesce(var.job_image, "-"), ":latest"))
    error_message = "job_image must name a version or a digest, and not latest."
  }
}

variable "concurrent" {
  description = "Jobs that one replica runs at a time."
  type        = number
  default     = 10

  validation {
    condition     = var.concurrent >= 1 && var.concurrent <= 200 && floor(var.concurrent) == var.concurrent
    error_message = "concurrent must be a whole number from 1 to 200."
  }
}

variable "replicas" {
  description = "How many replicas the autoscaler keeps; cpu is the use in percent of what is requested. jobs_metric: scale by the share of slots that are taken instead, where an adapter serves Prometheus's gitlab_runner_jobs as a metric of pods."
  type = object({
    min         = optional(number, 1)
    max         = optional(number, 5)
    cpu         = optional(number, 70)
    jobs_metric = optional(bool, false)
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
  description = "What a replica requests, and the memory it may take: it only watches jobs."
  type = object({
    cpu          = optional(string, "200m")
    memory       = optional(string, "256Mi")
    memory_limit = optional(string, "512Mi")
  })
  default = {}

  validation {
    condition     = alltrue([for q in values(var.resources) : can(regex("^[0-9]+(\\.[0-9]+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?$", q))])
    error_message = "resources must be quantities such as 500m and 2Gi."
  }
}

variable "job_resources" {
  description = "What a job's container requests, the memory it may take, and how much a job may ask for with KUBERNETES_CPU_REQUEST and its like."
  type = object({
    cpu          = optional(string, "1")
    memory       = optional(string, "2Gi")
    memory_limit = optional(string, "4Gi")
    max_cpu      = optional(string, "8")
    max_memory   = optional(string, "16Gi")
  })
  default = {}

  # A quantity that Kubernetes does not take fails each job, not the apply.
  validation {
    condition     = alltrue([for q in values(var.job_resources) : can(regex("^[0-9]+(\\.[0-9]+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?$", q))])
    error_message = "job_resources must be quantities such as 500m, 2 and 4Gi."
  }
  validation {
    condition = try(
      tonumber(regex("^[0-9.]+", var.job_resources.memory)) * { "" = 1, m = 0.001, k = 1e3, M = 1e6, G = 1e9, T = 1e12, Ki = 1024, Mi = pow(1024, 2), Gi = pow(1024, 3), Ti = pow(1024, 4) }[regex("[a-zA-Z]*$", var.job_resources.memory)]
      <= tonumber(regex("^[0-9.]+", var.job_resources.memory_limit)) * { "" = 1, m = 0.001, k = 1e3, M = 1e6, G = 1e9, T = 1e12, Ki = 1024, Mi = pow(1024, 2), Gi = pow(1024, 3), Ti = pow(1024, 4) }[regex("[a-zA-Z]*$", var.job_resources.memory_limit)], true
    )
    error_message = "job_resources.memory is more than memory_limit: Kubernetes would refuse the pod of each job."
  }
}

variable "cache" {
  description = "The Nix cache that jobs of the type nix pull from, push to, and trust by its key."
  type = object({
    url        = string
    public_key = optional(string, "")
  })
  default = null

  validation {
    condition     = var.cache == null || can(regex("^https?://[^\\s]+$", try(var.cache.url, "")))
    error_message = "cache.url must be a URL such as https://attic-cache.example.org/main."
  }
  validation {
    condition     = try(coalesce(var.cache.public_key), "") == "" || can(regex("^[^:\\s]+:[A-Za-z0-9+/]+=*$", var.cache.public_key))
    error_message = "cache.public_key must be a key as cacheserver prints it: a name, a colon and base64. Nix ends every job on another."
  }
  validation {
    condition     = var.type != "nix" || var.cache != null
    error_message = "The type nix needs cache: it is what these runners are for."
  }
}

variable "environment" {
  description = "Further environment variables of jobs. Not for secrets."
  type        = map(string)
  default     = {}

  validation {
    condition     = alltrue([for k, v in var.environment : can(regex("^[A-Za-z_][A-Za-z0-9_]*$", k))])
    error_message = "The keys of environment must be names of environment variables."
  }
}

variable "stop_seconds" {
  description = "How long a replica that ends waits for its jobs."
  type        = number
  default     = 3600

  validation {
    condition     = var.stop_seconds >= 60 && floor(var.stop_seconds) == var.stop_seconds
    error_message = "stop_seconds must be a whole number, 60 at least: what runs then is killed."
  }
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
