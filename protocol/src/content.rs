//! The digest of a large content: a model or an aggregate.
//!
//! Content is cut into records of 256 KiB; each is hashed with BLAKE3, and the
//! digest is SHA-256 over a label, the length and the records' hashes in
//! order. So it can be computed on all cores and in any order, at the speed of
//! memory, and a model has the same digest whatever file it travels in.
//!
//! A model's content is its tensors in the manifest's order, little-endian.

use crate::Digest;
use crate::seal::RECORD;

/// The label that separates content digests from all others.
const LABEL: &[u8] = b"sealfold/v1/content\0";

/// The hash of one record of a content.
#[must_use]
pub fn record_hash(record: &[u8]) -> [u8; 32] {
    *blake3::hash(record).as_bytes()
}

/// The digest of a content whose records have these hashes.
#[must_use]
pub fn digest_of_records(length: u64, hashes: &[[u8; 32]]) -> Digest {
    let length = length.to_be_bytes();
    let mut parts: Vec<&[u8]> = vec![LABEL, &length];
    parts.extend(hashes.iter().map(<[u8; 32]>::as_slice));
    Digest::of(&parts)
}

/// The digest of a content in memory.
#[must_use]
pub fn digest(content: &[u8]) -> Digest {
    let hashes: Vec<_> = content.chunks(RECORD).map(record_hash).collect();
    digest_of_records(content.len() as u64, &hashes)
}

/// Computes a content's digest while it streams by.
#[derive(Debug, Default)]
pub struct ContentHasher {
    hashes: Vec<[u8; 32]>,
    current: blake3::Hasher,
    filled: usize,
    length: u64,
}

impl ContentHasher {
    /// An empty content.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the next bytes.
    pub fn update(&mut self, mut bytes: &[u8]) {
        self.length += bytes.len() as u64;
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(RECORD - self.filled));
            self.current.update(now);
            self.filled += now.len();
            bytes = later;
            if self.filled == RECORD {
                self.close_record();
            }
        }
    }

    /// The digest of everything added.
    #[must_use]
    pub fn finish(mut self) -> Digest {
        if self.filled > 0 {
            self.close_record();
        }
        digest_of_records(self.length, &self.hashes)
    }

    fn close_record(&mut self) {
        self.hashes.push(*self.current.finalize().as_bytes());
        self.current.reset();
        self.filled = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streaming_gives_the_same_digest() {
        let content: Vec<u8> =
            (0..RECORD * 2 + 17).map(|i| u8::try_from(i % 251).unwrap()).collect();
        for step in [1000, RECORD, RECORD + 1, content.len()] {
            let mut hasher = ContentHasher::new();
            content.chunks(step).for_each(|part| hasher.update(part));
            assert_eq!(hasher.finish(), digest(&content), "step {step}");
        }
        assert_ne!(digest(&content), digest(&content[1..]));
        assert_eq!(ContentHasher::new().finish(), digest(&[]));
    }
}
