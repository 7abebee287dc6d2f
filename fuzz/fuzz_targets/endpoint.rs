//! Endpoint URIs: what parses is written the same way again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sealfold_protocol::endpoint::Endpoint;

fuzz_target!(|text: &str| {
    if let Ok(endpoint) = text.parse::<Endpoint>() {
        assert_eq!(endpoint.to_string().parse::<Endpoint>().unwrap(), endpoint);
    }
});
