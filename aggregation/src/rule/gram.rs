//! The Gram matrix: the inner products of all updates, in one pass.
//!
//! Rules that compare whole updates need lengths and distances only, and those
//! follow from the inner products. A product of two binary32 values is exact in
//! binary64, so here, and only here, a fused multiply-add gives the same bits
//! as a product and a sum: it is used where the processor has one.
//!
//! # How exact
//! A block of 4,096 values is added in 32 lanes, the lanes from first to last,
//! and the blocks' sums exactly ([`ExactSum`]), so an entry is off by at most
//! 160 x 2^-53 |x| |y| (Higham, *Accuracy and Stability of Numerical
//! Algorithms*, 2002, section 3.1, with the inequality of Cauchy and Schwarz).
//!
//! # Why not squared distances
//! They would be exact to 14 digits between updates that are nearly equal,
//! where |x|² + |y|² - 2<x, y> cancels: the distance of two updates that differ
//! by less than about 3 x 10^-7 of their length is noise here. But then any
//! choice among them is as good, to the precision of binary32. From distances
//! alone, on the other hand, a single update of length 10^30 would drown the
//! place of all others in relation to it, and with it every weighted
//! combination: `<x, y - z>` is lost in |x - y|² - |x - z|². An attacker would
//! choose that; so inner products it is, taken from the base model, around
//! which honest updates lie.

use crate::exact_sum::{self, ExactSum};
use crate::{Error, Result};
use multiversion::multiversion;
use multiversion::target::target_cfg_f;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// The values whose products are added before the sum becomes exact: 16 KiB of
/// each site, so that a block of a few dozen sites stays in the second cache.
const BLOCK: usize = 4096;
/// Independent sums of one pair.
const LANES: usize = 32;

/// A [`Gram`] matrix while the updates stream by.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct PartialGram {
    sites: usize,
    sums: Vec<ExactSum>,
    /// One site's block in binary64: it is multiplied with many others.
    block: Vec<Lanes>,
}

/// Values or sums side by side, aligned to a cache line.
#[derive(Clone, Copy, Default, Zeroize)]
#[repr(align(64))]
struct Lanes([f64; LANES]);

impl PartialGram {
    /// The matrix of so many sites, all 0.
    #[must_use]
    pub fn new(sites: usize) -> Self {
        let sums = vec![ExactSum::new(); sites * (sites + 1) / 2];
        Self { sites, sums, block: vec![Lanes::default(); BLOCK / LANES] }
    }

    /// Adds a run of little-endian float32 values of every site, the same
    /// places of each, in the roster's order.
    ///
    /// Blocks are counted from the beginning of the run. Runs may be added in
    /// any order and by any thread, but the same bits follow only if they are
    /// cut at the same places: by record, for instance.
    ///
    /// # Errors
    /// [`Error::Length`] if there is not one run for each site, or they differ
    /// in length or are not whole values.
    pub fn add(&mut self, rows: &[&[u8]]) -> Result<()> {
        let rows = whole_values("rows of the gram matrix", self.sites, rows)?;
        let length = rows.first().map_or(0, |row| row.len());
        for start in (0..length).step_by(BLOCK) {
            let end = length.min(start + BLOCK);
            let mut sums = self.sums.iter_mut();
            for (place, one) in rows.iter().enumerate() {
                fill(&mut self.block, &one[start..end]);
                for (other, sum) in rows[..=place].iter().zip(&mut sums) {
                    sum.add(product(&self.block, &other[start..end]));
                }
            }
        }
        Ok(())
    }

    /// Adds what another thread has added.
    ///
    /// # Errors
    /// [`Error::Length`] if it is of another number of sites.
    pub fn merge(&mut self, other: &Self) -> Result<()> {
        if self.sites != other.sites {
            let (expected, found) = (self.sites, other.sites);
            return Err(Error::Length { what: "sites of a gram matrix", expected, found });
        }
        self.sums.iter_mut().zip(&other.sums).for_each(|(mine, theirs)| mine.merge(theirs));
        Ok(())
    }

    /// The matrix, each entry rounded once.
    #[must_use]
    pub fn finish(&self) -> Gram {
        let products = self.sums.iter().map(ExactSum::to_f64).collect();
        Gram { sites: self.sites, products }
    }
}

/// The inner products of all updates with each other: a symmetric matrix,
/// sites x sites, in the roster's order.
#[derive(Debug, Clone, PartialEq, Zeroize, ZeroizeOnDrop)]
pub struct Gram {
    sites: usize,
    /// The lower triangle, row by row.
    products: Vec<f64>,
}

impl Gram {
    /// The number of sites.
    #[must_use]
    pub fn sites(&self) -> usize {
        self.sites
    }

    /// The inner product of two sites' updates.
    ///
    /// # Panics
    /// If there is no such site.
    #[must_use]
    pub fn product(&self, one: usize, other: usize) -> f64 {
        let (high, low) = (one.max(other), one.min(other));
        self.products[high * (high + 1) / 2 + low]
    }

