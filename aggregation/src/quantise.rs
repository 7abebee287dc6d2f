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
pub fn quantise(format: Format, multiplier: f64, values: &[f32], out: &mut [u8]) -> Result<f64> {
    if whole(format, out)? != values.len() {
        let (what, expected) = ("bytes of integers", values.len() * format.width());
        return Err(Error::Length { what, expected, found: out.len() });
    }
    if !(multiplier.is_finite() && multiplier > 0.0) {
        return Err(Error::Parameter { what: "multiplier", found: multiplier });
    }
    let largest = f64::from(format.largest().unwrap_or(0));
    let squares = match format {
        Format::Int8 => round(values, multiplier, largest, out.as_chunks_mut::<1>().0),
        Format::Int16 => round(values, multiplier, largest, out.as_chunks_mut::<2>().0),
        _ => round(values, multiplier, largest, out.as_chunks_mut::<4>().0),
    };
    squares.ok_or_else(|| refused(format, multiplier, values))
}

/// Rounds as [`quantise`] does; none if a product is too large or no number.
/// The integer is in the low bits.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl", "x86_64+avx2", "aarch64+neon"))]
fn round<const W: usize>(
    values: &[f32],
    multiplier: f64,
    largest: f64,
    out: &mut [[u8; W]],
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
            out[place] = rounded.to_bits().to_le_bytes().as_chunks().0[0];
        }
    }
    for (place, (value, out)) in rest.iter().zip(out_rest).enumerate() {
        let product = f64::from(*value) * multiplier;
        let rounded = product + ROUNDER;
        let error = product - (rounded - ROUNDER);
        fit[place] &= product.abs() <= largest;
        lanes[place] += error * error;
        *out = rounded.to_bits().to_le_bytes().as_chunks().0[0];
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const FORMATS: [Format; 3] = [Format::Int8, Format::Int16, Format::Int32];

    fn integers(format: Format, multiplier: f64, values: &[f32]) -> (Vec<i32>, f64) {
        let mut sent = vec![0; values.len() * format.width()];
        let squares = quantise(format, multiplier, values, &mut sent).unwrap();
        let mut out = vec![0; values.len()];
        widen(format, &sent, &mut out).unwrap();
        (out, squares)
    }

    proptest! {
        #[test]
        fn a_value_comes_back_within_half_a_step(
            values in prop::collection::vec(-1f32..1.0, 0..100), cut in 0usize..100, scale in 1e-3f64..1e3,
        ) {
            for format in FORMATS {
                let multiplier = f64::from(format.largest().unwrap()) / scale;
                let values: Vec<_> = values.iter().map(|v| v * (scale * 0.999) as f32).collect();
                let (found, squares) = integers(format, multiplier, &values);
                let products: Vec<_> = values.iter().map(|v| f64::from(*v) * multiplier).collect();
                let expected: Vec<_> = products.iter().map(|p| p.round_ties_even() as i32).collect();
                prop_assert_eq!(&found, &expected);
                let errors: f64 =
                    products.iter().zip(&found).map(|(p, i)| (p - f64::from(*i)).powi(2)).sum();
                prop_assert!((squares - errors).abs() <= 1e-12 * errors);
                prop_assert!(squares <= values.len() as f64 / 4.0);

                let (head, tail) = values.split_at(cut.min(values.len()));
                let pieces = [head, tail].map(|piece| integers(format, multiplier, piece).0);
                prop_assert_eq!(&found, &pieces.concat());

                let sums: Vec<_> = found.iter().flat_map(|i| i.to_le_bytes()).collect();
                let mut back = vec![0.0; values.len()];
                read_sums(Words::Bits32, &sums, 1.0 / multiplier, &mut back).unwrap();
                for (back, value) in back.iter().zip(&values) {
                    // Half a step, and the rounding to binary32.
                    let bound = 0.5 / multiplier * (1.0 + 1e-9) + f64::from(value.abs()) * 2f64.powi(-23);
                    let error = (f64::from(*back) - f64::from(*value)).abs();
                    prop_assert!(error <= bound, "{} beside {}", back, value);
                }
            }
        }

        #[test]
        fn sums_are_read_as_they_were_written(sums in prop::collection::vec(any::<i64>(), 0..40), bits in -60i32..10) {
            let bytes: Vec<_> = sums.iter().flat_map(|sum| sum.to_le_bytes()).collect();
            let mut back = vec![0; sums.len()];
            read_integers(Words::Bits64, &bytes, &mut back).unwrap();
            prop_assert_eq!(&back, &sums);
            let (scale, mut floats) = (2f64.powi(bits), vec![0.0; sums.len()]);
            read_sums(Words::Bits64, &bytes, scale, &mut floats).unwrap();
            let expected: Vec<_> = sums.iter().map(|sum| (*sum as f64 * scale) as f32).collect();
            prop_assert_eq!(floats, expected);
            let mut narrow = vec![0; 2 * sums.len()];
            read_integers(Words::Bits32, &bytes, &mut narrow).unwrap();
            let expected: Vec<_> =
                sums.iter().flat_map(|sum| [i64::from(*sum as i32), sum >> 32]).collect();
            prop_assert_eq!(narrow, expected);
        }
    }

    #[test]
    fn ties_go_to_even() {
        for format in FORMATS {
            let (found, squares) = integers(format, 0.5, &[1.0, -1.0, 3.0, 5.0, -0.0, 2.0, 253.0]);
            assert_eq!(found, [0, 0, 2, 2, 0, 1, 126]);
            assert_eq!(squares, 5.0 / 4.0);
        }
    }

    #[test]
    fn what_does_not_fit_is_named_and_not_cut() {
        for format in FORMATS {
            let largest = f64::from(format.largest().unwrap());
            for place in [0, 15, 16, 39] {
                let fits = |value: f32| {
                    let mut values = vec![0.25; 40];
                    values[place] = value;
                    quantise(format, 4.0, &values, &mut vec![0; 40 * format.width()])
                };
                // The largest product itself, in binary32 at least 2^31 - 128.
                let limit = if format == Format::Int32 { largest - 127.0 } else { largest };
                let limit = (limit / 4.0) as f32;
                fits(limit).unwrap();
                fits(-limit).unwrap();
                for bad in [limit.next_up(), -limit.next_up(), f32::MAX, f32::INFINITY, f32::NAN] {
                    let Error::Unrepresentable { format: name, index, found, largest: named } =
                        fits(bad).unwrap_err()
                    else {
                        panic!("another error");
                    };
                    assert_eq!((name, index), (format.name(), place as u64));
                    assert_eq!(found.to_bits(), f64::from(bad).to_bits());
                    assert_eq!(named, largest / 4.0);
                }
            }
        }
        let error = quantise(Format::Int8, 1.0, &[1.0, -300.0], &mut [0; 2]).unwrap_err();
        let expected =
            "value 1 is -300, expected at most 127 in magnitude, to be sent as int8".to_owned();
        assert_eq!(error.to_string(), expected);
    }

    #[test]
    fn lengths_formats_and_multipliers_that_cannot_be_are_refused() {
        assert!(quantise(Format::Int16, 1.0, &[1.0], &mut [0; 3]).is_err());
        assert!(quantise(Format::Int16, 1.0, &[1.0], &mut [0; 4]).is_err());
        let error = quantise(Format::Float16, 1.0, &[1.0], &mut [0; 2]).unwrap_err();
        assert!(matches!(error, Error::Format { .. }));
        for bad in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            let error = quantise(Format::Int8, bad, &[0.0], &mut [0]).unwrap_err();
            assert!(matches!(error, Error::Parameter { .. }), "{error}");
        }
        // A multiplier so large or so small that products are not normal.
        assert!(quantise(Format::Int32, 1e300, &[f32::MAX], &mut [0; 4]).is_err());
        assert!(quantise(Format::Int32, 1e-320, &[f32::MAX], &mut [0; 4]).is_ok());
        assert!(widen(Format::Int32, &[0; 8], &mut [0]).is_err());
        assert!(widen(Format::Bfloat16, &[0; 8], &mut [0; 4]).is_err());
        assert!(read_sums(Words::Bits64, &[0; 12], 1.0, &mut [0.0]).is_err());
        assert!(read_integers(Words::Bits32, &[0; 8], &mut [0]).is_err());
    }
}
