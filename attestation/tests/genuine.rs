//! The real documents of AWS Nitro hardware, and every way to spoil them.
#![allow(clippy::unwrap_used)]

use jiff::{SignedDuration, Timestamp};
use sealfold_attestation::{CheckName, Evidence, Outcome, Policy, State, Verdict, verify_document};
use std::path::Path;

/// Bare documents lack an offer, so the best verdict is undecided.
const GOOD: Outcome = Outcome::Undecided;

fn vectors() -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/nitro");
    let mut vectors: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| {
            (entry.file_name().into_string().unwrap(), std::fs::read(entry.path()).unwrap())
        })
        .collect();
    vectors.sort();
    assert_eq!(vectors.len(), 11);
    vectors
}

/// Reads fields with another decoder, so that the tests do not believe ours.
fn payload(document: &[u8]) -> serde_cbor::Value {
    let serde_cbor::Value::Array(parts) = serde_cbor::from_slice(document).unwrap() else {
        panic!("no array")
    };
    let serde_cbor::Value::Bytes(payload) = &parts[2] else { panic!("no payload") };
    serde_cbor::from_slice(payload).unwrap()
}

fn field<'a>(map: &'a serde_cbor::Value, key: &serde_cbor::Value) -> &'a serde_cbor::Value {
    let serde_cbor::Value::Map(map) = map else { panic!("no map") };
    &map[key]
}

fn time(document: &[u8]) -> Timestamp {
    let payload = payload(document);
    let serde_cbor::Value::Integer(time) =
        field(&payload, &serde_cbor::Value::Text("timestamp".to_owned()))
    else {
        panic!("no timestamp")
    };
    Timestamp::from_millisecond(i64::try_from(*time).unwrap()).unwrap()
}

fn pcr(document: &[u8], index: i128) -> String {
    let payload = payload(document);
    let pcrs = field(&payload, &serde_cbor::Value::Text("pcrs".to_owned()));
    let serde_cbor::Value::Bytes(pcr) = field(pcrs, &serde_cbor::Value::Integer(index)) else {
        panic!("no PCR")
    };
    hex::encode(pcr)
}

/// A policy with the document's own registers, or ones that differ in one.
fn policy(document: &[u8], change: Option<usize>) -> Policy {
    let mut text = Policy::example().to_owned();
    for (place, digit) in ["1", "2", "3"].iter().enumerate() {
        let mut register = pcr(document, i128::try_from(place).unwrap());
        if register.bytes().all(|b| b == b'0') || change == Some(place) {
            register = "ab".repeat(48);
        }
        text = text.replace(&digit.repeat(96), &register);
    }
    Policy::from_toml(&text).unwrap()
}

fn state(verdict: &Verdict, name: CheckName) -> State {
    verdict.checks().iter().find(|check| check.name == name).unwrap().state
}

fn failed(verdict: &Verdict) -> Vec<CheckName> {
    let checks = verdict.checks().iter();
    checks.filter(|check| check.state == State::Failed).map(|check| check.name).collect()
}

#[test]
fn genuine_documents_verify_at_their_own_time_and_not_when_the_leaf_has_expired() {
    let mut seen = 0;
    for (name, document) in vectors().into_iter().filter(|(name, _)| name.contains("-prod-")) {
        if name.contains("BADSIG") {
            continue;
        }
        seen += 1;
        let (evidence, at) = (Evidence::from_nitro(&document), time(&document));
        let policy = policy(&document, None);
        let verdict = verify_document(&evidence, &policy, at, None);
        assert_eq!(verdict.outcome(), GOOD, "{name}: {:?}", verdict.checks());
        for check in [CheckName::Chain, CheckName::Root, CheckName::Validity, CheckName::Signature]
        {
            assert_eq!(state(&verdict, check), State::Passed, "{name} {check}");
        }
        for check in [CheckName::Pcr0, CheckName::Pcr1, CheckName::Pcr2, CheckName::Age] {
            assert_eq!(state(&verdict, check), State::Passed, "{name} {check}");
        }
        assert_eq!(state(&verdict, CheckName::Binding), State::NotMade);
        // The leaf lives for about three hours and may be as old when it signs.
        let later = at + SignedDuration::from_hours(4);
        let verdict = verify_document(&evidence, &policy, later, None);
        assert_eq!(failed(&verdict), [CheckName::Validity, CheckName::Age], "{name}");
        let earlier = at - SignedDuration::from_hours(4);
        let verdict = verify_document(&evidence, &policy, earlier, None);
        assert!(failed(&verdict).contains(&CheckName::Validity), "{name}");
        assert!(verdict.into_claims().is_err());
    }
    assert_eq!(seen, 7);
}

#[test]
fn other_registers_are_refused_by_name() {
    let (_, document) = vectors().remove(0);
    let evidence = Evidence::from_nitro(&document);
    for (place, name) in [CheckName::Pcr0, CheckName::Pcr1, CheckName::Pcr2].iter().enumerate() {
        let verdict =
            verify_document(&evidence, &policy(&document, Some(place)), time(&document), None);
        assert_eq!(failed(&verdict), [*name]);
    }
    // A policy that asks for a signed image.
    let text = Policy::example().replace(
        "[[nitro.measurements]]",
        &format!("[[nitro.measurements]]\npcr8 = \"{}\"", "ab".repeat(48)),
    );
    let verdict =
        verify_document(&evidence, &Policy::from_toml(&text).unwrap(), time(&document), None);
    assert!(failed(&verdict).contains(&CheckName::Pcr8));
}

