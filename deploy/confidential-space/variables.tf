variable "project" {
  description = "The project."
  type        = string
}

variable "region" {
  description = "The region."
  type        = string
  default     = "europe-west4"
}

variable "zone" {
  description = "The zone; its machines must have the technology."
  type        = string
  default     = "europe-west4-a"
}

variable "image" {
  description = "The enclave's image, REGISTRY/REPOSITORY/NAME@sha256:DIGEST."
  type        = string

  validation {
    condition     = can(regex("@sha256:[0-9a-f]{64}$", var.image))
    error_message = "Name the image by its digest, the one that the sites accepted, and not by a tag."
  }
}

variable "audience" {
  description = "What the sites' policies name as audience."
  type        = string

  validation {
    condition     = length(var.audience) >= 1 && length(var.audience) <= 512
    error_message = "The attestation service takes audiences of 1 to 512 bytes."
  }
}

variable "token" {
  description = "The kind of token: pki, which can be verified years later, or oidc."
  type        = string
  default     = "pki"

  validation {
    condition     = contains(["pki", "oidc"], var.token)
    error_message = "The kind of token is pki or oidc."
  }
}

variable "technology" {
  description = "TDX or SEV, as the sites' policies list it under hardware_models."
  type        = string
  default     = "TDX"

  validation {
    condition     = contains(["TDX", "SEV"], var.technology)
    error_message = "The technology is TDX or SEV."
  }
}

variable "machine_type" {
  description = "The enclave's machine: c3-standard-* for TDX, n2d-standard-* for SEV."
  type        = string
  default     = "c3-standard-4"
}

variable "host_machine_type" {
  description = "The host's machine."
  type        = string
  default     = "e2-standard-4"
}

variable "host_disk_gigabytes" {
  description = "The host's disk: sites x 4 bytes x parameters, and some more."
  type        = number
  default     = 100
}

variable "sites" {
  description = "From which networks sites reach the host, in CIDR notation."
  type        = list(string)
  default     = ["0.0.0.0/0"]
}
