//! The checks of a Nitro document.

use super::document::{Document, DocumentError, Envelope};
use super::{second_opinion, signature};
use crate::Policy;
use crate::policy::Measurement;
use crate::verdict::{CheckName as Name, Claims, Collector};
use crate::verify::Question;
use std::collections::BTreeMap;
use subtle::ConstantTimeEq;

/// The checks that are made, in the order of the table.
pub(crate) const CHECKS: &[Name] = &[
    Name::Platform,
    Name::Envelope,
    Name::Payload,
    Name::FieldLimits,
    Name::Algorithm,
    Name::Chain,
    Name::Root,
    Name::Validity,
    Name::Signature,
    Name::Simulation,
    Name::DebugMode,
    Name::Pcr0,
    Name::Pcr1,
    Name::Pcr2,
    Name::Pcr8,
    Name::Binding,
    Name::Nonce,
    Name::PublicKey,
    Name::Age,
    Name::SecondOpinion,
];

/// Makes the checks; the claims, if the platform's part holds.
pub(crate) fn appraise(
    collector: &mut Collector,
    bytes: &[u8],
    policy: &Policy,
    question: &Question,
) -> Option<Claims> {
    let trusted = policy.nitro();
    let expected = "a section [nitro] of the policy";
    if !collector.platform(super::NAME, !trusted.is_empty(), expected) {
        return None;
    }
    let (envelope, document) = form(collector, bytes)?;
    let chain = signature::chain(&document);
    let trusted = chain.root(collector, trusted, document.timestamp)?;
    question.validity(collector, &chain, trusted.root, document.timestamp);
    let signed = signature::verify(&envelope, &document);
    let found = signed.clone().err().unwrap_or_else(|| "one that verifies".to_owned());
    collector.check(Name::Signature, signed.is_ok(), "a signature of the leaf's key", found);
    measured(collector, &document, trusted.accepted);
    bound(collector, &document, question);
    question.age(collector, policy, document.timestamp);
    other_opinion(collector, bytes, &document, (question.live, trusted.simulated));
    let register = |name, index| (name, document.pcr(index).to_vec());
    Some(Claims {
        platform: super::NAME,
        simulated: trusted.simulated,
        signed_at: document.timestamp,
        measurements: BTreeMap::from([
            register(Name::Pcr0, 0),
            register(Name::Pcr1, 1),
            register(Name::Pcr2, 2),
            register(Name::Pcr8, 8),
        ]),
    })
}

/// The checks of form.
fn form<'a>(collector: &mut Collector, bytes: &'a [u8]) -> Option<(Envelope<'a>, Document)> {
    let parsed = Envelope::parse(bytes)
        .and_then(|envelope| Document::parse(envelope.payload).map(|doc| (envelope, doc)));
    match parsed {
        Ok(parsed) => {
            collector.well_formed([
                "COSE_Sign1 in its one encoding",
                "every field once",
                "the NSM's limits",
                "ES384, SHA384",
            ]);
            Some(parsed)
        }
        Err(DocumentError { check, expected, found }) => {
            before(check).iter().for_each(|name| {
                collector.check(*name, true, "well formed", "well formed");
            });
            collector.check(check, false, expected, found);
            None
        }
    }
}

/// The checks of form that a document has passed when one fails. The header's
/// algorithm is read with the envelope, the digest's name with the payload;
/// what stands before it in a reader's eyes is passed only if it was read.
fn before(failed: Name) -> &'static [Name] {
    match failed {
        Name::Payload => &[Name::Envelope],
        Name::FieldLimits => &[Name::Envelope, Name::Payload],
        _ => &[],
    }
}

/// The registers against the accepted images.
fn measured(collector: &mut Collector, document: &Document, accepted: &[Measurement]) {
    let zeros = |index| document.pcr(index).iter().all(|byte| *byte == 0);
    let debug = (0..3).any(zeros);
    let found = if debug { "PCR0, 1 or 2 of zeros: debug mode" } else { "PCRs that are set" };
    collector.check(Name::DebugMode, !debug, "an image not in debug mode", found);
    let agreeing = |m: &&Measurement| registers(m).iter().filter(|r| agrees(document, r)).count();
    // The image that agrees most is the one to compare with.
    let Some(closest) = accepted.iter().max_by_key(agreeing) else { return };
    for register in registers(closest) {
        let (name, index, expected) = register;
        let found = hex::encode(document.pcr(index));
        collector.check(name, agrees(document, &register), hex::encode(expected), found);
    }
    if closest.pcr8.is_none() {
        collector.not_made(Name::Pcr8, "", "the policy does not ask for a signed image");
    }
}

type Register = (Name, u8, [u8; 48]);

fn registers(measurement: &Measurement) -> Vec<Register> {
    let mut registers = vec![
        (Name::Pcr0, 0, measurement.pcr0.0),
        (Name::Pcr1, 1, measurement.pcr1.0),
        (Name::Pcr2, 2, measurement.pcr2.0),
    ];
    registers.extend(measurement.pcr8.map(|pcr8| (Name::Pcr8, 8, pcr8.0)));
    registers
}

fn agrees(document: &Document, (_, index, expected): &Register) -> bool {
    document.pcr(*index).ct_eq(expected).into()
}

/// What ties the document to the offer and to the asker.
fn bound(collector: &mut Collector, document: &Document, question: &Question) {
    let field = |field: &Option<Vec<u8>>| field.as_ref().map(hex::encode);
    question.bound(
        collector,
        field(&document.user_data).as_deref(),
        field(&document.nonce).as_deref(),
    );
    if question.ours {
        let found = document.public_key.as_ref().map_or("none".to_owned(), hex::encode);
        collector.check(Name::PublicKey, document.public_key.is_none(), "none", found);
    } else {
        collector.not_made(Name::PublicKey, "none", "not asked of a bare document");
    }
}

fn other_opinion(
    collector: &mut Collector,
    bytes: &[u8],
    document: &Document,
    (live, simulated): (bool, bool),
) {
    let expected = "accepted by attestation-doc-validation";
    let why_not = match (live, simulated, &document.user_data) {
        (false, ..) => Some("it can answer for the current time only"),
        (_, true, _) => Some("it knows the AWS root only"),
        (_, _, Some(data)) if data.is_empty() => Some("it refuses an empty user_data"),
        _ => None,
    };
    if let Some(why) = why_not {
        collector.not_made(Name::SecondOpinion, expected, why);
        return;
    }
    let opinion = second_opinion::ask(bytes);
    let found = opinion.clone().err().unwrap_or_else(|| "accepted".to_owned());
    collector.check(Name::SecondOpinion, opinion.is_ok(), expected, found);
}
