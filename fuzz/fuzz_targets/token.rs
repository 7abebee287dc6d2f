//! Confidential Space tokens. Nothing is accepted that no pinned root signed.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sealfold_attestation::confidential_space::{Token, TokenClaims};
use sealfold_attestation::{Evidence, Outcome, Policy, verify_replay};
use std::sync::LazyLock;

const SECTION: &str = r#"
[confidential-space]
audience = "a"
roots = ["148b293821bb0c6a317f413c8ba475814091cb22d49b9e3c94198db8e8f86c39"]
hardware_models = ["GCP_INTEL_TDX"]
support = "USABLE"
[[confidential-space.measurements]]
image_digest = "4444444444444444444444444444444444444444444444444444444444444444"
args = ["/sealfold-enclave"]
env = {}
operator_env = []
"#;

static POLICY: LazyLock<Policy> =
    LazyLock::new(|| Policy::from_toml(&format!("{}{SECTION}", Policy::example())).unwrap());

fuzz_target!(|bytes: &[u8]| {
    // The claims without the base64url around them, which a fuzzer rarely hits.
    let _ = TokenClaims::parse(bytes);
    let _ = Token::parse(bytes);
    let verdict = verify_replay(&Evidence::from_confidential_space(bytes), &POLICY, &[1; 32]);
    assert_eq!(verdict.outcome(), Outcome::Refused);
});
