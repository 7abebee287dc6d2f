//! The verification of evidence, check by check.

use crate::binding::{binding, nonce_hash};
use crate::nitro::chain::{self, ChainError};
use crate::nitro::document::{Document, DocumentError, Envelope};
use crate::nitro::second_opinion;
use crate::policy::{Measurement, Trusted};
use crate::verdict::{CheckName as Name, Collector, Verdict};
use crate::{Evidence, Policy};
use jiff::Timestamp;
use subtle::ConstantTimeEq;

/// How far the clocks of site and enclave may differ, in milliseconds.
const LEEWAY: i64 = 60_000;
/// The common name of a simulation root, to call simulated evidence by its
/// name where it is refused. Nothing is accepted because of it.
pub(crate) const SIMULATION_ROOT_NAME: &[u8] = b"sealfold simulation root";

/// What is asked about the evidence.
struct Question<'a> {
    /// The certificates must be valid at this time; the document's own if none.
    at: Option<Timestamp>,
    /// Whether the document must be young at that time.
    fresh: bool,
    offer: Option<&'a [u8; 32]>,
    nonce: Option<&'a [u8; 32]>,
    /// Whether the enclave is one of ours, which leaves `public_key` empty.
    ours: bool,
    second_opinion: bool,
    needed: &'static [Name],
    why_no_nonce: &'static str,
}

/// May a site encrypt to this enclave now? `offer_digest` is the digest of the
/// offer that the enclave made, `nonce` what the site asked with.
#[must_use]
pub fn verify_live(
    evidence: &Evidence,
    policy: &Policy,
    offer_digest: &[u8; 32],
    nonce: &[u8; 32],
    now: Timestamp,
) -> Verdict {
    let question = Question {
        at: Some(now),
        fresh: true,
        offer: Some(offer_digest),
        nonce: Some(nonce),
        ours: true,
        second_opinion: true,
        needed: &[Name::Binding, Name::Nonce, Name::Age],
        why_no_nonce: "",
    };
    examine(evidence, policy, &question)
}

/// Was it right to accept this evidence for that offer, at the document's own
/// time? Freshness cannot be replayed: a nonce convinces only who drew it.
#[must_use]
pub fn verify_replay(evidence: &Evidence, policy: &Policy, offer_digest: &[u8; 32]) -> Verdict {
    let question = Question {
        at: None,
        fresh: false,
        offer: Some(offer_digest),
        nonce: None,
        ours: true,
        second_opinion: false,
        needed: &[Name::Binding],
        why_no_nonce: "a replay asks for no freshness",
    };
    examine(evidence, policy, &question)
}

/// What does a bare document say, at a given time, to one who may know the
/// nonce? Without an offer the verdict is at best undecided: nothing ties the
/// document to a key.
#[must_use]
pub fn verify_document(
    evidence: &Evidence,
    policy: &Policy,
    at: Timestamp,
    nonce: Option<&[u8]>,
) -> Verdict {
    let question = Question {
        at: Some(at),
        fresh: true,
        offer: None,
        nonce: None,
        ours: false,
        second_opinion: false,
        needed: &[Name::Binding, Name::Nonce],
        why_no_nonce: "no nonce was given",
    };
    let mut collector = Collector::new(question.needed);
    let claims = checks(&mut collector, evidence, policy, &question, nonce);
    collector.finish(claims)
}

fn examine(evidence: &Evidence, policy: &Policy, question: &Question<'_>) -> Verdict {
    let mut collector = Collector::new(question.needed);
    let hashed = question.nonce.map(nonce_hash);
    let claims = checks(
        &mut collector,
        evidence,
        policy,
        question,
        hashed.as_ref().map(<[u8; 32]>::as_slice),
    );
    collector.finish(claims)
}

