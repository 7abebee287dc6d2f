//! Sealing: how bytes are encrypted to a key that only an enclave holds.
//!
//! Two layers, each a public specification:
//!
//! - [`encapsulation`]: HPKE (RFC 9180) with the X-Wing KEM, which stays secret
//!   if either X25519 or ML-KEM-768 does. What is recorded today must not be
//!   readable by tomorrow's quantum computers: patients outlive ciphers.
//! - [`chunked`] and [`stream`]: C2SP chunked encryption, Cobblestone-256, for
//!   the bulk: AES-256-GCM in chunks of 16 KiB, with a commitment to the key
//!   and random access. HPKE's export is its input key.
//!
//! Sixteen chunks are a *record*, the unit of work; chunks can be opened in any
//! order and by any thread.

pub mod chunked;
pub mod encapsulation;
pub mod stream;

pub use chunked::{
    CHUNK, HEADER, InputKey, MAX_PLAIN, Opener, RECORD, RecordSeal, Sealer, TAG, chunks_range,
    plain_len, record_chunks, record_count, record_plain_len, record_range, sealed_len,
};
pub use encapsulation::{
    Encapsulation, PublicKey, RoundSecret, SealedMessage, encapsulate, public_of, seal_to, unseal,
};
pub use stream::{OpeningReader, SealingWriter};

/// What can go wrong in sealing and opening. Carries no plaintext and no key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SealError {
    /// A public key or an encapsulation is no valid point or ciphertext.
    #[error("{0} is not valid for X-Wing")]
    Encapsulation(&'static str),
    /// The sealed message was not sealed to this key under this info.
    #[error("message was not sealed to this key for this purpose")]
    Message,
    /// The key commitment differs: another key, or another header's bytes.
    #[error("key commitment of the sealed bytes is not that of this key and context")]
    Commitment,
    /// A chunk was changed, moved, repeated or cut.
    #[error("chunk {chunk} does not open")]
    Chunk {
        /// The chunk's index in the sealed object.
        chunk: u64,
    },
    /// A record or object has another length than its place demands.
    #[error("{what}: expected {expected} bytes, found {found}")]
    Length {
        /// What was measured.
        what: &'static str,
        /// The length that belongs here.
        expected: u64,
        /// The length that was met.
        found: u64,
    },
    /// The plaintext is longer than the format allows.
    #[error("plaintext of {found} bytes, the format allows {MAX_PLAIN}")]
    TooLong {
        /// The length that was asked for.
        found: u64,
    },
    /// The platform's cipher or its randomness failed.
    #[error("the platform's {0} failed")]
    Platform(&'static str),
}

#[cfg(test)]
mod tests;
