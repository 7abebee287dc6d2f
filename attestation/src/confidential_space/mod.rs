//! Google Confidential Space attestation tokens.
//!
//! Google's attestation service verifies the machine and the launcher's event
//! log, and signs what it found as a JSON web token (RFC 7519). Two kinds say
//! the same: a *PKI* token brings its certificates, which lead to a root that
//! is pinned here; an *OIDC* token names a key of a set that the policy gives.
//! Both are verified offline and at a given time. For an audit take PKI tokens:
//! Google's OIDC keys change every few days, the root stays.
//!
//! Source: <https://cloud.google.com/confidential-computing/confidential-space/docs/reference/token-claims>.

mod appraisal;
pub mod claims;
mod json;
mod keys;
pub mod oci;
mod section;
pub mod token;

pub(crate) use appraisal::{CHECKS, appraise};
pub use claims::TokenClaims;
pub(crate) use section::{Accepted, Section};
pub use token::{Token, TokenError};

/// The platform's name.
pub const NAME: &str = "confidential-space";

/// The longest token in bytes. A genuine one with three certificates has
/// 11,263; arguments and environment variables add to that.
pub const MAX_TOKEN: usize = 32 << 10;

/// Who issues tokens.
pub const ISSUER: &str = "https://confidentialcomputing.googleapis.com";

/// Google's root for Confidential Space, DER, from
/// <https://confidentialcomputing.googleapis.com/.well-known/attestation-pki-root>.
pub const GOOGLE_ROOT: &[u8] = include_bytes!("../../roots/google_confidential_space_root.der");
