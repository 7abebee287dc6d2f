//! One row of the aggregate on an integer grid, to which noise can be added.
//!
//! Noise that is to hide a patient or a site is drawn on integers, and what it
//! is added to must be an integer too: floating-point sums depend on their
//! order and have a spacing that varies, and both give the hidden value away
//! (Mironov, 2012). Sums here are exact, in 64 bits.

use crate::{Error, Result};
use multiversion::multiversion;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// The largest magnitude of a value that is added.
const LARGEST: i64 = 1 << 31;
/// The most additions to a row, counted in chunks: no place can have more.
const ADDITIONS: u32 = 1 << 31;
// Whatever is added, a place is within +-2^62, so that the additions cannot
// wrap, need not be checked one by one, and leave noise of 2^62 its room. This
// stops to hold if a value may be larger than an int32 or a row take more
// chunks.
const _: () = assert!(LARGEST as i128 * ADDITIONS as i128 <= 1 << 62);

/// 1.5 x 2^52: a binary64 below 2^51 in magnitude that is added to it is
/// rounded to the nearest integer, ties to even, and the integer stands in the
/// low bits of the sum. It is one addition on every processor, without branches.
const ROUNDER: f64 = 6_755_399_441_055_744.0;

/// The integer sums of one row. Memory is kept from row to row, and erased at
/// the end.
#[derive(Default, Zeroize, ZeroizeOnDrop)]
pub struct IntegerRow {
    sums: Vec<i64>,
    additions: u32,
}

impl IntegerRow {
    /// An empty row.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Begins a row of so many values, all 0.
    pub fn reset(&mut self, values: usize) {
        self.sums.clear();
        self.sums.resize(values, 0);
        self.additions = 0;
    }

    /// Adds the little-endian int32 grid integers in `chunk`, from place
    /// `offset` (in values) on. What lies beyond the row is ignored.
    ///
    /// # Errors
    /// [`Error::TooMany`] after 2^31 chunks in one row.
    pub fn add_grid(&mut self, offset: usize, chunk: &[u8]) -> Result<()> {
        self.count()?;
        let (values, _) = chunk.as_chunks::<4>();
        if let Some(sums) = self.sums.get_mut(offset..) {
            add_grid(sums, values);
        }
        Ok(())
    }

    /// Adds the little-endian float32 values in `chunk`, each as the integer
    /// nearest to value x (`factor` / `step`), ties to even: quotient and
    /// product are binary64, rounded each on its own, so every processor gives
    /// the same integers. `factor` is min(1, clip / norm), `step` the spacing
    /// of the grid.
    ///
    /// Rounding moves a coordinate by half a step at most, so an update of d
    /// values whose norm is at most `clip` is at most clip / step + sqrt(d) / 2
    /// steps long on the grid, up to a relative 2^-40 for the rounding of norm,
    /// factor and product: that is the sensitivity to be accounted for, and the
    /// reason for a fine grid. A coordinate beyond +-2^31 steps counts as
    /// +-2^31, which makes the update shorter; a NaN, which no admitted update
    /// has, as -2^31.
    ///
    /// # Errors
    /// [`Error::Parameter`] for a factor or a step that is not a positive
    /// number, or a quotient of the two that is none; [`Error::TooMany`] after
    /// 2^31 chunks in one row.
    pub fn add_clipped(
        &mut self,
        offset: usize,
        factor: f64,
        step: f64,
        chunk: &[u8],
    ) -> Result<()> {
        let multiplier = factor / step;
        for (what, found) in [("factor", factor), ("step", step), ("factor in steps", multiplier)] {
            if !(found.is_finite() && found > 0.0) {
                return Err(Error::Parameter { what, found });
            }
        }
        self.count()?;
        let (values, _) = chunk.as_chunks::<4>();
        if let Some(sums) = self.sums.get_mut(offset..) {
            add_clipped(sums, multiplier, values);
        }
        Ok(())
    }

    /// The sums, for noise to be added to them. Each is within +-2^62.
    pub fn values_mut(&mut self) -> &mut [i64] {
        &mut self.sums
    }

    /// Writes each sum times `scale` as a little-endian float32 value. The
    /// scale is step / (the manifest's constant divisor).
    ///
    /// A sum below 2^53 becomes a binary64 exactly; a larger one, the product,
    /// and the binary32 at the end are rounded to nearest. The noise is in the
    /// sum by then: what happens to it afterwards is post-processing and costs
    /// no privacy.
    pub fn write_f32(&self, scale: f64, out: &mut [u8]) {
        let (out, _) = out.as_chunks_mut::<4>();
        write(&self.sums, scale, out);
    }

