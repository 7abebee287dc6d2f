//! Tells the binary the commit that it was built from.

include!("../version.rs");

fn main() {
    tell_commit(&[
        "site-client/src",
        "protocol/src",
        "attestation/src",
        "aggregation/src",
        "Cargo.lock",
    ]);
}
