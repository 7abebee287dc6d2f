//! Statements in COSE envelopes (RFC 9052).
//!
//! [`Signed`] is a `COSE_Sign1` with one signer, [`MultiSigned`] a `COSE_Sign`
//! with several. Both are tagged, both use Ed25519 (alg -8), both carry the
//! statement's content type in the protected header and nothing in the
//! unprotected one, and both are accepted in one encoding only. A value of
//! either type exists only when its signatures have been verified.

use crate::{Digest, Error, Result, SigningKey, VerifyingKey, encoding};
use coset::{
    CborSerializable, CoseSign1, CoseSign1Builder, CoseSignBuilder, CoseSignature,
    CoseSignatureBuilder, Header, HeaderBuilder, RegisteredLabel, TaggedCborSerializable, iana,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeSet;

mod unverified;
pub use unverified::Unverified;

/// The largest number of signatures on one statement.
pub const MAX_SIGNATURES: usize = 256;
/// What an envelope may add to its payload, in bytes.
const OVERHEAD: usize = 512;
/// What one signature of a [`MultiSigned`] adds, in bytes.
const SIGNATURE_OVERHEAD: usize = 128;

/// Something that a party says to another under its signature.
pub trait Statement: Serialize + DeserializeOwned {
    /// Its name in errors.
    const NAME: &'static str;
    /// The content type in the protected header; every kind has its own.
    const CONTENT_TYPE: &'static str;
    /// The largest payload in bytes; checked before anything is parsed.
    const LIMIT: usize;
}

/// A statement whose one signature was verified.
#[derive(Debug, Clone)]
pub struct Signed<T> {
    statement: T,
    digest: Digest,
    signer: VerifyingKey,
    envelope: Vec<u8>,
}

impl<T: Statement> Signed<T> {
    /// Signs a statement.
    ///
    /// # Errors
    /// If it has no encoding or is larger than its kind allows.
    pub fn sign(statement: T, key: &SigningKey) -> Result<Self> {
        let payload = payload_of(&statement)?;
        let digest = Digest::of(&[&payload]);
        let cose = CoseSign1Builder::new()
            .protected(body_header::<T>(true))
            .payload(payload)
            .create_signature(b"", |message| key.sign(message).to_vec())
            .build();
        let envelope = cose.to_tagged_vec().map_err(|e| Error::malformed(T::NAME, e))?;
        Ok(Self { statement, digest, signer: key.verifying_key(), envelope })
    }

    /// Opens an envelope that `signer` must have signed.
    ///
    /// # Errors
    /// If the envelope is too large, malformed, of another kind, or not signed
    /// by that key.
    pub fn open(envelope: &[u8], signer: &VerifyingKey) -> Result<Self> {
        Self::open_by(envelope, |_| Ok(*signer))
    }

    /// Opens an envelope whose signer is found from what the statement says,
    /// for example by the site's name in a manifest.
    ///
    /// # Errors
    /// As [`Signed::open`], and whatever `signer` returns.
    pub fn open_by(
        envelope: &[u8],
        signer: impl FnOnce(&T) -> Result<VerifyingKey>,
    ) -> Result<Self> {
        cap::<T>(envelope, T::LIMIT + OVERHEAD)?;
        let cose = CoseSign1::from_tagged_slice(envelope)
            .map_err(|e| Error::malformed(T::NAME, format!("envelope: {e}")))?;
        expect_content_type::<T>(&cose.protected.header)?;
        let payload = cose.payload.as_deref().unwrap_or_default();
        let canonical = CoseSign1Builder::new()
            .protected(body_header::<T>(true))
            .payload(payload.to_vec())
            .signature(cose.signature.clone())
            .build()
            .to_tagged_vec()
            .map_err(|e| Error::malformed(T::NAME, e))?;
        if canonical != envelope {
            return Err(Error::malformed(T::NAME, "envelope is not in its one encoding"));
        }
        let statement: T = encoding::from_slice(T::NAME, payload, T::LIMIT)?;
        let signer = signer(&statement)?;
        cose.verify_signature(b"", |signature, message| {
            signer.verifies(message, signature).then_some(()).ok_or(())
        })
        .map_err(|()| Error::Signature { what: T::NAME, key: signer.to_string() })?;
        let digest = Digest::of(&[payload]);
        Ok(Self { statement, digest, signer, envelope: envelope.to_vec() })
    }

    /// What was said.
    #[must_use]
    pub fn statement(&self) -> &T {
        &self.statement
    }

    /// SHA-256 of the payload that was signed.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// The key that signed.
    #[must_use]
    pub fn signer(&self) -> VerifyingKey {
        self.signer
    }

    /// The whole envelope, as it travels.
    #[must_use]
    pub fn envelope(&self) -> &[u8] {
        &self.envelope
    }
}

/// A statement with one verified signature or more, each by another key.
///
/// An envelope that gained or lost a signature is the same statement with the
/// same digest.
#[derive(Debug, Clone)]
pub struct MultiSigned<T> {
    statement: T,
    payload: Vec<u8>,
    signatures: Vec<(VerifyingKey, Vec<u8>)>,
}

impl<T: Statement> MultiSigned<T> {
    /// Signs a statement with a first key.
    ///
    /// # Errors
    /// If it has no encoding or is larger than its kind allows.
    pub fn sign(statement: T, key: &SigningKey) -> Result<Self> {
        let payload = payload_of(&statement)?;
        let mut signed = Self { statement, payload, signatures: Vec::new() };
        signed.add_signature(key)?;
        Ok(signed)
    }

    /// Adds another signer; one that has signed is left as it is.
    ///
    /// # Errors
    /// If there are too many signatures.
    pub fn add_signature(&mut self, key: &SigningKey) -> Result<()> {
        let public = key.verifying_key();
        let signature = key.sign(&self.to_be_signed(&public)?).to_vec();
        self.insert(public, signature)
    }

    /// Takes over the signatures of another envelope of the same statement.
    ///
    /// # Errors
    /// [`Error::Link`] if the other is another statement.
    pub fn merge(&mut self, other: &Self) -> Result<()> {
        if self.payload != other.payload {
            return Err(Error::link(T::NAME, &self.digest(), &other.digest()));
        }
        for (key, signature) in &other.signatures {
            self.insert(*key, signature.clone())?;
        }
        Ok(())
    }

    /// Opens an envelope; every signature in it must verify.
    ///
    /// # Errors
    /// If the envelope is too large, malformed or of another kind, if it has
    /// no signature or one that does not verify.
    pub fn open(envelope: &[u8]) -> Result<Self> {
        Unverified::decode(envelope)?.verify()
    }

    /// What was said.
    #[must_use]
    pub fn statement(&self) -> &T {
        &self.statement
    }

    /// SHA-256 of the payload that was signed.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest::of(&[&self.payload])
    }

    /// The keys that signed.
    #[must_use]
    pub fn signers(&self) -> BTreeSet<VerifyingKey> {
        self.signatures.iter().map(|(key, _)| *key).collect()
    }

    /// How many of `approvers` signed.
    ///
    /// # Errors
    /// [`Error::Approvals`] if that is fewer than `required`.
    pub fn expect_approvals(&self, approvers: &[VerifyingKey], required: usize) -> Result<usize> {
        let signers = self.signers();
        let listed: BTreeSet<_> = approvers.iter().collect();
        let found = listed.into_iter().filter(|key| signers.contains(key)).count();
        if found < required {
            return Err(Error::Approvals { what: T::NAME, required, found });
        }
        Ok(found)
    }

    /// The whole envelope, as it travels; signatures sorted by key.
    ///
    /// # Errors
    /// [`Error::Malformed`] if the envelope cannot be encoded.
    pub fn envelope(&self) -> Result<Vec<u8>> {
        let mut builder =
            CoseSignBuilder::new().protected(body_header::<T>(false)).payload(self.payload.clone());
        for (key, signature) in &self.signatures {
            let mut entry = signature_header(key);
            entry.signature.clone_from(signature);
            builder = builder.add_signature(entry);
        }
        builder.build().to_tagged_vec().map_err(|e| Error::malformed(T::NAME, e))
    }

    fn insert(&mut self, key: VerifyingKey, signature: Vec<u8>) -> Result<()> {
        if let Err(place) = self.signatures.binary_search_by_key(&key, |(k, _)| *k) {
            if self.signatures.len() == MAX_SIGNATURES {
                return Err(Error::malformed(T::NAME, "too many signatures"));
            }
            self.signatures.insert(place, (key, signature));
        }
        Ok(())
    }

    /// The `Sig_structure` of RFC 9052, section 4.4, for one signer.
    fn to_be_signed(&self, key: &VerifyingKey) -> Result<Vec<u8>> {
        let body = body_header::<T>(false).to_vec().map_err(|e| Error::malformed(T::NAME, e))?;
        let signer = signature_header(key);
        let signer = signer.protected.header.to_vec().map_err(|e| Error::malformed(T::NAME, e))?;
        encoding::to_vec(&(
            "Signature",
            serde_bytes::Bytes::new(&body),
            serde_bytes::Bytes::new(&signer),
            serde_bytes::Bytes::new(b""),
            serde_bytes::Bytes::new(&self.payload),
        ))
    }
}

