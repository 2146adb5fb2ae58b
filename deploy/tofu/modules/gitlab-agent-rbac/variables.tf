variable "name" {
  description = "Prefix of the cluster roles and of the admission policy."
  type        = string
  default     = "attic-cache"

  validation {
    condition     = can(regex("^[a-z]([a-z0-9-]{0,38}[a-z0-9])?$", var.name))
    error_message = "name must be a DNS label of at most 40 characters: suffixes are added to it."
  }
}

variable "labels" {
  description = "Labels that all objects get beside the recommended ones."
  type        = map(string)
  default     = {}
}

variable "project_id" {
  description = "ID of the GitLab project whose jobs deploy."
  type        = number

  validation {
    condition     = var.project_id > 0 && floor(var.project_id) == var.project_id
    error_message = "project_id must be the project's number, which its page in GitLab shows."
  }
}

variable "environments" {
  description = "Namespaces that are made, each with the environment (its slug in GitLab) whose jobs may deploy to it."
  type        = map(object({ environment = string }))
  default     = {}

  validation {
    condition     = alltrue([for namespace, e in var.environments : can(regex("^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$", namespace))])
    error_message = "The keys of environments are namespaces, which are DNS labels."
  }
  validation {
    condition     = alltrue([for e in var.environments : can(regex("^[a-z0-9]([a-z0-9-]{0,22}[a-z0-9])?$", e.environment))])
    error_message = "environment must be the slug of an environment: at most 24 lower-case letters, digits and hyphens."
  }
}

variable "review" {
  description = "Jobs of environments of this tier may make namespaces that begin with prefix, deploy to them and delete them, and reach no other. Null where the cluster has no review environments. Needs Kubernetes 1.30."
  type = object({
    tier   = optional(string, "development")
    prefix = optional(string, "attic-cache-review-")
  })
  default = null

  validation {
    condition     = var.review == null || contains(["production", "staging", "testing", "development", "other"], try(var.review.tier, ""))
    error_message = "review.tier must be one of GitLab's tiers: production, staging, testing, development, other."
  }
  validation {
    condition     = var.review == null || can(regex("^[a-z][a-z0-9-]{4,38}-$", try(var.review.prefix, "")))
    error_message = "review.prefix must begin with a letter, end with a hyphen and have 6 to 40 characters: a shorter one would cover what is not a review environment."
  }
}

variable "viewers" {
  description = "Namespaces, which must be there, in which all jobs of the project may see workloads, without secrets: for flywheel health runners."
  type        = list(string)
  default     = []
}