/// Makes the checks; the document and whether it is simulated, if the
/// platform's part holds.
fn checks(
    collector: &mut Collector,
    evidence: &Evidence,
    policy: &Policy,
    question: &Question<'_>,
    nonce: Option<&[u8]>,
) -> Option<(Document, bool)> {
    let bytes = evidence.as_bytes();
    let parsed = Envelope::parse(bytes)
        .and_then(|envelope| Document::parse(envelope.payload).map(|doc| (envelope, doc)));
    let (envelope, document) = match parsed {
        Ok(parsed) => parsed,
        Err(DocumentError { check, expected, found }) => {
            before(check).into_iter().for_each(|name| {
                collector.check(name, true, "well formed", "well formed");
            });
            collector.check(check, false, expected, found);
            return None;
        }
    };
    for (name, expected) in [
        (Name::Envelope, "COSE_Sign1 in its one encoding"),
        (Name::Payload, "every field once"),
        (Name::FieldLimits, "the NSM's limits"),
        (Name::Algorithm, "ES384, SHA384"),
    ] {
        collector.check(name, true, expected, "as expected");
    }
    let trusted = root(collector, policy, &document)?;
    validity(collector, &document, &trusted, question);
    let signature = chain::verify_signature(&envelope, &document);
    let found = signature.clone().err().unwrap_or_else(|| "one that verifies".to_owned());
    collector.check(Name::Signature, signature.is_ok(), "a signature of the leaf's key", found);
    measured(collector, &document, trusted.measurements);
    bound(collector, &document, question, nonce);
    age(collector, policy, &document, question);
    let why_not = match (question.second_opinion, trusted.simulated, &document.user_data) {
        (false, ..) => Some("it can answer for the current time only"),
        (_, true, _) => Some("it knows the AWS root only"),
        (_, _, Some(data)) if data.is_empty() => Some("it refuses an empty user_data"),
        _ => None,
    };
    let expected = "accepted by attestation-doc-validation";
    if let Some(why) = why_not {
        collector.not_made(Name::SecondOpinion, expected, why);
    } else {
        let opinion = second_opinion::ask(bytes);
        let found = opinion.clone().err().unwrap_or_else(|| "accepted".to_owned());
        collector.check(Name::SecondOpinion, opinion.is_ok(), expected, found);
    }
    Some((document, trusted.simulated))
}

/// The checks of form that a document has passed when one fails.
fn before(failed: Name) -> Vec<Name> {
    let order = [Name::Envelope, Name::Algorithm, Name::Payload, Name::FieldLimits];
    // The header's algorithm is read with the envelope, the digest's name with
    // the payload; whichever failed, what stands before it in a reader's eyes
    // is passed only if it was read.
    match failed {
        Name::Payload => vec![order[0]],
        Name::FieldLimits => vec![order[0], order[2]],
        _ => Vec::new(),
    }
}

/// Chain and root, at the document's own time.
fn root<'a>(
    collector: &mut Collector,
    policy: &'a Policy,
    document: &Document,
) -> Option<Trusted<'a>> {
    let brought = document.cabundle.first().map_or(&[][..], Vec::as_slice);
    let named = brought.windows(SIMULATION_ROOT_NAME.len()).any(|w| w == SIMULATION_ROOT_NAME);
    let fingerprint = hex::encode(chain::fingerprint(brought));
    let mut last = ChainError::Unknown;
    let mut roots = Vec::new();
    for trusted in policy.trusted() {
        roots.push(hex::encode(chain::fingerprint(trusted.root)));
        match chain::verify(document, trusted.root, document.timestamp) {
            Ok(()) => {
                collector.check(Name::Chain, true, "a chain to a root", "a chain to a root");
                collector.check(Name::Root, true, roots.pop().unwrap_or_default(), "the same");
                let (expected, found) = if trusted.simulated {
                    ("simulation allowed by the policy", "simulated evidence")
                } else {
                    ("evidence of a real platform", "evidence of a real platform")
                };
                collector.check(Name::Simulation, true, expected, found);
                return Some(trusted);
            }
            Err(ChainError::Unknown) => {}
            Err(error) => last = error,
        }
    }
    if named && !policy.allows_simulation() {
        let expected = "evidence of a real platform: the policy has no [simulation]";
        collector.check(Name::Simulation, false, expected, "simulated evidence");
        return None;
    }
    match last {
        ChainError::Unknown => {
            collector.check(Name::Root, false, roots.join(" or "), fingerprint);
        }
        ChainError::NotValid(error) | ChainError::Broken(error) => {
            collector.check(Name::Chain, false, "a chain that holds at the signed time", error);
        }
    }
    None
}