    fn count(&mut self) -> Result<()> {
        if self.additions == ADDITIONS {
            return Err(Error::TooMany { what: "chunks of one row", most: ADDITIONS });
        }
        self.additions += 1;
        Ok(())
    }
}

/// The exact sum of the squares of little-endian int32 grid integers; bytes
/// beyond the last whole value are not looked at. Sums of several chunks may be
/// added.
#[must_use]
pub fn sum_of_squares(chunk: &[u8]) -> u128 {
    let (values, _) = chunk.as_chunks::<4>();
    // The halves of 2^30 squares fit 64 bits each.
    values
        .chunks(1 << 30)
        .map(|values| {
            let (high, low) = square(values);
            (u128::from(high) << 32) + u128::from(low)
        })
        .sum()
}

#[multiversion(targets("x86_64+avx512f+avx512dq+avx512vl", "x86_64+avx2", "aarch64+neon"))]
fn square(values: &[[u8; 4]]) -> (u64, u64) {
    let (mut high, mut low) = (0u64, 0u64);
    for value in values {
        let magnitude = u64::from(i32::from_le_bytes(*value).unsigned_abs());
        let square = magnitude.wrapping_mul(magnitude);
        high = high.wrapping_add(square >> 32);
        low = low.wrapping_add(square & 0xffff_ffff);
    }
    (high, low)
}

#[multiversion(targets("x86_64+avx512f+avx512dq+avx512vl", "x86_64+avx2", "aarch64+neon"))]
fn add_grid(sums: &mut [i64], values: &[[u8; 4]]) {
    for (sum, value) in sums.iter_mut().zip(values) {
        *sum = sum.wrapping_add(i64::from(i32::from_le_bytes(*value)));
    }
}

#[multiversion(targets("x86_64+avx512f+avx512dq+avx512vl", "x86_64+avx2", "aarch64+neon"))]
fn add_clipped(sums: &mut [i64], multiplier: f64, values: &[[u8; 4]]) {
    for (sum, value) in sums.iter_mut().zip(values) {
        let steps = f64::from(f32::from_le_bytes(*value)) * multiplier;
        // `max` takes the number where the other is NaN.
        let steps = steps.max(-(LARGEST as f64)).min(LARGEST as f64);
        let integer = (steps + ROUNDER).to_bits().wrapping_sub(ROUNDER.to_bits());
        *sum = sum.wrapping_add(integer.cast_signed());
    }
}

