//! The manifest: what the sites of a study agreed to, in two parts under one
//! digest and the same signatures.
//!
//! The payload is a map of the format's version, the [terms](crate::terms) and
//! the agreement, which is a byte string. Two types read the same bytes:
//! [`TermsOnly`], which leaves the agreement unread, as an enclave does; and the
//! whole manifest of the crate `sealfold-study`, which sites and auditors read.

use crate::terms::{Terms, expect};
use crate::{MultiSigned, Result, Statement, Unverified};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

/// The version of the manifest's format that this library reads.
pub const FORMAT: u32 = 2;
/// The name, content type and largest payload of both types.
pub const NAME: &str = "manifest";
/// The content type of both types.
pub const CONTENT_TYPE: &str = "application/vnd.sealfold.manifest.v2+cbor";
/// The largest payload of both types, in bytes.
pub const LIMIT: usize = 1 << 20;

/// A manifest, whether its agreement was read or not.
pub trait Manifested: Statement {
    /// What an enclave enforces.
    fn terms(&self) -> &Terms;

    /// Checks every rule that a manifest keeps, whoever signed it.
    ///
    /// # Errors
    /// [`crate::Error::Manifest`] with the field, what is expected and what is
    /// found.
    fn check(&self) -> Result<()>;

    /// Checks what an amendment of `before` may not change.
    ///
    /// # Errors
    /// [`crate::Error::Link`] naming the first field that changed.
    fn follows(&self, before: &Self) -> Result<()>;

    /// Opens a signed manifest, whose every signature must verify, and checks it.
    ///
    /// # Errors
    /// As [`MultiSigned::open`] and [`Manifested::check`].
    fn open(envelope: &[u8]) -> Result<MultiSigned<Self>> {
        Self::verified(Unverified::decode(envelope)?)
    }

    /// As [`Manifested::open`], of one that is decoded already.
    ///
    /// # Errors
    /// As [`Unverified::verify`] and [`Manifested::check`].
    fn verified(decoded: Unverified<Self>) -> Result<MultiSigned<Self>> {
        let signed = decoded.verify()?;
        signed.statement().check()?;
        Ok(signed)
    }
}

/// A manifest as an enclave reads it: the agreement is any bytes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TermsOnly {
    /// The format's version, [`FORMAT`].
    pub format: u32,
    /// What an enclave enforces.
    pub terms: Terms,
    /// What sites, auditors and people agreed to beside it.
    pub agreement: ByteBuf,
}

impl Statement for TermsOnly {
    const NAME: &'static str = NAME;
    const CONTENT_TYPE: &'static str = CONTENT_TYPE;
    const LIMIT: usize = LIMIT;
}

impl Manifested for TermsOnly {
    fn terms(&self) -> &Terms {
        &self.terms
    }

    fn check(&self) -> Result<()> {
        expect("format", self.format == FORMAT, FORMAT, self.format)?;
        self.terms.check()
    }

    fn follows(&self, before: &Self) -> Result<()> {
        self.terms.follows(&before.terms)
    }
}
