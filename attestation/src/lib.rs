//! Evidence in, claims out.
//!
//! A site encrypts to an enclave only after it has verified the enclave's
//! evidence against a policy of its own (RFC 9334 calls this appraisal). The
//! only way to a value of [`Claims`] leads through [`verify_live`],
//! [`verify_replay`] or [`verify_document`]: three functions, because they
//! answer three questions.
//!
//! - *Live*: may I encrypt to this enclave now? Asks for freshness: the site's
//!   own nonce, a young document, certificates valid now.
//! - *Replay*: was it right to do so then? Certificates are checked at the
//!   document's own signed time, since the leaf lives for about three hours.
//! - *Document*: what does this bare document say? Checks that need an offer or
//!   a nonce are listed as not made.
//!
//! Time is an argument everywhere. Every check has a name and appears in the
//! [`Verdict`] with what was expected and what was found, whether it passed or
//! not.
//!
//! Simulated evidence is a Nitro document in every byte, under a throw-away
//! root: same parser, same chain code, same comparison of measurements. A
//! policy accepts it only if it names that root in a section of its own.
//!
//! The [`log`] keeps what happened, for all to compare and for auditors.

pub mod binding;
pub mod eif;
pub mod log;
pub mod nitro;
pub mod policy;
#[cfg(feature = "simulation")]
pub mod simulation;
pub mod verdict;
mod verify;

pub use binding::{binding, nonce_hash};
pub use policy::{Policy, PolicyError};
pub use verdict::{Check, CheckName, Claims, Outcome, Refused, State, Verdict};
pub use verify::{verify_document, verify_live, verify_replay};

/// The longest evidence in bytes: a payload of 16,384 bytes in its envelope.
pub const MAX_EVIDENCE: usize = 17 << 10;

/// Evidence as it came; nothing about it is believed.
#[derive(Clone, PartialEq, Eq)]
pub struct Evidence {
    document: Vec<u8>,
}

impl std::fmt::Debug for Evidence {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Evidence({} bytes)", self.document.len())
    }
}

impl Evidence {
    /// Takes the bytes of an AWS Nitro attestation document. One that is too
    /// long is cut to just beyond the limit, and so refused by `envelope`.
    #[must_use]
    pub fn from_nitro(bytes: &[u8]) -> Self {
        Self { document: bytes[..bytes.len().min(MAX_EVIDENCE + 1)].to_vec() }
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.document
    }
}
