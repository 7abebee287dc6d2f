//! The auditor against logs that a hostile or a careless host would show.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use sealfold_attestation::log::note::KeyKind;
use sealfold_attestation::log::{NoteSigner, SignedCheckpoint};
use sealfold_attestation::{Evidence, Policy, verify_replay};
use sealfold_protocol::leaf::Kind;
use sealfold_protocol::{Digest, Signed};
use sealfold_tests::audit::{Audit, findings};
use sealfold_tests::process;
use sealfold_tests::study::Options;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Instant;

fn one(check: &str, leaf: u64) -> Vec<(String, Option<u64>)> {
    vec![(check.to_owned(), Some(leaf))]
}

#[test]
fn an_honest_log_holds_and_a_kept_checkpoint_shows_that_it_is_whole() {
    let mut audit = Audit::of_rounds(2);
    let kept = audit.file("kept", audit.story.close().to_bytes());
    audit.story.round(3);
    assert_eq!(audit.found(&[]), []);
    let (_, report) = audit.replay(&[]);
    assert_eq!(report["leaves"]["release"], 3);
    assert_eq!(report["leaves"]["commit"], 12);
    let words = report["completeness"]["words"].as_str().unwrap().to_owned();
    assert!(words.starts_with("not shown: without a checkpoint"), "{words}");
    let (code, report) = audit.replay(&["--checkpoint", kept.to_str().unwrap()]);
    assert_eq!((code, report["completeness"]["shown_up_to"].as_u64()), (0, Some(15)));
    // For people: text, a page, one leaf, a lineage, a card.
    let html = audit.folder.path().join("report.html");
    let policy = audit.story.policy();
    let (code, text) = audit.under(&policy, "replay", &["--html", html.to_str().unwrap()]);
    assert_eq!(code, 0);
    assert!(text.contains("Nothing is wrong: all 22 leaves hold"), "{text}");
    let html = std::fs::read_to_string(html).unwrap();
    assert!(html.contains("<svg") && html.contains("Nothing is wrong"));
    assert!(!html.contains("<script") && !html.contains("src="), "it fetches something");
    for (leaf, word) in [(0, "A manifest"), (1, "An offer"), (2, "A roster"), (3, "A commit")] {
        let (code, text) = audit.under(&policy, "explain", &[&leaf.to_string()]);
        assert_eq!(code, 0);
        assert!(text.contains(word) && text.contains("It is proven to be in"), "{text}");
    }
    let (_, commit) = audit.under(&policy, "explain", &["3", "--json"]);
    let commit: Value = serde_json::from_str(&commit).unwrap();
    assert_eq!([&commit["kind"], &commit["leaf"]], [&json!("commit"), &json!(3)]);
    assert_eq!(commit["says"][4], json!(["site", "site-000"]));
    assert_eq!(audit.under(&policy, "explain", &["22"]).0, 2);
    let release = audit.story.previous.unwrap().to_string();
    let (code, text) = audit.under(&policy, "model", &[&release]);
    assert!(code == 0 && text.matches("release ").count() >= 3, "{text}");
    let (code, card) = audit.under(&policy, "card", &[&release]);
    assert!(code == 0 && card.starts_with("# Model card: test"), "{card}");
    assert!(card.contains("| site-000 | 3 |"), "{card}");
    assert_eq!(audit.under(&policy, "card", &[&"00".repeat(32)]).0, 2);
}

#[test]
fn what_a_hostile_host_would_log_is_found_at_its_leaf() {
    // A release without one site's commit.
    let mut audit = Audit::of_rounds(0);
    let offer = audit.story.offer(1);
    let evidence = audit.story.evidence(&offer.digest());
    audit.story.offered(&offer, &evidence);
    let roster = audit.story.roster(&offer, 1, 4);
    audit.story.say(Kind::Roster, &roster);
    for site in 0..3 {
        let commit = audit.story.commit(site, &roster);
        audit.story.say(Kind::Commit, &commit);
    }
    let release = audit.story.release(&offer, &roster);
    audit.story.say(Kind::Release, &release);
    assert_eq!(audit.found(&[]), one("commits-missing", 6));
    // Then a second release, of a roster without that site.
    let smaller = audit.story.roster(&offer, 2, 3);
    audit.story.say(Kind::Roster, &smaller);
    let second = audit.story.release(&offer, &smaller);
    audit.story.say(Kind::Release, &second);
    assert!(audit.found(&[]).contains(&("second-release".to_owned(), Some(8))));
    // The first one again.
    audit.story.say(Kind::Release, &release);
    assert!(audit.found(&[]).contains(&("leaf-twice".to_owned(), Some(9))));
}

