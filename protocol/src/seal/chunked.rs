//! C2SP chunked encryption, Cobblestone-256, written on `ring`.
//!
//! Source: <https://c2sp.org/chunked-encryption>. The sealed object is a header
//! (24-byte salt, 32-byte key commitment) and the chunks, each with its 16-byte
//! tag. All chunks but the last hold 16 KiB; the last holds less, perhaps
//! nothing, so that a cut at a chunk's end is seen. Key, base nonce and
//! commitment come from HKDF-Expand-SHA-512 of the input key over
//! `c2sp.org/chunked-encryption@v1+AEAD_AES_256_GCM`, a zero byte, the salt and
//! the context; a chunk's nonce is the base nonce XOR its index.
//!
//! The cipher's key schedule lies inside `ring`, which does not erase it; the
//! input keys are erased when dropped.

use super::SealError;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use ring::hkdf;
use std::ops::Range;
use std::sync::Arc;
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, Zeroizing};

/// The plaintext of a chunk in bytes.
pub const CHUNK: usize = 16 << 10;
/// The authentication tag of a chunk in bytes.
pub const TAG: usize = 16;
/// Salt and key commitment in bytes.
pub const HEADER: usize = SALT + COMMITMENT;
/// The plaintext of a record in bytes: sixteen chunks.
pub const RECORD: usize = CHUNKS_OF_A_RECORD * CHUNK;
/// The longest plaintext in bytes: chunk indices have five bytes, and one
/// chunk more than the full ones is always there.
pub const MAX_PLAIN: u64 = ((1 << 40) - 1) * CHUNK as u64;

const CHUNKS_OF_A_RECORD: usize = 16;
const SALT: usize = 24;
const COMMITMENT: usize = 32;
const NONCE: usize = 12;
const KEY: usize = 32;
const LABEL: &[u8] = b"c2sp.org/chunked-encryption@v1+AEAD_AES_256_GCM\0";
const SEALED_CHUNK: u64 = (CHUNK + TAG) as u64;
const SEALED_RECORD: u64 = CHUNKS_OF_A_RECORD as u64 * SEALED_CHUNK;

// The longest record, with an empty last chunk behind sixteen full ones, must
// pass the record door in one piece.
const _: () = assert!(
    SEALED_RECORD + TAG as u64 <= crate::door::MAX_LENGTH as u64,
    "a sealed record is longer than the record door allows"
);

/// The length of a sealed object; `None` beyond [`MAX_PLAIN`].
#[must_use]
pub const fn sealed_len(plain: u64) -> Option<u64> {
    if plain > MAX_PLAIN {
        return None;
    }
    let chunks = plain / CHUNK as u64 + 1;
    Some(HEADER as u64 + plain + chunks * TAG as u64)
}

/// The length of the plaintext of a sealed object; `None` if no plaintext has
/// that sealed length.
#[must_use]
pub fn plain_len(sealed: u64) -> Option<u64> {
    let body = sealed.checked_sub(HEADER as u64)?;
    let plain =
        (body / SEALED_CHUNK) * CHUNK as u64 + (body % SEALED_CHUNK).checked_sub(TAG as u64)?;
    (sealed_len(plain) == Some(sealed)).then_some(plain)
}

/// The number of records of an object; an empty object has one.
#[must_use]
pub const fn record_count(plain: u64) -> u64 {
    let count = plain.div_ceil(RECORD as u64);
    if count == 0 { 1 } else { count }
}

/// The length of the plaintext of a record; 0 beyond the last.
#[must_use]
pub fn record_plain_len(plain: u64, record: u64) -> u64 {
    plain.saturating_sub(record.saturating_mul(RECORD as u64)).min(RECORD as u64)
}

/// The chunks of a record, by their indices in the object. The last record
/// includes the empty last chunk, if there is one; beyond it there are none.
#[must_use]
pub fn record_chunks(plain: u64, record: u64) -> Range<u64> {
    let chunks = plain / CHUNK as u64 + 1;
    let start = record.saturating_mul(CHUNKS_OF_A_RECORD as u64).min(chunks);
    match record_count(plain) - 1 {
        last if record > last => chunks..chunks,
        last if record == last => start..chunks,
        _ => start..start + CHUNKS_OF_A_RECORD as u64,
    }
}

