//! Releases that are altered, withheld or replaced, on their way to a site.

use sealfold_protocol::api::RoundStatus;
use sealfold_protocol::release::Release;
use sealfold_protocol::{Signed, SigningKey};
use sealfold_tests::liar::Liar;
use sealfold_tests::study::Options;
use sealfold_tests::system::{Ended, System};
use std::path::PathBuf;
use std::time::Duration;

const SITES: [&str; 4] = ["site-000", "site-001", "site-002", "site-003"];

/// A system whose first round is released; no site has fetched it yet.
fn released() -> System {
    let system = System::start(&Options::default());
    system.submit_all();
    system.commit(&SITES);
    let _ = system.wait_for(1, "the release", |round| round.release.is_some());
    system
}

fn out(system: &System) -> PathBuf {
    system.folder.path().join("model.safetensors")
}

fn fetch(system: &System, url: &str) -> Ended {
    let out = out(system);
    system
        .sealfold(SITES[0], &["fetch", "--host", url, &system.id(), "--out", out.to_str().unwrap()])
}

/// A host that changes the status of a round.
fn with_round(
    system: &System,
    number: u32,
    change: impl Fn(&mut RoundStatus) + Send + Sync + 'static,
) -> Liar {
    Liar::before(&system.endpoint(), move |asked, reply| {
        if !asked.path.ends_with(&format!("/rounds/{number}")) {
            return false;
        }
        let mut round: RoundStatus = serde_json::from_slice(reply).unwrap();
        change(&mut round);
        *reply = serde_json::to_vec(&round).unwrap();
        true
    })
}

/// The site has no model of round 1.
fn expect_no_model(system: &System) {
    let models = system.home(SITES[0]).join(format!("studies/{}/models", system.id()));
    assert!(!models.join("round-0001.safetensors").exists());
}

#[test]
fn a_release_altered() {
    let system = released();
    // One bit of it.
    let liar = with_round(&system, 1, |round| {
        let bytes = &mut round.release.as_mut().unwrap().0;
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
    });
    let check = fetch(&system, &liar.url).check();
    assert!(["signature", "encoding"].contains(&check.as_str()), "{check}");
    // Signed anew by the host.
    let key = SigningKey::generate().unwrap();
    let liar = with_round(&system, 1, move |round| {
        let offer =
            sealfold_protocol::offer::Offer::open(&round.offer.as_ref().unwrap().0).unwrap();
        let genuine = Signed::<Release>::open(
            &round.release.as_ref().unwrap().0,
            &offer.statement().instance_key,
        )
        .unwrap();
        let forged = Signed::sign(genuine.statement().clone(), &key).unwrap();
        round.release.as_mut().unwrap().0 = forged.envelope().to_vec();
    });
    assert_eq!(fetch(&system, &liar.url).check(), "signature");
    // The aggregate's own bytes.
    let liar = Liar::before(&system.endpoint(), |asked, reply| {
        let is_aggregate = asked.path.ends_with("/aggregate");
        if is_aggregate {
            let last = reply.len() - 1;
            reply[last] ^= 1;
        }
        is_aggregate
    });
    assert_eq!(fetch(&system, &liar.url).check(), "release");
    assert_eq!(liar.lies(), 1);
    expect_no_model(&system);
}

#[test]
fn a_release_withheld() {
    let system = released();
    let liar = with_round(&system, 1, |round| round.release = None);
    // The site goes on with nothing: it stays in round 1, bound to its offer.
    assert_eq!(fetch(&system, &liar.url).good().json()["round"], 0);
    let again = system.submit_file(SITES[0], &system.update(4.0), &liar.url);
    assert_eq!(again.check(), "one-update");
    assert!(liar.lies() >= 2);
    expect_no_model(&system);
    // When the host shows it, nothing is lost.
    assert_eq!(fetch(&system, &system.url).good().json()["round"], 1);
}

#[test]
fn a_release_replaced_by_an_older_one() {
    let system = System::start(&Options { rounds: 2, ..Options::default() });
    let agents = system.agents(1);
    system.finish(agents, Duration::from_mins(1));
    let first = system.round(1);
    assert!(first.release.is_some());
    // In round 2 the host shows round 1 once more, as if it were the next.
    let liar = with_round(&system, 2, move |round| {
        let number = round.round;
        *round = first.clone();
        round.round = number;
    });
    assert_eq!(fetch(&system, &liar.url).check(), "chain");
    assert!(liar.lies() > 0);
    let models = system.home(SITES[0]).join(format!("studies/{}/models", system.id()));
    assert!(!models.join("round-0002.safetensors").exists());
}
