//! A row of the aggregate: weighted values of all sites, added in binary64.
//!
//! How far a value of the aggregate can be from the exact sum: with u = 2^-53
//! and n sites, each product is rounded once and takes part in at most n - 1
//! rounded additions, so the binary64 sum errs by at most n u / (1 - n u) times
//! the sum of the |factor x value| (Higham, 2002, section 4.2), and rounding it
//! to binary32 adds half a unit in its last place. For 1,000 sites that is
//! 1.2e-13 of the terms, against 6e-8 for the one rounding to binary32: a
//! compensated sum would change nothing that can be seen. Products do not
//! underflow for factors above 2^-800, as shares are.

use crate::rows::whole_values;
use crate::{Error, Result};
use multiversion::multiversion;

/// The places that are added side by side: their sums stay in registers.
const WIDTH: usize = 64;

/// Adds a run of little-endian float32 values of every site, the same places of
/// each, times the site's factor, from the first site to the last, and writes the
/// sums as little-endian float32 values, each rounded once.
///
/// Product and sum are rounded each on its own, so every processor gives the
/// same sums.
///
/// # Errors
/// [`Error::Length`] if there is not one run for each factor, or they or `out`
/// differ in length or are not whole values.
pub fn weighted_sum(factors: &[f64], rows: &[&[u8]], out: &mut [u8]) -> Result<()> {
    let rows = whole_values("rows of the weighted sum", factors.len(), rows)?;
    let length = rows.first().map_or(0, |row| row.len());
    if out.len() != 4 * length {
        let (expected, found) = (4 * length, out.len());
        return Err(Error::Length { what: "bytes of the row", expected, found });
    }
    add(factors, &rows, out.as_chunks_mut::<4>().0);
    Ok(())
}

#[multiversion(targets("x86_64+avx512f+avx512vl", "x86_64+avx2", "aarch64+neon"))]
#[allow(clippy::cast_possible_truncation)] // rounding to binary32 is the purpose
fn add(factors: &[f64], rows: &[&[[u8; 4]]], out: &mut [[u8; 4]]) {
    let (blocks, rest) = out.as_chunks_mut::<WIDTH>();
    let behind = blocks.len() * WIDTH;
    for (block, out) in blocks.iter_mut().enumerate() {
        let mut sums = [0.0; WIDTH];
        for (factor, row) in factors.iter().zip(rows) {
            for (sum, value) in sums.iter_mut().zip(&row.as_chunks::<WIDTH>().0[block]) {
                *sum += factor * f64::from(f32::from_le_bytes(*value));
            }
        }
        for (out, sum) in out.iter_mut().zip(&sums) {
            *out = (*sum as f32).to_le_bytes();
        }
    }
    for (place, out) in rest.iter_mut().enumerate() {
        let term = |(factor, row): (&f64, &&[[u8; 4]])| {
            factor * f64::from(f32::from_le_bytes(row[behind + place]))
        };
        let sum = factors.iter().zip(rows).map(term).fold(0.0, |sum, term| sum + term);
        *out = (sum as f32).to_le_bytes();
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
            sites in prop::collection::vec((0.0..1.0f64, prop::collection::vec(-1e30f32..1e30, 100)), 1..6),
            cut in 0usize..100,
        ) {
            let factors: Vec<_> = sites.iter().map(|site| site.0).collect();
            let updates: Vec<_> = sites.iter().map(|site| site.1.clone()).collect();
            let bytes: Vec<Vec<u8>> =
                updates.iter().map(|u| u.iter().flat_map(|v| v.to_le_bytes()).collect()).collect();
            let mut out = vec![0; 400];
            for range in [0..4 * cut, 4 * cut..400] {
                let rows: Vec<_> = bytes.iter().map(|bytes| &bytes[range.clone()]).collect();
                weighted_sum(&factors, &rows, &mut out[range]).unwrap();
            }
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
            let (mut factors, mut values) = (Vec::new(), Vec::new());
            let (mut error, mut sizes) = (ExactSum::new(), ExactSum::new());
            for (place, (factor, value, exponent)) in terms.iter().enumerate() {
                // Each value follows its opposite: little is left of large terms.
                let value = if cancel && place % 2 == 1 {
                    -(f64::from(terms[place - 1].1) * 2f64.powi(terms[place - 1].2)) as f32
                } else {
                    value * 2f32.powi(*exponent)
                };
                factors.push(*factor);
                values.push(value.to_le_bytes());
                for half in halves(*factor) {
                    error.add(half * f64::from(value));
                    sizes.add((half * f64::from(value)).abs());
                }
            }
            let mut out = [0; 4];
            let rows: Vec<_> = values.iter().map(<[u8; 4]>::as_slice).collect();
            weighted_sum(&factors, &rows, &mut out).unwrap();
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
    fn foreign_lengths_are_refused() {
        let mut out = [0; 8];
        weighted_sum(&[1.0, 2.0], &[&[0; 8], &[0; 8]], &mut out).unwrap();
        weighted_sum(&[], &[], &mut []).unwrap();
        for (factors, rows, length) in [
            (&[1.0][..], &[&[0; 8][..], &[0; 8]][..], 8),
            (&[1.0, 2.0], &[&[0; 8], &[0; 4]], 8),
            (&[1.0], &[&[0; 8]], 4),
            (&[1.0], &[&[0; 7]], 7),
        ] {
            assert!(weighted_sum(factors, rows, &mut out[..length]).is_err());
        }
    }
}
