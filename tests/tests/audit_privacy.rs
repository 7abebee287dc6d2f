//! The auditor works out again what a study has spent, and finds what is more
//! than the sites agreed to.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use sealfold_attestation::log::note::KeyKind;
use sealfold_attestation::log::{NoteSigner, SignedCheckpoint};
use sealfold_protocol::Signed;
use sealfold_protocol::leaf::Kind;
use sealfold_protocol::offer::Offer;
use sealfold_protocol::terms::Privacy;
use sealfold_tests::audit::{Audit, findings};
use sealfold_tests::study::Options;

/// A study whose noise costs about 2.9 in two rounds, 3.6 in three.
fn private(rounds: u32, epsilon: f64) -> Options {
    Options {
        parameters: 50,
        rounds,
        aggregation: "rule = \"sum\"\ndivisor = 100".to_owned(),
        privacy: format!(
            "unit = \"patient\"\nclip = 2\nstep = 0.0000152587890625\nnoise_multiplier = 2.5\n\
             epsilon = {epsilon}\ndelta = 1e-5"
        ),
        ..Options::default()
    }
}

fn audit(options: &Options) -> Audit {
    let mut audit = Audit::new(options);
    audit.story.manifest();
    audit
}

/// An offer of a round, in the log.
fn offered(audit: &mut Audit, round: u32) -> Signed<Offer> {
    let offer = audit.story.offer(round);
    let evidence = audit.story.evidence(&offer.digest());
    audit.story.offered(&offer, &evidence);
    offer
}

fn checks(found: &[(String, Option<u64>)]) -> Vec<&str> {
    found.iter().map(|(check, _)| check.as_str()).collect()
}

#[test]
fn what_was_spent_is_worked_out_and_drawn() {
    let mut audit = audit(&private(5, 6.0));
    (1..=3).for_each(|round| audit.story.round(round));
    assert_eq!(audit.found(&[]), []);
    let (_, report) = audit.replay(&[]);
    let privacy = &report["studies"][0]["privacy"];
    let expected = audit.story.study.manifest.statement().spent(3).unwrap().unwrap();
    let found = privacy["epsilon"].as_f64().unwrap();
    assert!((found - expected.epsilon).abs() < 1e-12 && found > 2.0, "{privacy}");
    assert_eq!(
        (privacy["unit"].as_str(), privacy["releases"].as_u64()),
        (Some("patient"), Some(3))
    );
    assert_eq!(privacy["curve"].as_array().unwrap().len(), 3);
    let page = audit.folder.path().join("report.html");
    let policy = audit.story.policy();
    let (code, text) = audit.under(&policy, "replay", &["--html", page.to_str().unwrap()]);
    assert_eq!(code, 0);
    assert!(text.contains("privacy of one patient: epsilon"), "{text}");
    let page = std::fs::read_to_string(page).unwrap();
    for part in ["privacy spent over time", "the budget", "which sites were in which round"] {
        assert!(page.contains(part), "{part}");
    }
    // One file that needs no other and runs nothing.
    for foreign in ["<script", "src=", "href=", "url(", "@import", "javascript"] {
        assert!(!page.contains(foreign), "{foreign}");
    }
    let release = audit.story.previous.unwrap().to_string();
    let (_, card) = audit.under(&policy, "card", &[&release, "--json"]);
    let card: serde_json::Value = serde_json::from_str(&card).unwrap();
    assert!((card["privacy_spent"]["epsilon"].as_f64().unwrap() - found).abs() < 1e-12);
}

/// Any length was accepted once: a reader would take it for memory's sake.
#[test]
fn a_release_of_another_length_is_found() {
    for options in [private(5, 6.0), Options::default()] {
        let mut audit = audit(&options);
        let offer = offered(&mut audit, 1);
        let roster = audit.story.roster(&offer, 1, 4);
        audit.story.say(Kind::Roster, &roster);
        for site in 0..4 {
            let commit = audit.story.commit(site, &roster);
            audit.story.say(Kind::Commit, &commit);
        }
        let mut release = audit.story.release(&offer, &roster).statement().clone();
        release.plain_length = u64::MAX;
        let release = audit.story.signed(release);
        audit.story.say(Kind::Release, &release);
        assert_eq!(audit.found(&[]), [("release".to_owned(), Some(7))]);
    }
}

#[test]
fn an_offer_may_be_abandoned_when_its_round_is_over_and_counts_then() {
    let mut audit = audit(&private(5, 100.0));
    let lost = offered(&mut audit, 1);
    audit.story.round(1);
    let second = offered(&mut audit, 2);
    audit.story.abandon(&lost, 3);
    assert_eq!(audit.found(&[]), []);
    let (_, report) = audit.replay(&[]);
    let privacy = &report["studies"][0]["privacy"];
    assert_eq!((privacy["releases"].as_u64(), privacy["abandoned"].as_u64()), (Some(1), Some(1)));
    // Twice is a finding, and so is an offer that never was.
    let size = audit.story.size();
    audit.story.abandon(&lost, 3);
    assert_eq!(audit.found(&[]), [("abandonment".to_owned(), Some(size))]);
    audit.story.abandon(&second, 3);
    assert_eq!(audit.found(&[]), [("abandonment".to_owned(), Some(size))]);
}

