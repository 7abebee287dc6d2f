//! A fast keyed hash of an update's plaintext, to see that two passes over it
//! read the same bytes.
//!
//! A site knows its own sealing key, so together with the host it can put
//! other bytes that open just as well in the place of those that were
//! admitted. Admission therefore remembers a hash under a secret of the
//! instance, and every later pass must arrive at the same value. A
//! cryptographic hash would cost four times what decryption costs; a universal
//! one costs a tenth, and it is enough, because nobody outside ever sees a
//! hash, and whoever guesses wrong once is off the roster.
//!
//! - A chunk (at most 16 KiB) is hashed by CLNH, the carry-less form of NH
//!   (Black et al., UMAC, 1999; Lemire and Kaser, CLHASH, 2016): with 64-bit
//!   words m and keys k, the sum over i of (m\[2i\] + k\[2i\]) x
//!   (m\[2i+1\] + k\[2i+1\]) in GF(2)\[x\]. Two sums are taken, the second
//!   with the keys shifted by four pairs (Toeplitz). The difference of the sums
//!   of two unequal chunks is *linear* in the keys; the last pair in which the
//!   chunks differ is multiplied, in the second sum, by a key pair behind all
//!   that matter in the first, so each equation holds with probability 2^-64
//!   given the one before, and both hold with 2^-128.
//! - The chunks' sums, their lengths, the header's digest and the record's
//!   number go through BLAKE3 in keyed mode, a pseudorandom function.
//! - The tags of all records are combined by XOR, in any order. Every pass
//!   visits each record once, so no tag cancels another.

use sealfold_protocol::Secret;
use std::ops::Range;
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

mod clmul;
use clmul::{Product, Sums};

/// The longest chunk.
const CHUNK: usize = sealfold_protocol::seal::CHUNK;
/// The keys of one chunk, and some more for the second sum.
const TABLE: usize = CHUNK + 16 * clmul::SHIFT;

/// A cache line in bytes: loads of keys that begin with one are faster.
const LINE: usize = 64;

/// The hash function of one round.
pub struct KeyedHash {
    /// The table, somewhere in it.
    memory: Zeroizing<Vec<u8>>,
    table: Range<usize>,
    record_key: Secret,
    product: Product,
}

impl KeyedHash {
    /// Expands the instance's secret.
    #[must_use]
    pub fn new(secret: &[u8; 32]) -> Self {
        Self::with_product(secret, Product::fastest())
    }

    fn with_product(secret: &[u8; 32], product: Product) -> Self {
        let mut memory = Zeroizing::new(vec![0; TABLE + LINE]);
        let start = memory.as_ptr().align_offset(LINE).min(LINE);
        let table = start..start + TABLE;
        blake3::Hasher::new_derive_key("sealfold v1 keyed hash, keys of a chunk")
            .update(secret)
            .finalize_xof()
            .fill(&mut memory[table.clone()]);
        let record_key = Secret::new(blake3::derive_key("sealfold v1 keyed hash, records", secret));
        Self { memory, table, record_key, product }
    }

    fn keys(&self) -> &[u8] {
        &self.memory[self.table.clone()]
    }

    /// Begins the hash of one record of one update.
    #[must_use]
    pub fn record(&self, header: &[u8; 32], record: u64) -> RecordHasher<'_> {
        let mut records = blake3::Hasher::new_keyed(self.record_key.as_bytes());
        records.update(header).update(&record.to_le_bytes());
        RecordHasher { hash: self, records }
    }
}

/// The hash of one record under way; erased when dropped.
pub struct RecordHasher<'a> {
    hash: &'a KeyedHash,
    records: blake3::Hasher,
}

impl Drop for RecordHasher<'_> {
    fn drop(&mut self) {
        self.records.zeroize();
    }
}

impl RecordHasher<'_> {
    /// Takes the next chunk.
    ///
    /// # Panics
    /// If it is longer than 16 KiB, which no chunk of the format is.
    pub fn chunk(&mut self, chunk: &[u8]) {
        assert!(chunk.len() <= CHUNK, "a chunk is at most {CHUNK} bytes long");
        let Sums([first, second]) = self.hash.product.sums(self.hash.keys(), chunk);
        self.records
            .update(&(chunk.len() as u64).to_le_bytes())
            .update(&first.to_le_bytes())
            .update(&second.to_le_bytes());
    }

    /// The record's tag.
    #[must_use]
    pub fn finish(self) -> Tag {
        Tag(*self.records.finalize().as_bytes())
    }
}

/// What passes are compared by. Says nothing without the secret.
#[derive(Clone, Default, Zeroize, ZeroizeOnDrop)]
pub struct Tag([u8; 32]);

