//! Logs that forget, fork, or are rewritten: a site that has seen the log once
//! commits to nothing on another history.

use sealfold_attestation::log::note::KeyKind;
use sealfold_attestation::log::{Hash, NoteSigner, SignedCheckpoint};
use sealfold_tests::liar::Liar;
use sealfold_tests::study::Options;
use sealfold_tests::system::System;
use std::time::Duration;

const SITES: [&str; 4] = ["site-000", "site-001", "site-002", "site-003"];

/// A system in its second round, with a roster: every site has kept a
/// checkpoint of the first.
fn second_round() -> System {
    let system = System::start(&Options { rounds: 3, ..Options::default() });
    let agents = system.agents(1);
    system.finish(agents, Duration::from_mins(1));
    let _ = system.wait_for(2, "an offer", |round| round.offer.is_some());
    for site in SITES {
        let _ = system.submit(site, 1.0).good();
    }
    let _ = system.wait_for(2, "a roster", |round| round.roster_leaf.is_some());
    system
}

/// The log's own signer: the host has it, so it signs whatever it likes.
fn signer(system: &System) -> NoteSigner {
    let file = std::fs::read_to_string(system.folder.path().join("host/log.key")).unwrap();
    let (name, seed) = file.trim().split_once(' ').unwrap();
    let seed = hex::decode(seed).unwrap().try_into().unwrap();
    NoteSigner::from_seed(name, KeyKind::Ed25519, &seed).unwrap()
}

/// A site that is shown this checkpoint refuses by one of these checks.
fn expect_refused(system: &System, checkpoint: Vec<u8>, checks: &[&str]) {
    let liar = Liar::before(&system.endpoint(), move |asked, reply| {
        let is_checkpoint = asked.path == "/log/checkpoint";
        if is_checkpoint {
            reply.clone_from(&checkpoint);
        }
        is_checkpoint
    });
    let commit = ["commit", "--host", &liar.url, &system.id()];
    let check = system.sealfold(SITES[0], &commit).check();
    assert!(checks.contains(&check.as_str()), "{check}");
    assert!(liar.lies() > 0);
    let round = system.round(2);
    assert!(round.commits.is_empty() && round.release.is_none(), "{round:?}");
}

#[test]
fn a_log_that_forgets() {
    let system = second_round();
    // Signed by the log's own key, and true once: the log as it was at its
    // beginning.
    let empty =
        SignedCheckpoint::sign(0, sealfold_attestation::log::Edge::new().root(), &signer(&system));
    expect_refused(&system, empty.unwrap().to_bytes(), &["log-shortened"]);
}

#[test]
fn a_log_that_forks() {
    let system = second_round();
    let now = system.get("/log/checkpoint").body;
    let now = SignedCheckpoint::open(&now, &system.log_key()).unwrap();
    let fork = SignedCheckpoint::sign(now.size(), Hash([7; 32]), &signer(&system)).unwrap();
    expect_refused(&system, fork.to_bytes(), &["log-forked"]);
}

#[test]
fn a_log_that_is_rewritten() {
    let system = second_round();
    // The hashes of earlier leaves, changed where they lie.
    let liar = Liar::before(&system.endpoint(), move |asked, reply| {
        let is_tile = asked.path.starts_with("/log/tile/0/");
        if is_tile {
            reply[3] ^= 1;
        }
        is_tile
    });
    let commit = ["commit", "--host", &liar.url, &system.id()];
    let check = system.sealfold(SITES[0], &commit).check();
    assert!(["log-forked", "log", "roster-not-logged"].contains(&check.as_str()), "{check}");
    assert!(liar.lies() > 0);
    // And the leaf in which the roster should stand.
    let liar = Liar::before(&system.endpoint(), move |asked, reply| {
        let is_bundle = asked.path.starts_with("/log/tile/entries/");
        if is_bundle {
            let last = reply.len() - 1;
            reply[last] ^= 1;
        }
        is_bundle
    });
    let commit = ["commit", "--host", &liar.url, &system.id()];
    let check = system.sealfold(SITES[0], &commit).check();
    assert!(["log-forked", "log", "roster-not-logged"].contains(&check.as_str()), "{check}");
    assert!(liar.lies() > 0);
    let round = system.round(2);
    assert!(round.commits.is_empty() && round.release.is_none(), "{round:?}");
}
