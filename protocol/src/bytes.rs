//! Byte strings of a fixed length, each a type of its own.
//!
//! In CBOR they are byte strings; in TOML and JSON, where people read them,
//! lower-case hex. Envelopes are of any length and stand in JSON as base64.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::fmt;
use std::str::FromStr;

macro_rules! fixed_bytes {
    ($(#[$doc:meta])* $name:ident, $length:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; $length]);

        impl $name {
            /// The length in bytes.
            pub const LENGTH: usize = $length;

            /// Wraps the bytes; any value is one.
            #[must_use]
            pub const fn new(bytes: [u8; $length]) -> Self {
                Self(bytes)
            }

            /// The bytes.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; $length] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex::encode(self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl FromStr for $name {
            type Err = String;

            fn from_str(text: &str) -> Result<Self, String> {
                let mut bytes = [0; $length];
                if text.bytes().any(|b| b.is_ascii_uppercase()) {
                    return Err("expected lower-case hex".to_owned());
                }
                hex::decode_to_slice(text, &mut bytes).map_err(|_| {
                    format!("expected {} hex digits, found {:?}", 2 * $length, shorten(text))
                })?;
                Ok(Self(bytes))
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                if serializer.is_human_readable() {
                    serializer.collect_str(self)
                } else {
                    serializer.serialize_bytes(&self.0)
                }
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                if deserializer.is_human_readable() {
                    let text = String::deserialize(deserializer)?;
                    text.parse().map_err(de::Error::custom)
                } else {
                    let bytes = serde_bytes::ByteBuf::deserialize(deserializer)?;
                    let found = bytes.len();
                    let bytes = bytes.into_vec().try_into().map_err(|_| {
                        de::Error::custom(format!("expected {} bytes, found {found}", $length))
                    })?;
                    Ok(Self(bytes))
                }
            }
        }
    };
}

fixed_bytes!(
    /// A SHA-256 digest of a statement's payload, or the digest of a
    /// [content](crate::content).
    Digest, 32
);
fixed_bytes!(
    /// An Ed25519 public key (RFC 8032).
    VerifyingKey, 32
);
fixed_bytes!(
    /// A platform configuration register of a Nitro enclave: SHA-384.
    Pcr, 48
);
fixed_bytes!(
    /// 32 bytes that a party drew at random and that are no secret: a site's
    /// nonce, an object's name at the record door. What must stay secret is a
    /// [`Secret`](crate::Secret).
    Random, 32
);

impl Random {
    /// Draws from the operating system.
    ///
    /// # Errors
    /// [`crate::Error::Key`] if the system has no randomness.
    pub fn draw() -> crate::Result<Self> {
        crate::keys::random().map(Self)
    }
}

impl Digest {
    /// SHA-256 of the parts, one after the other.
    #[must_use]
    pub fn of(parts: &[&[u8]]) -> Self {
        let mut context = ring::digest::Context::new(&ring::digest::SHA256);
        for part in parts {
            context.update(part);
        }
        let mut bytes = [0; 32];
        bytes.copy_from_slice(context.finish().as_ref());
        Self(bytes)
    }

    /// The first eight hex digits, for people.
    #[must_use]
    pub fn short(&self) -> String {
        hex::encode(&self.0[..4])
    }
}

/// The bytes of a COSE envelope, as they travel; not verified.
#[derive(Clone, PartialEq, Eq)]
pub struct Envelope(pub Vec<u8>);

impl fmt::Debug for Envelope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Envelope({} bytes)", self.0.len())
    }
}

impl Serialize for Envelope {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.serialize_str(&BASE64.encode(&self.0))
        } else {
            serializer.serialize_bytes(&self.0)
        }
    }
}

impl<'de> Deserialize<'de> for Envelope {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            let text = String::deserialize(deserializer)?;
            BASE64.decode(text).map(Self).map_err(de::Error::custom)
        } else {
            serde_bytes::ByteBuf::deserialize(deserializer).map(|bytes| Self(bytes.into_vec()))
        }
    }
}

fn shorten(text: &str) -> String {
    if text.chars().count() <= 80 {
        text.to_owned()
    } else {
        text.chars().take(77).chain("...".chars()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_for_people_and_bytes_for_machines() {
        let digest = Digest::of(&[b"abc"]);
        let text = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(digest.to_string(), text);
        assert_eq!(serde_json::to_string(&digest).unwrap(), format!("\"{text}\""));
        let cbor = crate::encoding::to_vec(&digest).unwrap();
        assert_eq!(cbor[..2], [0x58, 32]);
        assert_eq!(crate::encoding::from_slice::<Digest>("digest", &cbor, 64).unwrap(), digest);
    }

    #[test]
    fn wrong_lengths_and_upper_case_are_refused() {
        assert!("00".parse::<Digest>().unwrap_err().contains("64 hex digits"));
        assert!("AB".repeat(32).parse::<Digest>().is_err());
        assert!(crate::encoding::from_slice::<Digest>("digest", &[0x41, 0], 64).is_err());
    }
}