/// The payload of an envelope with one signer whose signature nobody has looked
/// at: for showing what it says, never for acting on it.
///
/// # Errors
/// If it is larger than `limit`, or no such envelope.
pub fn unverified_payload(what: &'static str, envelope: &[u8], limit: usize) -> Result<Vec<u8>> {
    if envelope.len() > limit {
        return Err(Error::TooLarge { what, limit, found: envelope.len() });
    }
    let cose = CoseSign1::from_tagged_slice(envelope)
        .map_err(|e| Error::malformed(what, format!("envelope: {e}")))?;
    cose.payload.ok_or_else(|| Error::malformed(what, "envelope without payload"))
}

fn payload_of<T: Statement>(statement: &T) -> Result<Vec<u8>> {
    let payload = encoding::to_vec(statement)?;
    if payload.len() > T::LIMIT {
        return Err(Error::TooLarge { what: T::NAME, limit: T::LIMIT, found: payload.len() });
    }
    Ok(payload)
}

fn cap<T: Statement>(envelope: &[u8], limit: usize) -> Result<()> {
    if envelope.len() > limit {
        return Err(Error::TooLarge { what: T::NAME, limit, found: envelope.len() });
    }
    Ok(())
}

fn body_header<T: Statement>(one_signer: bool) -> Header {
    let header = HeaderBuilder::new().content_type(T::CONTENT_TYPE.to_owned());
    if one_signer { header.algorithm(iana::Algorithm::EdDSA).build() } else { header.build() }
}

