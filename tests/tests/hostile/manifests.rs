//! Manifests that are no agreement: a real enclave makes no offer under them.

use sealfold_protocol::api::Phase;
use sealfold_protocol::bytes::Envelope;
use sealfold_protocol::manifest::{Amends, Manifest, Privacy};
use sealfold_protocol::refusal::Check;
use sealfold_protocol::{MultiSigned, SigningKey};
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
    manifest.terms.amends = Some(Amends { study: study.id(), predecessor: study.manifest.digest() });
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
    weak.quorum.colluders = 1;
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
    // The same rounds again, under the same noise and a claim that it cannot buy.
    let longer = amendment(&study, |manifest| manifest.terms.rounds *= 100);
    assert_eq!(refused(&study, vec![first(&study), longer]), Check::Manifest);
}

#[test]
fn a_manifest_whose_noise_is_too_small() {
    let study = private();
    let with = |change: fn(&mut sealfold_protocol::manifest::Noise)| {
        let mut manifest = study.manifest.statement().clone();
        if let Privacy::Patient(noise) = &mut manifest.terms.privacy {
            change(noise);
        }
        refused(&study, vec![signed(manifest, keys(&study.sites))])
    };
    for change in [
        (|noise| noise.epsilon = 1.0) as fn(&mut sealfold_protocol::manifest::Noise),
        |noise| noise.noise_multiplier = 0.1,
        |noise| noise.clip = 0.0,
        |noise| noise.epsilon = 0.0,
        |noise| noise.step = 1e-12,
        |noise| noise.delta = 0.0,
        |noise| noise.sampling_rate = Some(1.5),
    ] {
        assert_eq!(with(change), Check::Manifest);
    }
    let changed = |change: fn(&mut Manifest)| {
        let mut manifest = study.manifest.statement().clone();
        change(&mut manifest);
        refused(&study, vec![signed(manifest, keys(&study.sites))])
    };
    assert_eq!(changed(|manifest| manifest.terms.rounds = 1000), Check::Manifest);
    assert_eq!(changed(|manifest| manifest.terms.aggregation.norm_limit = Some(1.0)), Check::Manifest);
}

/// A purpose that goes on, under a line feed, with terms that are not the
/// manifest's, and hides those that are.
#[test]
fn a_manifest_whose_texts_forge_lines() {
    let study = Study::new(&Options::default());
    for purpose in ["heart\nquorum       10 of 12 hospitals", "heart \u{1b}[8m", "\u{202e}traeh"] {
        let mut forged = study.manifest.statement().clone();
        purpose.clone_into(&mut forged.study.purpose);
        let forged = signed(forged, keys(&study.sites));
        assert_eq!(refused(&study, vec![forged]), Check::Manifest, "{purpose:?}");
    }
    let host = HostileHost::new();
    let _ = host.enclave("enclave").offer(&study.first_offer()).unwrap();
}
