//! What the site client's command line says of an enclave, of a study and of
//! what it is given: names of checks and exit codes that people and programs
//! act on.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use sealfold_tests::process;
use sealfold_tests::study::Options;
use sealfold_tests::system::{Ended, Platform, System};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

const SITES: [&str; 4] = ["site-000", "site-001", "site-002", "site-003"];

/// A row of `verify`'s table.
fn row<'a>(verdict: &'a Value, name: &str) -> &'a Value {
    let checks = verdict["checks"].as_array().unwrap_or_else(|| panic!("no table: {verdict}"));
    checks.iter().find(|check| check["name"] == name).unwrap_or_else(|| panic!("{name}: {verdict}"))
}

/// Expects a refusal of exactly these words.
fn expect_refusal(ended: &Ended, code: i32, check: &str, expected: &str, found: &str) {
    assert_eq!(ended.code, code, "{ended:?}");
    let json = ended.json();
    let refusal = &json["refusal"];
    assert_eq!(
        [&refusal["check"], &refusal["expected"], &refusal["found"]],
        [&json!(check), &json!(expected), &json!(found)],
        "{ended:?}"
    );
    let next = refusal["next"].as_str().unwrap_or_else(|| panic!("no next step: {ended:?}"));
    let text = format!("refused by check {check}: expected {expected}, found {found}; {next}");
    assert_eq!(json["error"], text);
    assert_eq!(json["exit_code"], code);
}

