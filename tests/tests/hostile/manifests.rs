//! Manifests that are no agreement: a real enclave makes no offer under them.

use sealfold_protocol::api::Phase;
use sealfold_protocol::bytes::Envelope;
use sealfold_protocol::manifest::Manifested;
use sealfold_protocol::refusal::Check;
use sealfold_protocol::terms::{Amends, Noise, Privacy, Rule, Terms, UpdateType, Weakness};
use sealfold_protocol::{MultiSigned, SigningKey};
use sealfold_study::{Claim, Manifest};
use sealfold_tests::hostile_host::HostileHost;
use sealfold_tests::site::Site;
use sealfold_tests::study::{Options, Study};

const PRIVATE: &str = "unit = \"patient\"\nclip = 1\nstep = 0.0000152587890625\n\
                       noise_multiplier = 2\nepsilon = 12\ndelta = 1e-5";

/// By which check a new enclave refuses an offer under these manifests.
fn refused(study: &Study, manifests: Vec<Vec<u8>>) -> Check {
    let host = HostileHost::new();
    let enclave = host.enclave("enclave");
    let mut request = study.first_offer();
    request.manifests = manifests.into_iter().map(Envelope).collect();
    let check = enclave.offer(&request).unwrap_err().check;
    let status = enclave.status();
    assert_eq!(status.phase, Phase::Idle);
    assert!(status.release.is_none());
    check
}

fn signed<'a>(manifest: Manifest, keys: impl IntoIterator<Item = &'a SigningKey>) -> Vec<u8> {
    let mut keys = keys.into_iter();
    let mut signed = MultiSigned::sign(manifest, keys.next().unwrap()).unwrap();
    keys.for_each(|key| signed.add_signature(key).unwrap());
    signed.envelope().unwrap()
}

fn keys(sites: &[Site]) -> impl Iterator<Item = &SigningKey> {
    sites.iter().map(|site| &site.key)
}

/// An amendment of a study's first manifest, signed by all.
fn amendment(study: &Study, change: impl FnOnce(&mut Manifest)) -> Vec<u8> {
    let mut manifest = study.manifest.statement().clone();
    manifest.terms.amends =
        Some(Amends { study: study.id(), predecessor: study.manifest.digest() });
    change(&mut manifest);
    signed(manifest, keys(&study.sites))
}

fn private() -> Study {
    Study::new(&Options {
        aggregation: "rule = \"sum\"\ndivisor = 100".to_owned(),
        privacy: PRIVATE.to_owned(),
        ..Options::default()
    })
}

fn first(study: &Study) -> Vec<u8> {
    study.manifest.envelope().unwrap()
}

#[test]
fn a_manifest_with_a_signature_too_few() {
    let study = Study::new(&Options::default());
    let manifest = study.manifest.statement().clone();
    assert_eq!(refused(&study, vec![signed(manifest, keys(&study.sites[..2]))]), Check::Manifest);
}

#[test]
fn a_manifest_changed_after_approval() {
    let study = Study::new(&Options::default());
    let whole = first(&study);
    let mut changed = whole.clone();
    let place = whole.windows(6).position(|w| w == b"a test").unwrap();
    changed[place] = b'A';
    assert_eq!(refused(&study, vec![changed]), Check::Signature);
    assert_eq!(refused(&study, vec![whole[..whole.len() - 1].to_vec()]), Check::Encoding);
    assert!(matches!(refused(&study, vec![]), Check::Manifest | Check::Chain | Check::Encoding));
}

#[test]
fn a_manifest_approved_by_strangers() {
    let study = Study::new(&Options::default());
    let strangers: Vec<_> = (0..3).map(|_| SigningKey::generate().unwrap()).collect();
    let manifest = study.manifest.statement().clone();
    assert_eq!(refused(&study, vec![signed(manifest, &strangers)]), Check::Manifest);
}

#[test]
fn a_quorum_that_colluders_could_subtract_their_way_through() {
    let study = Study::new(&Options::default());
    let mut weak = study.manifest.statement().clone();
    weak.terms.quorum.colluders = 1;
    assert_eq!(refused(&study, vec![signed(weak, keys(&study.sites))]), Check::Manifest);
}

