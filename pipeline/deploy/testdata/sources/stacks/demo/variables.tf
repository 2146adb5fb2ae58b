variable "kube_context" {
  type = string
}

variable "environment" {
  type = string
}

variable "namespace" {
  type = string
}

variable "host" {
  type = string
}

variable "text" {
  type = string
}

variable "size" {
  type    = number
  default = 1
}

# Creating waits for this file.
variable "gate" {
  type    = string
  default = ""
}
