//! What stands before the tensors of updates and aggregates, and openings.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sealfold_protocol::release::{AggregatePreamble, Opening};
use sealfold_protocol::update::{PREAMBLE, Preamble};

fuzz_target!(|bytes: &[u8]| {
    let _ = Opening::decode(bytes);
    let mut padded = bytes.to_vec();
    padded.resize(PREAMBLE, 0);
    if let Ok(preamble) = Preamble::decode(&padded, PREAMBLE) {
        assert_eq!(preamble.encode(PREAMBLE).unwrap(), padded);
    }
    if let Ok(preamble) = AggregatePreamble::decode(&padded) {
        assert_eq!(preamble.encode().unwrap(), padded);
    }
});
