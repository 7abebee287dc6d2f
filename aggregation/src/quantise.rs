//! A site's values on the study's integer grid, and the sums back from it.
//!
//! The site rounds each value once, to the nearest step; the sums of the
//! integers are exact ([`crate::integer`]), so this is the whole error of a
//! mean, and the site that makes it is told how large it is.

use crate::format::Format;
use crate::integer::{ROUNDER, Words, whole};
use crate::{Error, Result};
use multiversion::multiversion;

/// Independent sums of the error, so that additions need not wait for one
/// another.
const LANES: usize = 16;

/// Writes each value as the integer nearest to value x `multiplier`, ties to
/// even, and returns the sum of the squared rounding errors, in steps squared:
/// at most a quarter for each value. The multiplier is what the study scales
/// values by, over the step of the grid.
///
/// Nothing saturates: a cut value is another update, of which a site should
/// know. Product and rounding are rounded each on its own, and the errors are
/// added in an order that the number of values decides, so every processor gives
/// the same bits. Pieces of an update give the same integers as the whole; their
/// errors sum to the same up to rounding.
///
/// # Errors
/// [`Error::Format`] for a format of no integers; [`Error::Parameter`] for a
/// multiplier that is not a positive number; [`Error::Length`] unless `out` has
/// [`Format::width`] bytes for each value; [`Error::Unrepresentable`], with the
/// largest magnitude in the unit of the values, for the first value that is not
/// finite or whose product is beyond [`Format::largest`]. What stands in `out`
/// then has no meaning.
pub fn quantise(
    format: Format,
    multiplier: f64,
    values: &[f32],
    out: &mut [u8],
) -> Result<f64> {
    if whole(format, out)? != values.len() {
        let (what, expected) = ("bytes of integers", values.len() * format.width());
        return Err(Error::Length { what, expected, found: out.len() });
    }
    if !(multiplier.is_finite() && multiplier > 0.0) {
        return Err(Error::Parameter { what: "multiplier", found: multiplier });
    }
    let largest = f64::from(format.largest().unwrap_or(0));
    let squares = match format {
        Format::Int8 => {
            let narrow = |bits: u64| [bits.to_le_bytes()[0]];
            round(values, multiplier, largest, out.as_chunks_mut::<1>().0, narrow)
        }
        Format::Int16 => {
            #[allow(clippy::cast_possible_truncation)] // as the integer fits
            let narrow = |bits: u64| (bits as u16).to_le_bytes();
            round(values, multiplier, largest, out.as_chunks_mut::<2>().0, narrow)
        }
        _ => {
            #[allow(clippy::cast_possible_truncation)]
            let narrow = |bits: u64| (bits as u32).to_le_bytes();
            round(values, multiplier, largest, out.as_chunks_mut::<4>().0, narrow)
        }
    };
    squares.ok_or_else(|| refused(format, multiplier, values))
}

/// Rounds as [`quantise`] does; none if a product is too large or no number.
/// `narrow` makes bytes of the low bits, which hold the integer.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl", "x86_64+avx2", "aarch64+neon"))]
fn round<const W: usize, N: Fn(u64) -> [u8; W]>(
    values: &[f32],
    multiplier: f64,
    largest: f64,
    out: &mut [[u8; W]],
    narrow: N,
) -> Option<f64> {
    let (mut fit, mut lanes) = ([true; LANES], [0.0; LANES]);
    let (blocks, rest) = values.as_chunks::<LANES>();
    let (out_blocks, out_rest) = out.as_chunks_mut::<LANES>();
    for (block, out) in blocks.iter().zip(out_blocks) {
        for place in 0..LANES {
            let product = f64::from(block[place]) * multiplier;
            let rounded = product + ROUNDER;
            // Exact: the two are less than a step apart.
            let error = product - (rounded - ROUNDER);
            // Also false for NaN.
            fit[place] &= product.abs() <= largest;
            lanes[place] += error * error;
            out[place] = narrow(rounded.to_bits());
        }
    }
    for (place, (value, out)) in rest.iter().zip(out_rest).enumerate() {
        let product = f64::from(*value) * multiplier;
        let rounded = product + ROUNDER;
        let error = product - (rounded - ROUNDER);
        fit[place] &= product.abs() <= largest;
        lanes[place] += error * error;
        *out = narrow(rounded.to_bits());
    }
    fit.iter().all(|fit| *fit).then(|| lanes.iter().sum())
}

/// The error for the first value that does not fit; there is one.
fn refused(format: Format, multiplier: f64, values: &[f32]) -> Error {
    let largest = f64::from(format.largest().unwrap_or(0));
    let fits = |value: &f32| (f64::from(*value) * multiplier).abs() <= largest;
    let index = values.iter().position(|value| !fits(value)).unwrap_or(0);
    Error::Unrepresentable {
        format: format.name(),
        index: index as u64,
        found: values.get(index).copied().unwrap_or_default().into(),
        largest: largest / multiplier,
    }
}

/// Reads an update's integers.
///
/// # Errors
/// [`Error::Format`] for a format of no integers; [`Error::Length`] unless `out`
/// has a place for each whole integer.
pub fn widen(format: Format, bytes: &[u8], out: &mut [i32]) -> Result<()> {
    expect("places for integers", whole(format, bytes)?, out.len())?;
    match format {
        Format::Int8 => read(bytes, out, |value| i8::from_le_bytes(value).into()),
        Format::Int16 => read(bytes, out, |value| i16::from_le_bytes(value).into()),
        _ => read(bytes, out, i32::from_le_bytes),
    }
    Ok(())
}

/// Reads an aggregate's sums as they are, in steps.
///
/// # Errors
/// [`Error::Length`] unless `bytes` has a word for each place of `out`.
pub fn read_integers(words: Words, bytes: &[u8], out: &mut [i64]) -> Result<()> {
    expect("bytes of the sums", out.len().saturating_mul(words.width()), bytes.len())?;
    match words {
        Words::Bits32 => read(bytes, out, |word| i32::from_le_bytes(word).into()),
        Words::Bits64 => read(bytes, out, i64::from_le_bytes),
    }
    Ok(())
}

/// Reads an aggregate's sums, each times `scale`: for a mean, the step over the
/// sites' weights and over what the study scales values by.
///
/// A sum below 2^53 becomes a binary64 exactly; a larger one, the product, and
/// the binary32 at the end are rounded to nearest, ties to even, each once. So
/// every site has the same values.
///
/// # Errors
/// [`Error::Length`] unless `bytes` has a word for each place of `out`.
pub fn read_sums(words: Words, bytes: &[u8], scale: f64, out: &mut [f32]) -> Result<()> {
    expect("bytes of the sums", out.len().saturating_mul(words.width()), bytes.len())?;
    #[allow(clippy::cast_possible_truncation)] // rounding to binary32 is the purpose
    let scaled = |sum: f64| (sum * scale) as f32;
    match words {
        Words::Bits32 => read(bytes, out, |word| scaled(i32::from_le_bytes(word).into())),
        Words::Bits64 => read(bytes, out, |word| scaled(i64::from_le_bytes(word) as f64)),
    }
    Ok(())
}

/// Makes a value of each word.
fn read<const W: usize, T>(bytes: &[u8], out: &mut [T], value: impl Fn([u8; W]) -> T) {
    for (out, word) in out.iter_mut().zip(bytes.as_chunks::<W>().0) {
        *out = value(*word);
    }
}

fn expect(what: &'static str, expected: usize, found: usize) -> Result<()> {
    if expected == found { Ok(()) } else { Err(Error::Length { what, expected, found }) }
}
