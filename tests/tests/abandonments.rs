//! What approvers sign away, and what one of them alone cannot do.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use sealfold_protocol::abandonment::Abandonment;
use sealfold_protocol::bytes::Envelope;
use sealfold_protocol::offer::Offer;
use sealfold_protocol::{Digest, MultiSigned};
use sealfold_tests::http::Reply;
use sealfold_tests::process;
use sealfold_tests::site::Site;
use sealfold_tests::study::Options;
use sealfold_tests::system::System;
use serde_json::{Value, json};

fn offer(system: &System) -> Digest {
    Offer::open(&system.round(1).offer.unwrap().0).unwrap().digest()
}

/// An approver brings its signature of an abandonment.
fn sign(system: &System, site: &Site, round: u32, offer: Digest, reason: &str) -> Reply {
    let reason = reason.to_owned();
    let statement = Abandonment { study: system.study.id(), round, offer, reason };
    let signed = MultiSigned::sign(statement, &site.key).unwrap();
    let body = json!({ "envelope": Envelope(signed.envelope().unwrap()) }).to_string();
    let path = format!("/v1/studies/{}/rounds/{round}/abandonments", system.id());
    let headers = [("content-type", "application/json")];
    system.send_as(site, "POST", &path, &headers, body.as_bytes())
}

#[test]
fn an_approver_abandons_no_round_that_there_is_not() {
    let mut system = System::start(&Options::default());
    let (before, invented) = (offer(&system), Digest::new([9; 32]));
    for round in [0, 2, 6, 1000, u32::MAX] {
        let reply = sign(&system, &system.study.sites[3], round, invented, "x");
        assert_eq!((reply.status, reply.check().as_str()), (409, "offer"), "{round}");
    }
    let reply = sign(&system, &system.study.sites[3], 1, invented, "x");
    assert_eq!((reply.status, reply.check().as_str()), (409, "offer"));
    // Before round 1 there is none, whose base it would wait for.
    system.restart_enclave();
    let _ = system.wait_for(1, "a new offer", |round| {
        round.offer.as_ref().is_some_and(|o| Offer::open(&o.0).unwrap().digest() != before)
    });
    let folder = system.folder.path().join(format!("host/store/studies/{}/rounds", system.id()));
    assert_eq!(std::fs::read_dir(folder).unwrap().count(), 1);
}

/// Two honest approvers with words of their own, and one who would keep every
/// abandonment from being one: it speaks first, and again after each of them.
#[test]
fn one_approver_keeps_no_abandonment_from_being_one() {
    let mut system = System::start(&Options::default());
    let offer = offer(&system);
    let junk = |system: &System, words: &str| {
        let reply = sign(system, &system.study.sites[3], 1, offer, words);
        assert_eq!(reply.status, 200, "{}", String::from_utf8_lossy(&reply.body));
    };
    let abandon = |system: &System, site: usize, more: &[&str]| {
        let offer = offer.to_string();
        let fixed = ["--round", "1", "--offer", &offer, "--yes"];
        let site = &system.study.sites[site].name;
        system.on_study(site, &["study", "abandon"], &[&fixed, more].concat())
    };
    let none = abandon(&system, 0, &[]);
    assert!(none.code == 1 && none.stdout.contains("check reason"), "{none:?}");
    junk(&system, "x");
    assert_eq!(abandon(&system, 0, &["--reason", "it is lost"]).good().json()["signatures"], 1);
    junk(&system, "y");
    let second = abandon(&system, 1, &["--reason", "it is gone"]).good().json();
    assert_eq!(second["signatures"], 1);
    let mut others: Vec<_> = second["others"].as_array().unwrap().iter().collect();
    others.sort_by_key(|other| other["reason"].to_string());
    assert_eq!((&others[0]["reason"], &others[1]["reason"]), (&json!("it is lost"), &json!("y")));
    // The words of the first, by everybody; the host is killed in between.
    assert_eq!(abandon(&system, 1, &["--reason", "it is lost"]).good().json()["signatures"], 2);
    junk(&system, "z");
    system.restart_host();
    let third = abandon(&system, 2, &[]).good().json();
    assert_eq!((&third["signatures"], &third["reason"]), (&json!(3), &json!("it is lost")));
    let _ = system
        .wait_for(1, "the abandonment", |round| round.waiting_for.contains("have abandoned offer"));
    // Who comes later is told, and changes nothing.
    assert_eq!(abandon(&system, 3, &["--reason", "w"]).good().json()["reason"], "it is lost");
    system.restart_host();
    let round = system
        .wait_for(1, "the abandonment", |round| round.waiting_for.contains("have abandoned offer"));
    assert_eq!(round.abandonments.len(), 2);
}

/// An abandonment by the approvers of an amendment that no offer was made under
/// yet: the log has that amendment first.
#[test]
fn an_honest_history_with_an_abandonment_under_an_amendment_holds() {
    let mut system = System::start(&Options { parameters: 10, ..Options::default() });
    let sites = ["site-000", "site-001", "site-002", "site-003"];
    system.submit_all();
    let _ = system.wait_for(1, "the roster's leaf", |round| round.roster_leaf.is_some());
    system.commit(&sites[..1]);
    let first = offer(&system);
    let gone = format!(", {}]", system.study.sites[3].quoted_key());
    let _ = system
        .amend(&sites, |text| text.replace("required = 3", "required = 2").replace(&gone, "]"));
    system.abandon(&first.to_string(), &sites[..2]);
    system.restart_enclave();
    let _ = system.wait_for(1, "another offer", |round| {
        round.offer.as_ref().is_some_and(|o| Offer::open(&o.0).unwrap().digest() != first)
    });
    system.submit_all();
    let _ = system.wait_for(1, "the roster's leaf", |round| round.roster_leaf.is_some());
    system.commit(&sites);
    let _ = system.wait_for(1, "the release", |round| round.release.is_some());
    let mut audit = process::command("sealfold-audit");
    audit.arg("--json").arg("replay").arg(system.log()).arg("--policy").arg(system.audit_policy());
    let report: Value = serde_json::from_slice(&audit.output().unwrap().stdout).unwrap();
    assert_eq!(report["findings"], json!([]));
    let round = &report["rounds"][0];
    assert_eq!((&round["abandoned"], &round["offers"]), (&json!(1), &json!(2)), "{round}");
}
