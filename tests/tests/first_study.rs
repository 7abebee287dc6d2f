//! `docs/first-study.md`, run as it stands: its commands in one shell, from the top
//! to the bottom. Only what a test must choose differs: the folder, the port, and
//! that the binaries are built already.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use sealfold_tests::process;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};

/// The page's blocks of commands, one behind the other.
fn commands(page: &str) -> String {
    let blocks = page.split("\n```sh\n").skip(1);
    blocks.map(|rest| rest.split("\n```\n").next().unwrap().to_owned() + "\n").collect()
}

/// A part of a text that must be there, replaced.
fn replaced(text: &str, part: &str, by: &str) -> String {
    assert!(text.contains(part), "the page lacks {part:?}");
    text.replace(part, by)
}

#[test]
fn the_pages_commands_lead_to_a_study_that_an_auditor_finds_whole() {
    let checkout = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let page = std::fs::read_to_string(checkout.join("docs/first-study.md")).unwrap();
    assert!(page.lines().count() < 400, "{} lines", page.lines().count());
    let folder = tempfile::tempdir().unwrap();
    let work = folder.path().join("study");
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let script = commands(&page);
    let script = replaced(&script, "make build ", "true ");
    let script = replaced(&script, "$PWD/target/release", process::binaries().to_str().unwrap());
    let script = replaced(&script, "/tmp/first-study", work.to_str().unwrap());
    let script = replaced(&script, "127.0.0.1:8080", &format!("127.0.0.1:{port}"));
    // A command that fails ends the test; what runs behind it is ended with it.
    let script =
        format!("set -euo pipefail\ntrap 'kill $(jobs -p) 2>/dev/null || true' EXIT\n{script}");
    let output = Command::new("bash")
        .args(["-c", &script])
        .current_dir(checkout)
        .env_remove("SEALFOLD_HOME")
        .env_remove("SEALFOLD_HOST")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{said}");
    for text in [
        "rounds can run",
        "accepted",
        "the model after round 1 is in site-c.model",
        "all 3 rounds are done",
        "Nothing is wrong: all 19 leaves hold",
        "SIMULATED",
        "safety root",
        "exit code 1",
    ] {
        assert!(said.contains(text), "{text:?} is not in {said}");
    }
    // Every site has computed the same model as the one that was fetched.
    let digests = |line: &str| line.split_once("  ").map(|(digest, _)| digest.to_owned());
    let models = said.lines().filter(|line| line.ends_with(".safetensors"));
    let models = models.filter(|line| line.len() > 64 && !line[..64].contains(' '));
    let models: Vec<_> = models.filter_map(digests).collect();
    assert_eq!(models.len(), 4, "{said}");
    assert!(models.iter().all(|digest| *digest == models[0]), "{models:?}");
    assert!(std::fs::read(work.join("report.html")).unwrap().starts_with(b"<"));
}
