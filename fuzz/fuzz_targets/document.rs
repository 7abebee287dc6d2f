//! Attestation documents. Nothing is accepted that a root did not sign.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sealfold_attestation::nitro::Document;
use sealfold_attestation::{Evidence, Outcome, Policy, verify_replay};
use std::sync::LazyLock;

static POLICY: LazyLock<Policy> =
    LazyLock::new(|| Policy::from_toml(Policy::example()).unwrap());

fuzz_target!(|bytes: &[u8]| {
    let _ = Document::parse(bytes);
    let verdict = verify_replay(&Evidence::from_nitro(bytes), &POLICY, &[1; 32]);
    assert_eq!(verdict.outcome(), Outcome::Refused);
});
