//! What can go wrong at a site, sorted by what the caller should do.

use sealfold_protocol::refusal::Refusal;
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
    #[error(transparent)]
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
    #[error("{path}: {reason}")]
    File {
        /// The file.
        path: String,
        /// Why.
        reason: String,
    },
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

    /// Whether trying again, unchanged, can help.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Network { .. } | Self::Unsigned(_) => true,
            Self::Host(refusal) => refusal.is_passing(),
            _ => false,
        }
    }

    /// The exit code: 1 for a refusal, 2 for what could not be done or told.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Host(refusal) if refusal.is_passing() => 2,
            Self::Refused(_)
            | Self::Unsigned(_)
            | Self::Host(_)
            | Self::Update { .. }
            | Self::Evidence(_)
            | Self::Protocol(_) => 1,
            _ => 2,
        }
    }

    /// For machines.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        let detail = match self {
            Self::Refused(refusal) | Self::Unsigned(refusal) => serde_json::to_value(refusal),
            Self::Host(refusal) | Self::Update { refusal, .. } => serde_json::to_value(refusal),
            Self::Evidence(refused) => serde_json::to_value(refused),
            _ => Ok(serde_json::Value::Null),
        };
        let mut json = serde_json::json!({
            "error": self.to_string(),
            "refusal": detail.unwrap_or_default(),
            "exit_code": self.exit_code(),
        });
        if let Self::Update { finding: Some(finding), .. } = self {
            json["finding"] = finding.as_str().into();
        }
        json
    }
}
