//! Manifests that wait for signatures, and rounds that run when one comes into force.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use sealfold_protocol::api::{RoundStatus, StudyStatus};
use sealfold_protocol::manifest::Manifested;
use sealfold_protocol::offer::Offer;
use sealfold_protocol::release::Release;
use sealfold_protocol::report::ModelReport;
use sealfold_protocol::roster::Roster;
use sealfold_protocol::terms::Amends;
use sealfold_protocol::{Digest, MultiSigned, Signed, SigningKey};
use sealfold_study::Manifest;
use sealfold_tests::http::Reply;
use sealfold_tests::lone::{self, Lone};
use sealfold_tests::study::{Options, Study};
use sealfold_tests::system::System;

const SITES: [&str; 4] = ["site-000", "site-001", "site-002", "site-003"];

fn offer(round: &RoundStatus) -> Signed<Offer> {
    Offer::open(&round.offer.as_ref().unwrap().0).unwrap()
}

/// A site uploads an update to the standing offer, by hand.
fn upload(system: &System, site: usize, value: f32) {
    let (offer, site) = (offer(&system.round(1)), &system.study.sites[site]);
    let terms = system.study.terms().clone();
    let update = site.seal(&offer, &terms, &[value; 1000]);
    let reply = system.post_as(site, "updates", update.header.envelope());
    assert_eq!(reply.status, 200, "{}", String::from_utf8_lossy(&reply.body));
    let reply = system.append_as(site, &update.header.digest(), 0, &update.bytes);
    assert_eq!(reply.status, 200, "{}", String::from_utf8_lossy(&reply.body));
}

fn published(reply: &Reply) -> StudyStatus {
    let text = String::from_utf8_lossy(&reply.body);
    assert_eq!(reply.status, 200, "{text}");
    serde_json::from_slice(&reply.body).unwrap()
}

#[test]
fn one_site_neither_fills_a_manifest_with_signatures_nor_keeps_others_out() {
    let folder = tempfile::tempdir().unwrap();
    let host = Lone::start(folder.path(), "host", &["--any-study"]);
    let study = Study::new(&Options::default());
    let statement = study.manifest.statement();
    let by = |site: usize| MultiSigned::sign(statement.clone(), &study.sites[site].key).unwrap();
    let _ = published(&host.publish(&study.sites[0].key, &by(0)));
    // As many throw-away signatures as there is room for beside the others.
    let mut full = by(1);
    for i in 0..254u32 {
        let mut seed = [200; 32];
        seed[..4].copy_from_slice(&i.to_le_bytes());
        full.add_signature(&SigningKey::from_seed(&seed).unwrap()).unwrap();
    }
    let _ = published(&host.publish(&study.sites[1].key, &full));
    for site in [2, 3] {
        let status = published(&host.publish(&study.sites[site].key, &by(site)));
        let known = Manifest::open(&status.manifests[0].0).unwrap();
        assert_eq!(known.signers().len(), site + 1);
        assert!(!status.missing.iter().any(|m| m.starts_with("signatures")), "{status:?}");
    }
}