#[test]
fn offers_that_do_not_continue_the_chain_are_found() {
    // Evidence of another offer; a round too far; a release that is not the last.
    let mut audit = Audit::of_rounds(1);
    let offer = audit.story.offer(2);
    let other = audit.story.evidence(&Digest::new([1; 32]));
    audit.story.offered(&offer, &other);
    assert_eq!(audit.found(&[]), one("evidence", 8));
    let far = audit.story.offer(3);
    let evidence = audit.story.evidence(&far.digest());
    audit.story.offered(&far, &evidence);
    assert!(audit.found(&[]).contains(&("chain".to_owned(), Some(9))));
    audit.story.previous = None;
    let forgetful = audit.story.offer(2);
    let evidence = audit.story.evidence(&forgetful.digest());
    audit.story.offered(&forgetful, &evidence);
    assert!(audit.found(&[]).contains(&("chain".to_owned(), Some(10))));
    // A clock that jumps back.
    let mut audit = Audit::of_rounds(1);
    audit.story.clock -= 3_600_000;
    audit.story.round(2);
    let found = audit.found(&["--at", "2026-12-31T00:00:00Z"]);
    assert_eq!(found, one("clock", 8));
    // One that is ahead of the auditor's; beyond the manifest's validity, too.
    let mut audit = Audit::of_rounds(1);
    assert_eq!(audit.found(&["--at", "2026-02-01T00:00:00Z"]), [("clock".to_owned(), None)]);
    audit.story.clock += 30 * 365 * 86_400_000;
    audit.story.round(2);
    assert_eq!(audit.found(&[]), one("validity", 8));
}

#[test]
fn rosters_and_commits_that_no_site_would_make_are_found() {
    let mut audit = Audit::of_rounds(0);
    let offer = audit.story.offer(1);
    let evidence = audit.story.evidence(&offer.digest());
    audit.story.offered(&offer, &evidence);
    let small = audit.story.roster(&offer, 1, 2);
    audit.story.say(Kind::Roster, &small);
    assert_eq!(audit.found(&[]), one("roster", 2));
    // A commit at the checkpoint of another log.
    let mut other = Audit::of_rounds(0);
    let offer = other.story.offer(1);
    let evidence = other.story.evidence(&offer.digest());
    other.story.offered(&offer, &evidence);
    let roster = other.story.roster(&offer, 1, 4);
    let elsewhere = other.story.commit(0, &roster);
    other.story.say(Kind::Roster, &roster);
    other.story.say(Kind::Commit, &elsewhere);
    assert_eq!(other.found(&[]), one("checkpoint", 3));
    // A commit that another key signed.
    let roster = audit.story.roster(&offer, 2, 4);
    let commit = audit.story.commit(0, &roster);
    let forged = Signed::sign(commit.statement().clone(), &audit.story.study.sites[1].key);
    audit.story.say(Kind::Commit, &forged.unwrap());
    assert!(audit.found(&[]).contains(&("statement".to_owned(), Some(3))));
}

#[test]
fn a_site_that_was_bound_twice_and_rosters_too_close_are_found() {
    let mut audit = Audit::of_rounds(0);
    let begin = |audit: &mut Audit, n| {
        let offer = audit.story.offer(1);
        let evidence = audit.story.evidence(&offer.digest());
        audit.story.offered(&offer, &evidence);
        let roster = audit.story.roster(&offer, 1, n);
        audit.story.say(Kind::Roster, &roster);
        let commit = audit.story.commit(0, &roster);
        audit.story.say(Kind::Commit, &commit);
        offer
    };
    let first = begin(&mut audit, 4);
    assert_eq!(audit.found(&[]), []);
    // Later than the round's ten minutes the sites still wait for a release
    // that may be withheld.
    let later = i64::try_from(audit.story.clock / 1000).unwrap() + 601;
    let later = jiff::Timestamp::from_second(later).unwrap().to_string();
    assert_eq!(audit.found(&["--at", &later]), one("unfinished", 1));
    let second = begin(&mut audit, 4);
    assert_eq!(audit.found(&[]), one("bound-twice", 6));
    audit.story.abandon(&first, 2);
    assert!(audit.found(&[]).contains(&("abandonment".to_owned(), Some(7))));
    audit.story.abandon(&first, 3);
    audit.story.abandon(&second, 3);
    begin(&mut audit, 3);
    let found = audit.found(&[]);
    assert!(found.contains(&("roster-too-close".to_owned(), Some(12))), "{found:?}");
}