fn signature_header(key: &VerifyingKey) -> CoseSignature {
    let header = HeaderBuilder::new()
        .algorithm(iana::Algorithm::EdDSA)
        .key_id(key.as_bytes().to_vec())
        .build();
    CoseSignatureBuilder::new().protected(header).build()
}

/// The version that a content type names, if it is this kind's in another
/// version.
pub(crate) fn other_version<'a>(expected: &str, found: &'a str) -> Option<&'a str> {
    let parts = |text: &'a str| text.strip_suffix("+cbor")?.rsplit_once(".v");
    let (kind, version) = parts(found)?;
    let same = expected.strip_prefix(kind)?.starts_with(".v") && expected != found;
    same.then_some(version).filter(|version| version.bytes().all(|b| b.is_ascii_digit()))
}

fn expect_content_type<T: Statement>(header: &Header) -> Result<()> {
    let found = match &header.content_type {
        Some(RegisteredLabel::Text(text)) => text.clone(),
        Some(RegisteredLabel::Assigned(number)) => format!("{number:?}"),
        None => "none".to_owned(),
    };
    if found != T::CONTENT_TYPE {
        return Err(Error::ContentType { expected: T::CONTENT_TYPE, found });
    }
    Ok(())
}

#[cfg(test)]
mod tests;
