//! Where the randomness comes from: `ChaCha20` (RFC 8439), keyed by a seed, with
//! a stream of its own for every row.

use crate::{Error, Result};
use chacha20::ChaCha20;
use chacha20::cipher::{KeyIvInit, StreamCipher};
use zeroize::{Zeroize, ZeroizeOnDrop};

/// The secret that all noise of an offer follows from. Whoever knows it can
/// take the noise away, so it is drawn once, inside, and erased when dropped.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct Seed([u8; 32]);

impl Seed {
    /// A seed of these bytes, which have to come from a cryptographic generator.
    #[must_use]
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl std::fmt::Debug for Seed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Seed(..)")
    }
}

/// What the noise is for. Two outputs with the same noise give their difference
/// away, so under one seed a pair of label and row serves for one output only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Label {
    /// The rows of the aggregate.
    Aggregate,
    /// What sites report of their training.
    Metrics,
    /// Counts over the sites' patients.
    Statistics,
}

/// Two streams of a row never mix: which one is drawn from says the top bit of
/// the nonce's first word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    /// What every sample is drawn from.
    Samples,
    /// Further bits where the first ones did not decide.
    Ties,
}

/// The key stream of one row, read from its beginning.
pub(super) struct KeyStream {
    cipher: ChaCha20,
    row: u64,
}

impl KeyStream {
    /// The nonce is label and use (32 bits), then the row (64 bits), both
    /// little-endian.
    pub(super) fn new(seed: &Seed, label: Label, row: u64, purpose: Use) -> Self {
        let label: u32 = match label {
            Label::Aggregate => 1,
            Label::Metrics => 2,
            Label::Statistics => 3,
        };
        let purpose = match purpose {
            Use::Samples => 0,
            Use::Ties => 1 << 31,
        };
        let mut nonce = [0; 12];
        nonce[..4].copy_from_slice(&(label | purpose).to_le_bytes());
        nonce[4..].copy_from_slice(&row.to_le_bytes());
        Self { cipher: ChaCha20::new(&seed.0.into(), &nonce.into()), row }
    }

    /// Overwrites `bytes` with the next bytes of the stream.
    ///
    /// # Errors
    /// [`Error::RowTooLong`] once the 256 GiB of the stream are used up.
    pub(super) fn fill(&mut self, bytes: &mut [u8]) -> Result<()> {
        self.cipher.try_write_keystream(bytes).map_err(|_| Error::RowTooLong { row: self.row })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(seed: u8, label: Label, row: u64, purpose: Use) -> [u8; 64] {
        let mut bytes = [0; 64];
        let seed = Seed::new([seed; 32]);
        KeyStream::new(&seed, label, row, purpose).fill(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn the_generator_is_that_of_rfc_8439() {
        // Appendix A.1, test vector 1, has an all-zero nonce, which no label
        // has; so the block function is computed here from section 2.3.
        fn quarter(state: &mut [u32; 16], [a, b, c, d]: [usize; 4]) {
            for (x, y, z, bits) in [(a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)] {
                state[x] = state[x].wrapping_add(state[y]);
                state[z] = (state[z] ^ state[x]).rotate_left(bits);
            }
        }
        let key = u32::from_le_bytes([7; 4]);
        let mut start = [key; 16];
        start[..4].copy_from_slice(&[0x6170_7865, 0x3320_646e, 0x7962_2d32, 0x6b20_6574]);
        start[12..].copy_from_slice(&[0, (1 << 31) | 3, 0x89ab_cdef, 0x0123_4567]);
        let mut state = start;
        for _ in 0..10 {
            for column in 0..4 {
                quarter(&mut state, [column, column + 4, column + 8, column + 12]);
            }
            for i in 0..4 {
                let places = [i, 4 + (i + 1) % 4, 8 + (i + 2) % 4, 12 + (i + 3) % 4];
                quarter(&mut state, places);
            }
        }
        let block: Vec<_> =
            state.iter().zip(start).flat_map(|(a, b)| a.wrapping_add(b).to_le_bytes()).collect();
        assert_eq!(stream(7, Label::Statistics, 0x0123_4567_89ab_cdef, Use::Ties)[..], block[..]);
    }

    #[test]
    fn every_seed_label_row_and_use_has_a_stream_of_its_own() {
        let mut streams = Vec::new();
        for seed in [0, 1] {
            for label in [Label::Aggregate, Label::Metrics, Label::Statistics] {
                for row in [0, 1, 1 << 32, u64::MAX] {
                    for purpose in [Use::Samples, Use::Ties] {
                        streams.push(stream(seed, label, row, purpose));
                    }
                }
            }
        }
        let count = streams.len();
        streams.sort_unstable();
        streams.dedup();
        assert_eq!(streams.len(), count);
    }

    #[test]
    fn a_seed_is_not_shown() {
        assert_eq!(format!("{:?}", Seed::new([65; 32])), "Seed(..)");
    }
}
