//! Models that are not the chain's.

use sealfold_protocol::Digest;
use sealfold_protocol::api::{EnvelopeBody, RoundStatus};
use sealfold_tests::http::call;
use sealfold_tests::liar::Liar;
use sealfold_tests::process;
use sealfold_tests::study::Options;
use sealfold_tests::system::System;

const SITE: &str = "site-000";

#[test]
fn a_base_model_that_is_not_the_chains() {
    let system = System::start(&Options::default());
    // A genuine enclave makes an offer on whatever base its host names.
    let folder = system.folder.path();
    let door = sealfold_protocol::endpoint::Endpoint::Unix(folder.join("nowhere.sock"));
    let (_server, at) = process::enclave(folder, "second", &door);
    let mut request = system.study.first_offer();
    request.base = Digest::new([8; 32]);
    let offer: EnvelopeBody = call(&at, "POST", "/v1/offer", &request).unwrap();
    let liar = Liar::before(&system.endpoint(), move |asked, reply| {
        if !asked.path.ends_with("/rounds/1") {
            return false;
        }
        let mut round: RoundStatus = serde_json::from_slice(reply).unwrap();
        round.offer = Some(offer.envelope.clone());
        *reply = serde_json::to_vec(&round).unwrap();
        true
    });
    let refused = system.submit_file(SITE, &system.update(1.0), &liar.url);
    assert_eq!(refused.check(), "chain");
    assert!(liar.lies() > 0);
    assert!(system.round(1).uploads.is_empty());
}

#[test]
fn a_crafted_first_model() {
    let system = System::start(&Options::default());
    let liar = Liar::before(&system.endpoint(), |asked, reply| {
        let is_model = asked.method == "GET" && asked.path.ends_with("/model");
        if is_model {
            // One weight that makes a neuron remember one patient.
            reply[40..44].copy_from_slice(&1e6f32.to_le_bytes());
        }
        is_model
    });
    let out = system.folder.path().join("model.safetensors");
    let fetch = ["fetch", "--host", &liar.url, &system.id(), "--out", out.to_str().unwrap()];
    assert_eq!(system.sealfold(SITE, &fetch).check(), "initial-model");
    // An agent trains nothing on it.
    let trained = system.folder.path().join("trained");
    let mut agent = system.agent_at(&liar.url, SITE, &format!("touch {}", trained.display()), 1);
    assert_eq!(agent.wait(std::time::Duration::from_secs(30)), 1, "{}", agent.log());
    assert!(agent.log().contains("initial-model"), "{}", agent.log());
    assert!(!trained.exists() && !out.exists() && liar.lies() == 2);
    assert!(system.round(1).uploads.is_empty());
}
