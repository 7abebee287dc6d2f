//! The sealed update: its header, what lies inside, and the receipt for it.
//!
//! The plaintext of an update is a [preamble](Preamble) of fixed size and then
//! its values in the manifest's order, little-endian. Whatever describes the
//! patients (number of examples, metrics) lies inside; the header has only
//! what the host may know.

use crate::seal::{self, Encapsulation};
use crate::{Digest, Error, Result, Statement, encoding};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The size of the preamble of an aggregate, and of an update of values that
/// are four bytes wide: one chunk. A preamble takes 4,096 places, however wide
/// the values behind it are ([`crate::manifest::Manifest::preamble_length`]).
pub const PREAMBLE: usize = seal::CHUNK;
/// The most metrics of an update.
pub const MAX_METRICS: usize = 64;
/// The most examples that an update may claim.
pub const MAX_EXAMPLES: u64 = 1 << 40;

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
    const CONTENT_TYPE: &'static str = "application/vnd.sealfold.update.v1+cbor";
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

/// What describes the patients behind an update. Never leaves the site but
/// sealed.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Preamble {
    /// The number of examples, the update's weight.
    pub examples: u64,
    /// The digest of the tensors' layout.
    pub layout: Digest,
    /// Metrics by name; finite.
    pub metrics: BTreeMap<String, f64>,
}

impl std::fmt::Debug for Preamble {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Preamble(..)")
    }
}

impl Preamble {
    /// Encodes to so many bytes: the length of the CBOR as four bytes,
    /// little-endian, the CBOR, zeros.
    ///
    /// # Errors
    /// If it breaks a rule or does not fit.
    pub fn encode(&self, length: usize) -> Result<Vec<u8>> {
        self.check()?;
        pad(&encoding::to_vec(self)?, length)
    }

    /// Decodes a preamble of so many bytes.
    ///
    /// # Errors
    /// If they are not exactly what [`Preamble::encode`] makes. The error
    /// carries no value of the preamble.
    pub fn decode(bytes: &[u8], length: usize) -> Result<Self> {
        let malformed = |reason: &str| Error::malformed("update preamble", reason);
        let cbor = unpad(bytes, length)?;
        let preamble: Self = encoding::from_slice("update preamble", cbor, PREAMBLE)
            .map_err(|_| malformed("not the CBOR of a preamble"))?;
        preamble.check()?;
        Ok(preamble)
    }

    fn check(&self) -> Result<()> {
        let malformed = |reason: &str| Err(Error::malformed("update preamble", reason));
        if !(1..=MAX_EXAMPLES).contains(&self.examples) {
            return malformed("number of examples is not from 1 to 2^40");
        }
        if self.metrics.len() > MAX_METRICS {
            return malformed("more than 64 metrics");
        }
        if self.metrics.values().any(|value| !value.is_finite()) {
            return malformed("a metric is not finite");
        }
        Ok(())
    }
}

/// Puts a preamble's CBOR into its place: its length as four bytes,
/// little-endian, the CBOR, zeros.
pub(crate) fn pad(cbor: &[u8], place: usize) -> Result<Vec<u8>> {
    let limit = place.saturating_sub(4);
    let too_large = || Error::TooLarge { what: "preamble", limit, found: cbor.len() };
    let length = u32::try_from(cbor.len()).map_err(|_| too_large())?;
    if cbor.len() > limit {
        return Err(too_large());
    }
    let mut bytes = Vec::with_capacity(place);
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(cbor);
    bytes.resize(place, 0);
    Ok(bytes)
}

/// Takes a preamble's CBOR out of its place.
pub(crate) fn unpad(bytes: &[u8], place: usize) -> Result<&[u8]> {
    let malformed = |reason: &str| Error::malformed("preamble", reason);
    let (prefix, rest) = bytes
        .split_first_chunk::<4>()
        .filter(|_| bytes.len() == place)
        .ok_or_else(|| malformed("not of the agreed length"))?;
    let length = u32::from_le_bytes(*prefix) as usize;
    if length > rest.len() {
        return Err(malformed("length is beyond the preamble"));
    }
    let (cbor, padding) = rest.split_at(length);
    if padding.iter().any(|byte| *byte != 0) {
        return Err(malformed("padding is not zeros"));
    }
    Ok(cbor)
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn preamble() -> Preamble {
        Preamble {
            examples: 303,
            layout: Digest::new([7; 32]),
            metrics: BTreeMap::from([("loss".to_owned(), 0.5)]),
        }
    }

    #[test]
    fn a_preamble_fills_its_place_and_comes_back() {
        for length in [PREAMBLE, PREAMBLE / 2, PREAMBLE / 4] {
            let bytes = preamble().encode(length).unwrap();
            assert_eq!(bytes.len(), length);
            assert_eq!(Preamble::decode(&bytes, length).unwrap(), preamble());
            assert!(Preamble::decode(&bytes, length + 1).is_err());
        }
        assert!(preamble().encode(16).is_err());
    }

    #[test]
    fn boundless_or_hidden_content_is_refused() {
        let mut bytes = preamble().encode(PREAMBLE).unwrap();
        bytes[PREAMBLE - 1] = 1;
        assert!(Preamble::decode(&bytes, PREAMBLE).is_err());
        for examples in [0, u64::MAX] {
            assert!(Preamble { examples, ..preamble() }.encode(PREAMBLE).is_err());
        }
        let metrics = BTreeMap::from([("loss".to_owned(), f64::NAN)]);
        assert!(Preamble { metrics, ..preamble() }.encode(PREAMBLE).is_err());
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..200),
                                       pad in any::<bool>()) {
            if pad { bytes.resize(PREAMBLE, 0); }
            let _ = Preamble::decode(&bytes, PREAMBLE);
        }
    }
}
