variable "name" {
  description = "Name of the CronJob and of its objects."
  type        = string
  default     = "runner-tokens"

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
  description = "Image with flywheel as its entrypoint, by version or digest."
  type        = string

  validation {
    condition     = can(regex("(:[A-Za-z0-9_][A-Za-z0-9._-]*|@sha256:[0-9a-f]{64})$", var.image)) && !endswith(var.image, ":latest")
    error_message = "image must name a version or a digest, and not latest."
  }
}

variable "gitlab_url" {
  description = "URL of the GitLab."
  type        = string
  default     = "https://gitlab.com"

  validation {
    condition     = can(regex("^https://[A-Za-z0-9.-]+(:[0-9]{1,5})?$", var.gitlab_url))
    error_message = "gitlab_url must be https and without a path: runners' tokens go there."
  }
}

variable "group_id" {
  description = "ID of the group that the runners belong to; for a project's runners, null."
  type        = number
  default     = null
}

variable "project_id" {
  description = "ID of the project that the runners belong to; for a group's runners, null."
  type        = number
  default     = null

  validation {
    condition     = (var.group_id == null) != (var.project_id == null)
    error_message = "Either group_id or project_id says whose the runners are."
  }
  validation {
    condition     = alltrue([for id in compact([var.group_id, var.project_id]) : tonumber(id) > 0 && floor(tonumber(id)) == tonumber(id)])
    error_message = "group_id and project_id are the numbers that GitLab shows on the group's or project's page."
  }
}

variable "runners" {
  description = "Runners by name: tags, the secret that their token is kept in (as runner-token), what jobs they take, and for how many seconds at most (timeout; 0: what the project says)."
  type = map(object({
    tags         = list(string)
    secret       = string
    description  = optional(string, "")
    run_untagged = optional(bool, false)
    protected    = optional(bool, false)
    timeout      = optional(number, 7200)
  }))

  validation {
    condition     = length(var.runners) > 0 && alltrue([for r in var.runners : r.run_untagged || length(r.tags) > 0])
    error_message = "runners needs one at least, and each tags, or run_untagged: it would get no job."
  }
  validation {
    condition     = alltrue([for r in var.runners : (r.timeout == 0 || r.timeout >= 600) && floor(r.timeout) == r.timeout])
    error_message = "timeout is whole seconds: GitLab takes none below 600, and 0 is the project's."
  }
  validation {
    condition     = length(distinct([for r in var.runners : r.secret])) == length(var.runners)
    error_message = "Two runners may not keep their tokens in the same secret."
  }
  validation {
    condition     = alltrue([for name, r in var.runners : name != "" && length(r.secret) <= 253 && can(regex("^[a-z0-9]([a-z0-9-]*[a-z0-9])?(\\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*$", r.secret))])
    error_message = "Each runner has a name, and its secret is the name of one: lower-case letters, digits, hyphens and dots."
  }
}

variable "token_secret" {
  description = "Secret, and its key, with the group's or project's access token that may create and delete runners (scopes create_runner and manage_runner, role Owner or Maintainer)."
  type = object({
    secret = string
    key    = optional(string, "token")
  })
}

variable "schedule" {
  description = "When tokens are looked at, as cron writes it."
  type        = string
  default     = "17 3 * * *"

  validation {
    condition     = length(split(" ", var.schedule)) == 5
    error_message = "schedule has five fields."
  }
}

variable "rotate_before" {
  description = "How long before its end a token is replaced, as Go writes durations."
  type        = string
  default     = "168h"

  validation {
    condition     = can(regex("^[1-9][0-9]{0,5}h$", var.rotate_before))
    error_message = "rotate_before must be hours, such as 168h."
  }
}

variable "stale_after" {
  description = "How long a runner of this fleet has not asked for jobs when it is removed."
  type        = string
  default     = "720h"

  validation {
    condition     = can(regex("^[1-9][0-9]{0,5}h$", var.stale_after))
    error_message = "stale_after must be hours, such as 720h."
  }
}
