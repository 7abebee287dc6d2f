//! One row of the aggregate: weighted values of all sites, added in binary64.
//!
//! How far a value of the aggregate can be from the exact sum: with u = 2^-53
//! and n sites, each product is rounded once and takes part in at most n - 1
//! rounded additions, so the binary64 sum errs by at most n u / (1 - n u) times
//! the sum of the |factor x value| (Higham, 2002, section 4.2), and rounding it
//! to binary32 adds half a unit in its last place. For 1,000 sites that is
//! 1.2e-13 of the terms, against 6e-8 for the one rounding to binary32: a
//! compensated sum would change nothing that can be seen. Products do not
//! underflow for factors above 2^-800, as shares are.

use multiversion::multiversion;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// The sums of one row. Memory is kept from row to row, and erased at the end.
#[derive(Default, Zeroize, ZeroizeOnDrop)]
pub struct Row {
    sums: Vec<f64>,
}

impl Row {
    /// An empty row.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Begins a row of so many values, all 0.
    pub fn reset(&mut self, values: usize) {
        self.sums.clear();
        self.sums.resize(values, 0.0);
    }

    /// Adds `factor` times the little-endian float32 values in `chunk`, from
    /// place `offset` (in values) on. What lies beyond the row is ignored.
    ///
    /// Product and sum are rounded each on its own, so every processor gives
    /// the same sums.
    pub fn add(&mut self, offset: usize, factor: f64, chunk: &[u8]) {
        let (values, _) = chunk.as_chunks::<4>();
        if let Some(sums) = self.sums.get_mut(offset..) {
            add(sums, factor, values);
        }
    }

    /// Writes the sums as little-endian float32 values, each rounded once.
    pub fn write_f32(&self, out: &mut [u8]) {
        let (out, _) = out.as_chunks_mut::<4>();
        write(&self.sums, out);
    }
}

#[multiversion(targets("x86_64+avx512f+avx512vl", "x86_64+avx2", "aarch64+neon"))]
fn add(sums: &mut [f64], factor: f64, values: &[[u8; 4]]) {
    for (sum, value) in sums.iter_mut().zip(values) {
        *sum += factor * f64::from(f32::from_le_bytes(*value));
    }
}

#[multiversion(targets("x86_64+avx512f+avx512vl", "x86_64+avx2", "aarch64+neon"))]
#[allow(clippy::cast_possible_truncation)] // rounding to binary32 is the purpose
fn write(sums: &[f64], out: &mut [[u8; 4]]) {
    for (out, sum) in out.iter_mut().zip(sums) {
        *out = (*sum as f32).to_le_bytes();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exact_sum::ExactSum;
    use crate::reference;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_row_is_the_weighted_sum_whatever_the_pieces(
            sites in prop::collection::vec((0.0..1.0f64, prop::collection::vec(-1e30f32..1e30, 50)), 1..6),
            cut in 0usize..50,
        ) {
            let factors: Vec<_> = sites.iter().map(|site| site.0).collect();
            let updates: Vec<_> = sites.iter().map(|site| site.1.clone()).collect();
            let mut row = Row::new();
            row.reset(50);
            for (factor, update) in &sites {
                let bytes: Vec<_> = update.iter().flat_map(|v| v.to_le_bytes()).collect();
                row.add(0, *factor, &bytes[..4 * cut]);
                row.add(cut, *factor, &bytes[4 * cut..]);
            }
            let mut out = vec![0; 200];
            row.write_f32(&mut out);
            let expected = reference::weighted_sum(&factors, &updates);
            let expected: Vec<_> = expected.iter().flat_map(|v| v.to_le_bytes()).collect();
            prop_assert_eq!(out, expected);
        }
    }

    /// The part of a binary64 that has so few bits that its product with any
    /// binary32 is exact, and the rest of it, which has too.
    fn halves(value: f64) -> [f64; 2] {
        let high = f64::from_bits(value.to_bits() & !((1 << 27) - 1));
        [high, value - high]
    }

    proptest! {
        #[test]
        fn a_row_is_within_its_bound_of_the_exact_sum(
            terms in prop::collection::vec((1e-6..1.0f64, -1f32..1.0, -20i32..20), 1..200), cancel: bool,
        ) {
            let mut row = Row::new();
            row.reset(1);
            let (mut error, mut sizes) = (ExactSum::new(), ExactSum::new());
            for (place, (factor, value, exponent)) in terms.iter().enumerate() {
                // Each value follows its opposite: little is left of large terms.
                let value = if cancel && place % 2 == 1 {
                    -(f64::from(terms[place - 1].1) * 2f64.powi(terms[place - 1].2)) as f32
                } else {
                    value * 2f32.powi(*exponent)
                };
                row.add(0, *factor, &value.to_le_bytes());
                for half in halves(*factor) {
                    error.add(half * f64::from(value));
                    sizes.add((half * f64::from(value)).abs());
                }
            }
            let mut out = [0; 4];
            row.write_f32(&mut out);
            let found = f32::from_le_bytes(out);
            error.add(-f64::from(found));
            let unit = f64::from(found.abs().next_up()) - f64::from(found.abs());
            let n_u = terms.len() as f64 * 2f64.powi(-53);
            let bound = n_u / (1.0 - n_u) * sizes.to_f64() + unit / 2.0;
            // The bound's own rounding.
            let bound = bound * (1.0 + 2f64.powi(-50));
            prop_assert!(error.to_f64().abs() <= bound, "{} {}", error.to_f64(), bound);
        }
    }

    #[test]
    fn a_row_is_cleared_and_never_overrun() {
        let mut row = Row::new();
        row.reset(2);
        row.add(1, 2.0, &[1.5f32.to_le_bytes(), 9f32.to_le_bytes()].concat());
        row.add(7, 1.0, &[0; 8]);
        let mut out = [0; 8];
        row.write_f32(&mut out);
        assert_eq!(out, [0f32.to_le_bytes(), 3f32.to_le_bytes()].concat()[..]);
        row.reset(2);
        row.write_f32(&mut out);
        assert_eq!(out, [0; 8]);
    }
}
