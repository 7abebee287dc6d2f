//! How the values of an update travel.
//!
//! A study has one format for all its tensors, and there are two kinds. The
//! integers count steps of the study's grid: [`crate::quantise`] makes them at
//! the site, and [`crate::integer`] adds them exactly; all means and all sums
//! with noise are made of them. The floating-point formats serve the rules that
//! select ([`crate::rule`]): the site rounds a value once, to nearest, and the
//! enclave only widens, which is exact.

mod bfloat16;
mod float16;
mod rounding;

use crate::{Error, Result};

pub(crate) use {bfloat16::from_f64 as to_bfloat16, bfloat16::widen as from_bfloat16};
pub(crate) use {float16::from_f64 as to_float16, float16::widen as from_float16};

/// A format of an update's values, all little-endian.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// IEEE 754 binary32.
    Float32,
    /// The upper half of a binary32: 8 bits of precision, its whole range.
    Bfloat16,
    /// IEEE 754 binary16: 11 bits of precision, at most 65504.
    Float16,
    /// Steps of the grid, in 8 bits and two's complement.
    Int8,
    /// Steps of the grid, in 16 bits and two's complement.
    Int16,
    /// Steps of the grid, in 32 bits and two's complement.
    Int32,
}

impl Format {
    /// The number of bytes of a value.
    #[must_use]
    pub const fn width(self) -> usize {
        match self {
            Self::Float32 | Self::Int32 => 4,
            Self::Bfloat16 | Self::Float16 | Self::Int16 => 2,
            Self::Int8 => 1,
        }
    }

    /// The name, as manifests and messages have it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Float32 => "float32",
            Self::Bfloat16 => "bfloat16",
            Self::Float16 => "float16",
            Self::Int8 => "int8",
            Self::Int16 => "int16",
            Self::Int32 => "int32",
        }
    }

    /// Whether the values are integers, which count steps of the grid.
    #[must_use]
    pub const fn is_integer(self) -> bool {
        self.largest().is_some()
    }

    /// The largest magnitude that a site sends, in steps; none for a
    /// floating-point format. The most negative integer has no counterpart, so
    /// no site sends it; a hostile one may nonetheless: see [`Self::bound`].
    #[must_use]
    pub const fn largest(self) -> Option<i32> {
        match self {
            Self::Int8 => Some(i8::MAX as i32),
            Self::Int16 => Some(i16::MAX as i32),
            Self::Int32 => Some(i32::MAX),
            Self::Float32 | Self::Bfloat16 | Self::Float16 => None,
        }
    }

    /// The largest magnitude that the bytes can hold, in steps, whoever wrote
    /// them: one more than [`Self::largest`].
    #[must_use]
    pub const fn bound(self) -> Option<u32> {
        match self.largest() {
            Some(largest) => Some(largest.unsigned_abs() + 1),
            None => None,
        }
    }
}

/// Encodes float32 values at a site and widens them in the enclave, for the
/// floating-point formats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Codec {
    format: Format,
}

impl Codec {
    /// A codec.
    ///
    /// # Errors
    /// [`Error::Format`] for integers, which have no float32 values.
    pub fn new(format: Format) -> Result<Self> {
        if format.is_integer() {
            let expected = "a format of floating-point values";
            return Err(Error::Format { expected, found: format.name() });
        }
        Ok(Self { format })
    }

    /// The format.
    #[must_use]
    pub const fn format(self) -> Format {
        self.format
    }

    /// Decodes values into little-endian float32. Infinities and NaN stay what
    /// they are, so that [`crate::norm::inspect`] finds them afterwards.
    ///
    /// # Errors
    /// [`Error::Length`] unless `out` has 4 bytes for each whole value.
    pub fn decode(self, chunk: &[u8], out: &mut [u8]) -> Result<()> {
        self.expect_lengths(chunk.len(), out.len())?;
        let (out, _) = out.as_chunks_mut::<4>();
        match self.format {
            Format::Bfloat16 => bfloat16::decode(chunk.as_chunks().0, out),
            Format::Float16 => float16::decode(chunk.as_chunks().0, out),
            // No codec is made for integers.
            Format::Float32 | Format::Int8 | Format::Int16 | Format::Int32 => {
                out.as_flattened_mut().copy_from_slice(chunk);
            }
        }
        Ok(())
    }

