//! Everything that crosses a boundary between site, host and enclave.
//!
//! Each thing that a party says to another is a *statement*: a CBOR payload in
//! a COSE envelope with a content type of its own, so that no statement can be
//! taken for another. The digest of a statement is the SHA-256 of the payload
//! bytes exactly as they were signed; nothing is encoded anew to be hashed.
//! Payloads have one encoding: whatever does not encode back to the very bytes
//! that came in is refused, which rules out duplicate keys, unknown fields and
//! other second spellings at once.
//!
//! The modules, in the order in which a round meets them:
//!
//! - [`manifest`], [`terms`], [`study`]: what the sites agreed to, what of it an
//!   enclave enforces, and the chain of its amendments;
//! - [`offer`], [`update`], [`roster`], [`release`], [`abandonment`]: the
//!   statements of a round;
//! - [`seal`]: how an update is encrypted to the enclave's key, and
//!   [`secret`]: what keys are kept in;
//! - [`leaf`]: how statements stand in the log;
//! - [`content`]: how models and aggregates are named by a digest;
//! - [`text`]: how foreign text is shown to people;
//! - [`endpoint`], [`door`], [`api`]: how bytes get from one part to another;
//! - `access` (a feature, which the enclave does without): requests to a host,
//!   signed.

pub mod abandonment;
#[cfg(feature = "access")]
pub mod access;
pub mod api;
pub mod bytes;
pub mod content;
pub mod door;
pub mod encoding;
pub mod endpoint;
pub mod envelope;
pub mod error;
pub mod keys;
pub mod leaf;
pub mod manifest;
pub mod offer;
pub mod refusal;
pub mod release;
pub mod report;
pub mod roster;
pub mod seal;
pub mod secret;
pub mod study;
pub mod terms;
pub mod text;
pub mod update;
#[cfg(test)]
mod vectors;

pub use bytes::{Digest, Pcr, VerifyingKey};
pub use envelope::{MultiSigned, Signed, Statement, Unverified};
pub use error::{Error, Result};
pub use keys::SigningKey;
pub use secret::Secret;
