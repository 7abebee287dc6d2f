# An enclave in a Google Confidential Space and the machine of its host.
#
# NOT TRIED: parsed (`terraform fmt`, and the tests), but neither planned nor
# applied, and not compared with the provider's schema. docs/operating-google.md
# says how it is meant.

terraform {
  required_version = ">= 1.5"
  required_providers {
    google = {
      source  = "hashicorp/google"
      version = ">= 5.30, < 8.0"
    }
  }
}

provider "google" {
  project = var.project
  region  = var.region
  zone    = var.zone
}