#[test]
fn an_abandoned_offer_counts_and_rounds_beyond_the_budget_are_found() {
    let two = {
        let audit = audit(&private(2, 100.0));
        audit.story.study.manifest.statement().spent(2).unwrap().unwrap().epsilon
    };
    let mut audit = audit(&private(2, two + 1e-6));
    let lost = offered(&mut audit, 1);
    let roster = audit.story.roster(&lost, 1, 4);
    audit.story.say(Kind::Roster, &roster);
    for site in 0..4 {
        let commit = audit.story.commit(site, &roster);
        audit.story.say(Kind::Commit, &commit);
    }
    audit.story.abandon(&lost, 3);
    audit.story.round(1);
    assert_eq!(audit.found(&[]), [], "one released, one perhaps");
    let before = audit.story.size();
    audit.story.round(2);
    let found = audit.found(&[]);
    assert_eq!(found, [("budget".to_owned(), Some(before + 6))]);
    let (_, report) = audit.replay(&[]);
    let words = report["findings"][0]["found"].as_str().unwrap();
    assert!(words.contains("2 releases, and 1 abandoned offers"), "{words}");
    // A round beyond the agreed number.
    let before = audit.story.size();
    audit.story.round(3);
    let found = audit.found(&[]);
    assert!(found.contains(&("chain".to_owned(), Some(before))), "{found:?}");
    assert!(found.contains(&("budget".to_owned(), Some(before + 6))), "{found:?}");
}

#[test]
fn an_amendment_cannot_reset_or_raise_the_budget() {
    let mut audit = audit(&private(3, 4.0));
    audit.story.round(1);
    // More noise from now on, as if it had been there from the beginning.
    let reset = audit.story.amendment(|manifest| {
        if let Privacy::Patient(noise) = &mut manifest.terms.privacy {
            noise.noise_multiplier = 25.0;
        }
        manifest.agreement.claim.as_mut().unwrap().epsilon = 0.5;
    });
    let first = audit.story.size();
    audit.story.manifested(&reset);
    assert_eq!(audit.found(&[]), [("manifest".to_owned(), Some(first))]);
    let raised = audit.story.amendment(|manifest| {
        manifest.agreement.claim.as_mut().unwrap().epsilon = 40.0;
    });
    audit.story.manifested(&raised);
    let found = audit.found(&[]);
    assert_eq!(checks(&found), ["manifest", "manifest"]);
    // More rounds than the budget buys are no manifest at all.
    let longer = audit.story.amendment(|manifest| manifest.terms.rounds = 30);
    audit.story.manifested(&longer);
    assert_eq!(checks(&audit.found(&[])), ["manifest", "manifest", "statement"]);
    // A second amendment of one predecessor, of which only one can follow.
    let shorter = audit.story.amendment(|manifest| manifest.terms.rounds = 2);
    let other = audit.story.amendment(|manifest| manifest.terms.quorum.smallest_roster = 4);
    audit.story.manifested(&shorter);
    audit.story.manifested(&other);
    assert_eq!(checks(&audit.found(&[])), ["manifest", "manifest", "statement", "manifest"]);
}

#[test]
fn another_log_than_the_manifests_and_missing_witnesses_are_told_of() {
    let mut audit = Audit::new(&Options::default());
    let other = NoteSigner::from_seed("log.example/other", KeyKind::Ed25519, &[4; 32]).unwrap();
    let own = std::mem::replace(&mut audit.story.signer, other);
    audit.story.manifest();
    audit.story.round(1);
    assert_eq!(audit.found(&[]), [("log".to_owned(), Some(0))]);
    audit.story.signer = own;
    let audit = Audit::of_rounds(1);
    let signed = audit.story.close();
    let witness = NoteSigner::from_seed("witness", KeyKind::CosignatureV1, &[5; 32]).unwrap();
    let demanded = format!("[log]\nwitnesses = [\"{}\"]\nrequired = 1\nkey", witness.key());
    let policy = audit.story.policy().replace("[log]\nkey", &demanded);
    let (code, report) = audit.replay_under(&policy, &[]);
    assert_eq!((code, findings(&report)), (1, vec![("witnesses".to_owned(), None)]));
    let mut kept = SignedCheckpoint::open(&signed.to_bytes(), audit.story.signer.key()).unwrap();
    kept.cosign(&witness, 1_800_000_000).unwrap();
    let kept = audit.file("kept", kept.to_bytes());
    let (code, report) = audit.replay_under(&policy, &["--checkpoint", kept.to_str().unwrap()]);
    assert_eq!((code, findings(&report)), (0, Vec::new()));
    assert_eq!(report["completeness"]["shown_up_to"], audit.story.size());
}

#[test]
fn an_adaptive_clip_follows_from_the_release_before() {
    let options = Options {
        parameters: 50,
        rounds: 5,
        aggregation: "rule = \"sum\"\ndivisor = 4".to_owned(),
        privacy: "unit = \"site\"\nclip = 1\nstep = 0.0000152587890625\nnoise_multiplier = 2.5\n\
                  epsilon = 30\ndelta = 1e-5\n\
                  adaptive_clip = { quantile = 0.5, learning_rate = 0.2, count_noise = 0.8 }"
            .to_owned(),
        ..Options::default()
    };
    let mut audit = audit(&options);
    (1..=3).for_each(|round| audit.story.round(round));
    assert_eq!(audit.found(&[]), []);
    assert!(audit.story.clip.is_some_and(|clip| (clip - 1.0).abs() > 1e-6), "it has not moved");
    let (_, report) = audit.replay(&[]);
    assert_eq!(report["studies"][0]["privacy"]["unit"], "site");
    // A host that goes on from another clip, for which the noise was not made.
    audit.story.clip = Some(900.0);
    let before = audit.story.size();
    audit.story.round(4);
    assert_eq!(audit.found(&[]), [("chain".to_owned(), Some(before))]);
}
