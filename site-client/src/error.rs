//! What can go wrong at a site, sorted by what the caller should do.

use sealfold_protocol::refusal::{Check, Refusal};
use sealfold_protocol::text::shown;
use serde::Serialize;
use std::path::Path;

/// A result of this library.
pub type Result<T> = std::result::Result<T, Error>;

/// What went wrong.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The site refuses; nothing was sent.
    #[error(transparent)]
    Refused(#[from] SiteRefusal),
    /// Signatures of others are missing so far; they may still come.
    #[error(transparent)]
    Unsigned(SiteRefusal),
    /// The host or the enclave refused.
    #[error(transparent)]
    Host(#[from] Refusal),
    /// The enclave refused this site's update.
    #[error("{refusal}{}", .finding.as_ref().map(|found| format!("; the enclave found {found} (told to this site only)")).unwrap_or_default())]
    Update {
        /// The refusal, as everybody may read it.
        refusal: Refusal,
        /// What the enclave found, sealed to this site and unsealed here.
        finding: Option<String>,
    },
    /// The enclave's evidence does not hold.
    #[error(transparent)]
    Evidence(#[from] sealfold_attestation::Refused),
    /// A statement does not verify.
    #[error("{}", Refusal::from(.0))]
    Protocol(#[from] sealfold_protocol::Error),
    /// The host cannot be reached; trying again may help.
    #[error("{what}: {reason}")]
    Network {
        /// What was tried.
        what: String,
        /// Why it failed.
        reason: String,
    },
    /// A file cannot be read or written.
    #[error("refused by check file: expected a usable file {path}, found {reason}")]
    File {
        /// The file.
        path: String,
        /// Why.
        reason: String,
    },
    /// Something that was given cannot be used, by name.
    #[error(transparent)]
    Input(SiteRefusal),
    /// Something that was given cannot be used.
    #[error("{0}")]
    Usage(String),
    /// The training command failed.
    #[error("training: {0}")]
    Training(String),
    /// The agent was told to stop.
    #[error("stopped; what was acknowledged is kept, start again to go on")]
    Stopped,
}

/// A refusal of the site itself, by name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize)]
#[error("refused by check {check}: expected {expected}, found {found}{}", .next.map(|n| format!("; {n}")).unwrap_or_default())]
pub struct SiteRefusal {
    /// The check.
    pub check: &'static str,
    /// What was expected.
    pub expected: String,
    /// What was found.
    pub found: String,
    /// What to do next.
    pub next: Option<&'static str>,
}

impl SiteRefusal {
    /// A refusal.
    #[must_use]
    pub fn new(check: &'static str, expected: impl ToString, found: impl ToString) -> Self {
        Self { check, expected: expected.to_string(), found: found.to_string(), next: None }
    }

    /// Adds what to do next.
    #[must_use]
    pub fn next(mut self, next: &'static str) -> Self {
        self.next = Some(next);
        self
    }
}

impl Error {
    /// An error about a file.
    #[must_use]
    pub fn file(path: &Path, reason: impl ToString) -> Self {
        Self::File { path: path.display().to_string(), reason: reason.to_string() }
    }

    /// A refusal of something that was given: nothing could be done with it.
    #[must_use]
    pub fn input(check: &'static str, expected: impl ToString, found: impl ToString) -> Self {
        Self::Input(SiteRefusal::new(check, expected, found))
    }

    /// A refusal of numbers that no accounting of privacy takes, with the option
    /// that is to be another.
    #[must_use]
    pub fn unaccounted(error: sealfold_aggregation::Error) -> Self {
        use sealfold_aggregation::Error as Of;
        let refuse = |expected: String, found: String, next| {
            Self::input("privacy", expected, found).next(next)
        };
        match error {
            Of::Parameter { what: "epsilon", found } | Of::Epsilon { found } => {
                refuse("a positive epsilon".to_owned(), found.to_string(), "give another --epsilon")
            }
            Of::Delta { found } => refuse(
                "a delta between 0 and 1".to_owned(),
                found.to_string(),
                "give another --delta: far less than one in the number of patients",
            ),
            Of::SamplingRate { found } => refuse(
                "a sampling rate from 0 to 1".to_owned(),
                found.to_string(),
                "give another --sampling-rate",
            ),
            Of::NothingSampled => refuse(
                "a sampling rate above 0".to_owned(),
                "0, which needs no noise".to_owned(),
                "give another --sampling-rate",
            ),
            Of::OutOfReach { epsilon, delta } => refuse(
                "an epsilon and a delta that some noise buys".to_owned(),
                format!("epsilon {epsilon} at delta {delta}"),
                "give a larger --epsilon or --delta",
            ),
            other => refuse(
                "a setting that can be accounted for".to_owned(),
                other.to_string(),
                "give another --noise-multiplier",
            ),
        }
    }

    /// Adds what to do next to an [`Error::Input`].
    #[must_use]
    pub fn next(self, next: &'static str) -> Self {
        match self {
            Self::Input(refusal) => Self::Input(refusal.next(next)),
            other => other,
        }
    }

    /// Whether trying again, unchanged, can help.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Network { .. } | Self::Unsigned(_) => true,
            Self::Host(refusal) => refusal.is_passing(),
            _ => false,
        }
    }

    /// The exit code: 1 for a refusal by a named check, 2 for what could not be
    /// done or told and may be on another try.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        let is_refused = self.refusal().is_some() && !self.is_passing_refusal();
        if is_refused { 1 } else { 2 }
    }

    /// Whether a host refused only for now.
    fn is_passing_refusal(&self) -> bool {
        matches!(self, Self::Host(refusal) if refusal.is_passing())
    }

    /// Which check it is, what was expected and found, and what to do next;
    /// `None` for what is no refusal.
    #[must_use]
    pub fn refusal(&self) -> Option<Refused> {
        let named = |check: &str, expected: &str, found: &str, next: &str| Refused {
            check: check.to_owned(),
            expected: expected.to_owned(),
            found: found.to_owned(),
            next: Some(next.to_owned()),
        };
        Some(match self {
            Self::Refused(refusal) | Self::Unsigned(refusal) | Self::Input(refusal) => Refused {
                next: refusal.next.map(str::to_owned),
                ..named(refusal.check, &refusal.expected, &refusal.found, "")
            },
            Self::Host(refusal) | Self::Update { refusal, .. } => Refused {
                next: refusal.next.clone(),
                ..named(&refusal.check.to_string(), &refusal.expected, &refusal.found, "")
            },
            Self::Evidence(refused) => named(
                &refused.check.to_string(),
                &refused.expected,
                &refused.found,
                "send nothing; ask the operator why",
            ),
            Self::Protocol(error) => {
                let refusal = Refusal::from(error);
                let next = refusal.next.as_deref().unwrap_or_else(|| next(error, refusal.check));
                named(&refusal.check.to_string(), &refusal.expected, &refusal.found, next)
            }
            Self::File { path, reason } => named(
                "file",
                &format!("a usable file {path}"),
                reason,
                "correct the file, its place or its mode",
            ),
            Self::Usage(reason) => {
                named("arguments", "usable arguments", reason, "sealfold help explains them")
            }
            Self::Network { .. } | Self::Training(_) | Self::Stopped => return None,
        })
    }

    /// For people: the check, and what to do next.
    #[must_use]
    pub fn explain(&self) -> String {
        match self.refusal() {
            Some(refusal) if self.is_passing_refusal() => {
                format!("not now: {}", refusal.in_words())
            }
            Some(refusal) => refusal.to_string(),
            None => self.to_string(),
        }
    }

    /// For machines.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        let mut json = serde_json::json!({
            "error": self.explain(),
            "refusal": self.refusal(),
            "exit_code": self.exit_code(),
        });
        if let Self::Update { finding: Some(finding), .. } = self {
            json["finding"] = finding.as_str().into();
        }
        json
    }
}

