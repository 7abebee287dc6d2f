//! HPKE (RFC 9180) with X-Wing, HKDF-SHA256 and AES-256-GCM, base mode.
//!
//! Bulk data takes only HPKE's export as its input key; short messages (the
//! opening of an aggregate to a site) are sealed by HPKE itself.

use super::{InputKey, SealError};
use crate::{Result, Secret};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL;
use hpke::aead::AesGcm256;
use hpke::kdf::HkdfSha256;
use hpke::kem::XWing;
use hpke::{Deserializable, Kem, OpModeR, OpModeS, Serializable};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::fmt;
use zeroize::Zeroizing;

/// The context in which HPKE exports the bulk's input key.
const EXPORT_CONTEXT: &[u8] = b"sealfold/v1/bulk";
/// The longest message that [`seal_to`] takes.
const MAX_MESSAGE: usize = 4 << 10;

type HpkePublic = <XWing as Kem>::PublicKey;
type HpkePrivate = <XWing as Kem>::PrivateKey;
type HpkeEncapped = <XWing as Kem>::EncappedKey;

macro_rules! hpke_bytes {
    ($(#[$doc:meta])* $name:ident, $length:literal, $what:literal, $inner:ty) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq)]
        pub struct $name(Box<[u8; $length]>);

        impl $name {
            /// The length in bytes.
            pub const LENGTH: usize = $length;

            /// Takes the bytes if HPKE accepts them.
            ///
            /// # Errors
            /// [`SealError::Encapsulation`].
            pub fn from_bytes(bytes: &[u8]) -> std::result::Result<Self, SealError> {
                let invalid = SealError::Encapsulation($what);
                <$inner>::from_bytes(bytes).map_err(|_| invalid.clone())?;
                let bytes: [u8; $length] = bytes.try_into().map_err(|_| invalid)?;
                Ok(Self(Box::new(bytes)))
            }

            /// The bytes.
            #[must_use]
            pub fn as_bytes(&self) -> &[u8; $length] {
                &self.0
            }

            fn of(inner: &$inner) -> Self {
                let mut bytes = Box::new([0; $length]);
                bytes.copy_from_slice(&inner.to_bytes());
                Self(bytes)
            }

            fn inner(&self) -> std::result::Result<$inner, SealError> {
                <$inner>::from_bytes(self.0.as_slice())
                    .map_err(|_| SealError::Encapsulation($what))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({}..)"), hex::encode(&self.0[..8]))
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(
                &self,
                serializer: S,
            ) -> std::result::Result<S::Ok, S::Error> {
                if serializer.is_human_readable() {
                    serializer.serialize_str(&BASE64URL.encode(self.0.as_slice()))
                } else {
                    serializer.serialize_bytes(self.0.as_slice())
                }
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(
                deserializer: D,
            ) -> std::result::Result<Self, D::Error> {
                let bytes = if deserializer.is_human_readable() {
                    let text = String::deserialize(deserializer)?;
                    BASE64URL.decode(text).map_err(de::Error::custom)?
                } else {
                    serde_bytes::ByteBuf::deserialize(deserializer)?.into_vec()
                };
                Self::from_bytes(&bytes).map_err(de::Error::custom)
            }
        }
    };
}

hpke_bytes!(
    /// An X-Wing public key.
    PublicKey, 1216, "public key", HpkePublic
);
hpke_bytes!(
    /// An HPKE encapsulation under X-Wing.
    Encapsulation, 1120, "encapsulation", HpkeEncapped
);

/// The secret key of one round, inside the enclave; erased when dropped.
pub struct RoundSecret {
    seed: Secret,
}

impl fmt::Debug for RoundSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RoundSecret(..)")
    }
}

impl RoundSecret {
    /// Draws a key.
    ///
    /// # Errors
    /// [`SealError::Platform`] without randomness.
    pub fn generate() -> std::result::Result<Self, SealError> {
        let seed = Secret::draw().map_err(|_| SealError::Platform("randomness"))?;
        Ok(Self { seed })
    }

    /// A key from its 32-byte seed, for a site's release key on disk.
    #[must_use]
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self { seed: Secret::copy_of(seed) }
    }

    /// The public key.
    ///
    /// # Errors
    /// Never for a seed of 32 bytes.
    pub fn public_key(&self) -> std::result::Result<PublicKey, SealError> {
        Ok(PublicKey::of(&XWing::sk_to_pk(&self.private()?)))
    }

    /// The input key that was encapsulated to this key under `info`.
    ///
    /// # Errors
    /// [`SealError::Encapsulation`].
    pub fn decapsulate(
        &self,
        encapsulation: &Encapsulation,
        info: &[u8],
    ) -> std::result::Result<InputKey, SealError> {
        let context = hpke::setup_receiver::<AesGcm256, HkdfSha256, XWing>(
            &OpModeR::Base,
            &self.private()?,
            &encapsulation.inner()?,
            info,
        )
        .map_err(|_| SealError::Encapsulation("encapsulation"))?;
        export(|out| context.export(EXPORT_CONTEXT, out))
    }

    fn private(&self) -> std::result::Result<HpkePrivate, SealError> {
        HpkePrivate::from_bytes(self.seed.as_bytes())
            .map_err(|_| SealError::Encapsulation("secret key"))
    }
}

/// The public key that belongs to a seed.
///
/// # Errors
/// Never for a seed of 32 bytes.
pub fn public_of(seed: &[u8; 32]) -> std::result::Result<PublicKey, SealError> {
    RoundSecret::from_seed(seed).public_key()
}