/// Writes a file into the system's folder; its path.
fn write(system: &System, name: &str, text: &str) -> String {
    let path = system.folder.path().join(name);
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

fn manifest_text(system: &System) -> String {
    std::fs::read_to_string(system.folder.path().join("study.toml")).unwrap()
}

#[test]
fn options_for_a_document_are_not_ignored_beside_a_live_enclave() {
    let folder = tempfile::tempdir().unwrap();
    let home = folder.path().to_str().unwrap();
    let (host, study) = ("http://127.0.0.1:1", "00".repeat(32));
    for more in [["--policy", "p.toml"], ["--at", "2026-01-01T00:00:00Z"], ["--nonce", "00"]] {
        let live = ["--home", home, "verify", "--host", host, &study];
        let ended: Ended = process::run("sealfold", &[&live[..], &more].concat()).into();
        assert_eq!(ended.code, 2, "{ended:?}");
        assert!(ended.stderr.contains("cannot be used with") && ended.stderr.contains(more[0]));
        let alone = process::run("sealfold", &[&["--home", home, "verify"][..], &more].concat());
        let ended: Ended = alone.into();
        assert_eq!(ended.code, 2, "{ended:?}");
        assert!(ended.stderr.contains("--evidence <FILE>"), "{ended:?}");
    }
    // A host in the environment is not in the way of a bare document.
    let mut command = process::command("sealfold");
    command.args(["--home", home, "--json", "verify", "--evidence", "/none", "--policy", "/none"]);
    let ended: Ended = command.env("SEALFOLD_HOST", host).output().unwrap().into();
    expect_refusal(&ended, 1, "file", "a usable file /none", "no such file");
}

#[test]
fn an_enclave_is_verified_before_its_study_is_approved() {
    let system = System::start(&Options::default());
    let verdict = system.on_study("site-003", &["verify"], &[]).good().json();
    for name in ["measurements", "manifest", "not-approved"] {
        assert_eq!(row(&verdict, name)["state"], "passed", "{name}");
    }
    // As a site that has not signed yet: the evidence is judged all the same.
    std::fs::remove_dir_all(system.home("site-003").join("studies")).unwrap();
    let verdict = system.on_study("site-003", &["verify"], &[]).good().json();
    assert_eq!(verdict["outcome"], "accepted");
    for name in ["chain", "signature", "pcr0", "binding", "nonce", "measurements", "manifest"] {
        assert_eq!(row(&verdict, name)["state"], "passed", "{name}");
    }
    let approval = row(&verdict, "not-approved");
    assert_eq!(approval["state"], "not-made");
    assert_eq!(approval["expected"], "a manifest that this site signed");
    assert_eq!(approval["found"], format!("manifest {}", system.id()));
    assert_eq!(approval["next"], "read it and approve it: sealfold study approve");
    // Nothing else is done without the approval.
    let run = system.on_study("site-003", &["run"], &["--train", "true"]);
    let found = format!("manifest {}", system.id());
    expect_refusal(&run, 1, "not-approved", "a manifest that this site signed", &found);
    // A policy that the manifest does not fit refuses, and the table says so.
    let policy = system.home("site-003").join("policy.toml");
    let text = std::fs::read_to_string(&policy).unwrap();
    std::fs::write(&policy, text.replace("smallest_roster = 3", "smallest_roster = 4")).unwrap();
    let ended = system.on_study("site-003", &["verify"], &[]);
    assert_eq!(ended.code, 1, "{ended:?}");
    let verdict = ended.json();
    assert_eq!(verdict["outcome"], "refused");
    assert_eq!(row(&verdict, "signature")["state"], "passed");
    let manifest = row(&verdict, "manifest");
    assert_eq!(manifest["state"], "failed");
    assert_eq!(manifest["expected"], "smallest-roster: at least 4");
    assert_eq!(manifest["found"], "3");
}

#[test]
fn what_cannot_be_told_is_no_refusal() {
    let mut system = System::start(&Options::default());
    // A study that lacks approvals.
    let text = manifest_text(&system).replace("name = \"test\"", "name = \"another\"");
    let other = write(&system, "other.toml", &text);
    let approve = ["study", "approve", &other, "--host", &system.url, "--yes"];
    let id = system.sealfold("site-000", &approve).good().json()["study"].clone();
    let on_other = |command: &[&str]| {
        let target = ["--host", &system.url, id.as_str().unwrap()];
        system.sealfold("site-000", &[command, &target].concat())
    };
    let ended = on_other(&["verify"]);
    assert_eq!(ended.code, 2, "{ended:?}");
    let expected = "manifest with 3 approvals of listed approvers";
    let verdict = ended.json();
    let manifest = row(&verdict, "manifest");
    assert_eq!((&manifest["state"], &manifest["found"]), (&json!("not-made"), &json!("1")));
    assert_eq!(manifest["expected"], expected);
    let commit = on_other(&["commit"]);
    expect_refusal(&commit, 1, "approvers", "the approvals of 3 listed approvers", "1");
    // An enclave that died before it made any offer.
    system.enclave.kill();
    system.study = system.found("second", &Options { first_site: 4, ..Options::default() });
    let ended = system.on_study("site-004", &["verify"], &[]);
    assert_eq!(ended.code, 2, "{ended:?}");
    let verdict = ended.json();
    assert_eq!(verdict["outcome"], "undecided");
    let phase = row(&verdict, "phase");
    assert_eq!((&phase["state"], &phase["expected"]), (&json!("not-made"), &json!("an offer")));
    assert!(phase["found"].as_str().unwrap().starts_with("none; "), "{phase}");
    // No host at all.
    system.host.kill();
    let ended = system.on_study("site-004", &["verify"], &[]);
    assert_eq!(ended.code, 2, "{ended:?}");
}

#[test]
fn an_image_that_the_manifest_does_not_list_is_a_row_of_the_table() {
    // The manifest lists another image than the one that runs.
    let other = |folder: &Path| {
        let policy = process::simulation_policy(folder);
        let pcr0 = policy.lines().find(|line| line.starts_with("pcr0")).unwrap();
        policy.replace(pcr0, &format!("pcr0 = \"{}\"", "ab".repeat(48)))
    };
    let system = System::start_with(Platform::Process, &Options::default(), other);
    let simulation = process::simulation_policy(system.folder.path());
    let policy = system.home("site-000").join("policy.toml");
    std::fs::write(&policy, system.policy(&simulation)).unwrap();
    let ended = system.on_study("site-000", &["verify"], &[]);
    assert_eq!(ended.code, 1, "{ended:?}");
    let verdict = ended.json();
    assert_eq!(verdict["outcome"], "refused");
    for name in ["signature", "pcr0", "binding", "nonce", "age"] {
        assert_eq!(row(&verdict, name)["state"], "passed", "{name}");
    }
    let measurements = row(&verdict, "measurements");
    assert_eq!(measurements["state"], "failed");
    assert_eq!(measurements["expected"], "an image that the manifest lists");
    let pcr0 = simulation.lines().find(|line| line.starts_with("pcr0")).unwrap();
    assert_eq!(measurements["found"], format!("pcr0 {}", &pcr0[8..104]));
    // For people it is a line.
    let mut command = process::command("sealfold");
    command.arg("--home").arg(system.home("site-000"));
    command.args(["verify", "--host", &system.url, &system.id()]);
    let ended: Ended = command.output().unwrap().into();
    assert_eq!(ended.code, 1, "{ended:?}");
    assert!(ended.stdout.contains("\nmeasurements    FAILED    expected an image"), "{ended:?}");
    assert!(ended.stdout.ends_with("REFUSED\n"), "{ended:?}");
    // Nothing is sealed to it.
    let submitted = system.submit("site-000", 1.0);
    assert_eq!(submitted.check(), "measurements");
}

#[test]
fn what_is_wrong_with_something_given_is_named() {
    let system = System::start(&Options::default());
    let text = manifest_text(&system);
    let show = |name: &str, text: &str| {
        system.sealfold("site-000", &["study", "show", &write(&system, name, text)])
    };
    // An unknown field of a manifest, a missing one, a rule that it breaks.
    let surprise = text.replace("[quorum]", "[quorum]\nsurprise = 1");
    let line = surprise.lines().position(|line| line.starts_with("surprise")).unwrap() + 1;
    let found = format!("surprise, in line {line}");
    let fields = "quorum: no field but smallest_roster or colluders";
    expect_refusal(&show("u.toml", &surprise), 1, "manifest", fields, &found);
    let missing = show("m.toml", &text.replace("colluders = 0", ""));
    assert_eq!(missing.json()["refusal"]["check"], "manifest");
    assert!(missing.stdout.contains("quorum.colluders: a value"), "{missing:?}");
    let rounds = show("r.toml", &text.replace("rounds = 5", "rounds = 0"));
    expect_refusal(&rounds, 1, "manifest", "study.rounds: 1 to 1000000", "0");
    // A file that is not there, and a study that is none.
    let none = system.folder.path().join("none.toml").to_str().unwrap().to_owned();
    let ended = system.sealfold("site-000", &["study", "show", &none]);
    let expected = format!("a usable file {none}");
    expect_refusal(&ended, 1, "file", &expected, "no such file");
    let ended = system.sealfold("site-000", &["study", "show", "abc", "--host", &system.url]);
    let expected = "a manifest's file or a study's identity, 64 hex digits";
    expect_refusal(&ended, 1, "study", expected, "abc");
    // A policy without an image, and one with a field that there is not.
    let policy = system.home("site-000").join("policy.toml");
    let at = policy.display().to_string();
    let simulation = process::simulation_policy(system.folder.path());
    let start = simulation.find("[[simulation.measurements]]").unwrap();
    let empty = simulation[..start].replace("[simulation]", "[simulation]\nmeasurements = []");
    std::fs::write(&policy, system.policy(&empty)).unwrap();
    let expected = format!("simulation.measurements in {at}: at least one accepted image");
    for command in [["verify"], ["status"]] {
        let ended = system.on_study("site-000", &command, &[]);
        expect_refusal(&ended, 1, "policy", &expected, "an empty list");
    }
    std::fs::write(&policy, format!("surprise = 1\n{}", system.policy(&simulation))).unwrap();
    let ended = system.on_study("site-000", &["verify"], &[]);
    let refusal = &ended.json()["refusal"];
    assert_eq!(refusal["expected"], format!("a policy in {at}"));
    assert!(refusal["found"].as_str().unwrap().starts_with("line 1: unknown field `surprise`"));
    // A question without anybody to ask.
    let path = system.folder.path().join("study.toml").to_str().unwrap().to_owned();
    let ended = system.sealfold("site-001", &["study", "approve", &path, "--host", &system.url]);
    expect_refusal(&ended, 1, "confirmation", "a terminal to ask on", "none");
}

#[test]
fn a_study_is_read_and_watched_from_the_command_line() {
    let system = System::start(&Options::default());
    let id = system.id();
    let show = ["study", "show", &id, "--host", &system.url];
    let shown = system.sealfold("site-000", &show).good().json();
    assert_eq!(shown["study"], id);
    assert_eq!(shown["manifest"]["study"]["name"], "test");
    let file = system.folder.path().join("study.toml").to_str().unwrap().to_owned();
    let from_file = system.sealfold("site-000", &["study", "show", &file]).good().json();
    assert_eq!(from_file, shown);
    // The host may stand in the environment: a file is a file all the same.
    let with_host = ["study", "show", &file, "--host", &system.url];
    assert_eq!(system.sealfold("site-000", &with_host).good().json(), shown);
    let status = |site| system.on_study(site, &["status"], &[]).good().json();
    let before = status("site-000");
    assert_eq!(
        [&before["round"], &before["rounds"], &before["done"], &before["uploads"]],
        [&json!(1), &json!(5), &json!(false), &json!(0)]
    );
    assert_eq!(before["phase"], "open");
    let _ = system.submit("site-001", 1.0).good();
    assert_eq!(status("site-000")["uploads"], 1);
    let odd = "00".repeat(32);
    let ended = system.sealfold("site-000", &["status", "--host", &system.url, &odd]);
    let next = "publish its manifest first: sealfold study approve";
    assert_eq!(ended.json()["refusal"]["next"], next);
    expect_refusal(&ended, 1, "not-found", "a study of this host", &odd);
}

#[test]
fn a_study_of_images_that_the_policy_does_not_accept_is_not_approved() {
    let system = System::start(&Options::default());
    let (policy, file) = (system.home("site-001").join("policy.toml"), "study.toml");
    let text = std::fs::read_to_string(&policy).unwrap();
    let pcr2 = text.lines().find(|line| line.starts_with("pcr2")).unwrap();
    let other = format!("pcr2 = \"{}\"", "07".repeat(48));
    std::fs::write(&policy, text.replace(pcr2, &other)).unwrap();
    let path = system.folder.path().join(file).to_str().unwrap().to_owned();
    let approve = ["study", "approve", &path, "--host", &system.url, "--yes"];
    let ended = system.sealfold("site-001", &approve);
    let found = "other images: 1 of nitro";
    expect_refusal(&ended, 1, "measurements", "an image that your policy accepts", found);
    let _ = system.sealfold("site-002", &approve).good();
}

#[test]
fn peers_and_an_initial_model_of_somebody_else_are_refused() {
    let system = System::start(&Options::default());
    let policy = system.home("site-000").join("policy.toml");
    let text = std::fs::read_to_string(&policy).unwrap();
    let key = |place: usize| system.study.sites[place].key.verifying_key().to_string();
    let peers = |names: &[(&str, String)]| {
        let list: Vec<_> =
            names.iter().map(|(name, key)| format!("{name} = \"{key}\"\n")).collect();
        std::fs::write(&policy, format!("{text}\n[peers]\n{}", list.concat())).unwrap();
        system.on_study("site-000", &["run"], &["--train", "false", "--poll-seconds", "0.01"])
    };
    let expected = "sites that the policy lists, with their keys";
    let all = [(SITES[1], key(1)), (SITES[2], key(2)), (SITES[3], key(3))];
    let found = format!("site-003 with key {}", key(3));
    expect_refusal(&peers(&all[..2]), 1, "peers", expected, &found);
    let other = [all[0].clone(), all[1].clone(), (SITES[3], key(2))];
    expect_refusal(&peers(&other), 1, "peers", expected, &found);
    // With all of them it goes on to the training, which fails.
    let ended = peers(&all);
    assert!(ended.code == 2 && ended.stdout.contains("training"), "{ended:?}");
    // The host gives out another model than the manifest's.
    let stored = find(&system.folder.path().join("host"), 4000);
    assert_eq!(stored.len(), 1, "{stored:?}");
    std::fs::write(&stored[0], 1f32.to_le_bytes().repeat(1000)).unwrap();
    let out = system.folder.path().join("out.safetensors");
    let ended = system.on_study("site-001", &["fetch"], &["--out", out.to_str().unwrap()]);
    assert_eq!(ended.check(), "initial-model");
    assert_eq!(
        ended.json()["refusal"]["expected"],
        system.study.manifest.statement().terms.model.initial.to_string()
    );
    assert!(!out.exists());
}

/// The files of that size in a folder.
fn find(folder: &Path, size: u64) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let (entry, path) = entry.map(|entry| (entry.metadata().unwrap(), entry.path())).unwrap();
        if entry.is_dir() {
            found.extend(find(&path, size));
        } else if entry.len() == size {
            found.push(path);
        }
    }
    found
}