/// What to do about a statement that does not verify.
fn next(error: &sealfold_protocol::Error, check: Check) -> &'static str {
    use sealfold_protocol::Error as Of;
    match (error, check) {
        (Of::Approvals { .. }, _) => "have it approved: sealfold study approve",
        (_, Check::Manifest) => "correct the manifest: docs/manifest.md explains its fields",
        (_, Check::Channel) => "correct the metrics and counts that go with the update",
        (_, Check::Chain) => "stop, and compare with the other sites",
        _ => "stop, and ask the operator what was sent",
    }
}

/// A refusal in the words of whoever refused, who may be a host that lies. In
/// what people read the words are [`shown`]; the fields are as they came.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize)]
#[error("refused by {}", self.in_words())]
pub struct Refused {
    /// The check.
    pub check: String,
    /// What was expected.
    pub expected: String,
    /// What was found.
    pub found: String,
    /// What to do next.
    pub next: Option<String>,
}

impl Refused {
    /// Check, expected, found and what to do next, on one line.
    fn in_words(&self) -> String {
        let [check, expected, found] = [&self.check, &self.expected, &self.found].map(|t| shown(t));
        let next = self.next.as_ref().map_or(String::new(), |next| format!("; {}", shown(next)));
        format!("check {check}: expected {expected}, found {found}{next}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sealfold_protocol::refusal::Check;

    #[test]
    fn what_says_that_it_is_refused_exits_1_and_nothing_else() {
        let of = |check| Error::Host(Refusal::new(check, "this", "that").next("wait"));
        let refusals = [
            Error::input("rounds", 1, 0),
            Error::file(Path::new("a"), "no such file"),
            Error::Usage("what is it".to_owned()),
            of(Check::Roster),
            Error::unaccounted(sealfold_aggregation::Error::Delta { found: 2.0 }),
        ];
        for error in refusals {
            assert!(error.explain().starts_with("refused by check "), "{error:?}");
            assert_eq!(error.exit_code(), 1, "{error:?}");
        }
        let passing = of(Check::Enclave);
        assert_eq!(passing.explain(), "not now: check enclave: expected this, found that; wait");
        for error in [passing, Error::Training("it failed".to_owned()), Error::Stopped] {
            assert!(!error.explain().contains("refused by check"), "{error:?}");
            assert_eq!(error.exit_code(), 2, "{error:?}");
        }
    }
}