#[test]
fn a_manifest_amended_twice_from_one_predecessor() {
    let study = Study::new(&Options::default());
    let one = amendment(&study, |manifest| manifest.agreement.study.purpose = "one".to_owned());
    let other = amendment(&study, |manifest| manifest.agreement.study.purpose = "other".to_owned());
    assert_eq!(refused(&study, vec![first(&study), one, other]), Check::Chain);
}

#[test]
fn a_budget_reset_by_an_amendment() {
    let study = private();
    // More noise from now on, and a budget that begins again with it.
    let fresh = amendment(&study, |manifest| {
        if let Privacy::Patient(noise) = &mut manifest.terms.privacy {
            noise.noise_multiplier *= 2.0;
        }
    });
    assert_eq!(refused(&study, vec![first(&study), fresh]), Check::Chain);
    // The same rounds again, under the same noise and a claim that it cannot buy:
    // what the noise buys is agreed beside the terms, and checked by each site and
    // auditor.
    let mut longer = study.manifest.statement().clone();
    longer.terms.rounds *= 100;
    let said = longer.check().unwrap_err().to_string();
    assert!(said.contains("privacy.epsilon"), "{said}");
    let mut other = study.manifest.statement().clone();
    other.agreement.claim.as_mut().unwrap().delta = 1e-9;
    assert!(other.follows(study.manifest.statement()).is_err());
}

#[test]
fn a_manifest_whose_noise_is_too_small() {
    let study = private();
    let with = |change: fn(&mut Noise)| {
        let mut manifest = study.manifest.statement().clone();
        if let Privacy::Patient(noise) = &mut manifest.terms.privacy {
            change(noise);
        }
        refused(&study, vec![signed(manifest, keys(&study.sites))])
    };
    for change in [
        (|noise| noise.noise_multiplier = 0.0) as fn(&mut Noise),
        |noise| noise.clip = 0.0,
        |noise| noise.step = 1e-12,
    ] {
        assert_eq!(with(change), Check::Manifest);
    }
    // Noise that an enclave can draw and that does not buy what was claimed.
    for change in [
        (|claim| claim.epsilon = 1.0) as fn(&mut Claim),
        |claim| claim.epsilon = 0.0,
        |claim| claim.delta = 0.0,
        |claim| claim.sampling_rate = Some(1.5),
    ] {
        let mut manifest = study.manifest.statement().clone();
        change(manifest.agreement.claim.as_mut().unwrap());
        let envelope = signed(manifest, keys(&study.sites));
        assert!(Manifest::open(&envelope).unwrap_err().to_string().contains("privacy."));
    }
    let mut limited = study.manifest.statement().clone();
    limited.terms.aggregation.norm_limit = Some(1.0);
    assert_eq!(refused(&study, vec![signed(limited, keys(&study.sites))]), Check::Manifest);
}

/// By which check an enclave refuses a study that all sites signed, with terms
/// that give up a promise; and that it takes them once the promise is named.
fn given_up(change: impl Fn(&mut Terms), weakness: Weakness) -> Check {
    let study = Study::new(&Options { smallest_roster: 4, colluders: 1, ..Options::default() });
    let mut manifest = study.manifest.statement().clone();
    change(&mut manifest.terms);
    let check = refused(&study, vec![signed(manifest.clone(), keys(&study.sites))]);
    manifest.terms.accepts.push(weakness);
    let host = HostileHost::new();
    let mut request = study.first_offer();
    request.manifests = vec![Envelope(signed(manifest, keys(&study.sites)))];
    let _ = host.enclave("enclave").offer(&request).unwrap();
    check
}

fn selective(rule: Rule, trim: Option<usize>) -> impl Fn(&mut Terms) {
    move |terms| {
        let aggregation = &mut terms.aggregation;
        (aggregation.rule, aggregation.trim) = (rule, trim);
        aggregation.update_type = UpdateType::Float32;
        terms.model.tensors[0].step = None;
    }
}

/// With two colluders of five a median releases 1,000 of 1,000 coordinates of one
/// hospital, bit for bit.
#[test]
fn a_median_that_is_one_hospitals_own_values() {
    let check = given_up(selective(Rule::Median, None), Weakness::SelectiveRule);
    assert_eq!(check, Check::Manifest);
}

/// With one colluder of four who sends zeros a trimmed mean releases three quarters
/// of the coordinates of one hospital.
#[test]
fn a_trimmed_mean_that_a_colluder_steers() {
    let check = given_up(selective(Rule::TrimmedMean, Some(1)), Weakness::SelectiveRule);
    assert_eq!(check, Check::Manifest);
}

