//! One row of the aggregate on the study's integer grid.
//!
//! All means and all sums with noise are made here. Integers are added exactly,
//! so no order of the sites, no split into chunks and no size of a hostile
//! update changes a bit of what the others sent. Floating-point sums depend on
//! their order, forget small terms beside large ones, and have a spacing that
//! varies: a site can use the first two against the others, and the last gives
//! away what noise is to hide (Mironov, 2012).
//!
//! The additions themselves wrap and are not checked one by one. That they do
//! not wrap follows from the manifest before the first update arrives:
//! [`words_for`] says which words hold the sum of any updates.

mod add;
mod look;
#[cfg(test)]
mod tests;

use crate::format::Format;
use crate::{Error, Result};
use zeroize::{Zeroize, ZeroizeOnDrop};

pub use look::{range, sum_of_squares};

/// 1.5 x 2^52: a binary64 below 2^51 in magnitude that is added to it is
/// rounded to the nearest integer, ties to even, and the integer stands in the
/// low bits of the sum. It is one addition on every processor, without branches.
pub(crate) const ROUNDER: f64 = 6_755_399_441_055_744.0;

/// The integers that sums are kept or travel in, little-endian and in two's
/// complement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Words {
    /// 32 bits.
    Bits32,
    /// 64 bits.
    Bits64,
}

impl Words {
    /// The number of bytes of a word.
    #[must_use]
    pub const fn width(self) -> usize {
        match self {
            Self::Bits32 => 4,
            Self::Bits64 => 8,
        }
    }
}

/// The words that hold every sum of values of at most `largest` in magnitude,
/// where the sites' weights sum to `total_weight`; none if 64 bits are too few.
/// Sums in 64 bits are at most 2^62, which leaves noise as much room again.
///
/// `largest` is what the bytes can hold ([`Format::bound`]), not what an honest
/// site sends: then no site can make a sum wrap.
#[must_use]
pub fn words_for(total_weight: u64, largest: u64) -> Option<Words> {
    let sum = u128::from(total_weight) * u128::from(largest);
    if sum <= u128::from(i32::MAX.unsigned_abs()) {
        Some(Words::Bits32)
    } else if sum <= 1 << 62 {
        Some(Words::Bits64)
    } else {
        None
    }
}

/// What an update of this norm is multiplied by so that it is no longer than
/// `clip`, both in the same unit: 1 if it is not.
#[must_use]
pub fn clip_factor(norm: f64, clip: f64) -> f64 {
    if norm <= clip { 1.0 } else { clip / norm }
}

/// How a site's update counts in a sum.
#[derive(Debug, Clone, Copy, PartialEq, Zeroize)]
pub struct Term {
    weight: u32,
    /// None where the study clips no update.
    factor: Option<f64>,
}

impl Term {
    /// An update that is scaled down, as [`clip_factor`] says, and then counts
    /// `weight` times. A factor of 1 changes no bit, but takes the same time as
    /// any other, so that the time does not say which updates were too long.
    ///
    /// # Errors
    /// [`Error::Empty`] for a weight of 0; [`Error::Factor`] for a factor that
    /// is not above 0 and at most 1.
    pub fn new(weight: u32, factor: f64) -> Result<Self> {
        // Also false for NaN.
        if factor > 0.0 && factor <= 1.0 {
            Ok(Self { factor: Some(factor), ..Self::whole(weight)? })
        } else {
            Err(Error::Factor { what: "factor of an update", found: factor })
        }
    }

    /// An update that counts `weight` times as it is, for studies that clip
    /// none: no floating-point number takes part.
    ///
    /// # Errors
    /// [`Error::Empty`] for a weight of 0.
    pub fn whole(weight: u32) -> Result<Self> {
        if weight == 0 {
            return Err(Error::Empty { what: "weight of a site" });
        }
        Ok(Self { weight, factor: None })
    }
}

/// The integer sums of one row. Memory is kept from row to row, and erased at
/// the end.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct IntegerRow {
    sums: Sums,
}

#[derive(Zeroize)]
enum Sums {
    Bits32(Vec<i32>),
    Bits64(Vec<i64>),
}

impl IntegerRow {
    /// An empty row, whose sums are kept in these words. Noise needs 64 bits.
    #[must_use]
    pub fn new(accumulators: Words) -> Self {
        let sums = match accumulators {
            Words::Bits32 => Sums::Bits32(Vec::new()),
            Words::Bits64 => Sums::Bits64(Vec::new()),
        };
        Self { sums }
    }

    /// Begins a row of so many values, all 0.
    pub fn reset(&mut self, values: usize) {
        match &mut self.sums {
            Sums::Bits32(sums) => zeros(sums, values),
            Sums::Bits64(sums) => zeros(sums, values),
        }
    }

    /// The number of values of the row.
    fn len(&self) -> usize {
        match &self.sums {
            Sums::Bits32(sums) => sums.len(),
            Sums::Bits64(sums) => sums.len(),
        }
    }

