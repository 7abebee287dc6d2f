//! The host's log, through the real binaries: killed at any point it verifies,
//! and holds each leaf once.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use sealfold_attestation::log::note::KeyKind;
use sealfold_attestation::log::tile::{Content, WIDTH, decode_entries};
use sealfold_attestation::log::{Hash, NoteKey, NoteSigner, SignedCheckpoint, Tile};
use sealfold_protocol::Signed;
use sealfold_protocol::api::Phase;
use sealfold_protocol::leaf::{Kind, Leaf};
use sealfold_protocol::offer::Offer;
use sealfold_protocol::roster::Roster;
use sealfold_tests::process;
use sealfold_tests::study::{self, Options};
use sealfold_tests::system::System;
use serde_json::Value;
use std::collections::HashSet;
use std::path::Path;
use std::time::Duration;

const SITES: [&str; 4] = ["site-000", "site-001", "site-002", "site-003"];
const PATIENCE: Duration = Duration::from_mins(1);

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
fn a_host_whose_log_is_gone_does_not_begin_another() {
    let mut system = System::start(&Options::default());
    system.host.kill();
    std::fs::rename(system.log(), system.folder.path().join("log")).unwrap();
    let mut command = process::command("sealfold-host");
    command.args(["serve", "--listen", "tcp://127.0.0.1:0", "--enclave", "unix:///none"]);
    command.args(["--door", "unix:///none", "--data"]).arg(system.folder.path().join("host"));
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("restore log/"), "{said}");
    std::fs::rename(system.folder.path().join("log"), system.log()).unwrap();
    system.restart_host();
}

/// The hosts of two sites show each another log: neither site commits at the
/// other's checkpoint, and a site that has seen one of them refuses the other.
#[test]
fn a_site_that_has_seen_another_history_commits_to_nothing() {
    let system = System::start(&Options::default());
    system.submit_all();
    let round = system.wait_for(1, "a roster", |round| round.roster_leaf.is_some());
    // What this site saw last time was a larger log, then one with another root.
    let kept = system.home(SITES[0]).join(format!("studies/{}/checkpoint", system.id()));
    let name = system.log_key().name().to_owned();
    // (The operator has the log's key, and can sign what it likes.)
    let of = |seed: &[u8; 32]| NoteSigner::from_seed(&name, KeyKind::Ed25519, seed).unwrap();
    for (size, check) in [(1_000_000, "log-shortened"), (1, "log-forked")] {
        let signer = of(&study::log_key().seed());
        let other = SignedCheckpoint::sign(size, Hash([7; 32]), &signer).unwrap();
        std::fs::write(&kept, other.to_bytes()).unwrap();
        let ended = system.on_study(SITES[0], &["commit"], &[]);
        assert_eq!(ended.check(), check, "{ended:?}");
        assert!(system.round(1).commits.is_empty());
    }
    std::fs::remove_file(&kept).unwrap();
    // A policy that names another log's key.
    let policy = system.home(SITES[0]).join("policy.toml");
    let text = std::fs::read_to_string(&policy).unwrap();
    let stranger = of(&[1; 32]);
    let with = |key: &NoteKey| format!("{text}\n[log]\nkey = \"{key}\"\n");
    std::fs::write(&policy, with(stranger.key())).unwrap();
    assert_eq!(system.on_study(SITES[0], &["commit"], &[]).check(), "log");
    std::fs::write(&policy, with(&system.log_key())).unwrap();
    let _ = system.on_study(SITES[0], &["commit"], &[]).good();
    // A commit at another checkpoint is none, and a site that sends it is
    // dropped, not waited for.
    let offer = Offer::open(&round.offer.clone().unwrap().0).unwrap();
    let key = offer.statement().instance_key;
    let roster = Signed::<Roster>::open(&round.roster.clone().unwrap().0, &key).unwrap();
    let header = roster.statement().header_of(SITES[1]).unwrap();
    let commit = system.study.sites[1].commit(&roster, header);
    let reply = system.post_as(&system.study.sites[1], "commits", commit.envelope());
    assert_eq!(reply.status, 409);
    assert!(String::from_utf8_lossy(&reply.body).contains("\"checkpoint\""));
    // What the site keeps is the log's checkpoint with the site's cosignature,
    // and shows an auditor that nothing was left out.
    system.commit(&SITES[1..]);
    let _ = system.wait_for(1, "released", |r| r.phase == Phase::Released);
    let witness = &system.study.sites[0].key;
    let witness =
        NoteKey::new(SITES[0], KeyKind::CosignatureV1, *witness.verifying_key().as_bytes());
    let signed = SignedCheckpoint::open(&std::fs::read(&kept).unwrap(), &system.log_key()).unwrap();
    let witness = witness.unwrap();
    assert_eq!(signed.cosignatures(std::slice::from_ref(&witness)).len(), 1);
    // The host has it too, one file for each site, and takes nobody else's.
    let id = hex::encode(witness.digest());
    assert_eq!(system.get(&format!("/log/cosigned/{id}")).body, std::fs::read(&kept).unwrap());
    let cosigned = system.log().join("cosigned");
    assert_eq!(std::fs::read_dir(&cosigned).unwrap().count(), 4);
    let stranger = NoteSigner::from_seed("nobody", KeyKind::CosignatureV1, &[1; 32]).unwrap();
    let mut foreign = checkpoint(&system);
    foreign.cosign(&stranger, 1).unwrap();
    let place = "/log/cosignatures";
    let bytes = foreign.to_bytes();
    let site = &system.study.sites[0];
    assert_eq!(system.send_as(site, "POST", place, &[], &bytes).status, 403);
    // An auditor whose policy names the site as a witness needs nothing else.
    let policy = system.audit_policy();
    let text =
        std::fs::read_to_string(&policy).unwrap() + &format!("witnesses = [\"{witness}\"]\n");
    std::fs::write(&policy, text).unwrap();
    let mut command = process::command("sealfold-audit");
    command.arg("--json").arg("replay").arg(system.log()).arg("--policy").arg(policy);
    let report: Value = serde_json::from_slice(&command.output().unwrap().stdout).unwrap();
    assert_eq!(report["completeness"]["shown_up_to"].as_u64(), Some(signed.size()));
    let report = replay(&system, &system.log(), &[&kept]);
    assert_eq!(report["completeness"]["shown_up_to"].as_u64(), Some(signed.size()));
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
