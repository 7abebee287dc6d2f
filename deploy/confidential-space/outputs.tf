output "enclave" {
  description = "The host's option --enclave."
  value       = "tcp://${google_compute_instance.enclave.network_interface[0].network_ip}:5000"
}

output "door" {
  description = "Where the enclave looks for the host's record door."
  value       = "tcp://${google_compute_address.door.address}:5001"
}

output "host" {
  description = "The host's fixed address in the internet, for the DNS."
  value       = google_compute_address.sites.address
}