    /// Adds one site's values in `chunk`: see [`Self::add_sites`].
    ///
    /// # Errors
    /// As [`Self::add_sites`].
    pub fn add(&mut self, place: usize, term: Term, format: Format, chunk: &[u8]) -> Result<()> {
        self.add_sites(place, &[term], format, &[chunk])
    }

    /// Adds the values of several sites, the same places of each, from place
    /// `place` (in values) on: for each value v of a site, weight x round(factor
    /// x v). The product with the factor is a binary64 and is rounded to the
    /// nearest integer, ties to even; without a factor no floating-point number
    /// is touched. Several sites at a time are faster than one after the other,
    /// and give the same bits.
    ///
    /// Rounding moves a value by half a step at most. So d values whose norm is
    /// n are, with the factor `clip_factor(n, clip)`, at most clip + sqrt(d) / 2
    /// steps long, up to a relative 2^-50 for the rounding of factor and
    /// product: that is the sensitivity to be accounted for.
    ///
    /// The sums wrap beyond their words, which the caller has excluded by
    /// [`words_for`] for all sites together, each added once to a place. What
    /// runs depends on lengths, format, weights and whether there are factors,
    /// never on a factor or a value.
    ///
    /// # Errors
    /// [`Error::Format`] for values that are no integers; [`Error::Length`]
    /// unless there is one chunk for each term, all are of one length, hold
    /// whole values, and end within the row. The row is then unchanged.
    pub fn add_sites(
        &mut self,
        place: usize,
        terms: &[Term],
        format: Format,
        chunks: &[&[u8]],
    ) -> Result<()> {
        if chunks.len() != terms.len() {
            let (expected, found) = (terms.len(), chunks.len());
            return Err(Error::Length { what: "chunks of the row", expected, found });
        }
        let length = chunks.first().map_or(0, |chunk| chunk.len());
        if let Some(other) = chunks.iter().find(|chunk| chunk.len() != length) {
            let (expected, found) = (length, other.len());
            return Err(Error::Length { what: "bytes of a site's values", expected, found });
        }
        let count = whole(format, chunks.first().copied().unwrap_or_default())?;
        let end = place.saturating_add(count);
        if end > self.len() {
            let (what, expected) = ("values of the row", self.len());
            return Err(Error::Length { what, expected, found: end });
        }
        match &mut self.sums {
            Sums::Bits32(sums) => add::add(&mut sums[place..end], terms, format, chunks),
            Sums::Bits64(sums) => add::add(&mut sums[place..end], terms, format, chunks),
        }
        Ok(())
    }

    /// The sums, for noise to be added to them; none for sums of 32 bits, which
    /// leave it no room. Each is within +-2^62 if [`words_for`] said so.
    pub fn values_mut(&mut self) -> Option<&mut [i64]> {
        match &mut self.sums {
            Sums::Bits32(_) => None,
            Sums::Bits64(sums) => Some(sums),
        }
    }

    /// Writes the sums as words. Sums of 64 bits that do not fit words of 32
    /// become the largest or the smallest that do: only noise gets them there,
    /// and what happens to a noised sum costs no privacy.
    ///
    /// # Errors
    /// [`Error::Length`] unless `out` has a word for each sum.
    pub fn write(&self, words: Words, out: &mut [u8]) -> Result<()> {
        let expected = self.len().saturating_mul(words.width());
        if out.len() != expected {
            let (what, found) = ("bytes of the row", out.len());
            return Err(Error::Length { what, expected, found });
        }
        match (&self.sums, words) {
            (Sums::Bits32(sums), Words::Bits32) => add::write_32(sums, out),
            (Sums::Bits32(sums), Words::Bits64) => add::widen_64(sums, out),
            (Sums::Bits64(sums), Words::Bits32) => add::saturate_32(sums, out),
            (Sums::Bits64(sums), Words::Bits64) => add::write_64(sums, out),
        }
        Ok(())
    }
}

/// Makes so many zeros, and leaves nothing behind where memory has to grow.
fn zeros<T: Zeroize + Default + Clone>(sums: &mut Vec<T>, count: usize) {
    if sums.capacity() < count {
        sums.zeroize();
        *sums = Vec::with_capacity(count);
    }
    sums.clear();
    sums.resize(count, T::default());
}

/// The number of integers in a chunk.
///
/// # Errors
/// [`Error::Format`] for values that are no integers; [`Error::Length`] for a
/// part of one.
pub(crate) fn whole(format: Format, chunk: &[u8]) -> Result<usize> {
    if !format.is_integer() {
        return Err(Error::Format { expected: "a format of integers", found: format.name() });
    }
    let count = chunk.len() / format.width();
    if !chunk.len().is_multiple_of(format.width()) {
        let (what, expected) = ("bytes of whole integers", count * format.width());
        return Err(Error::Length { what, expected, found: chunk.len() });
    }
    Ok(count)
}