/// Weights 1000, 1, 1, 1: a release is the first hospital's update, to 0.3 %.
#[test]
fn a_weight_that_makes_a_release_one_hospitals() {
    let heavy = |terms: &mut Terms| {
        terms.sites[0].weight = 1000;
        terms.model.tensors[0].step = Some(0.25);
    };
    assert_eq!(given_up(heavy, Weakness::DominantWeight), Check::Manifest);
}

/// Without a bound one site ends the study, or repeats a round on its base.
#[test]
fn a_mean_without_noise_and_without_a_bound() {
    let study = Study::new(&Options::default());
    let mut boundless = study.manifest.statement().clone();
    boundless.terms.aggregation.norm_limit = None;
    assert_eq!(refused(&study, vec![signed(boundless, keys(&study.sites))]), Check::Manifest);
}

/// An amendment that lowers the clip or a weight between two releases: only one
/// hospital's share changes, and the difference is that hospital.
#[test]
fn an_amendment_of_weights_or_of_the_norm_limit() {
    let study = Study::new(&Options::default());
    for change in [
        (|terms| terms.aggregation.norm_limit = Some(60_000.0)) as fn(&mut Terms),
        |terms| terms.sites[0].weight = 2,
        |terms| terms.aggregation.update_type = UpdateType::Int16,
        |terms| terms.model.tensors[0].step = Some(0.001),
    ] {
        let changed = amendment(&study, |manifest| change(&mut manifest.terms));
        let check = refused(&study, vec![first(&study), changed]);
        assert!(matches!(check, Check::Chain | Check::Manifest), "{check}");
    }
}

/// Whatever is agreed beside the terms, the enclave makes the same offer of the
/// same round; and the digest of the offer names which agreement it was.
#[test]
fn an_agreement_that_would_change_what_the_enclave_does() {
    let study = private();
    let host = HostileHost::new();
    let mut offers = Vec::new();
    for (number, change) in [
        (|_| ()) as fn(&mut Manifest),
        |manifest| manifest.agreement.study.purpose = "another".to_owned(),
        |manifest| manifest.agreement.claim.as_mut().unwrap().epsilon = 1e-9,
        |manifest| manifest.agreement.server.learning_rate = f64::NAN,
        |manifest| manifest.agreement.measurements.nitro.clear(),
    ]
    .into_iter()
    .enumerate()
    {
        let mut manifest = study.manifest.statement().clone();
        change(&mut manifest);
        let mut request = study.first_offer();
        request.manifests = vec![Envelope(signed(manifest, keys(&study.sites)))];
        let enclave = host.enclave(&format!("enclave-{number}"));
        let offer = enclave.offer(&request).unwrap().statement().clone();
        assert_eq!((offer.round, offer.base), (1, study.terms().model.initial));
        offers.push(offer.manifest);
    }
    offers.sort_unstable();
    offers.dedup();
    assert_eq!(offers.len(), 5);
}

/// A purpose that goes on, under a line feed, with terms that are not the
/// manifest's, and hides those that are.
/// The enclave reads the texts of the terms; those of the agreement are read by
/// everybody who shows them to people, and refused there.
#[test]
fn a_manifest_whose_texts_forge_lines() {
    let study = Study::new(&Options::default());
    for text in ["heart\nquorum       10 of 12 hospitals", "heart \u{1b}[8m", "\u{202e}traeh"] {
        let forged = |change: &dyn Fn(&mut Manifest)| {
            let mut forged = study.manifest.statement().clone();
            change(&mut forged);
            signed(forged, keys(&study.sites))
        };
        let tensor = forged(&|forged| text.clone_into(&mut forged.terms.model.tensors[0].name));
        assert_eq!(refused(&study, vec![tensor]), Check::Manifest, "{text:?}");
        let purpose = forged(&|forged| text.clone_into(&mut forged.agreement.study.purpose));
        let error = Manifest::open(&purpose).unwrap_err();
        assert!(matches!(error, sealfold_protocol::Error::Manifest { .. }), "{error:?}");
    }
    let host = HostileHost::new();
    let _ = host.enclave("enclave").offer(&study.first_offer()).unwrap();
}
