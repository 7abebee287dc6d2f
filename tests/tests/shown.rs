//! What a host shows to everybody, and to who reads its log.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use sealfold_protocol::api::UploadState;
use sealfold_protocol::offer::Offer;
use sealfold_tests::http;
use sealfold_tests::lone::Lone;
use sealfold_tests::study::{BEYOND, Options};
use sealfold_tests::system::System;

fn page(system: &System) -> String {
    let reply = http::send(&system.endpoint(), "GET", "/", &[], b"").unwrap();
    String::from_utf8(reply.body).unwrap()
}

#[test]
fn that_an_upload_was_refused_is_its_own_sites_business() {
    let system = System::start(&Options::default());
    let offer = Offer::open(&system.round(1).offer.unwrap().0).unwrap();
    let terms = system.study.terms().clone();
    let site = &system.study.sites[2];
    let (before, update) = (page(&system), site.seal(&offer, &terms, &[BEYOND; 1000]));
    let _ = system.begin_upload(&update.header);
    let reply = system.append_as(site, &update.header.digest(), 0, &update.bytes);
    assert_eq!(reply.status, 200);
    let _ = system.wait_for(1, "the refusal", |round| {
        round.uploads.iter().any(|upload| matches!(upload.state, UploadState::Refused(_)))
    });
    let after = page(&system);
    let row = |page: &str| {
        let start = page.find("<th scope=row>site-002").unwrap();
        page[start..].split("</tr>").next().unwrap().to_owned()
    };
    assert_eq!(row(&before), row(&after));
    assert!(!after.contains("refused") && !after.contains("/metrics"), "{after}");
    assert!(system.metrics().contains("sealfold_refusals_total{check=\"norm-limit\"}"));
}

#[test]
fn where_the_enclave_is_stands_in_the_log_alone() {
    let mut system = System::start(&Options::default());
    system.enclave.kill();
    let round = system.wait_for(1, "the enclave", |round| {
        round.waiting_for.starts_with("the enclave, which does not answer")
    });
    let (page, socket) = (page(&system), system.folder.path().join("enclave.sock"));
    assert!(page.contains(&round.waiting_for), "{page}");
    assert!(!page.contains("os error") && !page.contains("enclave.sock"), "{page}");
    // It is shown before it is logged.
    system.host.hear(socket.to_str().unwrap());
}

#[test]
fn a_request_writes_nothing_into_the_log_that_a_terminal_acts_on() {
    let folder = tempfile::tempdir().unwrap();
    let host = Lone::start(folder.path(), "host", &["--any-study"]);
    let reply = http::send(&host.endpoint, "GET", "/\u{9b}31mred\u{202e}der", &[], b"").unwrap();
    assert!(reply.status >= 400);
    let log = host.server.log();
    assert!(log.contains(r"path=/\u{9b}31mred\u{202e}der"), "{log}");
    assert!(!log.contains(['\u{9b}', '\u{202e}', '\u{1b}']), "{log}");
}
