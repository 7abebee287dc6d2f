//! Every statement, from bytes that anybody could send. What opens must give
//! the same bytes again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sealfold_protocol::abandonment::Abandonment;
use sealfold_protocol::manifest::{Manifested, TermsOnly};
use sealfold_protocol::offer::Offer;
use sealfold_protocol::release::{Opening, Release};
use sealfold_protocol::roster::{Commit, Roster};
use sealfold_protocol::update::{Receipt, UpdateHeader};
use sealfold_protocol::{MultiSigned, Signed, VerifyingKey};
use sealfold_study::Manifest;

fuzz_target!(|bytes: &[u8]| {
    let key = VerifyingKey::new([7; 32]);
    let _ = Signed::<UpdateHeader>::open(bytes, &key);
    let _ = Signed::<Receipt>::open(bytes, &key);
    let _ = Signed::<Roster>::open(bytes, &key);
    let _ = Signed::<Commit>::open(bytes, &key);
    let _ = Signed::<Release>::open(bytes, &key);
    if let Ok(offer) = Offer::open(bytes) {
        assert_eq!(offer.envelope(), bytes);
    }
    let _ = Opening::decode(bytes);
    if let Ok(terms) = TermsOnly::open(bytes) {
        assert_eq!(terms.envelope().unwrap(), bytes);
    }
    if let Ok(manifest) = Manifest::open(bytes) {
        assert_eq!(manifest.envelope().unwrap(), bytes);
        assert!(TermsOnly::open(bytes).is_ok());
    }
    if let Ok(abandonment) = MultiSigned::<Abandonment>::open(bytes) {
        assert_eq!(abandonment.envelope().unwrap(), bytes);
    }
});
