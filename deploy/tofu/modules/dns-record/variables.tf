variable "name" {
  description = "Name of the object."
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

variable "records" {
  description = "Records by name: type A, AAAA, CNAME or TXT, what it points to, and how long it may be remembered, in seconds."
  type = map(object({
    type    = optional(string, "CNAME")
    targets = list(string)
    ttl     = optional(number, 300)
  }))

  validation {
    condition     = length(var.records) > 0 && alltrue([for r in var.records : length(r.targets) > 0])
    error_message = "records needs one at least, each with a target at least."
  }
  validation {
    condition     = alltrue([for r in var.records : contains(["A", "AAAA", "CNAME", "TXT"], r.type)])
    error_message = "The type of a record must be A, AAAA, CNAME or TXT."
  }
  validation {
    condition     = alltrue([for r in var.records : r.type != "CNAME" || length(r.targets) == 1])
    error_message = "A CNAME has one target."
  }
  validation {
    condition     = alltrue([for r in var.records : r.type != "A" || alltrue([for t in r.targets : can(cidrhost("${t}/32", 0)) && !strcontains(t, ":")])])
    error_message = "The targets of an A record are IPv4 addresses."
  }
  validation {
    condition     = alltrue([for r in var.records : r.type != "AAAA" || alltrue([for t in r.targets : can(cidrhost("${t}/128", 0)) && strcontains(t, ":")])])
    error_message = "The targets of an AAAA record are IPv6 addresses."
  }
  validation {
    condition     = alltrue([for r in var.records : r.type != "CNAME" || alltrue([for t in r.targets : can(regex("^[a-z0-9_]([a-z0-9_-]{0,62})(\\.[a-z0-9]([a-z0-9-]{0,62}))+\\.?$", t)) && !can(regex("^[0-9.]+$", t))])])
    error_message = "The target of a CNAME is a host name: for an address, type is A or AAAA."
  }
  validation {
    condition     = alltrue([for name, r in var.records : can(regex("^(\\*\\.)?[a-z0-9_]([a-z0-9_-]{0,62})(\\.[a-z0-9]([a-z0-9-]{0,62}))+$", name))])
    error_message = "The keys of records are host names such as attic-cache.example.org."
  }
  validation {
    condition     = alltrue([for r in var.records : r.ttl >= 30 && r.ttl <= 86400 && floor(r.ttl) == r.ttl])
    error_message = "ttl must be a whole number from 30 to 86400 seconds."
  }
}
