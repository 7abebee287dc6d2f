//! Samples of a law: candidates from a staircase above it, each kept with the
//! probability that makes up the difference.
//!
//! A magnitude is a step x and low bits y. The step is drawn from the density
//! at the steps' left ends, the low bits uniformly, and the candidate survives
//! with the density at x << shift | y over that at x << shift. Then a sign is
//! drawn, and of the two zeros the negative one is thrown away. What is kept
//! has exactly the law wanted. (Von Neumann's rejection; the staircase as in
//! Ducas, Durmus, Lepoint and Lyubashevsky 2013, "Lattice signatures and
//! bimodal Gaussians", section 6.)
//!
//! All candidates of a batch are worked on alike, whatever they are: no branch
//! and no address depends on one. Which of them are kept shows in time and
//! addresses, but that is independent of what the kept ones are, because the
//! candidates are independent and alike. The exception are draws that their
//! first bits do not decide, about one in 2^23: they are settled one by one.

use super::law::Law;
use super::seed::{KeyStream, Label, Seed, Use};
use super::steps::Steps;
use super::survival::{ERROR, Survival};
use crate::{Error, Result};
use multiversion::multiversion;
use num_bigint::BigUint;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// Candidates that are worked on together. It is part of what fixes the noise
/// of a seed: a batch has first the words of all steps, then the others.
const BATCH: usize = 256;

/// Candidates whose state stays in the processor's registers.
const LANES: usize = 16;

/// A candidate's second word: 39 low bits, 24 that say whether it survives, and
/// the sign.
const LOW_BITS: u32 = 39;
const SURVIVAL_BITS: u32 = 24;

const KEPT: u64 = 1;
const DOUBTFUL: u64 = 2;

/// A sampler of one law.
#[derive(Debug, Clone)]
pub(super) struct Rejection {
    law: Law,
    shift: u32,
    steps: Steps,
    survival: Survival,
}

/// A batch of candidates, erased when dropped: it is noise.
#[derive(Zeroize, ZeroizeOnDrop)]
struct Batch {
    stream: [u8; 16 * BATCH],
    values: [i64; BATCH],
    fates: [u64; BATCH],
}

impl Batch {
    fn new() -> Self {
        Self { stream: [0; 16 * BATCH], values: [0; BATCH], fates: [0; BATCH] }
    }

    /// The two words of a candidate.
    fn words(&self, candidate: usize) -> (u64, u64) {
        let (words, _) = self.stream.as_chunks::<8>();
        let word = |place: usize| u64::from_le_bytes(words[place]);
        (word(candidate), word(BATCH + candidate))
    }

    /// Moves what is kept to the front, and counts it.
    fn compact(&mut self) -> usize {
        let mut kept = 0;
        for candidate in 0..BATCH {
            // Never beyond the candidate, so the remainder changes nothing; it
            // spares a check.
            self.values[kept % BATCH] = self.values[candidate];
            kept += usize::from(self.fates[candidate] & KEPT != 0);
        }
        kept
    }
}

impl Rejection {
    /// A sampler of this law.
    pub(super) fn new(law: Law) -> Self {
        let shift = law.shift();
        let steps = Steps::new(&law, shift);
        let survival = Survival::new(&law, shift);
        Self { law, shift, steps, survival }
    }

    /// Adds a sample to each value. After an error all values are 0, so that
    /// sums without noise are not released by mistake.
    ///
    /// # Errors
    /// [`Error::NoiseOverflow`], [`Error::RowTooLong`].
    pub(super) fn add(&self, seed: &Seed, label: Label, row: u64, out: &mut [i64]) -> Result<()> {
        let samples = KeyStream::new(seed, label, row, Use::Samples);
        let ties = KeyStream::new(seed, label, row, Use::Ties);
        let added = self.add_from(samples, ties, row, out);
        if added.is_err() {
            out.zeroize();
        }
        added
    }

    fn add_from(
        &self,
        mut samples: KeyStream,
        mut ties: KeyStream,
        row: u64,
        mut out: &mut [i64],
    ) -> Result<()> {
        let mut batch = Batch::new();
        while !out.is_empty() {
            samples.fill(&mut batch.stream)?;
            if judge(self, &mut batch) {
                self.settle(&mut batch, &mut ties)?;
            }
            let kept = batch.compact().min(out.len());
            let (now, later) = out.split_at_mut(kept);
            if add(now, &batch.values) {
                return Err(Error::NoiseOverflow { row });
            }
            out = later;
        }
        Ok(())
    }