#[test]
fn a_log_that_forks_forgets_or_rewrites_is_convicted_by_what_others_kept() {
    let mut audit = Audit::of_rounds(2);
    let longer = audit.file("longer", audit.story.close().to_bytes());
    let root = Digest::new([7; 32]);
    let other = sealfold_attestation::log::Hash(*root.as_bytes());
    let fork = SignedCheckpoint::sign(9, other, &audit.story.signer).unwrap();
    let fork = audit.file("fork", fork.to_bytes());
    let found = audit.found(&["--checkpoint", fork.to_str().unwrap()]);
    assert_eq!(found, [("fork".to_owned(), None)]);
    // The same key, one round less.
    let short = Audit::of_rounds(1);
    let _ = short.story.close();
    let found = short.found(&["--checkpoint", longer.to_str().unwrap()]);
    assert!(found.contains(&("shortened".to_owned(), None)), "{found:?}");
    // A checkpoint of another log tells nothing about this one, and says so.
    let stranger = NoteSigner::from_seed("log.example/other", KeyKind::Ed25519, &[9; 32]).unwrap();
    let foreign = SignedCheckpoint::sign(9, other, &stranger).unwrap();
    let foreign = audit.file("foreign", foreign.to_bytes());
    let policy = audit.story.policy();
    let (code, said) = audit.under(&policy, "replay", &["--checkpoint", foreign.to_str().unwrap()]);
    assert_eq!(code, 2);
    assert!(said.contains("log.example/other") && said.contains("foreign"), "{said}");
    // So does the log's own, if the policy names another key.
    let key = audit.story.signer.key().to_string();
    let other = policy.replace(&key, &stranger.key().to_string());
    let (code, said) = audit.under(&other, "replay", &[]);
    assert!(code == 2 && said.contains("log.example/other"), "{said}");
    let (code, said) = audit.under(&policy.replace("[log]\nkey", "#"), "replay", &[]);
    assert!(code == 2 && said.contains("log's key"), "{said}");
    audit.story.round(3);
    assert_eq!(audit.found(&["--checkpoint", longer.to_str().unwrap()]), []);
}

#[test]
fn a_leaf_of_an_unknown_type_is_named_and_the_rest_is_judged() {
    let mut audit = Audit::of_rounds(1);
    // {"withdrawal": 1}
    let entry = [b"\xa1\x6a".as_slice(), b"withdrawal", &[1]].concat();
    audit.story.raw(&entry);
    audit.story.raw(b"nonsense");
    audit.story.round(2);
    let found = audit.found(&[]);
    assert_eq!(found, [("leaf".to_owned(), Some(8)), ("leaf".to_owned(), Some(9))]);
    let (_, report) = audit.replay(&[]);
    assert!(report["findings"][0]["found"].as_str().unwrap().contains("withdrawal"));
    assert_eq!(report["leaves"]["release"], 2);
}

#[test]
fn two_auditors_with_different_policies_differ_where_their_policies_do() {
    let audit = Audit::of_rounds(3);
    assert_eq!(audit.found(&[]), []);
    let policy = audit.story.policy();
    let checks = |policy: &str| {
        let (code, report) = audit.replay_under(policy, &[]);
        assert_eq!(code, 1);
        findings(&report).into_iter().map(|(check, _)| check).collect::<BTreeSet<_>>()
    };
    let one = |check: &str| BTreeSet::from([check.to_owned()]);
    // An image that this auditor has not accepted: an unknown one each round.
    let image = policy.replace(&"11".repeat(48), &"22".repeat(48));
    assert_eq!(checks(&image), one("evidence"));
    let strict = policy.replace("smallest_roster = 3", "smallest_roster = 4");
    assert_eq!(checks(&strict), one("smallest-roster"));
    let peers =
        format!("{policy}[peers]\nsite-000 = {}\n", audit.story.study.sites[0].quoted_key());
    assert_eq!(checks(&peers), one("peers"));
    let approvers = policy.replace("required = 2", "required = 3").replacen(
        &audit.story.study.sites[0].quoted_key(),
        &format!("\"{}\"", "ab".repeat(32)),
        1,
    );
    assert_eq!(checks(&approvers), one("approvers"));
}

