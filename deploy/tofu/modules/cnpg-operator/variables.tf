variable "manifest_file" {
  description = "File with the release's manifests, as `deploy/tofu/operators` fetches it."
  type        = string

  validation {
    condition     = fileexists(var.manifest_file)
    error_message = "There is no such file. deploy/tofu/operators fetches the releases' manifests and prints where they are."
  }
}

variable "manifest_sha256" {
  description = "What the file's SHA-256 must be; not checked when null."
  type        = string
  default     = null

  validation {
    condition     = var.manifest_sha256 == null || try(filesha256(var.manifest_file), "") == var.manifest_sha256
    error_message = "The file is not the release that is pinned: its SHA-256 differs from manifest_sha256."
  }
}

variable "labels" {
  description = "Labels that all objects get beside their own."
  type        = map(string)
  default     = {}
}

variable "wait" {
  description = "Wait until the rollout is complete."
  type        = bool
  default     = true
}
