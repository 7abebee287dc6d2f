//! Requests at the record door.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sealfold_protocol::door::{MAX_LENGTH, Request};

fuzz_target!(|bytes: &[u8]| {
    let mut stream = bytes;
    while let Ok(Some(request)) = Request::read_from(&mut stream) {
        assert!(request.length <= MAX_LENGTH);
        assert_eq!(Request::decode(&request.encode()).unwrap(), request);
    }
});
