//! Agents are left alone: they wait for others, try again, and end when that
//! does not help.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use sealfold_protocol::SigningKey;
use sealfold_protocol::access::Role;
use sealfold_protocol::bytes::Envelope;
use sealfold_protocol::offer::Offer;
use sealfold_tests::http;
use sealfold_tests::liar::Liar;
use sealfold_tests::participation::gives;
use sealfold_tests::study::Options;
use sealfold_tests::system::{System, write_tensors};
use serde_json::json;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(40);

#[test]
fn an_agent_waits_until_the_others_have_approved() {
    let system = System::start(&Options::default());
    let text = std::fs::read_to_string(system.folder.path().join("study.toml")).unwrap();
    let other = system.folder.path().join("other.toml");
    std::fs::write(&other, text.replace("name = \"test\"", "name = \"another\"")).unwrap();
    let approve = |site: &str, more: &[&str]| {
        let path = other.to_str().unwrap();
        let fixed = ["study", "approve", path, "--host", &system.url, "--yes"];
        system.sealfold(site, &[&fixed, more].concat()).good().json()
    };
    let id = approve("site-000", &[])["study"].as_str().unwrap().to_owned();
    let run = |site: &str| {
        let mut command = system.command(site, &["run", "--host", &system.url, &id]);
        command.args(["--train", "true", "--poll-seconds", "0.05"]);
        let log = system.folder.path().join(format!("{site}.log"));
        sealfold_tests::process::Server::start_unheard(command, &log)
    };
    let mut agent = run("site-000");
    agent.hear("\"waiting\"");
    assert!(agent.log().contains("refused by check approvers"), "{}", agent.log());
    // Its own approval is nothing to wait for.
    let mut hasty = run("site-001");
    assert_eq!(hasty.wait(PATIENCE), 1, "{}", hasty.log());
    assert!(hasty.log().contains("not-approved"), "{}", hasty.log());
    for site in ["site-001", "site-002"] {
        let _ = approve(site, &[]);
    }
    agent.hear("the initial model, which the host does not have");
    let model = system.folder.path().join("study.safetensors");
    let _ = approve("site-003", &["--model", model.to_str().unwrap()]);
    agent.hear("an offer for round 1");
    agent.terminate();
    assert_eq!(agent.wait(PATIENCE), 2, "{}", agent.log());
}

#[test]
fn a_trainer_that_fails_is_called_again_and_not_for_ever() {
    let system = System::start(&Options::default());
    let calls = system.folder.path().join("calls");
    let count = format!("echo >> {0}; n=$(wc -l < {0})", calls.display());
    // Fails, leaves half a file, writes no number, and then is fine.
    let nan = system.folder.path().join("nan.safetensors");
    write_tensors(&nan, 1000, f32::NAN);
    let train = format!(
        "{count}; case $n in 1) echo half > $SEALFOLD_UPDATE; exit 3;; 2) echo > $SEALFOLD_METRICS;; \
         3) {};; *) {};; esac",
        gives(&nan),
        gives(&system.update(1.0)),
    );
    let agent = system.agent_with("site-000", &train, 1);
    agent.hear("\"uploaded\"");
    let log = agent.log();
    for text in ["exit status: 3", "wrote no file at $SEALFOLD_UPDATE", "refused by check finite"] {
        assert!(log.contains(text), "{text}: {log}");
    }
    assert!(log.contains("\"of\":5") && !log.contains("\"attempt\":4"), "{log}");
    // One that always fails ends it.
    std::fs::write(&calls, "").unwrap();
    let mut agent = system.agent_with("site-001", &format!("{count}; exit 7"), 1);
    assert_eq!(agent.wait(PATIENCE), 2, "{}", agent.log());
    assert_eq!(std::fs::read_to_string(&calls).unwrap().lines().count(), 5);
    let last = agent.log().lines().last().unwrap().to_owned();
    assert!(last.contains("exit status: 7") && last.contains("5 attempts in a row"), "{last}");
    let mut agent = system.agent_with("site-002", &gives(&nan), 1);
    assert_eq!(agent.wait(PATIENCE), 1, "{}", agent.log());
    assert!(
        agent.log().lines().last().unwrap().contains("\"check\":\"finite\""),
        "{}",
        agent.log()
    );
}

#[test]
fn a_site_that_signs_when_a_round_runs_waits_for_the_next() {
    let system = System::start(&Options { rounds: 2, late: true, ..Options::default() });
    // Alone at first, so that the round does not close before it is refused.
    let late = system.agent("site-003", 8.0, 2);
    late.hear("signed the manifest when the offer was made");
    // It does not bring the same again and again.
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(late.log().matches("\"uploaded\"").count(), 1, "{}", late.log());
    let others = ["site-000", "site-001", "site-002"].map(|site| system.agent(site, 1.0, 2));
    system.finish([late].into_iter().chain(others).collect(), PATIENCE);
    let on_roster = |round| {
        let told = ["explain", "--host", &system.url, &system.id(), round];
        let told = system.sealfold("site-003", &told).good().json();
        told["roster"].as_array().unwrap().len()
    };
    assert_eq!((on_roster("1"), on_roster("2")), (3, 4));
}

/// Sites whose updates take the model, or the momentum, beyond what float32 can
/// hold have not ended the study: all keep the model that they had, and go on.
/// While it uploads, another update of the same site takes the place, as one of its
/// own that was begun before a restart would, or the round's end.
#[test]
fn an_upload_that_gave_way_is_begun_again() {
    let system = System::start(&Options { parameters: 1000, ..Options::default() });
    let offer = Offer::open(&system.round(1).offer.unwrap().0).unwrap();
    let terms = system.study.terms().clone();
    let site = &system.study.sites[3];
    let other = site.seal(&offer, &terms, &[9.0; 1000]);
    let body = json!({ "envelope": Envelope(other.header.envelope().to_vec()) }).to_string();
    let (key, host) = (SigningKey::from_seed(&site.key.seed()).unwrap(), system.endpoint());
    let came = AtomicBool::new(false);
    let between = Liar::before(&host.clone(), move |asked, _| {
        let begun = asked.method == "POST" && asked.path.ends_with("/rounds/1/updates");
        if !begun || came.swap(true, Ordering::Relaxed) {
            return false;
        }
        let headers = [("content-type", "application/json")];
        let signer = (&key, Role::Party);
        let reply = http::send_as(signer, &host, "POST", &asked.path, &headers, body.as_bytes());
        assert_eq!(reply.unwrap().status, 200);
        true
    });
    let train = gives(&system.update(8.0));
    let agent = system.agent_at(&between.url, "site-003", &train, 1);
    agent.hear("an upload that this site began");
    let others = ["site-000", "site-001", "site-002"].map(|site| system.agent(site, 1.0, 1));
    system.finish([agent].into_iter().chain(others).collect(), PATIENCE);
    assert_eq!(between.lies(), 1);
    // Its own update is in the model, and not the other.
    assert!((system.model("site-000", 1) - 2.75).abs() < 1e-6);
}
