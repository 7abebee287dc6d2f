//! A statement of several signers before its signatures are verified.

use super::{
    MAX_SIGNATURES, MultiSigned, OVERHEAD, SIGNATURE_OVERHEAD, Statement, cap, expect_content_type,
};
use crate::{Digest, Error, Result, VerifyingKey, encoding};
use coset::{CoseSign, TaggedCborSerializable};
use std::collections::BTreeSet;

/// A decoded statement whose signatures nobody has verified: for deciding
/// whether that is worth the work, never for acting on it. Verifying hashes the
/// whole payload once for each signature.
#[derive(Debug, Clone)]
pub struct Unverified<T>(MultiSigned<T>);

impl<T: Statement> Unverified<T> {
    /// Decodes an envelope in its one encoding.
    ///
    /// # Errors
    /// If it is too large, malformed or of another kind, or has no signature.
    pub fn decode(envelope: &[u8]) -> Result<Self> {
        cap::<T>(envelope, T::LIMIT + OVERHEAD + MAX_SIGNATURES * SIGNATURE_OVERHEAD)?;
        let cose = CoseSign::from_tagged_slice(envelope)
            .map_err(|e| Error::malformed(T::NAME, format!("envelope: {e}")))?;
        expect_content_type::<T>(&cose.protected.header)?;
        let payload = cose.payload.unwrap_or_default();
        let statement = encoding::from_slice(T::NAME, &payload, T::LIMIT)?;
        let mut signed = MultiSigned { statement, payload, signatures: Vec::new() };
        for signature in cose.signatures {
            let key = <[u8; 32]>::try_from(signature.protected.header.key_id.as_slice())
                .map(VerifyingKey::new)
                .map_err(|_| Error::malformed(T::NAME, "key id is not 32 bytes"))?;
            signed.insert(key, signature.signature)?;
        }
        if signed.signatures.is_empty() {
            return Err(Error::Approvals { what: T::NAME, required: 1, found: 0 });
        }
        if signed.envelope()? != envelope {
            return Err(Error::malformed(T::NAME, "envelope is not in its one encoding"));
        }
        Ok(Self(signed))
    }

    /// What it says.
    #[must_use]
    pub fn statement(&self) -> &T {
        self.0.statement()
    }

    /// SHA-256 of its payload.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.0.digest()
    }

    /// The keys that it says have signed.
    #[must_use]
    pub fn claimed(&self) -> BTreeSet<VerifyingKey> {
        self.0.signers()
    }

    /// Drops the signatures of all other keys than these.
    pub fn keep(&mut self, keys: &BTreeSet<VerifyingKey>) {
        self.0.signatures.retain(|(key, _)| keys.contains(key));
    }

    /// Verifies the signatures, and stops at the first that does not hold.
    ///
    /// # Errors
    /// [`Error::Signature`]; [`Error::Approvals`] if none is left.
    pub fn verify(self) -> Result<MultiSigned<T>> {
        let signed = self.0;
        if signed.signatures.is_empty() {
            return Err(Error::Approvals { what: T::NAME, required: 1, found: 0 });
        }
        for (key, signature) in &signed.signatures {
            if !key.verifies(&signed.to_be_signed(key)?, signature) {
                return Err(Error::Signature { what: T::NAME, key: key.to_string() });
            }
        }
        Ok(signed)
    }
}
