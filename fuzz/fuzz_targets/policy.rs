//! Policies as people write them.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sealfold_attestation::Policy;

fuzz_target!(|text: &str| {
    let _ = Policy::from_toml(text);
});
