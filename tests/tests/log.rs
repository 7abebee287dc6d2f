//! The host's log, through the real binaries: killed at any point it verifies,
//! and holds each leaf once.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use sealfold_attestation::log::tile::{Content, WIDTH, decode_entries};
use sealfold_attestation::log::{SignedCheckpoint, Tile};
use sealfold_protocol::api::Phase;
use sealfold_protocol::leaf::{Kind, Leaf};
use sealfold_protocol::offer::Offer;
use sealfold_tests::process;
use sealfold_tests::study::Options;
use sealfold_tests::system::System;
use serde_json::Value;
use std::collections::HashSet;
use std::path::Path;
use std::time::Duration;

const SITES: [&str; 4] = ["site-000", "site-001", "site-002", "site-003"];
const PATIENCE: Duration = Duration::from_secs(60);

/// The host's checkpoint now.
fn checkpoint(system: &System) -> SignedCheckpoint {
    SignedCheckpoint::open(&system.get("/log/checkpoint").body, &system.log_key()).unwrap()
}

/// Replays the log; it holds.
fn replay(system: &System, log: &Path, kept: &[&Path]) -> Value {
    let policy = system.audit_policy();
    let mut command = process::command("sealfold-audit");
    command.arg("--json").arg("replay").arg(log).arg("--policy").arg(policy);
    for kept in kept {
        command.arg("--checkpoint").arg(kept);
    }
    let output = command.output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{said}");
    serde_json::from_str(&said).unwrap()
}

/// Copies the log from the host, as an auditor would: the files that its
/// checkpoint covers, and the objects that its leaves name.
fn mirror(system: &System, folder: &Path) -> Vec<Leaf> {
    let write = |name: &str| {
        let reply = system.get(&format!("/log/{name}"));
        assert_eq!(reply.status, 200, "{name}");
        let path = folder.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, &reply.body).unwrap();
        reply.body
    };
    let signed = SignedCheckpoint::open(&write("checkpoint"), &system.log_key()).unwrap();
    let mut leaves = Vec::new();
    for level in 0..8 {
        let tiles = (0..).map_while(|i| Tile::of(Content::Hashes(level), i, signed.size()));
        tiles.for_each(|tile| _ = write(&tile.to_string()));
    }
    for index in 0..signed.size().div_ceil(WIDTH) {
        let bundle = Tile::of(Content::Entries, index, signed.size()).unwrap();
        let bytes = write(&bundle.to_string());
        for entry in decode_entries(&bundle, &bytes).unwrap() {
            leaves.push(Leaf::decode(entry).unwrap());
        }
    }
    for leaf in &leaves {
        let evidence = if let Leaf::Offer(offered) = leaf { Some(&offered.evidence) } else { None };
        for held in evidence.into_iter().chain([leaf.envelope()]) {
            if let Some(object) = held.object() {
                object.expect(&write(&format!("objects/{}", object.digest))).unwrap();
            }
        }
    }
    leaves
}

#[test]
fn a_study_whose_host_is_killed_again_and_again_leaves_a_log_that_holds() {
    let mut system = System::start(&Options { rounds: 6, ..Options::default() });
    let agents = system.agents(6);
    let kept = system.folder.path().join("kept");
    let mut sizes = Vec::new();
    // Killed at points that no phase chooses, some of them while it writes.
    for i in 0..12u64 {
        std::thread::sleep(Duration::from_millis(90 + 37 * (i % 5)));
        system.restart_host();
        let signed = checkpoint(&system);
        sizes.push(signed.size());
        std::fs::write(&kept, signed.to_bytes()).unwrap();
    }
    assert!(sizes.is_sorted(), "{sizes:?}");
    system.finish(agents, PATIENCE);
    system.restart_host();
    let copy = system.folder.path().join("copy");
    let leaves = mirror(&system, &copy);
    let keys: HashSet<_> = leaves.iter().map(Leaf::key).collect();
    assert_eq!(keys.len(), leaves.len(), "a leaf stands twice");
    let count = |kind| leaves.iter().filter(|leaf| leaf.kind() == kind).count();
    assert_eq!(count(Kind::Release), 6);
    assert!(count(Kind::Commit) >= 18 && count(Kind::Offer) >= 6 && count(Kind::Manifest) >= 1);
    let report = replay(&system, &copy, &[&kept]);
    assert_eq!(report["completeness"]["shown_up_to"].as_u64(), sizes.last().copied());
    assert_eq!(report["studies"][0]["released"], 6);
    // The store's own folder is the same log.
    assert_eq!(replay(&system, &system.log(), &[])["root"], report["root"]);
}

#[test]
fn an_abandoned_offer_stands_in_the_log_with_its_signatures() {
    let mut system = System::start(&Options::default());
    system.submit_all();
    system.commit(&SITES[..2]);
    system.restart_enclave();
    let round = system.wait_for(1, "approvers", |r| r.waiting_for.contains("study abandon"));
    let offer = Offer::open(&round.offer.unwrap().0).unwrap().digest().to_string();
    system.abandon(&offer, &SITES[..3]);
    let agents = system.agents(1);
    system.finish(agents, PATIENCE);
    let _ = system.wait_for(1, "released", |r| r.phase == Phase::Released);
    let report = replay(&system, &system.log(), &[]);
    assert_eq!(report["leaves"]["abandonment"], 1);
    assert_eq!(report["rounds"][0]["abandoned"], 1);
    assert_eq!(report["rounds"][0]["offers"], 2);
}

#[test]
fn a_host_from_before_the_log_logs_what_it_has() {
    let mut system = System::start(&Options { rounds: 2, ..Options::default() });
    let agents = system.agents(2);
    system.finish(agents, PATIENCE);
    let before = replay(&system, &system.log(), &[]);
    system.host.kill();
    std::fs::remove_dir_all(system.log()).unwrap();
    system.restart_host();
    let after = replay(&system, &system.log(), &[]);
    assert_eq!(after["leaves"], before["leaves"]);
}

#[test]
fn the_log_is_served_as_files_and_nothing_beside_it() {
    let system = System::start(&Options::default());
    for path in [
        "/log/tile/0/001",
        "/log/tile/0/000.p/0",
        "/log/tile/../checkpoint",
        "/log/tile/entries/..%2f..%2fcheckpoint",
        "/log/objects/00",
        "/log/objects/..%2fcheckpoint",
        "/log/",
        "/log/log.key",
    ] {
        let reply = system.get(path);
        assert!(reply.status == 404 || reply.status == 400, "{path}: {}", reply.status);
    }
    let reply = system.get("/log/tile/0/000.p/1");
    assert_eq!((reply.status, reply.body.len()), (200, 32));
}
