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
//! Each platform is a module of its own with one variant of [`Evidence`]:
//! [`nitro`] and [`confidential_space`]. Simulated evidence has the platform's
//! form in every byte, under a throw-away root: same parser, same chain code,
//! same comparison of measurements. A policy accepts it only if it names that
//! root in a section of its own.
//!
//! The [`log`] keeps what happened, for all to compare and for auditors.

pub mod binding;
mod chain;
pub mod confidential_space;
pub mod eif;
mod evidence;
pub mod log;
pub mod nitro;
pub mod policy;
#[cfg(feature = "simulation")]
pub mod simulation;
pub mod verdict;
mod verify;

pub use binding::{binding, nonce_hash};
pub use evidence::Evidence;
pub use policy::{Budget, Policy, PolicyError};
pub use verdict::{Check, CheckName, Claims, Outcome, Refused, State, Verdict};
pub use verify::{verify_document, verify_live, verify_replay};