#[multiversion(targets("x86_64+avx512f+avx512dq+avx512vl", "x86_64+avx2", "aarch64+neon"))]
#[allow(clippy::cast_possible_truncation)] // rounding to binary32 is the purpose
fn write(sums: &[i64], scale: f64, out: &mut [[u8; 4]]) {
    for (out, sum) in out.iter_mut().zip(sums) {
        *out = ((*sum as f64 * scale) as f32).to_le_bytes();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn grid(values: &[i32]) -> Vec<u8> {
        values.iter().flat_map(|value| value.to_le_bytes()).collect()
    }

    fn float(values: &[f32]) -> Vec<u8> {
        values.iter().flat_map(|value| value.to_le_bytes()).collect()
    }

    proptest! {
        #[test]
        fn grid_integers_are_added_exactly(
            sites in prop::collection::vec(prop::collection::vec(any::<i32>(), 50), 1..6), cut in 0usize..50,
        ) {
            let mut row = IntegerRow::new();
            row.reset(50);
            for site in &sites {
                let bytes = grid(site);
                row.add_grid(cut, &bytes[4 * cut..]).unwrap();
                row.add_grid(0, &bytes[..4 * cut]).unwrap();
            }
            let expected: Vec<i64> =
                (0..50).map(|place| sites.iter().map(|site| i64::from(site[place])).sum()).collect();
            prop_assert_eq!(row.values_mut(), expected);
            let squares: i128 = sites[0].iter().map(|v| i128::from(*v).pow(2)).sum();
            prop_assert_eq!(sum_of_squares(&grid(&sites[0])), squares.cast_unsigned());
        }

        #[test]
        fn clipped_values_are_rounded_as_the_standard_says(
            values in prop::collection::vec(-1e4f32..1e4, 50), factor in 1e-3f64..1.0, bits in 0i32..20,
        ) {
            for step in [2f64.powi(-bits), 0.001, 7.0] {
                let mut row = IntegerRow::new();
                row.reset(50);
                row.add_clipped(0, factor, step, &float(&values)).unwrap();
                row.add_clipped(0, 1.0, 1.0, &float(&[0.5, 1.5, -2.5])).unwrap();
                let ties = [0, 2, -2].into_iter().chain([0; 47]);
                let expected: Vec<_> = values.iter().zip(ties).map(|(value, tie)| {
                    let steps = f64::from(*value) * (factor / step);
                    steps.round_ties_even().clamp(-2_147_483_648.0, 2_147_483_648.0) as i64 + tie
                }).collect();
                prop_assert_eq!(row.values_mut(), expected);
            }
        }

        #[test]
        fn the_grid_norm_is_within_its_bound(
            values in prop::collection::vec(-1e3f32..1e3, 1..200), clip in 0.1f64..1e3, step in 1e-4f64..1.0,
        ) {
            let norm = crate::norm::inspect(&float(&values)).sum_of_squares.sqrt();
            let mut row = IntegerRow::new();
            row.reset(values.len());
            row.add_clipped(0, (clip / norm).min(1.0), step, &float(&values)).unwrap();
            let squares: i128 = row.values_mut().iter().map(|v| i128::from(*v).pow(2)).sum();
            let bound = clip / step * (1.0 + 2f64.powi(-40)) + (values.len() as f64).sqrt() / 2.0;
            prop_assert!((squares as f64).sqrt() <= bound);
        }

        #[test]
        fn sums_are_scaled_to_the_nearest(sum in -1i64 << 53..1i64 << 53, bits in -30i32..30) {
            // A scale that is a power of two: one rounding in all.
            let mut row = IntegerRow::new();
            row.reset(1);
            row.values_mut()[0] = sum;
            let mut out = [0; 4];
            row.write_f32(2f64.powi(bits), &mut out);
            prop_assert_eq!(f32::from_le_bytes(out), sum as f32 * 2f32.powi(bits));
        }
    }

    #[test]
    fn what_is_too_large_or_no_number_is_bounded() {
        let mut row = IntegerRow::new();
        row.reset(5);
        let odd = [f32::MAX, f32::INFINITY, f32::MIN, f32::NAN, f32::from_bits(1)];
        row.add_clipped(0, 1.0, 1e-300, &float(&odd)).unwrap();
        let bound = 1i64 << 31;
        assert_eq!(row.values_mut(), [bound, bound, -bound, -bound, bound]);
        row.reset(5);
        row.add_clipped(0, 1.0, 1.0, &float(&odd)).unwrap();
        assert_eq!(row.values_mut(), [bound, bound, -bound, -bound, 0]);
        for (factor, step) in
            [(0.0, 1.0), (1.0, 0.0), (f64::NAN, 1.0), (1.0, -1.0), (1e300, 1e-300)]
        {
            let error = row.add_clipped(0, factor, step, &float(&odd)).unwrap_err();
            assert!(matches!(error, Error::Parameter { .. }), "{error}");
        }
    }

    #[test]
    fn a_row_is_cleared_never_overrun_and_never_wraps() {
        let mut row = IntegerRow::new();
        row.reset(2);
        row.add_grid(1, &grid(&[3, 9])).unwrap();
        row.add_grid(7, &grid(&[1])).unwrap();
        assert_eq!(row.values_mut(), [0, 3]);
        row.additions = ADDITIONS - 1;
        row.add_grid(0, &grid(&[1])).unwrap();
        let full = Error::TooMany { what: "chunks of one row", most: ADDITIONS };
        assert_eq!(row.add_grid(0, &grid(&[1])), Err(full.clone()));
        assert_eq!(row.add_clipped(0, 1.0, 1.0, &float(&[1.0])), Err(full));
        row.reset(2);
        assert_eq!(row.values_mut(), [0, 0]);
        row.add_grid(0, &grid(&[i32::MIN, i32::MAX])).unwrap();
        assert_eq!(row.values_mut(), [i64::from(i32::MIN), i64::from(i32::MAX)]);
        assert_eq!(sum_of_squares(&grid(&[i32::MIN, i32::MIN])), 1 << 63);
    }
}