    /// Encodes values, each rounded once to nearest, ties to even. `first` is
    /// the index of the first of them in the update; only errors name it.
    ///
    /// # Errors
    /// [`Error::Length`] unless `out` has [`Format::width`] bytes for each
    /// value; [`Error::Unrepresentable`] for the first value that is not finite
    /// or would not be any more. Nothing saturates: a site whose update does
    /// not fit should know, and a cut value is another update.
    pub fn encode(self, first: u64, values: &[f32], out: &mut [u8]) -> Result<()> {
        self.expect_lengths(out.len(), size_of_val(values))?;
        let refused = |largest: f64| {
            move |index: usize| Error::Unrepresentable {
                format: self.format.name(),
                index: first.saturating_add(index as u64),
                found: f64::from(values[index]),
                largest,
            }
        };
        match self.format {
            Format::Bfloat16 => {
                let narrow = |value: f32| to_bfloat16(value.into()).map(u16::to_le_bytes);
                pack(values, out, narrow).map_err(refused(bfloat16::MAX))
            }
            Format::Float16 => {
                let narrow = |value: f32| to_float16(value.into()).map(u16::to_le_bytes);
                pack(values, out, narrow).map_err(refused(float16::MAX))
            }
            Format::Float32 | Format::Int8 | Format::Int16 | Format::Int32 => {
                let finite = |value: f32| value.is_finite().then(|| value.to_le_bytes());
                pack(values, out, finite).map_err(refused(f32::MAX.into()))
            }
        }
    }

    /// Whether so many bytes of values and of float32 belong together.
    fn expect_lengths(self, narrow: usize, wide: usize) -> Result<()> {
        let values = narrow / self.format.width();
        if !narrow.is_multiple_of(self.format.width()) || values.checked_mul(4) != Some(wide) {
            let (what, expected) = ("bytes of float32 values", values.saturating_mul(4));
            return Err(Error::Length { what, expected, found: wide });
        }
        Ok(())
    }
}

