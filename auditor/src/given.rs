//! What an auditor brings along, and what is said when it is not enough.

use crate::copy::LogCopy;
use sealfold_attestation::Policy;
use sealfold_attestation::log::{NoteKey, SignedCheckpoint};

/// Why nothing can be told.
#[derive(Debug)]
pub struct CannotTell {
    /// What was expected.
    pub expected: String,
    /// What was found.
    pub found: String,
}

impl std::fmt::Display for CannotTell {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "expected {}, found {}", self.expected, self.found)
    }
}

impl std::error::Error for CannotTell {}

impl CannotTell {
    /// Nothing can be told, for want of this.
    #[must_use]
    pub fn new(expected: impl ToString, found: impl ToString) -> Self {
        Self { expected: expected.to_string(), found: found.to_string() }
    }
}

/// A checkpoint that somebody kept: a site, a witness.
pub struct Kept {
    /// Where it is from, for people.
    pub name: String,
    /// The checkpoint, signed by the log.
    pub checkpoint: SignedCheckpoint,
}

/// The key of the log that a policy names.
///
/// # Errors
/// [`CannotTell`] if it names none.
pub fn log_key(policy: &Policy) -> Result<&NoteKey, CannotTell> {
    policy.log().ok_or_else(|| {
        CannotTell::new("a policy with the log's key: [log] key = \"NAME+HASH+KEY\"", "none")
    })
}

/// The checkpoints beside the log that witnesses of the policy have cosigned. A
/// file that is none counts for as much as one that is not there.
///
/// # Errors
/// As [`log_key`].
pub fn cosigned(copy: &LogCopy, policy: &Policy) -> Result<Vec<Kept>, CannotTell> {
    let key = log_key(policy)?;
    let kept = policy.witnesses().iter().filter_map(|witness| {
        let checkpoint = SignedCheckpoint::open(&copy.cosigned(witness)?, key).ok()?;
        let checkpoint = checkpoint.cosigned_by(key, witness)?;
        Some(Kept { name: format!("witness {}", witness.name()), checkpoint })
    });
    Ok(kept.collect())
}