/// Every file of a log, cut at some bytes, changed or missing: a finding or an
/// error that names it, and never a panic.
#[test]
fn a_copy_with_any_file_cut_changed_or_missing_is_told_of() {
    let mut audit = Audit::of_rounds(0);
    (1..=43).for_each(|round| audit.story.round(round));
    assert!(audit.story.size() > 256);
    assert_eq!(audit.found(&[]), []);
    let mut files = Vec::new();
    list(&audit.story.folder, &mut files);
    let one_of = |part: &str| files.iter().find(|f| f.to_str().unwrap().contains(part)).unwrap();
    let mut tried = 0;
    for part in [
        "checkpoint",
        "tile/0/000",
        "tile/0/001.p",
        "tile/1/",
        "entries/000",
        "entries/001",
        "objects",
    ] {
        let path = one_of(part);
        let bytes = std::fs::read(path).unwrap();
        let mut variants = vec![None, Some(Vec::new()), Some([&bytes[..], b"x"].concat())];
        for place in [1, bytes.len() / 3, bytes.len() / 2, bytes.len() - 1] {
            variants.push(Some(bytes[..place].to_vec()));
            let mut changed = bytes.clone();
            changed[place] ^= 0x20;
            variants.push(Some(changed));
        }
        for variant in variants {
            match &variant {
                None => std::fs::remove_file(path).unwrap(),
                Some(variant) => std::fs::write(path, variant).unwrap(),
            }
            let (code, said) = audit.under(&audit.story.policy(), "replay", &[]);
            assert!(code == 1 || code == 2, "{part} {variant:?}: {code} {said}");
            tried += 1;
        }
        std::fs::write(path, &bytes).unwrap();
    }
    assert_eq!(tried, 77);
    assert_eq!(audit.replay(&[]).0, 0);
    // A level-0 tile names the leaf that it belies.
    let path = audit.story.folder.join("tile/0/000");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[32 * 100] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let (_, report) = audit.replay(&[]);
    assert_eq!(findings(&report), one("tile", 100));
}

fn list(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { list(&path, files) } else { files.push(path) }
    }
}

/// What the signature checks of a round with so many sites cost, in seconds of
/// one core: a commit of each, roster and release, and the offer's evidence, whose
/// certificates are most of its cost.
fn signatures(audit: &mut Audit, sites: u32) -> f64 {
    let now = || {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        std::time::Duration::try_from(now).unwrap().as_secs_f64()
    };
    let offer = audit.story.offer(1);
    let (message, document) = ([7; 400], audit.story.evidence(&offer.digest()));
    let pair = ring::signature::Ed25519KeyPair::from_seed_unchecked(&[1; 32]).unwrap();
    let (signature, public) = (pair.sign(&message), ring::signature::KeyPair::public_key(&pair));
    let key = ring::signature::UnparsedPublicKey::new(&ring::signature::ED25519, public);
    assert!(key.verify(&message, signature.as_ref()).is_ok());
    let start = now();
    for _ in 0..2000 {
        std::hint::black_box(key.verify(&message, signature.as_ref()).is_ok());
    }
    let one = (now() - start) / 2000.0;
    let policy = Policy::from_toml(&audit.story.policy()).unwrap();
    let evidence = Evidence::of("nitro", &document).unwrap();
    let start = now();
    for _ in 0..50 {
        let verdict = verify_replay(&evidence, &policy, offer.digest().as_bytes());
        assert!(verdict.into_claims().is_ok());
    }
    one * f64::from(sites + 3) + (now() - start) / 50.0
}

/// A million leaves in constant memory, and fast. Run by hand: it writes some
/// 500 MB.
#[test]
#[ignore = "takes minutes; cargo test -p sealfold-tests --test audit -- --ignored --nocapture"]
fn a_million_leaves_stream_in_constant_memory() {
    const SITES: u16 = 200;
    let peak = |rounds: u16| {
        let options = Options {
            sites: SITES.into(),
            smallest_roster: 110,
            rounds: 100_000,
            ..Options::default()
        };
        let mut audit = Audit::new(&options);
        audit.story.manifest();
        (1..=rounds).for_each(|round| audit.story.round(round.into()));
        let _ = audit.story.close();
        let policy = audit.file("policy.toml", audit.story.policy());
        let start = Instant::now();
        let mut command = process::command("sealfold-audit");
        command.arg("replay").arg(&audit.story.folder).arg("--policy").arg(policy);
        let log = audit.folder.path().join("said");
        let mut replay = process::Server::start_unheard(command, &log);
        let (mut peak, mut cpu) = (0, 0.0);
        while let Some(now) = replay.memory() {
            peak = now;
            cpu = replay.cpu_seconds().unwrap_or(cpu);
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        assert_eq!(replay.wait(std::time::Duration::from_secs(5)), 0, "{}", replay.log());
        let (size, seconds) = (audit.story.size(), start.elapsed().as_secs_f64());
        let checks = signatures(&mut audit, SITES.into()) * f64::from(rounds);
        let leaves = f64::from(rounds) * f64::from(SITES + 3);
        let rest = leaves / (cpu - checks);
        eprintln!(
            "{size} leaves: {seconds:.1} s, {cpu:.1} s of one core, of which {checks:.1} s are \
             signature checks: {:.0} leaves a second, {rest:.0} apart from signature checks; {} kB",
            leaves / cpu,
            peak / 1024
        );
        (peak, rest)
    };
    let ((small, _), (large, rest)) = (peak(50), peak(4_927));
    // The report's thousand rounds, each with the names of 200 sites, are 11 MB
    // of it, and no more with more rounds.
    assert!(large < small + (16 << 20), "{small} bytes, then {large}");
    assert!(rest > 10_000.0, "{rest} leaves a second");
}
