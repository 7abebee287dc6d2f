//! Which step of the staircase: a table of 128-bit thresholds that is read
//! from end to end for every draw, so that no access depends on what is drawn.

use super::law::Law;
use num_bigint::BigUint;

/// Weights below 2^-132 of the first are left out; what they all add up to is
/// below 2^-128 of the whole.
const SMALLEST_WEIGHT: u64 = 132;

/// The bits of a threshold that hold its number.
const NUMBER: u64 = 0xff;

/// The distribution of x >= 0 with weights `density(x << shift)`.
#[derive(Debug, Clone)]
pub(super) struct Steps {
    /// The first 56 bits of each threshold, then its number (from 1 on), so
    /// that the largest of those passed says how many were passed.
    numbered: Vec<u64>,
    /// Threshold m is the probability of x < m, in 2^-128, cut off.
    thresholds: Vec<u128>,
}

impl Steps {
    /// Computes the thresholds. The shift is such that there are less than 256.
    pub(super) fn new(law: &Law, shift: u32) -> Self {
        let mut sums = Vec::new();
        let mut total = BigUint::ZERO;
        for x in 0u64.. {
            let weight = law.density(x << shift);
            if weight.floor(SMALLEST_WEIGHT) == BigUint::ZERO {
                break;
            }
            total += weight.units();
            sums.push(total.clone());
        }
        // The last sum is the total: a threshold of 1, which nothing passes.
        sums.pop();
        let thresholds: Vec<u128> = sums
            .into_iter()
            .filter_map(|sum| u128::try_from((sum << 128u32) / &total).ok())
            .collect();
        debug_assert!(thresholds.len() < 256, "{} steps", thresholds.len());
        let number =
            |(number, threshold): (u64, &u128)| ((threshold >> 64) as u64 & !NUMBER) | number;
        let numbered = (1..).zip(&thresholds).map(number).collect();
        Self { numbered, thresholds }
    }

    /// For each uniform number, the largest numbered threshold at or below it,
    /// or 0: its last 8 bits are the step, unless it is a [tie](Self::is_tie).
    ///
    /// The last 8 bits of a uniform number do not decide, so they are set: then
    /// a threshold with the same first 56 bits is found, whatever its number.
    #[allow(clippy::inline_always)] // to be compiled for the processor of the caller
    #[inline(always)]
    pub(super) fn passed<const LANES: usize>(&self, uniform: &[u64; LANES]) -> [u64; LANES] {
        let mut passed = [0; LANES];
        for &threshold in &self.numbered {
            for (passed, uniform) in passed.iter_mut().zip(uniform) {
                *passed = if uniform | NUMBER >= threshold { threshold } else { *passed };
            }
        }
        passed
    }

    /// The step of a passed threshold.
    #[allow(clippy::inline_always)] // to be compiled for the processor of the caller
    #[inline(always)]
    pub(super) fn step(passed: u64) -> u64 {
        passed & NUMBER
    }

    /// Whether 64 bits do not say on which side of the threshold the uniform
    /// number lies.
    #[allow(clippy::inline_always)] // to be compiled for the processor of the caller
    #[inline(always)]
    pub(super) fn is_tie(passed: u64, uniform: u64) -> bool {
        passed | NUMBER == uniform | NUMBER
    }

    /// The step of a uniform number of 128 bits.
    pub(super) fn exact(&self, uniform: u128) -> u64 {
        self.thresholds.iter().map(|threshold| u64::from(uniform >= *threshold)).sum()
    }

    #[cfg(test)]
    pub(super) fn thresholds(&self) -> &[u128] {
        &self.thresholds
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all() -> Vec<Steps> {
        let gaussian = [(0.25, 0), (0.3, 0), (1.0, 0), (3.99, 0), (2.0, 0), (1e6, 18)];
        let gaussian =
            gaussian.map(|(sigma, shift)| Steps::new(&Law::gaussian(sigma).unwrap(), shift));
        let laplace = [(1, 64.0, 0), (1, 0.501, 0), (1000, 0.125, 12)];
        let laplace = laplace.map(|(s, e, shift)| Steps::new(&Law::laplace(s, e).unwrap(), shift));
        gaussian.into_iter().chain(laplace).collect()
    }

    #[test]
    fn thresholds_ascend_and_fit_their_number() {
        for steps in all() {
            let count = steps.thresholds.len();
            assert!((1..256).contains(&count), "{count}");
            assert!(steps.thresholds.is_sorted() && steps.numbered.is_sorted());
            assert_eq!(steps.exact(0), 0);
            assert_eq!(steps.exact(u128::MAX), count as u64);
        }
    }

    #[test]
    fn near_every_threshold_the_step_is_exact_or_a_tie() {
        for steps in all() {
            for &threshold in &steps.thresholds {
                for offset in [-(1i128 << 73), -(1 << 72), -(1 << 64), -1, 0, 1, 1 << 64, 1 << 72] {
                    let uniform = threshold.wrapping_add_signed(offset);
                    let first = (uniform >> 64) as u64;
                    let [passed] = steps.passed(&[first]);
                    let exact = steps.exact(uniform);
                    assert!(Steps::is_tie(passed, first) || Steps::step(passed) == exact);
                    if offset == 0 {
                        assert!(Steps::is_tie(passed, first));
                    }
                }
            }
        }
    }

    proptest! {
        #[test]
        fn any_other_draw_is_decided_by_64_bits(first: u64, rest: u64) {
            for steps in all() {
                let [passed] = steps.passed(&[first]);
                let exact = steps.exact((u128::from(first) << 64) | u128::from(rest));
                prop_assert!(!Steps::is_tie(passed, first));
                prop_assert_eq!(Steps::step(passed), exact);
            }
        }
    }
}
