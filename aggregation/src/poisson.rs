//! The secret sample of patients that a site trains on in a round.
//!
//! Where each patient takes part with probability q on their own, and nobody
//! learns who does, a round costs less privacy (amplification by subsampling;
//! Mironov, Talwar and Zhang, 2019). The argument needs the sample to be drawn
//! as it says: independently for every patient, by the site itself, and kept
//! secret; how many were drawn is part of the secret.

use crate::{Error, Result};
use chacha20::ChaCha20;
use chacha20::cipher::{KeyIvInit, StreamCipher};
use zeroize::Zeroizing;

/// Patients whose numbers are drawn together.
const TOGETHER: usize = 64;

/// The probability with which a patient is in the sample: a whole number of
/// 2^64ths, so that it can be drawn exactly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// 2^64 for a rate of 1.
    threshold: u128,
}

impl Rate {
    /// The rate q, of more than 0 and at most 1, rounded down to a multiple of
    /// 2^-64: fewer patients than were accounted for cost less privacy, never
    /// more. A binary64 of 2^-12 and more is met exactly.
    ///
    /// # Errors
    /// [`Error::Rate`] for another number, or one below 2^-64.
    pub fn new(q: f64) -> Result<Self> {
        // By a power of two: exact, and so is the conversion of what is left.
        let threshold = (q * 2f64.powi(64)).floor();
        if !(q <= 1.0 && threshold >= 1.0) {
            return Err(Error::Rate { found: q });
        }
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // 1 to 2^64
        Ok(Self { threshold: threshold as u128 })
    }

    /// The rate as a number of 2^64ths: 1 to 2^64.
    #[must_use]
    pub const fn in_2_64ths(self) -> u128 {
        self.threshold
    }
}

/// The patients in the sample of one round, as ascending indices below
/// `patients`.
///
/// Patient i is in it if the i-th number of the `ChaCha20` stream (RFC 8439,
/// counter from 0) under the key `seed` and the nonce `round` is below the
/// rate; numbers of 64 bits, nonce of 96 bits, both little-endian. So a sample
/// can be drawn again after a crash, and rounds and patients are independent of
/// each other. The seed has 32 random bytes, is kept as secret as the patients,
/// and serves nothing else, in one study.
#[must_use]
pub fn sample(seed: &[u8; 32], round: u64, rate: Rate, patients: u32) -> Vec<u32> {
    let mut nonce = [0; 12];
    nonce[..8].copy_from_slice(&round.to_le_bytes());
    let mut stream = ChaCha20::new(seed.into(), &nonce.into());
    let mut numbers = Zeroizing::new([0; 8 * TOGETHER]);
    let mut drawn = Vec::new();
    for first in (0..patients).step_by(TOGETHER) {
        numbers.fill(0);
        // 2^32 numbers are 2^29 blocks of the stream, which has 2^32.
        stream.apply_keystream(numbers.as_mut_slice());
        let (numbers, _) = numbers.as_chunks::<8>();
        let inside = |number: &[u8; 8]| u128::from(u64::from_le_bytes(*number)) < rate.threshold;
        let those = (first..patients).zip(numbers).filter(|(_, number)| inside(number));
        drawn.extend(those.map(|(patient, _)| patient));
    }
    drawn
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SEED: [u8; 32] = [7; 32];

    #[test]
    fn rates_are_rounded_down_and_never_up() {
        let threshold = |q: f64| Rate::new(q).map(Rate::in_2_64ths);
        assert_eq!(threshold(1.0), Ok(1 << 64));
        assert_eq!(threshold(0.5), Ok(1 << 63));
        assert_eq!(threshold(2f64.powi(-64)), Ok(1));
        assert_eq!(threshold(2f64.powi(-64) * 1.75), Ok(1));
        assert_eq!(threshold(0.1), Ok(1_844_674_407_370_955_264));
        for bad in [0.0, -0.1, 1f64.next_up(), 2f64.powi(-65), f64::NAN, f64::INFINITY] {
            assert!(matches!(Rate::new(bad), Err(Error::Rate { .. })), "{bad}");
        }
    }

    #[test]
    fn the_sample_is_of_the_published_stream() {
        // The first block under a key and a nonce of zeros (RFC 8439, A.1, test
        // vector 1) begins 76b8e0ada0f13d90 405d6ae55386bd28 bdd219b8a08ded1a a836efcc8b770dc7.
        let first: Vec<_> =
            ["76b8e0ada0f13d90", "405d6ae55386bd28", "bdd219b8a08ded1a", "a836efcc8b770dc7"]
                .map(|hex| u64::from_str_radix(hex, 16).unwrap().swap_bytes())
                .to_vec();
        for (place, number) in (0u32..).zip(&first) {
            // A patient is in just when the rate is above their number.
            let rate = |threshold: u64| Rate { threshold: threshold.into() };
            let drawn = |rate| sample(&[0; 32], 0, rate, 4).contains(&place);
            assert!(!drawn(rate(*number)));
            assert!(drawn(rate(number + 1)));
        }
    }

    #[test]
    fn everybody_at_rate_one_and_everybody_sometimes() {
        assert_eq!(sample(&SEED, 3, Rate::new(1.0).unwrap(), 5), [0, 1, 2, 3, 4]);
        assert!(sample(&SEED, 3, Rate::new(1.0).unwrap(), 0).is_empty());
        let rate = Rate::new(0.3).unwrap();
        let rounds = 2000;
        let mut counts = [0u32; 30];
        let mut together = 0;
        for round in 0..rounds {
            let drawn = sample(&SEED, round, rate, 30);
            drawn.iter().for_each(|patient| counts[*patient as usize] += 1);
            together += u32::from(drawn.contains(&0) && drawn.contains(&1));
        }
        // 600 and 180 are expected; five standard deviations are 102 and 64.
        assert!(counts.iter().all(|count| (498..=702).contains(count)), "{counts:?}");
        assert!((116..=244).contains(&together), "{together}");
    }

    proptest! {
        #[test]
        fn a_patient_does_not_depend_on_how_many_there_are(
            seed: [u8; 32], round: u64, q in 0.01f64..1.0, patients in 0u32..300, more in 0u32..300,
        ) {
            let rate = Rate::new(q).unwrap();
            let mut larger = sample(&seed, round, rate, patients + more);
            larger.retain(|patient| *patient < patients);
            prop_assert_eq!(sample(&seed, round, rate, patients), larger);
        }

        #[test]
        fn rounds_and_seeds_differ(seed: [u8; 32], round: u64) {
            let half = Rate::new(0.5).unwrap();
            let mut other = seed;
            other[31] ^= 1;
            prop_assert_ne!(sample(&seed, round, half, 256), sample(&seed, round ^ 1, half, 256));
            prop_assert_ne!(sample(&seed, round, half, 256), sample(&other, round, half, 256));
        }
    }
}
