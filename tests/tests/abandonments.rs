//! What approvers sign away, and what one of them alone cannot do.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use sealfold_protocol::abandonment::Abandonment;
use sealfold_protocol::bytes::Envelope;
use sealfold_protocol::offer::Offer;
use sealfold_protocol::{Digest, MultiSigned};
use sealfold_tests::http::Reply;
use sealfold_tests::site::Site;
use sealfold_tests::study::Options;
use sealfold_tests::system::System;
use serde_json::json;

fn offer(system: &System) -> Digest {
    Offer::open(&system.round(1).offer.unwrap().0).unwrap().digest()
}

/// An approver brings its signature of an abandonment.
fn sign(system: &System, site: &Site, round: u32, offer: Digest, reason: &str) -> Reply {
    let reason = reason.to_owned();
    let statement = Abandonment { study: system.study.id(), round, offer, reason };
    let signed = MultiSigned::sign(statement, &site.key).unwrap();
    let body = json!({ "envelope": Envelope(signed.envelope().unwrap()) }).to_string();
    let path = format!("/v1/studies/{}/rounds/{round}/abandonments", system.id());
    let headers = [("content-type", "application/json")];
    system.send_as(site, "POST", &path, &headers, body.as_bytes())
}

#[test]
fn an_approver_abandons_no_round_that_there_is_not() {
    let mut system = System::start(&Options::default());
    let (before, invented) = (offer(&system), Digest::new([9; 32]));
    for round in [0, 2, 6, 1000, u32::MAX] {
        let reply = sign(&system, &system.study.sites[3], round, invented, "x");
        assert_eq!((reply.status, reply.check().as_str()), (409, "offer"), "{round}");
    }
    let reply = sign(&system, &system.study.sites[3], 1, invented, "x");
    assert_eq!((reply.status, reply.check().as_str()), (409, "offer"));
    // Before round 1 there is none, whose base it would wait for.
    system.restart_enclave();
    let _ = system.wait_for(1, "a new offer", |round| {
        round.offer.as_ref().is_some_and(|o| Offer::open(&o.0).unwrap().digest() != before)
    });
    let folder = system.folder.path().join(format!("host/store/studies/{}/rounds", system.id()));
    assert_eq!(std::fs::read_dir(folder).unwrap().count(), 1);
}
