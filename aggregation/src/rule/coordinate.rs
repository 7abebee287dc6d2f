//! Rules that look at one coordinate at a time: the median, the trimmed mean,
//! and the mean of the values around the median (the last step of Bulyan).
//!
//! The values of all sites at a place are sorted by a network
//! (`sorting_network.rs`), 64 places side by side, so that one comparator
//! is a few vector instructions. Which instructions run and what they read and
//! write depends on the number of sites and values alone, never on a value.
//! All sites count alike: shares play no part.
//!
//! Values are compared as integers in the order of IEEE 754-2019, 5.10: -0
//! stands before 0, and the order is total, so a permutation of the sites does
//! not change a bit of the result. What is not a number is refused long before
//! (see [`crate::norm`]); here it would be sorted to an end.

use super::sorting_network::{Network, merge_exchange, prune};
use crate::rows::whole_values;
use crate::{Error, Result};
use multiversion::multiversion;
use std::ops::Range;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// The places that are sorted side by side.
const WIDTH: usize = 64;

/// The keys of one site at [`WIDTH`] places.
type Column = [i32; WIDTH];

/// A rule for the values of all sites at one place, for a roster of a certain
/// size. Threads share it; each has its own [`Columns`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CoordinateRule {
    sites: usize,
    /// The sites whose values count.
    selected: Vec<usize>,
    network: Network,
    statistic: Statistic,
}

/// What is made of sorted values.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Statistic {
    /// The mean of those at these places.
    Mean(Range<usize>),
    /// The mean of those that are left when so many times the one farther from
    /// the median, of the first and the last, is dropped.
    AroundMedian { dropped: usize },
}

/// The sorted values of a few places. Memory is kept from row to row, and
/// erased at the end.
#[derive(Default, Zeroize, ZeroizeOnDrop)]
pub struct Columns {
    keys: Vec<Column>,
}

impl Columns {
    /// Empty columns.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

impl CoordinateRule {
    /// The median of so many sites' values; of an even number, the mean of the
    /// two in the middle.
    pub(super) fn median(sites: usize) -> Self {
        Self::trimmed_mean(sites, sites.saturating_sub(1) / 2)
    }

    /// The mean without the `trim` smallest and the `trim` largest values.
    pub(super) fn trimmed_mean(sites: usize, trim: usize) -> Self {
        let kept = trim..sites.saturating_sub(trim);
        let network = prune(&merge_exchange(sites), sites, kept.clone());
        let statistic = Statistic::Mean(kept);
        Self { sites, selected: (0..sites).collect(), network, statistic }
    }

    /// The mean of the `kept` values, of the selected sites, that are closest
    /// to their median. Of two that are equally far, the smaller is kept.
    pub(super) fn around_median(sites: usize, selected: Vec<usize>, kept: usize) -> Self {
        let network = merge_exchange(selected.len());
        let statistic = Statistic::AroundMedian { dropped: selected.len().saturating_sub(kept) };
        Self { sites, selected, network, statistic }
    }

