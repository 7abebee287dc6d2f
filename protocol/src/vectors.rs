//! The test vectors in `protocol/vectors/`, from which a second implementation
//! can be written. Each file is read and everything in it is made again and
//! compared; with `SEALFOLD_WRITE_VECTORS=1` the files are written instead.

use crate::abandonment::Abandonment;
use crate::bytes::{Envelope, Random};
use crate::door;
use crate::manifest::{Manifested, TermsOnly};
use crate::offer::Offer;
use crate::release::{self, Disclosure, Opening, Release, SiteOpening};
use crate::report::ModelReport;
use crate::roster::{Commit, Member, Roster};
use crate::seal;
use crate::terms::tests::{keys, terms};
use crate::update::{Receipt, UpdateHeader};
use crate::{Digest, MultiSigned, Secret, Signed, SigningKey, Statement, content};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::path::PathBuf;

/// The seed of the instance's signing key and of its update key.
const INSTANCE: [u8; 32] = [9; 32];

mod sealing;
use sealing::{sealed_update, sealing};

#[derive(Serialize, Deserialize)]
struct Vector<T> {
    object: String,
    content_type: String,
    /// Ed25519 seeds of the signers.
    signers: Vec<Random>,
    statement: T,
    payload: String,
    digest: Digest,
    envelope: Envelope,
}

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("vectors").join(format!("{name}.json"))
}

/// Whether a vector is to be written: all are with `1`, one is with its name.
/// What is encapsulated is drawn anew then, so all would mean new bytes in most.
pub(crate) fn writing(name: &str) -> bool {
    std::env::var("SEALFOLD_WRITE_VECTORS").is_ok_and(|which| which == "1" || which == name)
}

pub(crate) fn write(name: &str, value: &impl Serialize) {
    let text = serde_json::to_string_pretty(value).unwrap() + "\n";
    std::fs::write(path(name), text).unwrap();
}

pub(crate) fn read<T: DeserializeOwned>(name: &str) -> T {
    let text = std::fs::read_to_string(path(name)).unwrap();
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{name}: {e}"))
}

/// Checks (or writes) the vector of a statement with one signer.
fn signed<T>(name: &str, make: impl FnOnce() -> T, seed: [u8; 32]) -> Signed<T>
where
    T: Statement + PartialEq + std::fmt::Debug,
{
    let key = SigningKey::from_seed(&seed).unwrap();
    if writing(name) {
        let signed = Signed::sign(make(), &key).unwrap();
        write(name, &vector(vec![seed], signed.statement(), signed.envelope().to_vec()));
    }
    let vector: Vector<T> = read(name);
    assert_eq!(vector.content_type, T::CONTENT_TYPE);
    let opened = Signed::<T>::open(&vector.envelope.0, &key.verifying_key()).unwrap();
    assert_eq!(opened.statement(), &vector.statement);
    assert_eq!(opened.digest(), vector.digest);
    let again = Signed::sign(vector.statement, &key).unwrap();
    assert_eq!(again.envelope(), vector.envelope.0);
    let payload = hex::decode(&vector.payload).unwrap();
    assert_eq!(Digest::of(&[&payload]), vector.digest);
    opened
}

/// Checks (or writes) the vector of a statement with several signers.
fn multi_signed<T>(name: &str, make: impl FnOnce() -> T) -> MultiSigned<T>
where
    T: Statement + PartialEq + std::fmt::Debug,
{
    let sign = |statement| {
        let mut signed = MultiSigned::sign(statement, &keys()[0]).unwrap();
        keys()[1..].iter().for_each(|key| signed.add_signature(key).unwrap());
        signed
    };
    if writing(name) {
        let signed = sign(make());
        let seeds = (1..5).map(|i| [i; 32]).collect();
        write(name, &vector(seeds, signed.statement(), signed.envelope().unwrap()));
    }
    let vector: Vector<T> = read(name);
    assert_eq!(vector.content_type, T::CONTENT_TYPE);
    let opened = MultiSigned::<T>::open(&vector.envelope.0).unwrap();
    assert_eq!(opened.statement(), &vector.statement);
    assert_eq!(opened.digest(), vector.digest);
    assert_eq!(sign(vector.statement).envelope().unwrap(), vector.envelope.0);
    opened
}

fn vector<T: Statement>(seeds: Vec<[u8; 32]>, statement: &T, envelope: Vec<u8>) -> Vector<&T> {
    let payload = crate::encoding::to_vec(statement).unwrap();
    Vector {
        object: T::NAME.to_owned(),
        content_type: T::CONTENT_TYPE.to_owned(),
        signers: seeds.into_iter().map(Random::new).collect(),
        statement,
        digest: Digest::of(&[&payload]),
        payload: hex::encode(payload),
        envelope: Envelope(envelope),
    }
}

/// Bytes that a second implementation can make: byte i is i * 31 mod 251.
fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|i| u8::try_from(i * 31 % 251).unwrap()).collect()
}

/// The manifest whose vector the crate `sealfold-study` makes and checks, as an
/// enclave reads it.
fn manifest_of(name: &str) -> MultiSigned<TermsOnly> {
    let vector: Value = read(name);
    let envelope: Envelope = serde_json::from_value(vector["envelope"].clone()).unwrap();
    let opened = TermsOnly::open(&envelope.0).unwrap();
    assert_eq!(serde_json::to_value(opened.digest()).unwrap(), vector["digest"]);
    opened
}

