//! What a site's own command line refuses, and what it accepts.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use sealfold_tests::process;
use sealfold_tests::study::Options;
use sealfold_tests::system::{Ended, System, write_tensors};
use std::path::Path;
use std::process::Command;

fn run(arguments: &[&str]) -> Ended {
    process::run("sealfold", arguments).into()
}

#[test]
fn a_live_enclave_is_verified_check_by_check() {
    let system = System::start(&Options::default());
    let _ = system.wait_for(1, "an offer", |round| round.offer.is_some());
    let ended = system.on_study("site-000", &["verify"], &[]).good();
    let verdict = ended.json();
    assert_eq!(verdict["outcome"], "accepted");
    let state = |verdict: &serde_json::Value, name: &str| {
        let checks = verdict["checks"].as_array().unwrap();
        checks.iter().find(|check| check["name"] == name).unwrap()["state"].clone()
    };
    for name in ["chain", "signature", "pcr0", "pcr1", "pcr2", "binding", "nonce", "age"] {
        assert_eq!(state(&verdict, name), "passed", "{name}");
    }
    // The default policy refuses simulated evidence by name.
    let start = sealfold_attestation::Policy::example().find("[nitro]").unwrap();
    let nitro = &sealfold_attestation::Policy::example()[start..];
    let policy = system.home("site-000").join("policy.toml");
    std::fs::write(&policy, system.policy(nitro)).unwrap();
    let ended = system.on_study("site-000", &["verify"], &[]);
    assert_eq!(ended.code, 1, "{ended:?}");
    assert_eq!(state(&ended.json(), "simulation"), "failed");
    let refused = system.submit("site-000", 1.0);
    assert_eq!(refused.check(), "simulation");
    // Other measurements under the same root.
    let simulation = process::simulation_policy(system.folder.path());
    let digits =
        simulation.lines().find(|line| line.starts_with("pcr0")).unwrap()[8..104].to_owned();
    std::fs::write(&policy, system.policy(&simulation.replace(&digits, &"ab".repeat(48)))).unwrap();
    let refused = system.submit("site-000", 1.0);
    assert_eq!(refused.check(), "pcr0");
    // An empty list of measurements is no policy.
    let start = simulation.find("[[simulation.measurements]]").unwrap();
    let empty = simulation[..start].replace("[simulation]", "[simulation]\nmeasurements = []");
    std::fs::write(&policy, system.policy(&empty)).unwrap();
    let ended = system.on_study("site-000", &["verify"], &[]);
    assert_eq!(ended.code, 1, "{ended:?}");
    assert!(ended.stdout.contains("simulation.measurements"), "{ended:?}");
}

#[test]
fn a_bare_document_says_what_could_not_be_checked() {
    let vectors = Path::new(env!("CARGO_MANIFEST_DIR")).join("../attestation/tests/vectors");
    let document = vectors.join("nitro/20251225-dstack-prod-5e983e.bin");
    let folder = tempfile::tempdir().unwrap();
    let policy = folder.path().join("policy.toml");
    std::fs::write(&policy, sealfold_attestation::Policy::example()).unwrap();
    let home = folder.path().join("home");
    let verify = |more: &[&str]| {
        let fixed = [
            "--home",
            home.to_str().unwrap(),
            "verify",
            "--evidence",
            document.to_str().unwrap(),
            "--policy",
            policy.to_str().unwrap(),
        ];
        run(&[&fixed, more].concat())
    };
    // Other images than the policy's are refused, at its own time and now.
    let ended = verify(&["--at", "2025-12-25T13:15:37Z"]);
    assert_eq!(ended.code, 1);
    assert!(ended.stdout.contains("pcr0            FAILED"), "{}", ended.stdout);
    assert!(ended.stdout.contains("signature       passed"), "{}", ended.stdout);
    assert!(ended.stdout.contains("binding         not made"), "{}", ended.stdout);
    // With the document's own measurements nothing fails, but no offer is bound.
    let json = verify(&["--json", "--at", "2025-12-25T13:15:37Z"]).json();
    let mut text = sealfold_attestation::Policy::example().to_owned();
    for (index, digit) in ["1", "2", "3"].iter().enumerate() {
        let checks = json["checks"].as_array().unwrap();
        let found = checks.iter().find(|c| c["name"] == format!("pcr{index}")).unwrap();
        text = text.replace(&digit.repeat(96), found["found"].as_str().unwrap());
    }
    std::fs::write(&policy, text).unwrap();
    let ended = verify(&["--at", "2025-12-25T13:15:37Z"]);
    assert_eq!(ended.code, 2, "{}", ended.stdout);
    assert!(ended.stdout.contains("could not tell"), "{}", ended.stdout);
    let ended = verify(&[]);
    assert_eq!(ended.code, 1);
    assert!(ended.stdout.contains("validity        FAILED"), "{}", ended.stdout);
    let ended = verify(&["--at", "2025-12-25T13:15:37Z", "--nonce", "00"]);
    assert!(ended.stdout.contains("nonce           FAILED"), "{}", ended.stdout);
}