    /// Combines a run of little-endian float32 values of every site, the same
    /// places of each, in the roster's order. For a mean, the values are added
    /// to 0 from the smallest to the largest in binary64 (so -0 comes out as
    /// 0), divided by their number, and rounded to binary32.
    ///
    /// # Errors
    /// [`Error::Length`] if there is not one run for each site, or they or
    /// `out` differ in length or are not whole values.
    pub fn combine(&self, columns: &mut Columns, rows: &[&[u8]], out: &mut [u8]) -> Result<()> {
        let rows = whole_values("rows of the coordinate-wise rule", self.sites, rows)?;
        let length = rows.first().map_or(0, |row| row.len());
        if out.len() != 4 * length {
            let (expected, found) = (4 * length, out.len());
            return Err(Error::Length { what: "bytes of the row", expected, found });
        }
        let rows: Vec<_> = self.selected.iter().map(|site| rows[*site]).collect();
        columns.keys.resize(rows.len(), [0; WIDTH]);
        let keys = &mut columns.keys[..];
        for (block, out) in out.as_chunks_mut::<4>().0.chunks_mut(WIDTH).enumerate() {
            load(keys, &rows, block * WIDTH, out.len());
            sort(keys, &self.network);
            match &self.statistic {
                Statistic::Mean(kept) => mean(&keys[kept.clone()], out),
                Statistic::AroundMedian { dropped } => {
                    drop_farthest(keys, *dropped);
                    mean(&keys[..keys.len() - dropped], out);
                }
            }
        }
        Ok(())
    }
}

/// An integer that orders like the binary32 value with these bits, and back.
const fn key(bits: i32) -> i32 {
    bits ^ ((bits >> 31) & i32::MAX)
}

/// Fills a column for each site from so many values at `start`.
#[multiversion(targets("x86_64+avx512f+avx512vl", "x86_64+avx2", "aarch64+neon"))]
fn load(columns: &mut [Column], rows: &[&[[u8; 4]]], start: usize, count: usize) {
    for (column, row) in columns.iter_mut().zip(rows) {
        let values = &row[start..start + count];
        // A whole column is the rule, and the faster loop.
        if let Some(values) = values.first_chunk::<WIDTH>() {
            for (place, value) in column.iter_mut().zip(values) {
                *place = key(i32::from_le_bytes(*value));
            }
        } else {
            for (place, value) in column.iter_mut().zip(values) {
                *place = key(i32::from_le_bytes(*value));
            }
        }
    }
}

#[multiversion(targets("x86_64+avx512f+avx512vl", "x86_64+avx2", "aarch64+neon"))]
fn sort(columns: &mut [Column], network: &[(usize, usize)]) {
    for &(low, high) in network {
        let (before, from_high) = columns.split_at_mut(high);
        for (low, high) in before[low].iter_mut().zip(&mut from_high[0]) {
            let (one, other) = (*low, *high);
            *low = one.min(other);
            *high = one.max(other);
        }
    }
}

/// Drops, so many times, the first or the last of the sorted values: the last
/// unless the first is farther from the median. What is left begins at the
/// first column.
#[multiversion(targets("x86_64+avx512f+avx512vl", "x86_64+avx2", "aarch64+neon"))]
fn drop_farthest(columns: &mut [Column], times: usize) {
    let value = |bits: i32| f64::from(f32::from_bits(key(bits).cast_unsigned()));
    let count = columns.len();
    let mut middle = [0.0; WIDTH];
    let (low, high) = (&columns[(count - 1) / 2], &columns[count / 2]);
    for (middle, (low, high)) in middle.iter_mut().zip(low.iter().zip(high)) {
        *middle = value(*low) + value(*high);
    }
    for last in (count - times..count).rev() {
        // first + last below twice the median: the first is farther from it.
        let mut masks = [0; WIDTH];
        let ends = columns[0].iter().zip(&columns[last]);
        for (mask, ((first, last), middle)) in masks.iter_mut().zip(ends.zip(&middle)) {
            *mask = -i32::from(value(*first) + value(*last) < *middle);
        }
        for place in 0..last {
            let next = columns[place + 1];
            for ((key, next), mask) in columns[place].iter_mut().zip(&next).zip(&masks) {
                *key ^= (*key ^ next) & mask;
            }
        }
    }
}

/// The mean of the columns.
#[multiversion(targets("x86_64+avx512f+avx512vl", "x86_64+avx2", "aarch64+neon"))]
#[allow(clippy::cast_possible_truncation)] // rounding to binary32 is the purpose
fn mean(columns: &[Column], out: &mut [[u8; 4]]) {
    let mut sums = [0.0; WIDTH];
    for column in columns {
        for (sum, bits) in sums.iter_mut().zip(column) {
            *sum += f64::from(f32::from_bits(key(*bits).cast_unsigned()));
        }
    }
    let count = columns.len() as f64;
    for (out, sum) in out.iter_mut().zip(&sums) {
        *out = ((sum / count) as f32).to_le_bytes();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn combine(rule: &CoordinateRule, updates: &[Vec<f32>]) -> Vec<f32> {
        let bytes: Vec<Vec<u8>> =
            updates.iter().map(|u| u.iter().flat_map(|v| v.to_le_bytes()).collect()).collect();
        let rows: Vec<_> = bytes.iter().map(Vec::as_slice).collect();
        let mut out = vec![0; 4 * updates[0].len()];
        rule.combine(&mut Columns::new(), &rows, &mut out).unwrap();
        out.as_chunks::<4>().0.iter().map(|value| f32::from_le_bytes(*value)).collect()
    }

    /// One place, one value from each site.
    fn at_one_place(rule: &CoordinateRule, values: &[f32]) -> f32 {
        let updates: Vec<_> = values.iter().map(|value| vec![*value]).collect();
        combine(rule, &updates)[0]
    }

    #[test]
    fn by_hand() {
        let median = |values: &[f32]| at_one_place(&CoordinateRule::median(values.len()), values);
        assert_eq!(median(&[3.0]), 3.0);
        assert_eq!(median(&[3.0, -1.0]), 1.0);
        assert_eq!(median(&[3.0, -1.0, 1e30]), 3.0);
        assert_eq!(median(&[f32::MAX, f32::MAX, f32::MAX, f32::MAX]), f32::MAX);
        assert_eq!(median(&[0.0, -0.0, -0.0]).to_bits(), 0);
        let tiny = f32::from_bits(1);
        assert_eq!(median(&[tiny, -tiny, f32::from_bits(3), 0.0, 1.0]), tiny);
        let trimmed = CoordinateRule::trimmed_mean(5, 1);
        assert_eq!(at_one_place(&trimmed, &[1.0, -1e30, 2.0, 1e30, 6.0]), 3.0);
        // Median 2.5; dropped are 9, then 0 and not 4.
        let around = CoordinateRule::around_median(7, vec![0, 2, 3, 4, 5, 6], 4);
        assert_eq!(at_one_place(&around, &[9.0, 7e7, 1.0, 2.0, 0.0, 3.0, 4.0]), 2.5);
        // Median 1; 0 and 2 are equally far, so 2 is dropped.
        let around = CoordinateRule::around_median(3, vec![0, 1, 2], 2);
        assert_eq!(at_one_place(&around, &[2.0, 0.0, 1.0]), 0.5);
    }

    proptest! {
        #[test]
        fn sorted_by_a_network_is_sorted(
            updates in (1usize..40, 1usize..150).prop_flat_map(|(sites, values)| {
                let value = any::<f32>().prop_filter("finite", |v| v.is_finite());
                prop::collection::vec(prop::collection::vec(value, values), sites)
            }),
            trim: prop::sample::Index,
        ) {
            let sites = updates.len();
            let trim = trim.index(sites.div_ceil(2));
            let found = combine(&CoordinateRule::trimmed_mean(sites, trim), &updates);
            for (place, found) in found.iter().enumerate() {
                let mut values: Vec<_> = updates.iter().map(|update| update[place]).collect();
                values.sort_by(f32::total_cmp);
                let kept = &values[trim..sites - trim];
                let sum = kept.iter().fold(0.0, |sum, value| sum + f64::from(*value));
                #[allow(clippy::cast_possible_truncation)]
                let expected = (sum / kept.len() as f64) as f32;
                prop_assert_eq!(found.to_bits(), expected.to_bits());
            }
        }

        #[test]
        fn the_order_of_the_sites_changes_no_bit(
            (updates, shuffled) in prop::collection::vec(prop::collection::vec(-1e6f32..1e6, 70), 9)
                .prop_flat_map(|updates| (Just(updates.clone()), Just(updates).prop_shuffle())),
        ) {
            let rules = [
                CoordinateRule::median(9),
                CoordinateRule::trimmed_mean(9, 2),
                CoordinateRule::around_median(9, (0..9).collect(), 4),
            ];
            for rule in rules {
                let (one, other) = (combine(&rule, &updates), combine(&rule, &shuffled));
                prop_assert!(one.iter().zip(&other).all(|(a, b)| a.to_bits() == b.to_bits()));
            }
        }
    }

    #[test]
    fn foreign_lengths_are_refused() {
        let rule = CoordinateRule::median(2);
        let mut columns = Columns::new();
        assert!(rule.combine(&mut columns, &[&[0; 8]], &mut [0; 8]).is_err());
        assert!(rule.combine(&mut columns, &[&[0; 8], &[0; 4]], &mut [0; 8]).is_err());
        assert!(rule.combine(&mut columns, &[&[0; 8], &[0; 8]], &mut [0; 4]).is_err());
        assert!(rule.combine(&mut columns, &[&[0; 6], &[0; 6]], &mut [0; 6]).is_err());
    }
}