/// Where chunks lie in the sealed object.
#[must_use]
pub fn chunks_range(plain: u64, chunks: &Range<u64>) -> Range<u64> {
    let total = sealed_len(plain).unwrap_or(0);
    let at = |chunk: u64| (HEADER as u64).saturating_add(chunk.saturating_mul(SEALED_CHUNK));
    at(chunks.start).min(total)..at(chunks.end).min(total)
}

/// Where a record lies in the sealed object.
#[must_use]
pub fn record_range(plain: u64, record: u64) -> Range<u64> {
    chunks_range(plain, &record_chunks(plain, record))
}

/// The key from which an object's keys are derived; erased when dropped.
pub type InputKey = crate::Secret;

/// What is derived for one object.
struct Keys {
    cipher: LessSafeKey,
    base_nonce: [u8; NONCE],
    commitment: [u8; COMMITMENT],
    plain: u64,
}

/// The length of what HKDF expands to.
struct Derived;

impl hkdf::KeyType for Derived {
    fn len(&self) -> usize {
        KEY + NONCE + COMMITMENT
    }
}

impl Keys {
    fn derive(
        key: &InputKey,
        context: &[u8],
        salt: &[u8; SALT],
        plain: u64,
    ) -> Result<Self, SealError> {
        if plain > MAX_PLAIN {
            return Err(SealError::TooLong { found: plain });
        }
        let failed = |_| SealError::Platform("key derivation");
        let mut derived = Zeroizing::new([0; KEY + NONCE + COMMITMENT]);
        let prk = hkdf::Prk::new_less_safe(hkdf::HKDF_SHA512, key.as_bytes());
        let info = [LABEL, salt.as_slice(), context];
        prk.expand(&info, Derived)
            .and_then(|okm| okm.fill(derived.as_mut_slice()))
            .map_err(failed)?;
        let cipher = UnboundKey::new(&AES_256_GCM, &derived[..KEY]).map_err(failed)?;
        let (mut base_nonce, mut commitment) = ([0; NONCE], [0; COMMITMENT]);
        base_nonce.copy_from_slice(&derived[KEY..KEY + NONCE]);
        commitment.copy_from_slice(&derived[KEY + NONCE..]);
        Ok(Self { cipher: LessSafeKey::new(cipher), base_nonce, commitment, plain })
    }

    fn nonce(&self, chunk: u64) -> Nonce {
        let mut nonce = self.base_nonce;
        let index = chunk.to_be_bytes();
        nonce[NONCE - 5..].iter_mut().zip(&index[3..]).for_each(|(byte, i)| *byte ^= i);
        Nonce::assume_unique_for_key(nonce)
    }

    fn first_chunk(record: u64) -> u64 {
        record * CHUNKS_OF_A_RECORD as u64
    }
}

/// Opens the records of one sealed object, in any order, from any thread.
pub struct Opener {
    keys: Keys,
}

impl std::fmt::Debug for Opener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Opener(..)")
    }
}

impl Opener {
    /// Derives the object's keys and checks that its header commits to them.
    ///
    /// `plain` is the length of the plaintext in bytes as a signed statement
    /// gives it; every record's length follows from it.
    ///
    /// # Errors
    /// [`SealError::Commitment`] if the bytes belong to another key or context.
    pub fn new(
        key: &InputKey,
        context: &[u8],
        header: &[u8; HEADER],
        plain: u64,
    ) -> Result<Self, SealError> {
        let (mut salt, mut commitment) = ([0; SALT], [0; COMMITMENT]);
        salt.copy_from_slice(&header[..SALT]);
        commitment.copy_from_slice(&header[SALT..]);
        let keys = Keys::derive(key, context, &salt, plain)?;
        if !bool::from(keys.commitment[..].ct_eq(&commitment[..])) {
            return Err(SealError::Commitment);
        }
        Ok(Self { keys })
    }

    /// Opens a record in place and hands over its plaintext chunk by chunk,
    /// with the chunk's offset in the record. An empty last chunk is checked
    /// but not handed over.
    ///
    /// # Errors
    /// [`SealError::Length`] or [`SealError::Chunk`]; chunks before the one
    /// that failed have been handed over by then.
    pub fn open_record(
        &self,
        record: u64,
        sealed: &mut [u8],
        mut each: impl FnMut(usize, &[u8]),
    ) -> Result<(), SealError> {
        let range = record_range(self.keys.plain, record);
        let expected = range.end - range.start;
        if sealed.len() as u64 != expected || record >= record_count(self.keys.plain) {
            let found = sealed.len() as u64;
            return Err(SealError::Length { what: "sealed record", expected, found });
        }
        let first = Keys::first_chunk(record);
        for (place, chunk) in sealed.chunks_mut(CHUNK + TAG).enumerate() {
            let plain = self.open_chunk(first + place as u64, chunk)?;
            if !plain.is_empty() {
                each(place * CHUNK, plain);
            }
        }
        Ok(())
    }