/// Draws an input key and encapsulates it to a public key under `info`.
///
/// # Errors
/// [`SealError::Encapsulation`] if the key is not valid.
pub fn encapsulate(
    public: &PublicKey,
    info: &[u8],
) -> std::result::Result<(Encapsulation, InputKey), SealError> {
    let (encapped, context) =
        hpke::setup_sender::<AesGcm256, HkdfSha256, XWing>(&OpModeS::Base, &public.inner()?, info)
            .map_err(|_| SealError::Encapsulation("public key"))?;
    let key = export(|out| context.export(EXPORT_CONTEXT, out))?;
    Ok((Encapsulation::of(&encapped), key))
}

fn export(
    fill: impl FnOnce(&mut [u8]) -> std::result::Result<(), hpke::HpkeError>,
) -> std::result::Result<InputKey, SealError> {
    InputKey::filled(fill).map_err(|_| SealError::Platform("key export"))
}

/// A short message that HPKE sealed to one key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SealedMessage {
    /// The encapsulation.
    pub encapsulation: Encapsulation,
    /// The message under AES-256-GCM, with its tag.
    pub ciphertext: serde_bytes::ByteBuf,
}

/// Seals a short message to a public key; `info` says what it is for.
///
/// # Errors
/// [`SealError::Length`] above 4 KiB, [`SealError::Encapsulation`].
pub fn seal_to(
    public: &PublicKey,
    info: &[u8],
    aad: &[u8],
    message: &[u8],
) -> std::result::Result<SealedMessage, SealError> {
    short(message.len())?;
    let (encapped, ciphertext) = hpke::single_shot_seal::<AesGcm256, HkdfSha256, XWing>(
        &OpModeS::Base,
        &public.inner()?,
        info,
        message,
        aad,
    )
    .map_err(|_| SealError::Encapsulation("public key"))?;
    let encapsulation = Encapsulation::of(&encapped);
    Ok(SealedMessage { encapsulation, ciphertext: serde_bytes::ByteBuf::from(ciphertext) })
}

/// Opens what [`seal_to`] sealed to the key of this seed.
///
/// # Errors
/// [`SealError::Message`] if it was sealed to another key or for another
/// purpose, or was changed.
pub fn unseal(
    seed: &[u8; 32],
    info: &[u8],
    aad: &[u8],
    sealed: &SealedMessage,
) -> std::result::Result<Zeroizing<Vec<u8>>, SealError> {
    short(sealed.ciphertext.len())?;
    hpke::single_shot_open::<AesGcm256, HkdfSha256, XWing>(
        &OpModeR::Base,
        &RoundSecret::from_seed(seed).private()?,
        &sealed.encapsulation.inner()?,
        info,
        &sealed.ciphertext,
        aad,
    )
    .map(Zeroizing::new)
    .map_err(|_| SealError::Message)
}

fn short(found: usize) -> std::result::Result<(), SealError> {
    if found > MAX_MESSAGE + super::TAG {
        let expected = MAX_MESSAGE as u64;
        return Err(SealError::Length { what: "message", expected, found: found as u64 });
    }
    Ok(())
}

impl std::str::FromStr for PublicKey {
    type Err = crate::Error;

    fn from_str(text: &str) -> Result<Self> {
        let bytes = BASE64URL.decode(text).map_err(|_| SealError::Encapsulation("public key"))?;
        Ok(Self::from_bytes(&bytes)?)
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&BASE64URL.encode(self.0.as_slice()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_derive_the_same_key_and_nobody_else_does() {
        let secret = RoundSecret::generate().unwrap();
        let public = secret.public_key().unwrap();
        let (encapsulation, key) = encapsulate(&public, b"offer").unwrap();
        assert_eq!(encapsulation.as_bytes().len(), Encapsulation::LENGTH);
        let same = secret.decapsulate(&encapsulation, b"offer").unwrap();
        assert_eq!(key.as_bytes(), same.as_bytes());
        // X-Wing rejects implicitly: another key or purpose gives another
        // secret, which the key commitment of the bulk then refuses.
        let other = secret.decapsulate(&encapsulation, b"another offer").unwrap();
        assert_ne!(key.as_bytes(), other.as_bytes());
        let stranger = RoundSecret::generate().unwrap();
        let theirs = stranger.decapsulate(&encapsulation, b"offer").unwrap();
        assert_ne!(key.as_bytes(), theirs.as_bytes());
    }

    #[test]
    fn messages_open_for_their_key_and_purpose_alone() {
        let seed = crate::keys::random().unwrap();
        let public = public_of(&seed).unwrap();
        let sealed = seal_to(&public, b"release", b"", b"key").unwrap();
        assert_eq!(*unseal(&seed, b"release", b"", &sealed).unwrap(), b"key");
        assert_eq!(unseal(&seed, b"other", b"", &sealed), Err(SealError::Message));
        assert_eq!(unseal(&[1; 32], b"release", b"", &sealed), Err(SealError::Message));
        let mut changed = sealed;
        changed.ciphertext[0] ^= 1;
        assert_eq!(unseal(&seed, b"release", b"", &changed), Err(SealError::Message));
        assert!(seal_to(&public, b"", b"", &vec![0; MAX_MESSAGE + 17]).is_err());
    }

    #[test]
    fn keys_travel_as_text_and_wrong_ones_are_refused() {
        let public = RoundSecret::generate().unwrap().public_key().unwrap();
        assert_eq!(public.to_string().parse::<PublicKey>().unwrap(), public);
        assert!("AAAA".parse::<PublicKey>().is_err());
        assert!(PublicKey::from_bytes(&[0xff; 1216]).is_err());
        assert!(Encapsulation::from_bytes(&[0; 1119]).is_err());
    }
}