    /// Decides the doubtful candidates with further bits, 128 in all for each
    /// of the two draws.
    fn settle(&self, batch: &mut Batch, ties: &mut KeyStream) -> Result<()> {
        for candidate in 0..BATCH {
            if batch.fates[candidate] & DOUBTFUL != 0 {
                let mut step_bits = [0; 8];
                let mut survival_bits = [0; 16];
                ties.fill(&mut step_bits)?;
                ties.fill(&mut survival_bits)?;
                let (first, second) = batch.words(candidate);
                let further = (u64::from_le_bytes(step_bits), u128::from_le_bytes(survival_bits));
                let sample = self.exact(first, second, further);
                batch.values[candidate] = sample.unwrap_or(0);
                batch.fates[candidate] = if sample.is_some() { KEPT } else { 0 };
            }
        }
        Ok(())
    }

    /// The sample of a candidate, if it is kept, on 128 bits for each draw.
    fn exact(&self, first: u64, second: u64, further: (u64, u128)) -> Option<i64> {
        let step = self.steps.exact((u128::from(first) << 64) | u128::from(further.0));
        let (low, survives, sign) = split(second, self.shift);
        let from = step << self.shift;
        let magnitude = from + low;
        let uniform =
            (u128::from(survives) << (128 - SURVIVAL_BITS)) | (further.1 >> SURVIVAL_BITS);
        let survival = self.law.survival(from, magnitude).floor(128);
        let kept = BigUint::from(uniform) < survival && !is_minus_zero(magnitude, sign);
        kept.then(|| signed(magnitude, sign))
    }
}

/// Low bits, survival bits and sign of a candidate's second word.
#[allow(clippy::inline_always)] // to be compiled for the processor of the caller
#[inline(always)]
fn split(word: u64, shift: u32) -> (u64, u64, u64) {
    let low = word & ((1 << shift) - 1);
    let survives = (word >> LOW_BITS) & ((1 << SURVIVAL_BITS) - 1);
    (low, survives, word >> 63)
}

/// 0 has one way to be drawn, as every other number has.
#[allow(clippy::inline_always)] // to be compiled for the processor of the caller
#[inline(always)]
fn is_minus_zero(magnitude: u64, sign: u64) -> bool {
    magnitude | (sign ^ 1) == 0
}

#[allow(clippy::inline_always)] // to be compiled for the processor of the caller
#[inline(always)]
fn signed(magnitude: u64, sign: u64) -> i64 {
    let minus = 0u64.wrapping_sub(sign);
    (magnitude ^ minus).wrapping_sub(minus).cast_signed()
}

/// Fills in values and fates of a batch; whether any is doubtful.
#[multiversion(targets("x86_64+avx512f+avx512vl", "x86_64+avx2", "aarch64+neon"))]
fn judge(sampler: &Rejection, batch: &mut Batch) -> bool {
    let Rejection { shift, steps, survival, .. } = sampler;
    let shift = *shift & 63;
    let (words, _) = batch.stream.as_chunks::<8>();
    let (firsts, seconds) = words.split_at(BATCH);
    let (firsts, _) = firsts.as_chunks::<LANES>();
    let (seconds, _) = seconds.as_chunks::<LANES>();
    let (values, _) = batch.values.as_chunks_mut::<LANES>();
    let (fates, _) = batch.fates.as_chunks_mut::<LANES>();
    let mut all = 0;
    for (((firsts, seconds), values), fates) in firsts.iter().zip(seconds).zip(values).zip(fates) {
        let mut uniform = [0; LANES];
        for lane in 0..LANES {
            uniform[lane] = u64::from_le_bytes(firsts[lane]);
        }
        let passed = steps.passed(&uniform);
        for lane in 0..LANES {
            let step = Steps::step(passed[lane]);
            let (low, survives, sign) = split(u64::from_le_bytes(seconds[lane]), shift);
            let fraction = (low << (LOW_BITS - shift)) >> (LOW_BITS - 32);
            let magnitude = (step << shift).wrapping_add(low);
            let probability = survival.approximate(step, fraction);
            // The uniform number lies from `from` to `from + 2^(32 - 24)`.
            let from = survives << (32 - SURVIVAL_BITS);
            let below = from + (1 << (32 - SURVIVAL_BITS)) + ERROR <= probability;
            let above = from >= probability.wrapping_add(ERROR);
            let tie = Steps::is_tie(passed[lane], uniform[lane]);
            let kept = u64::from(below) & u64::from(!is_minus_zero(magnitude, sign));
            let doubtful = u64::from(tie) | u64::from(below == above);
            values[lane] = signed(magnitude, sign);
            fates[lane] = (kept * KEPT) | (doubtful * DOUBTFUL);
            all |= fates[lane];
        }
    }
    all & DOUBTFUL != 0
}