/// Narrows each value; an error is the place of the first that has no image.
fn pack<const W: usize>(
    values: &[f32],
    out: &mut [u8],
    narrow: impl Fn(f32) -> Option<[u8; W]>,
) -> std::result::Result<(), usize> {
    let (out, _) = out.as_chunks_mut::<W>();
    for (index, (out, value)) in out.iter_mut().zip(values).enumerate() {
        *out = narrow(*value).ok_or(index)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::norm;
    use proptest::prelude::*;

    fn codecs() -> [Codec; 3] {
        [Format::Float32, Format::Bfloat16, Format::Float16].map(|of| Codec::new(of).unwrap())
    }

    fn floats(bytes: &[u8]) -> Vec<f32> {
        bytes.as_chunks::<4>().0.iter().map(|value| f32::from_le_bytes(*value)).collect()
    }

    proptest! {
        #[test]
        fn what_is_sent_is_near_and_the_pieces_do_not_matter(
            values in prop::collection::vec(-15f32..15.0, 40), cut in 0usize..40,
        ) {
            for codec in codecs() {
                let width = codec.format().width();
                let mut sent = vec![0; 40 * width];
                codec.encode(0, &values, &mut sent).unwrap();
                let mut pieces = vec![0; 40 * width];
                let (head, tail) = pieces.split_at_mut(cut * width);
                codec.encode(0, &values[..cut], head).unwrap();
                codec.encode(cut as u64, &values[cut..], tail).unwrap();
                prop_assert_eq!(&sent, &pieces);
                let mut got = vec![0; 160];
                let (head, tail) = got.split_at_mut(cut * 4);
                codec.decode(&sent[..cut * width], head).unwrap();
                codec.decode(&sent[cut * width..], tail).unwrap();
                prop_assert!(norm::inspect(&got).finite);
                let got = floats(&got);
                for (got, value) in got.iter().zip(&values) {
                    let error = match codec.format() {
                        Format::Bfloat16 => value.abs() / 256.0,
                        // Below 2^-14 the spacing is 2^-24.
                        Format::Float16 => value.abs() / 2048.0 + 2f32.powi(-25),
                        _ => 0.0,
                    };
                    prop_assert!((got - value).abs() <= error, "{:?} {} {}", codec, got, value);
                }
                // What was rounded once is not rounded again.
                let mut again = vec![0; 40 * width];
                codec.encode(0, &got, &mut again).unwrap();
                prop_assert_eq!(sent, again);
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_named() {
        for (codec, limit) in codecs().iter().zip([3.5e38, 3.4e38, 65520.0]) {
            for bad in [f64::NAN, f64::INFINITY, limit, -limit] {
                let bad = bad as f32;
                let mut out = vec![0; 30 * codec.format().width()];
                let mut values = vec![1.0; 30];
                values[22] = bad;
                let error = codec.encode(0, &values, &mut out).unwrap_err();
                let Error::Unrepresentable { format, index, found, largest } = error else {
                    panic!("{error}");
                };
                assert_eq!((format, index), (codec.format().name(), 22));
                assert_eq!(found.to_bits(), f64::from(bad).to_bits());
                values[22] = largest as f32;
                codec.encode(0, &values, &mut out).unwrap();
                // The same place in a piece that begins elsewhere.
                values[22] = bad;
                let out = &mut out[..10 * codec.format().width()];
                let error = codec.encode(20, &values[20..], out).unwrap_err();
                assert!(matches!(error, Error::Unrepresentable { index: 22, .. }), "{error}");
            }
        }
    }

    #[test]
    fn lengths_and_formats_that_do_not_match_are_refused() {
        for codec in codecs() {
            let width = codec.format().width();
            assert!(codec.decode(&vec![0; 3 * width], &mut [0; 8]).is_err());
            assert!(codec.encode(0, &[0.0; 2], &mut vec![0; 3 * width]).is_err());
            assert!(codec.decode(&[], &mut []).is_ok());
        }
        let half = &codecs()[2];
        assert!(half.decode(&[0; 3], &mut [0; 4]).is_err());
        for format in [Format::Int8, Format::Int16, Format::Int32] {
            assert!(matches!(Codec::new(format), Err(Error::Format { .. })));
        }
    }

    #[test]
    fn integers_know_their_range() {
        for (format, bits) in [(Format::Int8, 8), (Format::Int16, 16), (Format::Int32, 32)] {
            assert_eq!(format.name(), format!("int{bits}"));
            assert_eq!((format.width(), format.is_integer()), (bits / 8, true));
            assert_eq!(format.bound(), Some(1 << (bits - 1)));
            assert_eq!(format.largest().unwrap().unsigned_abs() + 1, 1 << (bits - 1));
        }
        for codec in codecs() {
            assert!(!codec.format().is_integer());
            assert_eq!((codec.format().largest(), codec.format().bound()), (None, None));
        }
    }

    #[test]
    fn no_format_hides_a_value_that_is_not_finite() {
        for (codec, bad) in codecs()[1..3].iter().zip([0x7f80u16, 0x7c00]) {
            for bits in [bad, bad | 1, bad | 0x8000, 0xffff] {
                let mut out = [0; 4];
                codec.decode(&bits.to_le_bytes(), &mut out).unwrap();
                assert!(!norm::inspect(&out).finite, "{:?} {bits:x}", codec.format());
            }
        }
    }
}
