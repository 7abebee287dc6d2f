//! The release: the disclosure of the key of one sealed aggregate.
//!
//! The enclave writes the rows of the aggregate sealed under a key that stays
//! inside. Disclosing that key *is* the release: one step, once in the
//! instance's life. The statement commits to the aggregate through a blinding,
//! so that where the aggregate is for the sites only the statement says
//! nothing about it to others.

use crate::bytes::Random;
use crate::seal::{InputKey, SealedMessage};
use crate::{Digest, Error, Result, Secret, Statement};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

/// What an instance says when it releases an aggregate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Release {
    /// The study's identity.
    pub study: Digest,
    /// The manifest in force.
    pub manifest: Digest,
    /// The round.
    pub round: u32,
    /// The offer's digest.
    pub offer: Digest,
    /// The digest of the roster that was folded.
    pub roster: Digest,
    /// The model that the updates were trained from.
    pub base: Digest,
    /// The release before; none in round 1.
    pub previous: Option<Digest>,
    /// The [`commitment`] to the aggregate.
    pub aggregate: Digest,
    /// The name under which the host stores the sealed aggregate.
    pub object: Random,
    /// The length of the aggregate in bytes.
    pub plain_length: u64,
    /// Under an adaptive clip: the noisy count that the next clip follows from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub below_clip: Option<i64>,
    /// The key, to everyone or to the sites.
    pub disclosure: Disclosure,
}

/// To whom the aggregate's key is disclosed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Disclosure {
    /// To everyone who reads the statement.
    Everyone(Opening),
    /// To each site, sealed to its release key.
    Sites(Vec<SiteOpening>),
}

/// What opens the sealed aggregate; a secret until it is disclosed.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Opening {
    /// The input key of the sealed bytes.
    #[serde(with = "disclosed")]
    pub key: InputKey,
    /// The blinding of the commitment.
    #[serde(with = "disclosed")]
    pub blinding: Secret,
}

/// The form of a secret in the one place where it is disclosed.
mod disclosed {
    use super::Secret;
    use crate::bytes::Random;
    use serde::{Deserialize, Deserializer, Serializer};
    use zeroize::Zeroizing;

    pub fn serialize<S: Serializer>(secret: &Secret, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.serialize_str(&Zeroizing::new(hex::encode(secret.as_bytes())))
        } else {
            serializer.serialize_bytes(secret.as_bytes())
        }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Secret, D::Error> {
        Random::deserialize(deserializer).map(|bytes| Secret::copy_of(bytes.as_bytes()))
    }
}

impl std::fmt::Debug for Opening {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Opening(..)")
    }
}

/// An [`Opening`], as CBOR, sealed to one site.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SiteOpening {
    /// The site's name.
    pub site: String,
    /// The sealed opening.
    pub sealed: SealedMessage,
}

impl Statement for Release {
    const NAME: &'static str = "release";
    const CONTENT_TYPE: &'static str = "application/vnd.sealfold.release.v2+cbor";
    const LIMIT: usize = 512 << 10;
}

/// The largest encoded [`Opening`].
const OPENING_LIMIT: usize = 256;

impl Opening {
    /// The `info` under which an opening is sealed to a site.
    #[must_use]
    pub fn seal_info(offer: &Digest, site: &str) -> Vec<u8> {
        [b"sealfold/v1/release\0".as_slice(), offer.as_bytes(), site.as_bytes()].concat()
    }

    /// Encodes for sealing; erased when dropped.
    ///
    /// # Errors
    /// Never for a value of this type.
    pub fn encode(&self) -> Result<Zeroizing<Vec<u8>>> {
        // Long enough from the start: a buffer that grows leaves its old bytes.
        let mut bytes = Zeroizing::new(Vec::with_capacity(OPENING_LIMIT));
        crate::encoding::write(self, &mut bytes)?;
        Ok(bytes)
    }

    /// Decodes what a site unsealed.
    ///
    /// # Errors
    /// If it is not an opening.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        crate::encoding::from_slice("opening of the aggregate", bytes, OPENING_LIMIT)
            .map_err(|_| Error::malformed("opening of the aggregate", "not an opening"))
    }
}

/// The commitment to an aggregate: SHA-256 of a label, the blinding and the
/// aggregate's [content digest](crate::content).
#[must_use]
pub fn commitment(blinding: &Secret, content: &Digest) -> Digest {
    Digest::of(&[b"sealfold/v1/aggregate\0", blinding.as_bytes(), content.as_bytes()])
}

/// The context of the sealed aggregate's bytes.
#[must_use]
pub fn seal_context(offer: &Digest, roster: &Digest) -> Vec<u8> {
    [b"sealfold/v1/aggregate-bulk\0".as_slice(), offer.as_bytes(), roster.as_bytes()].concat()
}