#[test]
fn an_amendment_is_in_force_after_the_release() {
    let system = System::start(&Options::default());
    let id = system.id();
    for site in SITES {
        let _ = system.submit(site, 1.0).good();
    }
    let _ = system.wait_for(1, "a roster", |round| round.roster.is_some());
    let commit = |site: &str| system.on_study(site, &["commit"], &[]).good();
    for site in [SITES[0], SITES[1], SITES[3]] {
        let _ = commit(site);
    }
    let manifest = system.amend(&SITES[..3], |text| text.replace("rounds = 5", "rounds = 2"));
    assert_ne!(manifest, id);
    // The round that runs ends under the manifest that it began with.
    let _ = commit(SITES[2]);
    let round = system.wait_for(1, "a release", |round| round.release.is_some());
    assert_eq!(offered(&round.offer.unwrap().0).manifest.to_string(), id);
    let out = system.folder.path().join("out.safetensors");
    let fetch = |site| system.on_study(site, &["fetch"], &["--out", out.to_str().unwrap()]);
    // The fourth has not signed the amendment: it reads it, then approves it.
    let found = format!("manifest {manifest}");
    let expected = "a manifest that this site signed";
    expect_refusal(&fetch(SITES[3]), 1, "not-approved", expected, &found);
    let approve = ["study", "approve", &id, "--host", &system.url, "--yes"];
    assert_eq!(system.sealfold(SITES[3], &approve).good().json()["manifest"], manifest);
    for site in SITES {
        assert_eq!(fetch(site).good().json()["round"], 1);
    }
    let round = system.wait_for(2, "an offer", |round| round.offer.is_some());
    assert_eq!(json!(offered(&round.offer.unwrap().0).manifest.to_string()), manifest);
    let status = system.on_study(SITES[3], &["status"], &[]).good().json();
    assert_eq!([&status["round"], &status["rounds"]], [&json!(2), &json!(2)]);
    for site in SITES {
        assert_eq!(system.submit(site, 1.0).good().json()["state"], "admitted");
    }
}

fn offered(envelope: &[u8]) -> sealfold_protocol::offer::Offer {
    sealfold_protocol::offer::Offer::open(envelope).unwrap().statement().clone()
}
