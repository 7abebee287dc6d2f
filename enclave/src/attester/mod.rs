//! Evidence from the platform.
//!
//! Production and simulation stand behind the same trait and give documents of
//! the same form; they differ in who signs.

use sealfold_protocol::Secret;
use sealfold_protocol::refusal::{Check, Refusal};

pub mod confidential_space;
pub mod nsm;
#[cfg(feature = "simulation")]
pub mod simulated;

/// A source of attestation documents.
pub trait Attester: Send + Sync {
    /// A document that carries `user_data` and `nonce`.
    ///
    /// # Errors
    /// [`EvidenceError`] with the platform's own words.
    fn attest(&self, user_data: &[u8; 32], nonce: &[u8; 32]) -> Result<Vec<u8>, EvidenceError>;

    /// Randomness of the platform's own, to mix into what must not be guessed.
    ///
    /// # Errors
    /// [`EvidenceError`] with the platform's own words.
    fn random(&self) -> Result<Secret, EvidenceError>;

    /// The platform's name in replies.
    fn platform(&self) -> &'static str {
        sealfold_attestation::nitro::NAME
    }
}

/// The platform gives no evidence.
#[derive(Debug, thiserror::Error)]
#[error("{source_name}: {reason}")]
pub struct EvidenceError {
    /// Which source.
    pub source_name: &'static str,
    /// Why.
    pub reason: String,
}

impl From<EvidenceError> for Refusal {
    fn from(error: EvidenceError) -> Self {
        Self::new(Check::Evidence, "an attestation document", error)
            .next("the host asks again; if it stays, the operator starts a new instance")
    }
}