    /// The squared Euclidean distance of two sites' updates, never below 0.
    ///
    /// # Panics
    /// If there is no such site.
    #[must_use]
    pub fn squared_distance(&self, one: usize, other: usize) -> f64 {
        // The squares first: their sum does not depend on who is named first.
        let squares = self.product(one, one) + self.product(other, other);
        (squares - 2.0 * self.product(one, other)).max(0.0)
    }

    /// The Euclidean distance of every site's update from the sum of all
    /// updates with these factors, one for each site.
    ///
    /// Sums over sites are exact, so a site's distance does not depend on the
    /// order of the sites.
    #[must_use]
    pub fn distances_from(&self, factors: &[f64]) -> Vec<f64> {
        let product_with = |site: usize| {
            let terms = factors.iter().enumerate();
            exact_sum::sum(terms.map(|(other, factor)| factor * self.product(site, other)))
        };
        let products: Vec<_> = (0..self.sites).map(product_with).collect();
        let square = exact_sum::sum(factors.iter().zip(&products).map(|(f, p)| f * p));
        let distance = |(site, product): (usize, &f64)| {
            ((self.product(site, site) - 2.0 * product) + square).max(0.0).sqrt()
        };
        products.iter().enumerate().map(distance).collect()
    }
}

/// Each site's bytes as values, if there is one run for each site and all have
/// the same number of whole values.
pub(super) fn whole_values<'a>(
    what: &'static str,
    sites: usize,
    rows: &[&'a [u8]],
) -> Result<Vec<&'a [[u8; 4]]>> {
    if rows.len() != sites {
        return Err(Error::Length { what, expected: sites, found: rows.len() });
    }
    let length = rows.first().map_or(0, |row| row.len() / 4 * 4);
    let whole = |row: &&'a [u8]| {
        if row.len() != length {
            return Err(Error::Length {
                what: "bytes of a site's values",
                expected: length,
                found: row.len(),
            });
        }
        Ok(row.as_chunks::<4>().0)
    };
    rows.iter().map(whole).collect()
}

/// The inner product of a block with as many values of another site.
fn product(block: &[Lanes], values: &[[u8; 4]]) -> f64 {
    let mut sums = Lanes::default();
    let (steps, rest) = values.as_chunks::<LANES>();
    multiply(&mut sums, block, steps);
    if let Some(last) = block.get(steps.len()..).filter(|_| !rest.is_empty()) {
        multiply(&mut sums, last, &[whole(rest)]);
    }
    sums.0.iter().sum()
}

/// Some values, and zeros behind them, which change no sum.
fn whole(values: &[[u8; 4]]) -> [[u8; 4]; LANES] {
    let mut whole = [[0; 4]; LANES];
    whole[..values.len()].copy_from_slice(values);
    whole
}

/// Fills a block with values, and zeros in the lanes behind the last.
fn fill(block: &mut [Lanes], values: &[[u8; 4]]) {
    let (steps, rest) = values.as_chunks::<LANES>();
    widen(block, steps);
    if let Some(last) = block.get_mut(steps.len()..).filter(|_| !rest.is_empty()) {
        widen(last, &[whole(rest)]);
    }
}

#[multiversion(targets("x86_64+avx512f+avx512vl", "x86_64+avx2", "aarch64+neon"))]
fn widen(block: &mut [Lanes], steps: &[[[u8; 4]; LANES]]) {
    for (wide, values) in block.iter_mut().zip(steps) {
        for (wide, value) in wide.0.iter_mut().zip(values) {
            *wide = f64::from(f32::from_le_bytes(*value));
        }
    }
}

