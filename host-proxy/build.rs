//! Tells the binary the commit that it was built from.

include!("../version.rs");

fn main() {
    tell_commit(&["host-proxy/src", "protocol/src", "attestation/src", "Cargo.lock"]);
}
