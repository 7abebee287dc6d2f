# cloudresourcemanager has to be enabled before Terraform runs: by its API Terraform
# asks for the others (docs/operating-google.md, step 3).
resource "google_project_service" "needed" {
  for_each = toset([
    "artifactregistry.googleapis.com",
    "cloudresourcemanager.googleapis.com",
    "compute.googleapis.com",
    "confidentialcomputing.googleapis.com",
    "iam.googleapis.com",
    "iap.googleapis.com",
    "logging.googleapis.com",
  ])
  service            = each.value
  disable_on_destroy = false
}

resource "google_compute_network" "sealfold" {
  name                    = "sealfold"
  auto_create_subnetworks = false
  depends_on              = [google_project_service.needed]
}

# The enclave's machine has no address of its own in the internet; with this it
# reaches the registry and the attestation service.
resource "google_compute_subnetwork" "sealfold" {
  name                     = "sealfold"
  network                  = google_compute_network.sealfold.id
  ip_cidr_range            = "10.10.0.0/24"
  private_ip_google_access = true
}

# The host's address is part of the enclave's environment, and so of what is
# attested: it is fixed before either machine is made.
resource "google_compute_address" "door" {
  name         = "sealfold-door"
  address_type = "INTERNAL"
  subnetwork   = google_compute_subnetwork.sealfold.id
}

# Where sites reach the host. It stays when the machine is made anew, so that a name
# in the DNS can point to it.
resource "google_compute_address" "sites" {
  name       = "sealfold-sites"
  depends_on = [google_project_service.needed]
}

# What passes here is sealed or signed in any case; the rules are for the
# enclave's being there, not for its secrets.
resource "google_compute_firewall" "requests" {
  name                    = "sealfold-enclave-requests"
  network                 = google_compute_network.sealfold.id
  direction               = "INGRESS"
  source_service_accounts = [google_service_account.host.email]
  target_service_accounts = [google_service_account.enclave.email]
  allow {
    protocol = "tcp"
    ports    = ["5000"]
  }
}

resource "google_compute_firewall" "door" {
  name                    = "sealfold-enclave-door"
  network                 = google_compute_network.sealfold.id
  direction               = "INGRESS"
  source_service_accounts = [google_service_account.enclave.email]
  target_service_accounts = [google_service_account.host.email]
  allow {
    protocol = "tcp"
    ports    = ["5001"]
  }
}

resource "google_compute_firewall" "sites" {
  name                    = "sealfold-sites"
  network                 = google_compute_network.sealfold.id
  direction               = "INGRESS"
  source_ranges           = var.sites
  target_service_accounts = [google_service_account.host.email]
  allow {
    protocol = "tcp"
    ports    = ["443"]
  }
}

# Whoever installs the host logs in through Identity-Aware Proxy, whose connections
# come from this network of Google's; nobody else reaches the port. The enclave's
# machine has no such rule.
resource "google_compute_firewall" "ssh" {
  name                    = "sealfold-host-ssh"
  network                 = google_compute_network.sealfold.id
  direction               = "INGRESS"
  source_ranges           = ["35.235.240.0/20"]
  target_service_accounts = [google_service_account.host.email]
  allow {
    protocol = "tcp"
    ports    = ["22"]
  }
}
