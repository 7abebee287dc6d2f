//! A host that lies to people: what it says reaches their terminal.

use sealfold_protocol::api::StudyStatus;
use sealfold_protocol::bytes::Envelope;
use sealfold_tests::liar::Liar;
use sealfold_tests::process;
use sealfold_tests::study::{Options, Study};
use sealfold_tests::system::System;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::Output;

/// What a terminal would act on: a title, a cleared screen, hidden words, a
/// turned direction, lines that look like the program's own.
const ACTING: &str = "\u{1b}]0;x\u{7}\u{1b}[2J\u{1b}[8m\u{9b}8m\u{202e}\n\u{2028}\raccepted";

/// A host that answers everything with this.
fn host(status: &str, body: serde_json::Value) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let body = body.to_string();
    let head = format!("HTTP/1.1 {status}\r\ncontent-type: application/json\r\nconnection: close");
    let reply = format!("{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    std::thread::spawn(move || {
        for mut site in listener.incoming().flatten() {
            let _ = site.read(&mut vec![0; 1 << 16]);
            let _ = site.write_all(reply.as_bytes());
        }
    });
    url
}

/// `sealfold` for a person, without `--json`.
fn sealfold(home: &std::path::Path, arguments: &[&str]) -> Output {
    process::command("sealfold").arg("--home").arg(home).args(arguments).output().unwrap()
}

/// Expects so many lines and nothing that a terminal acts on; what was said.
fn expect_plain(output: &Output, lines: usize) -> String {
    let said = [output.stdout.as_slice(), &output.stderr].concat();
    let said = String::from_utf8(said).unwrap();
    let acts = |c: char| c != '\n' && (c.is_control() || ('\u{2028}'..='\u{202e}').contains(&c));
    assert!(!said.contains(acts), "{said:?}");
    assert_eq!(said.lines().count(), lines, "{said}");
    said
}

#[test]
fn refusals_and_texts_that_act_on_a_terminal() {
    let url = host(
        "409 Conflict",
        serde_json::json!({ "check": "phase", "expected": ACTING, "found": ACTING, "next": ACTING }),
    );
    let home = tempfile::tempdir().unwrap();
    let id = "00".repeat(32);
    let shown = sealfold(home.path(), &["study", "show", "--host", &url, &id]);
    assert_eq!(shown.status.code(), Some(1));
    let said = expect_plain(&shown, 1);
    assert!(said.contains("\\u{1b}[8m\\u{9b}8m\\u{202e}\\n\\u{2028}\\raccepted"), "{said}");
    // For machines it is what the host said, in JSON's own escapes.
    let json = sealfold(home.path(), &["--json", "study", "show", "--host", &url, &id]);
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(json["refusal"]["expected"], ACTING);
    // What a round waits for is the host's to say.
    let system = System::start(&Options::default());
    let liar = Liar::before(&system.endpoint(), |asked, body| {
        if !asked.path.contains("/rounds/") {
            return false;
        }
        let mut round: serde_json::Value = serde_json::from_slice(body).unwrap();
        round["waiting_for"] = ACTING.into();
        *body = round.to_string().into_bytes();
        true
    });
    let status = sealfold(&system.home("site-000"), &["status", "--host", &liar.url, &system.id()]);
    assert!(status.status.success(), "{status:?}");
    expect_plain(&status, 3);
}

/// Under the identity that was asked for, another study's terms.
#[test]
fn another_studys_terms_under_the_identity_that_was_asked_for() {
    let asked = Study::new(&Options::default());
    let other = Study::new(&Options { rounds: 99, first_site: 50, ..Options::default() });
    let status = StudyStatus {
        study: asked.id(),
        name: "test".to_owned(),
        manifests: vec![Envelope(other.manifest.envelope().unwrap())],
        active: true,
        missing: Vec::new(),
        pending: Vec::new(),
        rounds_done: 0,
        rounds: 99,
    };
    let url = host("200 OK", serde_json::to_value(&status).unwrap());
    let home = tempfile::tempdir().unwrap();
    let id = asked.id().to_string();
    let shown = sealfold(home.path(), &["study", "show", "--host", &url, &id]);
    assert_eq!(shown.status.code(), Some(1), "{shown:?}");
    let said = expect_plain(&shown, 1);
    assert!(said.contains(&format!("refused by check study: expected {id}")), "{said}");
    // What is shown is what was asked for.
    let url = host(
        "200 OK",
        serde_json::to_value(&StudyStatus {
            manifests: vec![Envelope(asked.manifest.envelope().unwrap())],
            ..status
        })
        .unwrap(),
    );
    assert!(sealfold(home.path(), &["study", "show", "--host", &url, &id]).status.success());
}
