//! Evidence in, claims out: attestation documents and the site's policy.
