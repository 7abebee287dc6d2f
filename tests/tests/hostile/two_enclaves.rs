//! The rule that makes a round's aggregate the only one: a site is bound to one
//! offer a round. Here an operator runs two enclaves behind two hosts.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use sealfold_protocol::api::{Phase, UploadState};
use sealfold_tests::elsewhere::Elsewhere;
use sealfold_tests::study::Options;
use sealfold_tests::system::{System, first_value};

const SITES: [&str; 4] = ["site-000", "site-001", "site-002", "site-003"];

#[test]
fn a_site_that_committed_under_one_offer_gives_no_commit_to_another_enclave() {
    let system = System::start(&Options::default());
    let elsewhere = Elsewhere::start(&system);
    elsewhere.wait_for("an offer", |round| round.offer.is_some());
    assert_ne!(elsewhere.round().offer, system.round(1).offer);
    // Before its first commit a site seals to whichever offer it is shown.
    for site in SITES {
        let _ = system.submit(site, 1.0).good();
        let _ = system.submit_file(site, &system.update(1.0), &elsewhere.url).good();
    }
    let _ = system.wait_for(1, "a roster", |round| round.roster.is_some());
    elsewhere.wait_for("a roster", |round| round.roster.is_some());
    for site in &SITES[..2] {
        let _ = system.on_study(site, &["commit"], &[]).good();
    }
    // The other roster lists them as well, and its enclave is a genuine one.
    for site in &SITES[..2] {
        assert_eq!(
            elsewhere.on_study(&system, site, "verify").good().json()["outcome"],
            "accepted"
        );
        assert_eq!(elsewhere.on_study(&system, site, "commit").check(), "bound-to-another-offer");
        let again = system.submit_file(site, &system.update(1.0), &elsewhere.url);
        assert_eq!(again.check(), "bound-to-another-offer");
    }
    // An agent that is shown it waits, and says why.
    let agent = system.agent_at(&elsewhere.url, SITES[0], "touch $SEALFOLD_UPDATE", 1);
    agent.hear("bound-to-another-offer");
    drop(agent);
    assert!(elsewhere.round().commits.is_empty());
    assert!(elsewhere.committed().is_empty());
    // A site that is free may choose the other one; then it is lost to the first.
    let _ = elsewhere.on_study(&system, SITES[2], "commit").good();
    assert_eq!(elsewhere.committed(), [SITES[2]]);
    assert_eq!(system.on_study(SITES[2], &["commit"], &[]).check(), "bound-to-another-offer");
    let _ = system.on_study(SITES[3], &["commit"], &[]).good();
    // So neither has the commits of its roster, and neither releases.
    assert_eq!(system.round(1).commits.len(), 3);
    assert_eq!(system.round(1).phase, Phase::Rostered);
    assert_eq!(elsewhere.round().phase, Phase::Rostered);
}

#[test]
fn a_site_that_sealed_to_two_offers_finds_either_again() {
    let system = System::start(&Options::default());
    let elsewhere = Elsewhere::start(&system);
    elsewhere.wait_for("an offer", |round| round.offer.is_some());
    let here = || system.submit(SITES[0], 1.0).good().json()["header"].clone();
    let there = || {
        let update = system.update(1.0);
        system.submit_file(SITES[0], &update, &elsewhere.url).good().json()["header"].clone()
    };
    let (first, second) = (here(), there());
    assert_ne!(first, second);
    assert_eq!(here(), first);
    assert_eq!(there(), second);
    let uploads = system.round(1).uploads;
    assert!(matches!(&uploads[..], [one] if matches!(one.state, UploadState::Admitted(_))));
    for site in &SITES[1..] {
        let _ = system.submit(site, 1.0).good();
    }
    let _ = system.wait_for(1, "a roster", |round| round.roster.is_some());
    for site in SITES {
        let _ = system.on_study(site, &["commit"], &[]).good();
    }
    let _ = system.wait_for(1, "the release", |round| round.release.is_some());
    let kept = system.home(SITES[0]).join(format!("studies/{}/rounds/0001", system.id()));
    assert_eq!(std::fs::read_dir(kept.join("offers")).unwrap().count(), 2);
    let out = system.folder.path().join("model.safetensors");
    let _ = system.on_study(SITES[0], &["fetch"], &["--out", out.to_str().unwrap()]).good();
    assert!((first_value(&out) - 1.0).abs() < 1e-6);
    assert!(!kept.exists());
}
