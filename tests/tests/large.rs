//! Large updates and large studies pass, and the enclave's memory does not grow.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use sealfold_protocol::MultiSigned;
use sealfold_protocol::api::{EnvelopeBody, MAX_JSON, OfferRequest};
use sealfold_protocol::bytes::Envelope;
use sealfold_protocol::endpoint::Endpoint;
use sealfold_protocol::offer::Offer;
use sealfold_protocol::terms::Amends;
use sealfold_tests::study::{Options, Study};
use sealfold_tests::system::System;
use sealfold_tests::{http, process};
use std::io::{Read, Seek, SeekFrom};
use std::time::Duration;

const SITES: [&str; 4] = ["site-000", "site-001", "site-002", "site-003"];
/// 400 MB of float32.
const PARAMETERS: usize = 100_000_000;
/// What the enclave may need at most, whatever the size of the model.
const MEMORY: u64 = 256 << 20;

#[test]
fn four_updates_of_400_mb_pass_through_a_small_enclave() {
    let system = System::start(&Options {
        parameters: PARAMETERS,
        // 10^8 values of 8 have a norm of 80 000.
        aggregation: "rule = \"weighted-mean\"\nnorm_limit = 131072.0".to_owned(),
        readers: "sites",
        deadlines: [600, 600, 3000],
        rounds: 1,
        ..Options::default()
    });
    let agents: Vec<_> =
        SITES.iter().zip([1.0, 2.0, 4.0, 8.0]).map(|(s, v)| system.agent(s, v, 1)).collect();
    for mut agent in agents {
        assert_eq!(agent.wait(Duration::from_mins(15)), 0, "{}", agent.log());
    }
    let name = format!("studies/{}/models/round-0001.safetensors", system.id());
    let mut model = std::fs::File::open(system.home("site-002").join(name)).unwrap();
    let length = model.metadata().unwrap().len();
    assert!(length > PARAMETERS as u64 * 4);
    for offset in [length - 4, length / 8 * 4 + length % 4, 4096] {
        let mut value = [0; 4];
        model.seek(SeekFrom::Start(offset / 4 * 4 + length % 4)).unwrap();
        model.read_exact(&mut value).unwrap();
        assert_eq!(f32::from_le_bytes(value).to_bits(), 3.75f32.to_bits(), "{offset}");
    }
    let peak = system.enclave.peak_memory();
    println!("the enclave's peak memory: {} KiB", peak >> 10);
    assert!(peak < MEMORY, "{peak} bytes");
}

#[test]
fn a_study_of_two_hundred_sites_is_amended_a_dozen_times() {
    let folder = tempfile::tempdir().unwrap();
    let door = Endpoint::Unix(folder.path().join("door.sock"));
    let (server, endpoint) = process::enclave(folder.path(), "enclave", &door);
    let options = Options { sites: 200, smallest_roster: 150, ..Options::default() };
    let study = Study::new(&options);
    let mut chain = vec![study.manifest.clone()];
    for rounds in 50..62 {
        let mut manifest = chain[0].statement().clone();
        manifest.terms.rounds = rounds;
        let predecessor = chain.last().unwrap().digest();
        manifest.terms.amends = Some(Amends { study: study.id(), predecessor });
        let mut signed = MultiSigned::sign(manifest, &study.sites[0].key).unwrap();
        study.sites[1..].iter().for_each(|site| signed.add_signature(&site.key).unwrap());
        chain.push(signed);
    }
    let manifests: Vec<_> = chain.iter().map(|m| Envelope(m.envelope().unwrap())).collect();
    let base = study.manifest.statement().terms.model.initial;
    let request = OfferRequest { manifests, round: 1, base, previous: None, clip: None };
    assert!(serde_json::to_vec(&request).unwrap().len() > MAX_JSON);
    let offer: EnvelopeBody = http::call(&endpoint, "POST", "/v1/offer", &request).unwrap();
    let offer = Offer::open(&offer.envelope.0).unwrap();
    assert_eq!(offer.statement().manifest, chain[12].digest());
    assert!(server.peak_memory() < MEMORY);
}