/// Adds noise to values; whether any sum overflowed. The branch is on all of
/// them together.
#[multiversion(targets("x86_64+avx512f+avx512vl", "x86_64+avx2", "aarch64+neon"))]
fn add(values: &mut [i64], noise: &[i64]) -> bool {
    let mut overflow = 0;
    for (value, noise) in values.iter_mut().zip(noise) {
        let sum = value.wrapping_add(*noise);
        overflow |= (*value ^ sum) & (noise ^ sum);
        *value = sum;
    }
    overflow < 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn samplers() -> Vec<Rejection> {
        let gaussian = [0.25, 1.0, 3.99, 4.0, 1e3, 4e5, 40f64.exp2()];
        let gaussian = gaussian.into_iter().map(|sigma| Law::gaussian(sigma).unwrap());
        let laplace = [64.0, 1.0, 0.5, 1e-3, (-39f64).exp2()];
        let laplace = laplace.into_iter().map(|epsilon| Law::laplace(1, epsilon).unwrap());
        gaussian.chain(laplace).map(Rejection::new).collect()
    }

    fn set(batch: &mut Batch, candidate: usize, first: u64, second: u64) {
        let (words, _) = batch.stream.as_chunks_mut::<8>();
        words[candidate] = first.to_le_bytes();
        words[BATCH + candidate] = second.to_le_bytes();
    }

    fn ties() -> KeyStream {
        KeyStream::new(&Seed::new([5; 32]), Label::Aggregate, 0, Use::Ties)
    }

    #[test]
    fn what_the_first_bits_decide_further_bits_do_not_change() {
        for (row, sampler) in (0..).zip(samplers()) {
            let mut batch = Batch::new();
            let seed = Seed::new([6; 32]);
            let mut samples = KeyStream::new(&seed, Label::Aggregate, row, Use::Samples);
            samples.fill(&mut batch.stream).unwrap();
            assert!(!judge(&sampler, &mut batch));
            for candidate in 0..BATCH {
                let (first, second) = batch.words(candidate);
                let found = (batch.fates[candidate] == KEPT).then(|| batch.values[candidate]);
                for further in [(0, 0), (u64::MAX, u128::MAX)] {
                    assert_eq!(found, sampler.exact(first, second, further));
                }
            }
        }
    }

    #[test]
    fn what_the_first_bits_do_not_decide_is_doubtful_and_then_settled() {
        for sampler in samplers() {
            // The threshold between step 0 and step 1.
            let threshold = sampler.steps.thresholds()[0];
            let first = (threshold >> 64) as u64;
            // At step 0, far from any threshold, a survival on the edge.
            let low = (1u64 << sampler.shift) - 1;
            let survival = sampler.law.survival(0, low).floor(SURVIVAL_BITS.into());
            let edge = u64::try_from(survival).unwrap().min((1 << SURVIVAL_BITS) - 1);
            let mut batch = Batch::new();
            set(&mut batch, 3, first, 9);
            set(&mut batch, 200, first / 2, (edge << LOW_BITS) | low);
            assert!(judge(&sampler, &mut batch));
            assert!([3, 200].iter().all(|candidate| batch.fates[*candidate] & DOUBTFUL != 0));
            sampler.settle(&mut batch, &mut ties()).unwrap();
            assert!(batch.fates.iter().all(|fate| fate & DOUBTFUL == 0));
            // The bits below the threshold and above it lead to two steps.
            let below = u64::try_from(threshold % (1 << 64)).unwrap();
            let at = sampler.exact(first, 0, (below, 0)).unwrap();
            assert_eq!(at, 1 << sampler.shift);
            assert_eq!(sampler.exact(first, 0, (below - 1, 0)).unwrap(), 0);
        }
    }

    #[test]
    fn doubt_is_rare() {
        let sampler = Rejection::new(Law::gaussian(4e5).unwrap());
        let seed = Seed::new([8; 32]);
        let mut samples = KeyStream::new(&seed, Label::Aggregate, 0, Use::Samples);
        let mut batch = Batch::new();
        let mut doubtful = 0;
        // 2^26 candidates, each doubtful with probability 2^-23.
        for _ in 0..1 << 18 {
            samples.fill(&mut batch.stream).unwrap();
            if judge(&sampler, &mut batch) {
                doubtful += batch.fates.iter().filter(|fate| *fate & DOUBTFUL != 0).count();
            }
        }
        assert!((1..=20).contains(&doubtful), "{doubtful}");
    }

    proptest! {
        #[test]
        fn sums_wrap_nowhere_unseen(value: i64, noise in -(1i64 << 47)..1 << 47) {
            let mut sums = [0, value, 0];
            let overflow = add(&mut sums, &[1, noise, -1]);
            prop_assert_eq!(overflow, value.checked_add(noise).is_none());
            prop_assert_eq!(sums, [1, value.wrapping_add(noise), -1]);
        }
    }
}