#[test]
fn updates_that_are_wrong_are_refused_before_they_leave() {
    let system = System::start(&Options::default());
    let _ = system.wait_for(1, "an offer", |round| round.offer.is_some());
    let submit = |path: &Path| system.submit_file("site-000", path, &system.url);
    let path = system.folder.path().join("odd.safetensors");
    write_tensors(&path, 999, 1.0);
    assert_eq!(submit(&path).check(), "layout");
    write_tensors(&path, 1000, f32::NAN);
    assert_eq!(submit(&path).check(), "finite");
    std::fs::write(&path, b"nonsense").unwrap();
    assert_eq!(submit(&path).code, 1);
    assert_eq!(system.submit("site-000", 1.0).good().json()["state"], "admitted");
    // The same update again is the first one again, another one is refused.
    assert_eq!(system.submit("site-000", 1.0).good().json()["state"], "admitted");
    let second = system.submit("site-000", 2.0);
    assert_eq!(second.check(), "one-update");
    let refusal = &second.json()["refusal"];
    for side in ["expected", "found"] {
        assert!(refusal[side].to_string().contains("content "), "{refusal}");
    }
    assert_ne!(refusal["expected"], refusal["found"]);
    assert_eq!(system.round(1).uploads.len(), 1);
}

#[test]
fn manifests_are_read_strictly_and_approved_knowingly() {
    let system = System::start(&Options::default());
    let path = system.folder.path().join("study.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    let approve = |text: &str| {
        let other = system.folder.path().join("other.toml");
        std::fs::write(&other, text).unwrap();
        let path = other.to_str().unwrap().to_owned();
        system.sealfold("site-000", &["study", "approve", &path, "--host", &system.url, "--yes"])
    };
    let unknown = approve(&text.replace("[quorum]", "[quorum]\nsurprise = 1"));
    assert_eq!(unknown.code, 1, "{unknown:?}");
    assert!(unknown.stdout.contains("surprise"), "{unknown:?}");
    let weak = approve(&text.replace("colluders = 0", "colluders = 1"));
    assert!(weak.stdout.contains("k - c >= 3"), "{weak:?}");
    // A study of which too few approve does not run, and says what it lacks.
    let other = approve(&text.replace("name = \"test\"", "name = \"another\"")).good().json();
    assert_eq!(other["active"], false);
    assert!(other["missing"].to_string().contains("approvals: 1 of 3"), "{other}");
    let id = other["study"].as_str().unwrap().to_owned();
    let commit = system.sealfold("site-000", &["commit", "--host", &system.url, &id]);
    assert_eq!(commit.check(), "approvers");
    // A study that this site did not sign is none of its business.
    let run = system.sealfold("site-001", &["run", "--host", &system.url, &id, "--train", "true"]);
    assert_eq!(run.check(), "not-approved");
    // What approving means is said in words.
    let shown = process::run("sealfold", &["study", "show", path.to_str().unwrap()]);
    let shown = String::from_utf8(shown.stdout).unwrap();
    assert!(shown.contains("No aggregate of fewer than 3 sites"), "{shown}");
    assert!(shown.contains("can still be compared"), "{shown}");
}

#[test]
fn the_shipped_enclave_holds_no_simulation() {
    let shipped = process::binaries().join("shipped/sealfold-enclave");
    let shipped = std::fs::read(&shipped).expect("make shipped builds it");
    let simulated = std::fs::read(process::binaries().join("sealfold-enclave")).unwrap();
    let holds = |binary: &[u8], text: &[u8]| binary.windows(text.len()).any(|w| w == text);
    for text in [
        &b"sealfold simulation root"[..],
        b"sealfold simulation nsm",
        b"sealfold simulated kernel",
        b"simulation-root",
        b"print-policy",
    ] {
        assert!(holds(&simulated, text), "{}", String::from_utf8_lossy(text));
        assert!(!holds(&shipped, text), "{}", String::from_utf8_lossy(text));
    }
    // Without an NSM device it says so and ends.
    let output = Command::new(process::binaries().join("shipped/sealfold-enclave"))
        .args(["--listen", "unix:///tmp/x", "--door", "unix:///tmp/y"])
        .output()
        .unwrap();
    assert!(!output.status.success());
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("/dev/nsm") || text.contains("NSM"), "{text}");
    let odd = Command::new(process::binaries().join("shipped/sealfold-enclave"))
        .args(["--simulation-root", "/tmp/x"])
        .output()
        .unwrap();
    assert!(String::from_utf8_lossy(&odd.stderr).contains("unexpected argument"));
}

#[test]
fn binaries_say_their_version_and_help() {
    for name in ["sealfold", "sealfold-host", "sealfold-enclave"] {
        let version = String::from_utf8(process::run(name, &["--version"]).stdout).unwrap();
        assert!(
            version.starts_with(&format!("{name} {} (", env!("CARGO_PKG_VERSION"))),
            "{version}"
        );
        assert!(process::run(name, &["--help"]).stdout.len() > 300);
    }
    let folder = tempfile::tempdir().unwrap();
    let pages = folder.path().to_str().unwrap();
    for name in ["sealfold", "sealfold-host"] {
        let shell = process::run(name, &["completions", "bash"]);
        assert!(shell.stdout.len() > 1000);
        assert!(process::run(name, &["man", pages]).status.success());
        assert!(folder.path().join(format!("{name}.1")).exists());
    }
}
