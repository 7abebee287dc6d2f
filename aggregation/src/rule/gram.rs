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
use crate::rows::whole_values;
use crate::{Error, Result};
use multiversion::multiversion;
use multiversion::target::target_cfg_f;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// The values whose products are added before the sum becomes exact.
const BLOCK: usize = 4096;
/// The values that are multiplied at a time: in binary64, those of a dozen sites
/// stay in the first cache.
const STEP: usize = 256;
/// Independent sums of one pair.
const LANES: usize = 32;
/// Sites that another is multiplied with at a time, so that each of its values is
/// loaded once for all of them.
const TOGETHER: usize = 4;

/// A [`Gram`] matrix while the updates stream by.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct PartialGram {
    sites: usize,
    sums: Vec<ExactSum>,
    /// The sums of a block: each site's with the first others, then its with the
    /// next, up to itself.
    tiles: Vec<Tile>,
    /// Each site's values in binary64: they are multiplied with many others.
    wide: Vec<Wide>,
}

/// The sums of products of a site with [`TOGETHER`] others. Where there are fewer
/// others, what stands in the last places counts for nothing.
type Tile = [Lanes; TOGETHER];

/// Sums side by side, aligned to a cache line.
#[derive(Clone, Copy, Default, Zeroize)]
#[repr(align(64))]
struct Lanes([f64; LANES]);

/// Values of a site, aligned to a cache line.
#[derive(Clone, Copy, Zeroize)]
#[repr(align(64))]
struct Wide([f64; STEP]);

impl PartialGram {
    /// The matrix of so many sites, all 0.
    #[must_use]
    pub fn new(sites: usize) -> Self {
        let sums = vec![ExactSum::new(); sites * (sites + 1) / 2];
        let tiles = (1..=sites).map(|others| others.div_ceil(TOGETHER)).sum();
        let (tiles, wide) = (vec![Tile::default(); tiles], vec![Wide([0.0; STEP]); sites]);
        Self { sites, sums, tiles, wide }
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
            for start in (start..end).step_by(STEP) {
                self.add_step(rows.iter().map(|row| &row[start..end.min(start + STEP)]));
            }
            self.end_block();
        }
        Ok(())
    }

    /// Adds the products of some values of all sites to the block's sums.
    fn add_step<'v>(&mut self, values: impl Iterator<Item = &'v [[u8; 4]]>) {
        let mut length = 0;
        for (wide, values) in self.wide.iter_mut().zip(values) {
            // Zeros behind the last values change no sum.
            length = values.len().next_multiple_of(LANES);
            widen(&mut wide.0, values);
            wide.0[values.len()..length].fill(0.0);
        }
        let mut tiles = self.tiles.iter_mut();
        for (place, one) in self.wide.iter().enumerate() {
            for (others, tile) in self.wide[..=place].chunks(TOGETHER).zip(&mut tiles) {
                let other = |place: usize| &others.get(place).unwrap_or(one).0[..length];
                multiply(tile, &one.0[..length], [other(0), other(1), other(2), other(3)]);
            }
        }
    }

    /// Adds the block's sums to the matrix.
    fn end_block(&mut self) {
        let (mut sums, mut tiles) = (self.sums.iter_mut(), self.tiles.iter_mut());
        for others in 1..=self.sites {
            for (start, tile) in (0..others).step_by(TOGETHER).zip(&mut tiles) {
                let whole = TOGETHER.min(others - start);
                for (lanes, sum) in tile[..whole].iter().zip(&mut sums) {
                    sum.add(lanes.0.iter().sum());
                }
                *tile = Tile::default();
            }
        }
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

#[multiversion(targets("x86_64+avx512f+avx512vl", "x86_64+avx2", "aarch64+neon"))]
fn widen(wide: &mut [f64], values: &[[u8; 4]]) {
    for (wide, value) in wide.iter_mut().zip(values) {
        *wide = f64::from(f32::from_le_bytes(*value));
    }
}

/// Adds the products to the sums, lane by lane.
#[multiversion(targets("x86_64+avx512f+avx512vl+fma", "x86_64+avx2+fma", "aarch64+neon"))]
fn multiply(sums: &mut Tile, one: &[f64], others: [&[f64]; TOGETHER]) {
    let fused = target_cfg_f!(any(target_feature = "fma", target_arch = "aarch64"));
    let [first, second, third, fourth] = others.map(|other| other.as_chunks::<LANES>().0);
    let [mut a, mut b, mut c, mut d] = sums.map(|lanes| lanes.0);
    let others = first.iter().zip(second).zip(third.iter().zip(fourth));
    for (one, ((first, second), (third, fourth))) in one.as_chunks::<LANES>().0.iter().zip(others) {
        multiply_block(fused, &mut a, one, first);
        multiply_block(fused, &mut b, one, second);
        multiply_block(fused, &mut c, one, third);
        multiply_block(fused, &mut d, one, fourth);
    }
    *sums = [a, b, c, d].map(Lanes);
}

/// One of the four. It has to be compiled for the processor of its caller: a
/// `mul_add` without the instruction is a call, and thirty times slower. A
/// closure is not always inlined.
#[inline(always)]
#[allow(clippy::inline_always)]
fn multiply_block(fused: bool, sums: &mut [f64; LANES], one: &[f64; LANES], other: &[f64; LANES]) {
    for (sum, (one, other)) in sums.iter_mut().zip(one.iter().zip(other)) {
        *sum = if fused { one.mul_add(*other, *sum) } else { *sum + one * other };
    }
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
