resource "google_service_account" "enclave" {
  account_id   = "sealfold-enclave"
  display_name = "sealfold enclave"
  depends_on   = [google_project_service.needed]
}

resource "google_service_account" "host" {
  account_id   = "sealfold-host"
  display_name = "sealfold host"
  depends_on   = [google_project_service.needed]
}

# To have tokens signed, to take the image, to write the launcher's own log.
resource "google_project_iam_member" "enclave" {
  for_each = toset([
    "roles/artifactregistry.reader",
    "roles/confidentialcomputing.workloadUser",
    "roles/logging.logWriter",
  ])
  project = var.project
  role    = each.value
  member  = "serviceAccount:${google_service_account.enclave.email}"
}

# The production image: the one for debugging lets its operator log in, and every
# site refuses it by the check debug-mode.
data "google_compute_image" "confidential_space" {
  project = "confidential-space-images"
  family  = "confidential-space"
}

# Another image, door, audience or kind of token is another enclave. The launcher
# reads its metadata when the machine starts, so the machine is made anew.
resource "terraform_data" "launch" {
  input = [var.image, google_compute_address.door.address, var.audience, var.token]
}

resource "google_compute_instance" "enclave" {
  name         = "sealfold-enclave"
  machine_type = var.machine_type

  boot_disk {
    initialize_params {
      image = data.google_compute_image.confidential_space.self_link
    }
  }

  confidential_instance_config {
    confidential_instance_type = var.technology
  }

  scheduling {
    on_host_maintenance = "TERMINATE"
  }

  shielded_instance_config {
    enable_secure_boot = true
  }

  network_interface {
    subnetwork = google_compute_subnetwork.sealfold.id
  }

  service_account {
    email  = google_service_account.enclave.email
    scopes = ["cloud-platform"]
  }

  metadata = {
    "tee-image-reference"       = var.image
    "tee-restart-policy"        = "Always"
    "tee-env-SEALFOLD_DOOR"     = "tcp://${google_compute_address.door.address}:5001"
    "tee-env-SEALFOLD_AUDIENCE" = var.audience
    "tee-env-SEALFOLD_TOKEN"    = var.token
  }

  lifecycle {
    # A new machine image of Google's is no reason to end a round.
    ignore_changes       = [boot_disk]
    replace_triggered_by = [terraform_data.launch]

    # Google's families with processors of AMD end in d: n2d, c2d, c3d.
    precondition {
      condition     = can(regex("^[a-z0-9]*d-", var.machine_type)) == (var.technology == "SEV")
      error_message = "TDX needs a machine of Intel (c3-standard-4), SEV one of AMD (n2d-standard-4)."
    }
  }

  depends_on = [google_project_iam_member.enclave]
}

resource "google_compute_instance" "host" {
  name         = "sealfold-host"
  machine_type = var.host_machine_type

  boot_disk {
    initialize_params {
      image = "debian-cloud/debian-12"
      size  = var.host_disk_gigabytes
      type  = "pd-ssd"
    }
  }

  network_interface {
    subnetwork = google_compute_subnetwork.sealfold.id
    network_ip = google_compute_address.door.address
    # Sites reach it.
    access_config {
      nat_ip = google_compute_address.sites.address
    }
  }

  service_account {
    email  = google_service_account.host.email
    scopes = ["cloud-platform"]
  }
}
