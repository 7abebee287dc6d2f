//! Manifests: the TOML that people write, and the payload as the enclave and as
//! sites and auditors read it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sealfold_protocol::encoding;
use sealfold_protocol::manifest::{LIMIT, Manifested, NAME, TermsOnly};
use sealfold_study::Manifest;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(manifest) = std::str::from_utf8(bytes).map_err(drop).and_then(toml) {
        assert!(manifest.check().is_ok());
        assert_eq!(toml(&manifest.to_toml().unwrap()).unwrap(), manifest);
        // Whatever people wrote has one encoding, which both types read.
        let payload = encoding::to_vec(&manifest).unwrap();
        assert_eq!(cbor(&payload).unwrap(), manifest);
    }
    let _ = cbor(bytes);
});

fn toml(text: &str) -> Result<Manifest, ()> {
    Manifest::from_toml(text).map_err(drop)
}

/// A payload as both types read it. What sites accept, an enclave accepts.
fn cbor(payload: &[u8]) -> Option<Manifest> {
    let terms = encoding::from_slice::<TermsOnly>(NAME, payload, LIMIT);
    if let Ok(terms) = &terms {
        let _ = terms.check();
    }
    let manifest = encoding::from_slice::<Manifest>(NAME, payload, LIMIT).ok()?;
    let terms = terms.unwrap();
    assert_eq!(terms.terms, manifest.terms);
    if manifest.check().is_ok() {
        assert!(terms.check().is_ok());
    }
    Some(manifest)
}