#[test]
fn one_site_does_not_take_away_what_others_have_signed() {
    let mut system = System::start(&Options::default());
    let amended = |rounds: u32| {
        let mut manifest = system.study.manifest.statement().clone();
        manifest.terms.rounds = rounds;
        manifest.agreement.measurements = Manifest::open(&system.status().manifests[0].0)
            .unwrap()
            .statement()
            .agreement
            .measurements
            .clone();
        let id = system.study.id();
        manifest.terms.amends = Some(Amends { study: id, predecessor: id });
        manifest
    };
    let publish = |system: &System, site: usize, manifest: &Manifest| {
        let key = &system.study.sites[site].key;
        let signed = MultiSigned::sign(manifest.clone(), key).unwrap();
        published(&lone::publish(&system.endpoint(), key, &signed))
    };
    let (good, mut digests) = (amended(6), Vec::new());
    for (site, bad) in [(0, amended(7)), (1, amended(8))] {
        digests.clear();
        let _ = publish(&system, site, &good);
        let status = publish(&system, 3, &bad);
        digests.extend(status.pending.iter().map(|pending| pending.manifest));
        assert_eq!(digests.len(), 2, "{status:?}");
    }
    system.restart_host();
    let pending = system.status().pending;
    let mut signers: Vec<_> = pending.iter().map(|pending| pending.signers.len()).collect();
    signers.sort_unstable();
    assert_eq!(signers, [1, 2]);
    // Which of them is meant, the client asks.
    let id = system.id();
    let approve = |more: &[&str]| {
        let fixed = ["study", "approve", &id, "--host", &system.url, "--yes"];
        system.sealfold("site-002", &[&fixed, more].concat())
    };
    let refused = approve(&[]);
    assert_eq!(refused.check(), "amendment", "{refused:?}");
    assert!(digests.iter().all(|digest| refused.stdout.contains(&digest.to_string())));
    let good = pending.iter().find(|pending| pending.signers.len() == 2).unwrap();
    let good = good.manifest.to_string();
    let shown = ["study", "show", &id, "--host", &system.url, "--manifest", &good];
    let shown = system.sealfold("site-002", &shown).good().json();
    assert_eq!(shown["manifest"]["study"]["rounds"], 6);
    let _ = approve(&["--manifest", &good]).good();
    // In force; the other names a manifest that is amended.
    let status = system.status();
    assert_eq!((status.rounds, status.manifests.len(), status.pending.len()), (6, 2, 0));
    system.restart_host();
    let status = system.status();
    assert_eq!((status.rounds, status.manifests.len(), status.pending.len()), (6, 2, 0));
}

#[test]
fn a_running_round_stays_under_its_own_manifest() {
    let system = System::start(&Options { smallest_roster: 4, ..Options::default() });
    upload(&system, 0, 1.0);
    upload(&system, 1, 2.0);
    // In force for want of nothing but the signature of the fourth site, without
    // whom there is no roster under it.
    let faster = |text: &str| text.replace("learning_rate = 1\n", "learning_rate = 2\n");
    let _ = system.amend(&SITES[..3], faster);
    let missing = system.status().missing;
    assert_eq!(missing, ["signatures of sites: 3 of at least 4 are there"]);
    upload(&system, 2, 4.0);
    upload(&system, 3, 8.0);
    let round = system.wait_for(1, "the roster's leaf", |round| round.roster_leaf.is_some());
    let (offer, checkpoint) = (offer(&round), system.roster_checkpoint(&round));
    let key = offer.statement().instance_key;
    let roster = Signed::<Roster>::open(&round.roster.unwrap().0, &key).unwrap();
    for site in &system.study.sites {
        let header = roster.statement().header_of(&site.name).unwrap();
        let commit = site.commit_at(&roster, header, checkpoint);
        assert_eq!(system.post_as(site, "commits", commit.envelope()).status, 200);
    }
    let released = system.wait_for(1, "the release", |round| round.release.is_some());
    // The next offer is under the amendment, and waits for who is to sign it.
    let _ = system.wait_for(2, "a site's signature", |round| {
        round.waiting_for.starts_with("signatures of sites: 3 of")
    });
    let _ = system.amend(&SITES[3..], faster);
    let release = Signed::<Release>::open(&released.release.unwrap().0, &key).unwrap();
    for site in &system.study.sites {
        let report = ModelReport {
            study: system.study.id(),
            round: 1,
            site: site.name.clone(),
            release: release.digest(),
            model: Digest::new([7; 32]),
        };
        let report = Signed::sign(report, &site.key).unwrap();
        assert_eq!(system.post_as(site, "models", report.envelope()).status, 200);
    }
    let round = system.wait_for(2, "the next offer", |round| round.offer.is_some());
    assert_ne!(self::offer(&round).statement().manifest, offer.statement().manifest);
}

/// Fewer rounds than there were: the one that runs is finished.
#[test]
fn a_round_that_an_amendment_leaves_out_is_finished_if_it_runs() {
    let system = System::start(&Options { rounds: 2, ..Options::default() });
    let agents = system.agents(1);
    system.finish(agents, std::time::Duration::from_mins(1));
    let _ = system.wait_for(2, "the second offer", |round| round.offer.is_some());
    let shorter = |text: &str| text.replace("rounds = 2\n", "rounds = 1\n");
    let _ = system.amend(&SITES[..3], shorter);
    assert_eq!(system.status().rounds, 1);
    let second = system.round(2);
    assert!(second.waiting_for.starts_with("updates: "), "{second:?}");
}
