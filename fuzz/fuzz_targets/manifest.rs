//! Manifests as people write them. What parses has kept every rule.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sealfold_protocol::manifest::Manifest;

fuzz_target!(|text: &str| {
    if let Ok(manifest) = Manifest::from_toml(text) {
        assert!(manifest.check().is_ok());
    }
});