fn release_of(roster: &Signed<Roster>, manifest: Digest, disclosure: Disclosure) -> Release {
    let blinding = Secret::new([12; 32]);
    let (length, statement) = (48, roster.statement());
    Release {
        study: statement.study,
        manifest,
        round: statement.round,
        offer: statement.offer,
        roster: roster.digest(),
        base: Digest::new([4; 32]),
        previous: None,
        aggregate: release::commitment(&blinding, &content::digest(&pattern(length))),
        object: Random::new([13; 32]),
        plain_length: length as u64,
        below_clip: None,
        disclosure,
    }
}

#[test]
fn every_object_has_a_vector_that_holds() {
    let sealing = sealing();
    let first = manifest_of("manifest");
    let amendment = manifest_of("amendment");
    assert_eq!(crate::study::identity(&amendment), first.digest());
    let offer = signed(
        "offer",
        || Offer {
            study: first.digest(),
            manifest: first.digest(),
            round: 1,
            base: Digest::new([4; 32]),
            previous: None,
            clip: None,
            update_key: sealing.public_key.clone(),
            instance_key: SigningKey::from_seed(&INSTANCE).unwrap().verifying_key(),
        },
        INSTANCE,
    );
    let of = offer.statement().clone();
    let header = signed(
        "update-header",
        || UpdateHeader {
            study: of.study,
            round: of.round,
            offer: offer.digest(),
            site: "site-0".to_owned(),
            plain_length: 48,
            encapsulation: sealing.encapsulation.clone(),
        },
        [1; 32],
    );
    sealed_update(&offer, &header);
    signed(
        "receipt",
        || Receipt {
            study: of.study,
            round: of.round,
            offer: offer.digest(),
            site: "site-0".to_owned(),
            header: header.digest(),
        },
        INSTANCE,
    );
    let member = |i: u8| Member {
        site: format!("site-{i}"),
        header: if i == 0 { header.digest() } else { Digest::new([i; 32]) },
    };
    let roster = signed(
        "roster",
        || Roster {
            study: of.study,
            round: of.round,
            offer: offer.digest(),
            attempt: 1,
            members: (0..3).map(member).collect(),
        },
        INSTANCE,
    );
    let checkpoint = Digest::new([15; 32]);
    let commit = || Commit::to(&roster, "site-0", header.digest(), checkpoint);
    let commit = signed("commit", commit, [1; 32]);
    commit.statement().expect(&roster, &checkpoint).unwrap();
    let opening = Opening { key: Secret::new([11; 32]), blinding: Secret::new([12; 32]) };
    let everyone = Disclosure::Everyone(opening.clone());
    signed("release-everyone", || release_of(&roster, of.manifest, everyone), INSTANCE);
    let site = &terms().sites[0];
    let info = Opening::seal_info(&offer.digest(), &site.name);
    let to_sites = signed(
        "release-sites",
        || {
            let plain = opening.encode().unwrap();
            let sealed = seal::seal_to(&site.release_key, &info, b"", &plain).unwrap();
            let openings = vec![SiteOpening { site: site.name.clone(), sealed }];
            release_of(&roster, of.manifest, Disclosure::Sites(openings))
        },
        INSTANCE,
    );
    let Disclosure::Sites(openings) = &to_sites.statement().disclosure else { panic!() };
    let plain = seal::unseal(&[100; 32], &info, b"", &openings[0].sealed).unwrap();
    assert_eq!(Opening::decode(&plain).unwrap(), opening);
    signed(
        "model-report",
        || ModelReport {
            study: of.study,
            round: of.round,
            release: to_sites.digest(),
            site: "site-0".to_owned(),
            model: Digest::new([16; 32]),
        },
        [1; 32],
    );
    multi_signed("abandonment", || Abandonment {
        study: of.study,
        round: of.round,
        offer: offer.digest(),
        reason: "the instance was lost after the commits".to_owned(),
    });
}

#[test]
fn every_byte_construction_has_a_vector_that_holds() {
    let request = |operation, length| {
        let object = [6; 32];
        hex::encode(door::Request { operation, object, offset: 0x0102_0304, length }.encode())
    };
    let digest_of = |length: usize| json!([length, content::digest(&pattern(length))]);
    let constructions = json!({
        "content_digests": [digest_of(0), digest_of(1), digest_of(seal::RECORD), digest_of(seal::RECORD + 1)],
        "aggregate_commitment": release::commitment(&Secret::new([12; 32]), &Digest::new([14; 32])),
        "aggregate_context": hex::encode(release::seal_context(&Digest::new([3; 32]), &Digest::new([15; 32]))),
        "update_info": hex::encode(Offer::seal_info(&Digest::new([3; 32]))),
        "finding_info": hex::encode(crate::refusal::Refusal::seal_info(&Digest::new([17; 32]))),
        "opening_info": hex::encode(Opening::seal_info(&Digest::new([3; 32]), "site-0")),
        "door_read": request(door::Operation::Read, 262_400),
        "door_write": request(door::Operation::Write, 56),
        "door_finish": request(door::Operation::Finish, 0),
    });
    if writing("constructions") {
        write("constructions", &constructions);
    }
    assert_eq!(read::<Value>("constructions"), constructions);
}
