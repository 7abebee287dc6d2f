//! An abandonment after a secret release, and then a roster without one site.

use sealfold_protocol::Signed;
use sealfold_protocol::api::EnvelopeBody;
use sealfold_protocol::bytes::Envelope;
use sealfold_protocol::endpoint::Endpoint;
use sealfold_protocol::offer::Offer;
use sealfold_protocol::release::Release;
use sealfold_protocol::roster::Roster;
use sealfold_tests::hostile_host::Door;
use sealfold_tests::http::call;
use sealfold_tests::study::Options;
use sealfold_tests::system::System;
use serde_json::Value;
use std::time::Duration;

const SITES: [&str; 4] = ["site-000", "site-001", "site-002", "site-003"];

#[test]
fn an_abandonment_after_a_secret_release_then_a_roster_without_one_site() {
    let mut system = System::start(&Options { deadlines: [2, 30, 600], ..Options::default() });
    for site in SITES {
        let _ = system.submit(site, 1.0).good();
    }
    let _ = system.wait_for(1, "a roster", |round| round.roster.is_some());
    // The host proxy is stopped before it sees the last commit, and its operator
    // gives all of them to the instance: a release that nobody hears of.
    system.commit(&SITES[..3]);
    secret_release(&mut system);
    system.restart_enclave();
    system.restart_host();
    let round = system.wait_for(1, "approvers", |r| r.waiting_for.contains("study abandon"));
    let offer = Offer::open(&round.offer.unwrap().0).unwrap().digest().to_string();
    system.abandon(&offer, &SITES[..3]);
    let _ = system.wait_for(1, "a new offer", |round| {
        round
            .offer
            .as_ref()
            .is_some_and(|o| Offer::open(&o.0).unwrap().digest().to_string() != offer)
    });
    // Only three sites come back: the difference would be the fourth.
    let agents: Vec<_> = SITES[..3].iter().map(|site| system.agent(site, 1.0, 1)).collect();
    let _ = system.wait_for(1, "a smaller roster", |round| round.roster.is_some());
    std::thread::sleep(Duration::from_secs(1));
    let round = system.round(1);
    assert!(round.commits.is_empty(), "{round:?}");
    for agent in &agents {
        assert!(agent.log().contains("roster-too-close"), "{}", agent.log());
    }
}

/// The operator kills the proxy while the enclave runs on, plays the last
/// commit into the instance and takes the release for itself.
fn secret_release(system: &mut System) {
    let round = system.round(1);
    let offer = Offer::open(&round.offer.unwrap().0).unwrap();
    let key = offer.statement().instance_key;
    let roster = Signed::<Roster>::open(&round.roster.clone().unwrap().0, &key).unwrap();
    let checkpoint = system.roster_checkpoint(&system.round(1));
    // The door is the proxy's; the operator answers at it from the same files.
    let staged = system.folder.path().join("host/staging/updates");
    let updates: Vec<_> = roster
        .statement()
        .members
        .iter()
        .map(|member| {
            let name = *member.header.as_bytes();
            (name, std::fs::read(staged.join(hex::encode(name))).unwrap())
        })
        .collect();
    system.host.kill();
    let door = Door::open(system.folder.path());
    updates.into_iter().for_each(|(name, bytes)| door.put(name, bytes));
    let last = &system.study.sites[3];
    let header = roster.statement().header_of(&last.name).unwrap();
    let commit = last.commit_at(&roster, header, checkpoint);
    let enclave = Endpoint::Unix(system.folder.path().join("enclave.sock"));
    let body = EnvelopeBody { envelope: Envelope(commit.envelope().to_vec()) };
    let _: Value = call(&enclave, "POST", "/v1/commits", &body).unwrap();
    let release: EnvelopeBody = call(&enclave, "POST", "/v1/release", &Value::Null).unwrap();
    let release = Signed::<Release>::open(&release.envelope.0, &key).unwrap();
    // It has the sum of four, and the sites do not know.
    let sealed = door.object(&release.statement().object);
    let mean = sealfold_tests::site::released(&system.study, 4, &release, &sealed);
    assert!((mean[0] - 1.0).abs() < 1e-6);
    // The place is the proxy's again.
    std::fs::remove_file(system.folder.path().join("door.sock")).unwrap();
}