fn validity(
    collector: &mut Collector,
    document: &Document,
    trusted: &Trusted<'_>,
    question: &Question<'_>,
) {
    let signed = document.timestamp;
    let at = question.at.map_or(signed, |at| {
        let at = at.as_millisecond();
        let ahead = i64::try_from(signed).unwrap_or(i64::MAX).saturating_sub(at);
        // A clock that is a little behind sees certificates of the future.
        if (0..=LEEWAY).contains(&ahead) { signed } else { u64::try_from(at).unwrap_or(0) }
    });
    let expected = format!("certificates valid at {}", time(at));
    match chain::verify(document, trusted.root, at) {
        Ok(()) => collector.check(Name::Validity, true, expected, "valid"),
        Err(ChainError::NotValid(error) | ChainError::Broken(error)) => {
            collector.check(Name::Validity, false, expected, error)
        }
        Err(ChainError::Unknown) => collector.check(Name::Validity, false, expected, "no chain"),
    };
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
fn bound(
    collector: &mut Collector,
    document: &Document,
    question: &Question<'_>,
    nonce: Option<&[u8]>,
) {
    let mut compare = |name, expected: &[u8], field: &Option<Vec<u8>>| {
        let found = field.as_deref().unwrap_or_default();
        let shown = if field.is_some() { hex::encode(found) } else { "none".to_owned() };
        collector.check(name, found.ct_eq(expected).into(), hex::encode(expected), shown);
    };
    if let Some(offer) = question.offer {
        compare(Name::Binding, &binding(offer), &document.user_data);
    }
    if let Some(nonce) = nonce {
        compare(Name::Nonce, nonce, &document.nonce);
    }
    if question.offer.is_none() {
        collector.not_made(Name::Binding, "user_data that binds an offer", "no offer was given");
    }
    if nonce.is_none() {
        collector.not_made(Name::Nonce, "the asker's nonce", question.why_no_nonce);
    }
    if question.ours {
        let found = document.public_key.as_ref().map_or("none".to_owned(), hex::encode);
        collector.check(Name::PublicKey, document.public_key.is_none(), "none", found);
    } else {
        collector.not_made(Name::PublicKey, "none", "not asked of a bare document");
    }
}

fn age(collector: &mut Collector, policy: &Policy, document: &Document, question: &Question<'_>) {
    let limit = policy.max_age().as_secs();
    let expected = format!("at most {limit} s");
    let (Some(at), true) = (question.at, question.fresh) else {
        collector.not_made(Name::Age, expected, "a replay asks for no freshness");
        return;
    };
    let signed = i64::try_from(document.timestamp).unwrap_or(i64::MAX);
    let age = at.as_millisecond().saturating_sub(signed);
    let limit = i64::try_from(limit * 1000).unwrap_or(i64::MAX);
    let found = format!("{} s, signed at {}", age / 1000, time(document.timestamp));
    collector.check(Name::Age, (-LEEWAY..=limit).contains(&age), expected, found);
}

fn time(milliseconds: u64) -> String {
    let milliseconds = i64::try_from(milliseconds).unwrap_or(i64::MAX);
    Timestamp::from_millisecond(milliseconds)
        .map_or_else(|_| format!("{milliseconds} ms"), |time| time.to_string())
}
