//! The header of a sealed update, and the receipt for it.
//!
//! The plaintext of an update is its values in the order of the terms
//! ([`crate::terms::Terms::sections`]), little-endian, and nothing else: which
//! values they are follows from the offer that the header names.

use crate::seal::{self, Encapsulation};
use crate::{Digest, Error, Result, Statement};
use serde::{Deserialize, Serialize};

/// What the host and the enclave learn of an update before it is opened.
/// Signed by the site; the digest of this statement is the context of the
/// sealed bytes, and the encapsulation is part of it, so that nobody else can
/// seal under a site's header.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UpdateHeader {
    /// The study's identity.
    pub study: Digest,
    /// The round.
    pub round: u32,
    /// The digest of the offer whose key the update is sealed to.
    pub offer: Digest,
    /// The site's name.
    pub site: String,
    /// The length of the plaintext in bytes.
    pub plain_length: u64,
    /// The HPKE encapsulation.
    pub encapsulation: Encapsulation,
}

impl Statement for UpdateHeader {
    const NAME: &'static str = "update header";
    const CONTENT_TYPE: &'static str = "application/vnd.sealfold.update.v2+cbor";
    const LIMIT: usize = 8 << 10;
}

impl UpdateHeader {
    /// The length of the sealed bytes that belong to this header.
    ///
    /// # Errors
    /// If the plaintext is longer than the format allows.
    pub fn sealed_length(&self) -> Result<u64> {
        seal::sealed_len(self.plain_length).ok_or(Error::Malformed {
            what: Self::NAME,
            reason: format!("plain length {} is beyond the format", self.plain_length),
        })
    }
}

/// The enclave's word that an update was opened completely, is well formed,
/// finite, of the agreed layout, from a listed site, and its only one in this
/// round.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Receipt {
    /// The study's identity.
    pub study: Digest,
    /// The round.
    pub round: u32,
    /// The offer's digest.
    pub offer: Digest,
    /// The site's name.
    pub site: String,
    /// The digest of the update's header.
    pub header: Digest,
}

impl Statement for Receipt {
    const NAME: &'static str = "receipt";
    const CONTENT_TYPE: &'static str = "application/vnd.sealfold.receipt.v1+cbor";
    const LIMIT: usize = 1 << 10;
}
