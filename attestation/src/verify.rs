//! The three questions about evidence, and the checks that every platform
//! makes in the same way.
//!
//! What a platform's evidence looks like, and which checks that means, is in
//! the platform's own module.

use crate::binding::{binding, nonce_hash};
use crate::chain::{Chain, ChainError};
use crate::verdict::{CheckName as Name, Collector, Verdict};
use crate::{Evidence, Policy, confidential_space, nitro};
use jiff::Timestamp;
use subtle::ConstantTimeEq;

/// How far the clocks of site and enclave may differ, in milliseconds.
pub(crate) const LEEWAY: i64 = 60_000;

/// What is asked about the evidence.
pub(crate) struct Question {
    /// The evidence must be valid at this time; at the one when it says that it
    /// was signed, if none.
    pub at: Option<Timestamp>,
    /// Whether the enclave is asked now, so that others can be asked too.
    pub live: bool,
    /// Whether the enclave is one of ours, which binds an offer and an asker,
    /// and nothing else.
    pub ours: bool,
    /// What must stand in the place of the binding, in hex.
    binding: Option<String>,
    /// What must stand in the place of the nonce, in hex.
    nonce: Option<String>,
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
        live: true,
        ours: true,
        binding: Some(hex::encode(binding(offer_digest))),
        nonce: Some(hex::encode(nonce_hash(nonce))),
        why_no_nonce: "",
    };
    appraise(evidence, policy, &question, &[Name::Binding, Name::Nonce, Name::Age])
}

/// Was it right to accept this evidence for that offer, at the evidence's own
/// time? Freshness cannot be replayed: a nonce convinces only who drew it.
#[must_use]
pub fn verify_replay(evidence: &Evidence, policy: &Policy, offer_digest: &[u8; 32]) -> Verdict {
    let question = Question {
        at: None,
        live: false,
        ours: true,
        binding: Some(hex::encode(binding(offer_digest))),
        nonce: None,
        why_no_nonce: "a replay asks for no freshness",
    };
    appraise(evidence, policy, &question, &[Name::Binding])
}

/// What does a bare document or token say, at a given time, to one who may know
/// the nonce? Without an offer the verdict is at best undecided: nothing ties
/// the evidence to a key.
#[must_use]
pub fn verify_document(
    evidence: &Evidence,
    policy: &Policy,
    at: Timestamp,
    nonce: Option<&[u8]>,
) -> Verdict {
    let question = Question {
        at: Some(at),
        live: false,
        ours: false,
        binding: None,
        nonce: nonce.map(hex::encode),
        why_no_nonce: "no nonce was given",
    };
    appraise(evidence, policy, &question, &[Name::Binding, Name::Nonce])
}

/// Asks the evidence's platform. `needed` are the checks without which the
/// verdict is undecided.
fn appraise(evidence: &Evidence, policy: &Policy, question: &Question, needed: &[Name]) -> Verdict {
    let mut collector = Collector::new(needed);
    let (claims, checks) = match evidence {
        Evidence::Nitro(bytes) => {
            (nitro::appraise(&mut collector, bytes, policy, question), nitro::CHECKS)
        }
        Evidence::ConfidentialSpace(bytes) => (
            confidential_space::appraise(&mut collector, bytes, policy, question),
            confidential_space::CHECKS,
        ),
    };
    collector.finish(checks, claims)
}

impl Question {
    /// The time in question, in milliseconds, for evidence of that time.
    pub(crate) fn time(&self, signed: u64) -> u64 {
        self.at.map_or(signed, |at| {
            let at = at.as_millisecond();
            let ahead = i64::try_from(signed).unwrap_or(i64::MAX).saturating_sub(at);
            // A clock that is a little behind sees evidence of the future.
            if (0..=LEEWAY).contains(&ahead) { signed } else { u64::try_from(at).unwrap_or(0) }
        })
    }

    /// The certificates at the time in question.
    pub(crate) fn validity(
        &self,
        collector: &mut Collector,
        chain: &Chain<'_>,
        root: &[u8],
        signed: u64,
    ) {
        let at = self.time(signed);
        let expected = format!("certificates valid at {}", time(at));
        match chain.verify(root, at) {
            Ok(()) => collector.check(Name::Validity, true, expected, "valid"),
            Err(ChainError::NotValid(error) | ChainError::Broken(error)) => {
                collector.check(Name::Validity, false, expected, error)
            }
            Err(ChainError::Unknown) => {
                collector.check(Name::Validity, false, expected, "no chain")
            }
        };
    }

    /// What ties the evidence to the offer and to the asker: what stands in the
    /// place of each, in hex.
    pub(crate) fn bound(
        &self,
        collector: &mut Collector,
        binding: Option<&str>,
        nonce: Option<&str>,
    ) {
        for (name, expected, found, what, why_not) in [
            (
                Name::Binding,
                &self.binding,
                binding,
                "the binding of an offer",
                "no offer was given",
            ),
            (Name::Nonce, &self.nonce, nonce, "the asker's nonce", self.why_no_nonce),
        ] {
            let Some(expected) = expected else {
                collector.not_made(name, what, why_not);
                continue;
            };
            let same = found.unwrap_or_default().as_bytes().ct_eq(expected.as_bytes());
            collector.check(name, same.into(), expected, found.unwrap_or("none"));
        }
    }

    /// Whether the evidence is as young as the policy demands.
    pub(crate) fn age(&self, collector: &mut Collector, policy: &Policy, signed: u64) {
        let limit = policy.max_age().as_secs();
        let expected = format!("at most {limit} s");
        let Some(at) = self.at else {
            collector.not_made(Name::Age, expected, "a replay asks for no freshness");
            return;
        };
        let age = at.as_millisecond().saturating_sub(i64::try_from(signed).unwrap_or(i64::MAX));
        let limit = i64::try_from(limit * 1000).unwrap_or(i64::MAX);
        let found = format!("{} s, signed at {}", age / 1000, time(signed));
        collector.check(Name::Age, (-LEEWAY..=limit).contains(&age), expected, found);
    }
}

/// A time in milliseconds, for people.
pub(crate) fn time(milliseconds: u64) -> String {
    let milliseconds = i64::try_from(milliseconds).unwrap_or(i64::MAX);
    Timestamp::from_millisecond(milliseconds)
        .map_or_else(|_| format!("{milliseconds} ms"), |time| time.to_string())
}