/// Adds the products to the sums, lane by lane.
#[multiversion(targets("x86_64+avx512f+avx512vl+fma", "x86_64+avx2+fma", "aarch64+neon"))]
fn multiply(sums: &mut Lanes, block: &[Lanes], steps: &[[[u8; 4]; LANES]]) {
    let fused = target_cfg_f!(any(target_feature = "fma", target_arch = "aarch64"));
    let mut lanes = sums.0;
    for (wide, values) in block.iter().zip(steps) {
        for (lane, (wide, value)) in lanes.iter_mut().zip(wide.0.iter().zip(values)) {
            let value = f64::from(f32::from_le_bytes(*value));
            *lane = if fused { wide.mul_add(value, *lane) } else { *lane + wide * value };
        }
    }
    sums.0 = lanes;
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bytes(values: &[f32]) -> Vec<u8> {
        values.iter().flat_map(|value| value.to_le_bytes()).collect()
    }

    /// The matrix of updates that are given at once.
    fn gram(updates: &[Vec<f32>]) -> Gram {
        let bytes: Vec<_> = updates.iter().map(|update| bytes(update)).collect();
        let rows: Vec<_> = bytes.iter().map(Vec::as_slice).collect();
        let mut partial = PartialGram::new(updates.len());
        partial.add(&rows).unwrap();
        partial.finish()
    }

    /// Sites x values, each value from an integer small enough for exact sums.
    fn integers(sites: usize, values: usize) -> impl Strategy<Value = Vec<Vec<f32>>> {
        let update = prop::collection::vec((-999i16..1000).prop_map(f32::from), values);
        prop::collection::vec(update, sites)
    }

    proptest! {
        #[test]
        fn entries_are_inner_products(
            updates in (1usize..12, 1usize..60).prop_flat_map(|(s, v)| integers(s, v)),
        ) {
            let gram = gram(&updates);
            for (i, x) in updates.iter().enumerate() {
                for (j, y) in updates.iter().enumerate() {
                    let product = |(x, y): (&f32, &f32)| f64::from(*x) * f64::from(*y);
                    let expected: f64 = x.iter().zip(y).map(product).sum();
                    prop_assert_eq!(gram.product(i, j), expected);
                    let distance = |(x, y): (&f32, &f32)| (f64::from(*x) - f64::from(*y)).powi(2);
                    let expected: f64 = x.iter().zip(y).map(distance).sum();
                    prop_assert_eq!(gram.squared_distance(i, j), expected);
                }
            }
        }

        #[test]
        fn distances_from_a_combination(
            updates in integers(5, 20), factors in prop::collection::vec(0i8..4, 5),
        ) {
            let factors: Vec<_> = factors.iter().map(|f| f64::from(*f)).collect();
            let distances = gram(&updates).distances_from(&factors);
            for (update, distance) in updates.iter().zip(distances) {
                let square = |place: usize| {
                    let at = |(u, f): (&Vec<f32>, &f64)| f * f64::from(u[place]);
                    let sum: f64 = updates.iter().zip(&factors).map(at).sum();
                    (f64::from(update[place]) - sum).powi(2)
                };
                let expected = (0..20).map(square).sum::<f64>().sqrt();
                prop_assert!((distance - expected).abs() < 1e-9 * expected.max(1.0));
            }
        }

        #[test]
        fn threads_and_their_order_do_not_matter(
            updates in prop::collection::vec(prop::collection::vec(-1e9f32..1e9, 50), 5),
            order in Just([0usize, 1, 2, 3, 4]).prop_shuffle(), cut in 0usize..5,
        ) {
            // Five records of ten values, added by two threads.
            let bytes: Vec<_> = updates.iter().map(|update| bytes(update)).collect();
            let record = |j: usize| -> Vec<&[u8]> {
                bytes.iter().map(|b| &b[40 * j..40 * j + 40]).collect()
            };
            let mut whole = PartialGram::new(5);
            (0..5).for_each(|j| whole.add(&record(j)).unwrap());
            let mut parts = [PartialGram::new(5), PartialGram::new(5)];
            order[..cut].iter().for_each(|j| parts[0].add(&record(*j)).unwrap());
            order[cut..].iter().for_each(|j| parts[1].add(&record(*j)).unwrap());
            let [mut first, second] = parts;
            first.merge(&second).unwrap();
            prop_assert_eq!(first.finish(), whole.finish());
        }
    }

    #[test]
    fn every_place_of_a_long_run_counts() {
        for length in [4095, 4096, 4097, 9000] {
            for place in [0, 7, 8, length - 9, length - 1] {
                let mut updates = vec![vec![0.0; length]; 6];
                updates[5][place] = 3.0;
                updates[2][place] = 2.0;
                let gram = gram(&updates);
                let found = (gram.product(5, 2), gram.product(2, 2), gram.product(5, 1));
                assert_eq!(found, (6.0, 4.0, 0.0), "{place} of {length}");
            }
        }
    }

    #[test]
    fn the_largest_and_the_smallest_values_have_products() {
        let tiny = f32::from_bits(1);
        let gram = gram(&[vec![f32::MAX; 9000], vec![tiny; 9000], vec![tiny; 9000]]);
        assert!(gram.product(0, 0).is_finite());
        assert_eq!(gram.product(1, 2), 9000.0 * f64::from(tiny).powi(2));
        assert_eq!(gram.squared_distance(1, 2), 0.0);
        assert_eq!(gram.distances_from(&[0.0, 0.5, 0.5])[1], 0.0);
    }

    #[test]
    fn foreign_lengths_are_refused() {
        let mut partial = PartialGram::new(2);
        assert!(partial.add(&[&[0; 8]]).is_err());
        assert!(partial.add(&[&[0; 8], &[0; 4]]).is_err());
        assert!(partial.add(&[&[0; 7], &[0; 7]]).is_err());
        assert!(partial.merge(&PartialGram::new(3)).is_err());
        assert_eq!(partial.finish().product(1, 0), 0.0);
    }
}
