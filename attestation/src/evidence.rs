//! Evidence as it came.

use crate::verdict::{CheckName, Refused};
use crate::{confidential_space, nitro};
use std::fmt;

/// Evidence as it came, a variant for each platform; nothing about it is
/// believed. What is too long is cut to just beyond the platform's limit, and
/// so refused by `envelope`.
#[derive(Clone, PartialEq, Eq)]
pub enum Evidence {
    /// An AWS Nitro attestation document (`COSE_Sign1`).
    Nitro(Vec<u8>),
    /// A Google Confidential Space attestation token (a JWT).
    ConfidentialSpace(Vec<u8>),
}

impl fmt::Debug for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Evidence({}, {} bytes)", self.platform(), self.as_bytes().len())
    }
}

impl Evidence {
    /// Takes the bytes of an AWS Nitro attestation document.
    #[must_use]
    pub fn from_nitro(bytes: &[u8]) -> Self {
        Self::Nitro(cut(bytes, nitro::MAX_DOCUMENT))
    }

    /// Takes the text of a Confidential Space token.
    #[must_use]
    pub fn from_confidential_space(token: &[u8]) -> Self {
        Self::ConfidentialSpace(cut(token, confidential_space::MAX_TOKEN))
    }

    /// Takes evidence of the platform that a reply names. A wrong name gains
    /// nothing: the evidence is then refused for its form.
    ///
    /// # Errors
    /// [`Refused`] by `platform` if it is none that is known.
    pub fn of(platform: &str, bytes: &[u8]) -> Result<Self, Refused> {
        match platform {
            nitro::NAME => Ok(Self::from_nitro(bytes)),
            confidential_space::NAME => Ok(Self::from_confidential_space(bytes)),
            other => Err(Refused {
                check: CheckName::Platform,
                expected: format!("{} or {}", nitro::NAME, confidential_space::NAME),
                found: other.chars().take(64).collect(),
            }),
        }
    }

    /// Takes evidence from a file that does not say of which platform it is.
    /// A token begins with the base64url of `{`, a document never does.
    #[must_use]
    pub fn recognise(bytes: &[u8]) -> Self {
        if bytes.starts_with(b"e") {
            Self::from_confidential_space(bytes)
        } else {
            Self::from_nitro(bytes)
        }
    }

    /// The platform's name.
    #[must_use]
    pub fn platform(&self) -> &'static str {
        match self {
            Self::Nitro(_) => nitro::NAME,
            Self::ConfidentialSpace(_) => confidential_space::NAME,
        }
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Nitro(bytes) | Self::ConfidentialSpace(bytes) => bytes,
        }
    }

    /// What the evidence claims was measured, in hex, by the names of the checks
    /// that would compare it. Nothing is verified: for a page that says so.
    #[must_use]
    pub fn unverified_measurements(&self) -> Vec<(&'static str, String)> {
        match self {
            Self::Nitro(bytes) => {
                let payload = nitro::document::Envelope::parse(bytes).map(|e| e.payload);
                let document = payload.and_then(nitro::Document::parse);
                let registers = [("pcr0", 0), ("pcr1", 1), ("pcr2", 2), ("pcr8", 8)];
                let read = |document: nitro::Document| {
                    let of = |(name, index)| (name, hex::encode(document.pcr(index)));
                    registers.map(of).to_vec()
                };
                document.map(read).unwrap_or_default()
            }
            Self::ConfidentialSpace(bytes) => {
                let token = confidential_space::Token::parse(bytes).ok();
                let digest = token.and_then(|token| token.claims().image_digest());
                digest.map(|digest| ("image-digest", hex::encode(digest))).into_iter().collect()
            }
        }
    }
}

fn cut(bytes: &[u8], limit: usize) -> Vec<u8> {
    bytes[..bytes.len().min(limit + 1)].to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_platform_is_named_or_recognised() {
        for platform in [nitro::NAME, confidential_space::NAME] {
            assert_eq!(Evidence::of(platform, b"x").unwrap().platform(), platform);
        }
        assert_eq!(Evidence::of("tdx", b"x").unwrap_err().check, CheckName::Platform);
        assert_eq!(Evidence::recognise(b"eyJ").platform(), confidential_space::NAME);
        assert_eq!(Evidence::recognise(&[0x84]).platform(), nitro::NAME);
        assert_eq!(Evidence::recognise(b"").platform(), nitro::NAME);
    }

    #[test]
    fn what_is_claimed_is_read_and_nonsense_claims_nothing() {
        for platform in [nitro::NAME, confidential_space::NAME] {
            assert!(Evidence::of(platform, b"x.y.z").unwrap().unverified_measurements().is_empty());
        }
    }

    #[test]
    fn what_is_too_long_stays_too_long() {
        let long = vec![b'e'; 1 << 20];
        assert_eq!(Evidence::recognise(&long).as_bytes().len(), confidential_space::MAX_TOKEN + 1);
        assert_eq!(Evidence::from_nitro(&long).as_bytes().len(), nitro::MAX_DOCUMENT + 1);
    }
}