impl Tag {
    /// Adds the tag of other records of the same update.
    pub fn combine(&mut self, other: &Self) {
        self.0.iter_mut().zip(other.0).for_each(|(mine, theirs)| *mine ^= theirs);
    }
}

impl PartialEq for Tag {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for Tag {}

impl std::fmt::Debug for Tag {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tag(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECRET: [u8; 32] = [3; 32];

    fn tag(hash: &KeyedHash, header: u8, records: &[Vec<Vec<u8>>]) -> Tag {
        let mut all = Tag::default();
        for (record, chunks) in records.iter().enumerate() {
            let mut hasher = hash.record(&[header; 32], record as u64);
            chunks.iter().for_each(|chunk| hasher.chunk(chunk));
            all.combine(&hasher.finish());
        }
        all
    }

    fn bytes(seed: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
        bytes
    }

    #[test]
    fn every_product_gives_the_same_sums_as_arithmetic_bit_by_bit() {
        let hash = KeyedHash::new(&SECRET);
        for length in [0, 1, 4, 15, 16, 17, 63, 64, 65, 127, 128, 200, 4096, CHUNK - 4, CHUNK] {
            let chunk = bytes(length as u64, length);
            let expected = bit_by_bit(hash.keys(), &chunk);
            for product in Product::available() {
                assert_eq!(product.sums(hash.keys(), &chunk).0, expected, "{product:?}, {length}");
            }
        }
        assert!(Product::available().len() > 1 || !cfg!(target_arch = "x86_64"));
    }

    /// The definition, as plainly as it can be written.
    fn bit_by_bit(table: &[u8], chunk: &[u8]) -> [u128; 2] {
        let mut padded = chunk.to_vec();
        padded.resize(chunk.len().next_multiple_of(16), 0);
        let word = |bytes: &[u8], place: usize| {
            u64::from_le_bytes(bytes[8 * place..8 * place + 8].try_into().unwrap())
        };
        let mut sums = [0; 2];
        for pair in 0..padded.len() / 16 {
            for (shift, sum) in sums.iter_mut().enumerate() {
                let a = word(&padded, 2 * pair) ^ word(table, 2 * (pair + 4 * shift));
                let b = word(&padded, 2 * pair + 1) ^ word(table, 2 * (pair + 4 * shift) + 1);
                for bit in 0..64 {
                    if a >> bit & 1 == 1 {
                        *sum ^= u128::from(b) << bit;
                    }
                }
            }
        }
        sums
    }

    #[test]
    fn lengths_records_headers_and_secrets_count() {
        let hash = KeyedHash::new(&SECRET);
        let base = || vec![vec![bytes(1, CHUNK), bytes(2, 100)], vec![bytes(3, 100)]];
        let tag_of = |records: &[Vec<Vec<u8>>]| tag(&hash, 1, records);
        let expected = tag_of(&base());
        assert_eq!(tag_of(&base()), expected);
        assert_ne!(tag(&hash, 2, &base()), expected);
        assert_ne!(tag(&KeyedHash::new(&[4; 32]), 1, &base()), expected);
        let mut swapped = base();
        swapped.swap(0, 1);
        assert_ne!(tag_of(&swapped), expected);
        let mut repeated = base();
        repeated[1] = repeated[0].clone();
        assert_ne!(tag_of(&repeated), expected);
        let mut zeros = base();
        zeros[1][0].push(0);
        assert_ne!(tag_of(&zeros), expected);
        let mut cut = base();
        cut[0].pop();
        assert_ne!(tag_of(&cut), expected);
        let mut chunks = base();
        chunks[0].swap(0, 1);
        assert_ne!(tag_of(&chunks), expected);
    }

    proptest! {
        #[test]
        fn any_changed_bit_changes_the_tag(length in 1..CHUNK, at: prop::sample::Index, bit in 0..8u8) {
            let hash = KeyedHash::new(&SECRET);
            let mut chunk = bytes(9, length);
            let before = tag(&hash, 1, &[vec![chunk.clone()]]);
            chunk[at.index(length)] ^= 1 << bit;
            prop_assert_ne!(tag(&hash, 1, &[vec![chunk]]), before);
        }

        #[test]
        fn products_agree(chunk in prop::collection::vec(any::<u8>(), 0..3000)) {
            let tags: Vec<_> = Product::available()
                .into_iter()
                .map(|p| tag(&KeyedHash::with_product(&SECRET, p), 1, &[vec![chunk.clone()]]))
                .collect();
            prop_assert!(tags.iter().all(|tag| *tag == tags[0]));
        }
    }
}
