//! The verdict: every check by name, with what was expected and found.

use crate::nitro::Document;
use serde::Serialize;
use std::fmt;

/// The checks. The names are part of the protocol: they appear in the CLI, in
/// logs and in reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum CheckName {
    /// The `COSE_Sign1` envelope is in its one encoding.
    Envelope,
    /// The payload decodes, with every field that must be there, each once.
    Payload,
    /// Every field keeps the limits of the NSM's specification.
    FieldLimits,
    /// The signature algorithm is ES384, the digest SHA-384.
    Algorithm,
    /// The certificates lead from the leaf to a root.
    Chain,
    /// That root is one that the policy names.
    Root,
    /// The certificates are valid at the time in question.
    Validity,
    /// The leaf's key made the signature.
    Signature,
    /// Simulated evidence only where the policy allows it.
    Simulation,
    /// The image was not started in debug mode.
    DebugMode,
    /// PCR0, the image.
    Pcr0,
    /// PCR1, kernel and boot ramdisk.
    Pcr1,
    /// PCR2, the application.
    Pcr2,
    /// PCR8, the image's signing certificate, where the policy names it.
    Pcr8,
    /// `user_data` binds the offer.
    Binding,
    /// `nonce` binds the asker's nonce.
    Nonce,
    /// `public_key` is empty: sealfold does not use it.
    PublicKey,
    /// The document is young.
    Age,
    /// An independent implementation accepts the document too.
    SecondOpinion,
}

impl CheckName {
    /// All checks, in the order in which they are made.
    pub const ALL: [Self; 19] = [
        Self::Envelope,
        Self::Payload,
        Self::FieldLimits,
        Self::Algorithm,
        Self::Chain,
        Self::Root,
        Self::Validity,
        Self::Signature,
        Self::Simulation,
        Self::DebugMode,
        Self::Pcr0,
        Self::Pcr1,
        Self::Pcr2,
        Self::Pcr8,
        Self::Binding,
        Self::Nonce,
        Self::PublicKey,
        Self::Age,
        Self::SecondOpinion,
    ];
}

impl fmt::Display for CheckName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// As expected.
    Passed,
    /// Not as expected; the evidence is refused.
    Failed,
    /// Not made, because something it needs is not there.
    NotMade,
}

/// One check and its result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// Which check.
    pub name: CheckName,
    /// How it ended.
    pub state: State,
    /// What was expected.
    pub expected: String,
    /// What was found, or why the check was not made.
    pub found: String,
}

/// What a verification comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// Every check that the question demands was made and passed.
    Accepted,
    /// A check failed.
    Refused,
    /// None failed, but some that matter could not be made.
    Undecided,
}

/// All checks of one piece of evidence.
#[derive(Debug, Clone, Serialize)]
pub struct Verdict {
    outcome: Outcome,
    checks: Vec<Check>,
    #[serde(skip)]
    needed: Vec<CheckName>,
    #[serde(skip)]
    claims: Option<Claims>,
}

impl Verdict {
    /// What it comes to.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        self.outcome
    }

    /// Every check, in the order of [`CheckName::ALL`].
    #[must_use]
    pub fn checks(&self) -> &[Check] {
        &self.checks
    }

    /// The claims, if the evidence was accepted.
    ///
    /// # Errors
    /// [`Refused`] with the first check that failed, or that was not made.
    pub fn into_claims(self) -> Result<Claims, Refused> {
        let wanted = match self.outcome {
            Outcome::Accepted => {
                return self.claims.ok_or_else(|| Refused {
                    check: CheckName::Payload,
                    expected: "claims".to_owned(),
                    found: "none".to_owned(),
                });
            }
            Outcome::Refused => State::Failed,
            Outcome::Undecided => State::NotMade,
        };
        let matters = |check: &Check| {
            check.state == wanted && (wanted == State::Failed || self.needed.contains(&check.name))
        };
        let first = self.checks.iter().find(|check| matters(check)).cloned();
        Err(first.map_or_else(
            || Refused {
                check: CheckName::Envelope,
                expected: "a verdict".to_owned(),
                found: "none".to_owned(),
            },
            |check| Refused { check: check.name, expected: check.expected, found: check.found },
        ))
    }
}

/// Why there are no claims.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize)]
#[error("evidence refused by check {check}: expected {expected}, found {found}")]
pub struct Refused {
    /// The first check that failed.
    pub check: CheckName,
    /// What was expected.
    pub expected: String,
    /// What was found.
    pub found: String,
}

/// What verified evidence says. Only a verification makes a value of this type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claims {
    document: Document,
    simulated: bool,
}

impl Claims {
    /// The document's fields.
    #[must_use]
    pub fn document(&self) -> &Document {
        &self.document
    }

    /// Whether the evidence is simulated.
    #[must_use]
    pub fn is_simulated(&self) -> bool {
        self.simulated
    }
}

/// Collects checks.
pub(crate) struct Collector {
    checks: Vec<Check>,
    /// The checks without which the verdict is undecided.
    needed: Vec<CheckName>,
}

impl Collector {
    pub(crate) fn new(needed: &[CheckName]) -> Self {
        Self { checks: Vec::new(), needed: needed.to_vec() }
    }

    /// Notes a check; whether it passed.
    pub(crate) fn check(
        &mut self,
        name: CheckName,
        passed: bool,
        expected: impl Into<String>,
        found: impl Into<String>,
    ) -> bool {
        let state = if passed { State::Passed } else { State::Failed };
        self.checks.push(Check { name, state, expected: expected.into(), found: found.into() });
        passed
    }

    pub(crate) fn not_made(
        &mut self,
        name: CheckName,
        expected: impl Into<String>,
        why: impl Into<String>,
    ) {
        let check =
            Check { name, state: State::NotMade, expected: expected.into(), found: why.into() };
        self.checks.push(check);
    }

    /// The verdict. Checks that were not reached are listed as not made.
    pub(crate) fn finish(mut self, claims: Option<(Document, bool)>) -> Verdict {
        for name in CheckName::ALL {
            if !self.checks.iter().any(|check| check.name == name) {
                self.not_made(name, "", "a check before it failed");
            }
        }
        self.checks.sort_by_key(|check| check.name);
        let is = |state| move |check: &&Check| check.state == state;
        let failed = self.checks.iter().any(|check| check.state == State::Failed);
        let missing =
            self.checks.iter().filter(is(State::NotMade)).any(|c| self.needed.contains(&c.name));
        let outcome = match (failed, missing) {
            (true, _) => Outcome::Refused,
            (false, true) => Outcome::Undecided,
            (false, false) => Outcome::Accepted,
        };
        let claims = claims
            .filter(|_| outcome == Outcome::Accepted)
            .map(|(document, simulated)| Claims { document, simulated });
        Verdict { outcome, checks: self.checks, needed: self.needed, claims }
    }
}