#[test]
fn debug_images_are_refused_though_chain_and_signature_hold() {
    let debug: Vec<_> =
        vectors().into_iter().filter(|(name, _)| name.contains("-debug-")).collect();
    assert_eq!(debug.len(), 3);
    for (name, document) in debug {
        let evidence = Evidence::from_nitro(&document);
        let verdict = verify_document(&evidence, &policy(&document, None), time(&document), None);
        assert_eq!(verdict.outcome(), Outcome::Refused);
        assert_eq!(state(&verdict, CheckName::DebugMode), State::Failed, "{name}");
        assert_eq!(state(&verdict, CheckName::Chain), State::Passed, "{name}");
        assert_eq!(state(&verdict, CheckName::Signature), State::Passed, "{name}");
    }
}

#[test]
fn a_bad_signature_is_refused_by_name() {
    let (_, document) = vectors().into_iter().find(|(name, _)| name.contains("BADSIG")).unwrap();
    let evidence = Evidence::from_nitro(&document);
    let verdict = verify_document(&evidence, &policy(&document, None), time(&document), None);
    assert_eq!(failed(&verdict), [CheckName::Signature]);
}

#[test]
fn every_single_byte_change_is_refused() {
    let (_, document) = vectors().into_iter().find(|(n, _)| n.contains("8ff485")).unwrap();
    let (policy, at) = (policy(&document, None), time(&document));
    let good = verify_document(&Evidence::from_nitro(&document), &policy, at, None);
    assert_eq!(good.outcome(), GOOD);
    for place in 0..document.len() {
        for change in [1 << (place % 8), 0xff] {
            let mut changed = document.clone();
            changed[place] ^= change;
            let verdict = verify_document(&Evidence::from_nitro(&changed), &policy, at, None);
            assert_eq!(verdict.outcome(), Outcome::Refused, "byte {place} ^ {change:02x}");
        }
    }
    for length in (0..document.len()).step_by(7) {
        let verdict =
            verify_document(&Evidence::from_nitro(&document[..length]), &policy, at, None);
        assert_eq!(verdict.outcome(), Outcome::Refused, "cut to {length}");
    }
}

#[test]
fn other_spellings_of_the_envelope_are_refused() {
    let (_, document) = vectors().into_iter().find(|(n, _)| n.contains("8ff485")).unwrap();
    let (policy, at) = (policy(&document, None), time(&document));
    let verdict_of =
        |bytes: &[u8]| verify_document(&Evidence::from_nitro(bytes), &policy, at, None);
    // The tag of COSE_Sign1 is the one alternative.
    let tagged = [&[0xd2], &document[..]].concat();
    assert_eq!(verdict_of(&tagged).outcome(), GOOD);
    assert_eq!(document[6..8], [0xa0, 0x59]);
    for (what, spelling) in [
        ("another tag", [&[0xd1], &document[..]].concat()),
        ("two tags", [&[0xd2, 0xd2], &document[..]].concat()),
        ("bytes after", [&document[..], &[0]].concat()),
        ("indefinite array", [&[0x9f], &document[1..], &[0xff]].concat()),
        ("longer header length", [&document[..1], &[0x58, 0x04], &document[2..]].concat()),
        ("no header", [&document[..1], &[0x40], &document[6..]].concat()),
        ("unprotected", [&document[..6], &[0xa1, 0x04, 0x41, 0x31], &document[7..]].concat()),
        ("longer payload length", [&document[..7], &[0x5a, 0, 0], &document[8..]].concat()),
    ] {
        assert_eq!(verdict_of(&spelling).outcome(), Outcome::Refused, "{what}");
    }
}

#[test]
fn a_nonce_is_compared() {
    let (_, document) = vectors().into_iter().find(|(n, _)| n.contains("8ff485")).unwrap();
    let payload = payload(&document);
    let serde_cbor::Value::Bytes(nonce) =
        field(&payload, &serde_cbor::Value::Text("nonce".to_owned()))
    else {
        panic!("no nonce")
    };
    let (evidence, policy, at) =
        (Evidence::from_nitro(&document), policy(&document, None), time(&document));
    let verdict = verify_document(&evidence, &policy, at, Some(nonce));
    assert_eq!(state(&verdict, CheckName::Nonce), State::Passed);
    for wrong in [&nonce[1..], &[0; 32], &[]] {
        let verdict = verify_document(&evidence, &policy, at, Some(wrong));
        assert_eq!(failed(&verdict), [CheckName::Nonce]);
    }
}

#[test]
fn an_unsigned_document_of_an_emulator_is_refused() {
    let document = include_bytes!("vectors/qemu-nsm-unsigned.bin");
    let policy = Policy::from_toml(Policy::example()).unwrap();
    let verdict = verify_document(&Evidence::from_nitro(document), &policy, Timestamp::now(), None);
    assert_eq!(failed(&verdict), [CheckName::Algorithm]);
}

#[test]
fn the_independent_implementation_reads_the_same_fields() {
    use attestation_doc_validation::attestation_doc::decode_attestation_document;
    for (name, document) in vectors().into_iter().filter(|(n, _)| !n.contains("BADSIG")) {
        // It does not read indefinite lengths or an empty user_data everywhere;
        // what it reads must agree.
        let Ok((_, theirs)) = decode_attestation_document(&document) else { continue };
        assert_eq!(theirs.timestamp.to_string(), time(&document).as_millisecond().to_string());
        for index in 0..3 {
            let register = hex::encode(&theirs.pcrs[&usize::try_from(index).unwrap()][..]);
            assert_eq!(register, pcr(&document, index), "{name}");
        }
        // At the current time every leaf has expired, for it and for us.
        assert!(attestation_doc_validation::validate_attestation_doc(&document).is_err());
    }
}