    /// Opens one chunk in place, by its index in the object; its plaintext
    /// stands before its tag.
    ///
    /// # Errors
    /// [`SealError::Chunk`] if these are not the bytes that were sealed there.
    pub fn open_chunk<'c>(
        &self,
        chunk: u64,
        sealed: &'c mut [u8],
    ) -> Result<&'c mut [u8], SealError> {
        self.keys
            .cipher
            .open_in_place(self.keys.nonce(chunk), Aad::empty(), sealed)
            .map_err(|_| SealError::Chunk { chunk })
    }
}

/// Seals one object under a fresh salt.
pub struct Sealer {
    keys: Keys,
}

impl Sealer {
    /// Draws a salt and derives the object's keys. Returns the header that
    /// stands before the records.
    ///
    /// # Errors
    /// [`SealError::TooLong`], or [`SealError::Platform`] without randomness.
    pub fn new(
        key: &InputKey,
        context: &[u8],
        plain: u64,
    ) -> Result<(Self, [u8; HEADER]), SealError> {
        let random = crate::keys::random().map_err(|_| SealError::Platform("randomness"))?;
        let mut salt = [0; SALT];
        salt.copy_from_slice(&random[..SALT]);
        Self::with_salt(key, context, plain, salt)
    }

    /// As [`Sealer::new`] under a given salt, for test vectors. A salt must
    /// never be used twice with one key and context.
    pub(crate) fn with_salt(
        key: &InputKey,
        context: &[u8],
        plain: u64,
        salt: [u8; SALT],
    ) -> Result<(Self, [u8; HEADER]), SealError> {
        let keys = Keys::derive(key, context, &salt, plain)?;
        let mut header = [0; HEADER];
        header[..SALT].copy_from_slice(&salt);
        header[SALT..].copy_from_slice(&keys.commitment);
        Ok((Self { keys }, header))
    }

    /// The right to seal each record, once. A nonce cannot be used twice,
    /// because nothing else seals and a [`RecordSeal`] is used up.
    pub fn records(self) -> impl Iterator<Item = RecordSeal> + Send {
        let keys = Arc::new(self.keys);
        (0..record_count(keys.plain)).map(move |record| RecordSeal { keys: keys.clone(), record })
    }
}

/// The right to seal one record of one object.
pub struct RecordSeal {
    keys: Arc<Keys>,
    record: u64,
}

impl RecordSeal {
    /// The record's index.
    #[must_use]
    pub fn index(&self) -> u64 {
        self.record
    }

    /// Seals the record's plaintext and appends it to `sealed`.
    ///
    /// # Errors
    /// [`SealError::Length`] if the plaintext is not as long as the record.
    pub fn seal(self, plain: &[u8], sealed: &mut Vec<u8>) -> Result<(), SealError> {
        let expected = record_plain_len(self.keys.plain, self.record);
        if plain.len() as u64 != expected {
            let found = plain.len() as u64;
            return Err(SealError::Length { what: "record", expected, found });
        }
        let first = Keys::first_chunk(self.record);
        let mut chunks: Vec<&[u8]> = plain.chunks(CHUNK).collect();
        let is_last = self.record + 1 == record_count(self.keys.plain);
        if is_last && plain.len().is_multiple_of(CHUNK) {
            chunks.push(&[]);
        }
        for (place, chunk) in chunks.into_iter().enumerate() {
            let start = sealed.len();
            sealed.extend_from_slice(chunk);
            let tag = self
                .keys
                .cipher
                .seal_in_place_separate_tag(
                    self.keys.nonce(first + place as u64),
                    Aad::empty(),
                    &mut sealed[start..],
                )
                .map_err(|_| SealError::Platform("cipher"))?;
            sealed.extend_from_slice(tag.as_ref());
        }
        Ok(())
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        self.base_nonce.zeroize();
    }
}
