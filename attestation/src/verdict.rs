//! The verdict: every check by name, with what was expected and found.

use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;

/// The checks, in the order of the table. The names are part of the protocol:
/// they appear in the CLI, in logs and in reports. Each platform makes those
/// that its evidence allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum CheckName {
    /// The evidence is of a platform that the policy has a section for.
    Platform,
    /// The envelope (`COSE_Sign1`, or a compact JWS) is in its one encoding.
    Envelope,
    /// The payload decodes, with every field that must be there, each once.
    Payload,
    /// Every field keeps the limits of the platform's specification.
    FieldLimits,
    /// The signature algorithm is the platform's.
    Algorithm,
    /// The certificates lead from the leaf to a root.
    Chain,
    /// That root, or the signing key, is one that the policy names.
    Root,
    /// The certificates are valid at the time in question.
    Validity,
    /// The leaf's key made the signature.
    Signature,
    /// Simulated evidence only where the policy allows it.
    Simulation,
    /// The token was issued by Google's attestation service.
    Issuer,
    /// The token is for the audience that the policy names.
    Audience,
    /// The token is valid already.
    NotBefore,
    /// The token is still valid.
    Expiry,
    /// The image was not started in debug mode.
    DebugMode,
    /// The machine booted with Secure Boot.
    SecureBoot,
    /// The machine runs Confidential Space.
    Software,
    /// The hardware is a model that the policy accepts.
    HardwareModel,
    /// Google supports the machine's image as the policy demands.
    Support,
    /// Nothing monitors the workload's memory.
    Monitoring,
    /// The container image.
    ImageDigest,
    /// The whole command line is the one that the policy fixes.
    Args,
    /// The operator overrode no part of the command line.
    CmdOverride,
    /// Every environment variable is one that the policy fixes or leaves open.
    Env,
    /// The operator overrode only variables that the policy leaves open.
    EnvOverride,
    /// PCR0, the image.
    Pcr0,
    /// PCR1, kernel and boot ramdisk.
    Pcr1,
    /// PCR2, the application.
    Pcr2,
    /// PCR8, the image's signing certificate, where the policy names it.
    Pcr8,
    /// The evidence binds the offer.
    Binding,
    /// The evidence binds the asker's nonce.
    Nonce,
    /// `public_key` is empty: sealfold does not use it.
    PublicKey,
    /// The evidence is young.
    Age,
    /// An independent implementation accepts the document too.
    SecondOpinion,
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

    /// Whether it was accepted as what it says it is, a simulation.
    #[must_use]
    pub fn is_simulated(&self) -> bool {
        self.claims.as_ref().is_some_and(|claims| claims.simulated)
    }

    /// Every check that the platform has, in the order of [`CheckName`].
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
    pub(crate) platform: &'static str,
    pub(crate) simulated: bool,
    pub(crate) signed_at: u64,
    pub(crate) measurements: BTreeMap<CheckName, Vec<u8>>,
}

impl Claims {
    /// The platform that measured the image.
    #[must_use]
    pub fn platform(&self) -> &'static str {
        self.platform
    }

    /// Whether the evidence is simulated.
    #[must_use]
    pub fn is_simulated(&self) -> bool {
        self.simulated
    }

    /// When the evidence was signed, in milliseconds since 1970.
    #[must_use]
    pub fn signed_at(&self) -> u64 {
        self.signed_at
    }

    /// A measurement of the image, by the check that compares it: `pcr0`, `pcr1`,
    /// `pcr2`, `pcr8` (48 bytes each) on Nitro, `image-digest` (32 bytes) in a
    /// Confidential Space. Empty if the platform has no such measurement.
    #[must_use]
    pub fn measurement(&self, name: CheckName) -> &[u8] {
        self.measurements.get(&name).map_or(&[], Vec::as_slice)
    }

    /// Whether these are all the measurements of one of some images, each given
    /// as the names of its checks with what they must find.
    #[must_use]
    pub fn is_one_of(&self, images: &[Vec<(&str, &[u8])>]) -> bool {
        let named = |name: &str| self.measurements.iter().find(|(n, _)| n.to_string() == name);
        let has = |(name, expected): &(&str, &[u8])| {
            named(name).is_some_and(|(_, found)| found.as_slice() == *expected)
        };
        images.iter().any(|image| !image.is_empty() && image.iter().all(has))
    }

    /// What names the image to people: the first of its measurements.
    #[must_use]
    pub fn image(&self) -> String {
        let first = self.measurements.first_key_value();
        first.map_or_else(String::new, |(name, bytes)| format!("{name} {}", hex::encode(bytes)))
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

    /// Notes that the checks of form have passed: envelope, payload, field limits
    /// and algorithm, with what a platform expects of each.
    pub(crate) fn well_formed(&mut self, expected: [&str; 4]) {
        let names =
            [CheckName::Envelope, CheckName::Payload, CheckName::FieldLimits, CheckName::Algorithm];
        for (name, expected) in names.into_iter().zip(expected) {
            self.check(name, true, expected, "as expected");
        }
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

    /// Notes whether the policy accepts evidence of the platform at all.
    pub(crate) fn platform(&mut self, name: &str, accepted: bool, expected: &str) -> bool {
        let found = if accepted { name.to_owned() } else { format!("{name}, and no such section") };
        self.check(CheckName::Platform, accepted, expected, found)
    }

    /// The verdict. Checks of the platform that were not reached are listed as
    /// not made.
    pub(crate) fn finish(mut self, platform: &[CheckName], claims: Option<Claims>) -> Verdict {
        for name in platform {
            if !self.checks.iter().any(|check| check.name == *name) {
                self.not_made(*name, "", "a check before it failed");
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
        let claims = claims.filter(|_| outcome == Outcome::Accepted);
        Verdict { outcome, checks: self.checks, needed: self.needed, claims }
    }
}
