//! How the values of an update travel.
//!
//! A study has one format for all its tensors. A narrow one halves or quarters
//! what a site uploads; what it costs in precision is decided at the site,
//! where the values are rounded, once and to nearest. The enclave only widens,
//! which is exact but for the product with a scale of int8, and folds what it
//! gets as it folds float32.
//!
//! [`Format::Grid`] is the odd one out: integers for patient-level privacy,
//! which [`crate::integer`] adds without ever making them floating-point
//! numbers.

mod bfloat16;
mod float16;
mod int8;
mod rounding;

use crate::{Error, Result};
use int8::Scales;

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
    /// An integer of -127 to 127, times the scale of its tensor.
    Int8,
    /// An int32 that counts steps of the study's grid; see
    /// [`crate::clipping`].
    Grid,
}

impl Format {
    /// The number of bytes of a value.
    #[must_use]
    pub const fn width(self) -> usize {
        match self {
            Self::Float32 | Self::Grid => 4,
            Self::Bfloat16 | Self::Float16 => 2,
            Self::Int8 => 1,
        }
    }

    /// The name, as messages have it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Float32 => "float32",
            Self::Bfloat16 => "bfloat16",
            Self::Float16 => "float16",
            Self::Int8 => "int8",
            Self::Grid => "grid",
        }
    }
}

/// Encodes float32 values at a site and decodes them in the enclave.
#[derive(Debug, Clone, PartialEq)]
pub struct Codec {
    format: Format,
    /// Empty but for int8.
    scales: Scales,
}

impl Codec {
    /// A codec. `scales` is empty but for int8, where each entry is the index
    /// of a tensor's first value in the update and the tensor's scale: the
    /// first at 0, each valid up to the next, the last to the end.
    ///
    /// # Errors
    /// [`Error::Format`] for grid integers, which have no float32 values;
    /// [`Error::Length`] for scales where none belong or none where some do;
    /// [`Error::ScaleOrder`] and [`Error::Scale`] for an entry out of order or
    /// a scale that cannot be.
    pub fn new(format: Format, scales: &[(u64, f32)]) -> Result<Self> {
        if format == Format::Grid {
            let expected = "a format of floating-point values";
            return Err(Error::Format { expected, found: format.name() });
        }
        if format != Format::Int8 && !scales.is_empty() {
            let (what, found) = ("scales of a format that has none", scales.len());
            return Err(Error::Length { what, expected: 0, found });
        }
        if format == Format::Int8 && scales.is_empty() {
            return Err(Error::Empty { what: "scales of int8" });
        }
        Ok(Self { format, scales: Scales::new(scales)? })
    }

    /// The format.
    #[must_use]
    pub const fn format(&self) -> Format {
        self.format
    }

    /// Decodes values into little-endian float32. `first` is the index of the
    /// chunk's first value in the update. Infinities and NaN stay what they
    /// are, so that [`crate::norm::inspect`] finds them afterwards.
    ///
    /// # Errors
    /// [`Error::Length`] unless `out` has 4 bytes for each whole value.
    pub fn decode(&self, first: u64, chunk: &[u8], out: &mut [u8]) -> Result<()> {
        self.expect_lengths(chunk.len(), out.len(), 4)?;
        let (out, _) = out.as_chunks_mut::<4>();
        match self.format {
            // No codec is made for the grid.
            Format::Float32 | Format::Grid => out.as_flattened_mut().copy_from_slice(chunk),
            Format::Bfloat16 => bfloat16::decode(chunk.as_chunks().0, out),
            Format::Float16 => float16::decode(chunk.as_chunks().0, out),
            Format::Int8 => {
                for (scale, places) in self.scales.runs(first, chunk.len()) {
                    int8::decode(scale, &chunk[places.clone()], &mut out[places]);
                }
            }
        }
        Ok(())
    }

    /// Encodes values, each rounded once to nearest, ties to even. `first` is
    /// the index of the first of them in the update.
    ///
    /// # Errors
    /// [`Error::Length`] unless `out` has [`Format::width`] bytes for each
    /// value; [`Error::Unrepresentable`] for the first value that is not finite
    /// or would not be any more. Nothing saturates: a site whose update does
    /// not fit should know, and a cut value is another update.
    pub fn encode(&self, first: u64, values: &[f32], out: &mut [u8]) -> Result<()> {
        self.expect_lengths(out.len(), size_of_val(values), 4)?;
        let refused = |largest: f64| {
            move |index: usize| Error::Unrepresentable {
                format: self.format.name(),
                index: first.saturating_add(index as u64),
                found: f64::from(values[index]),
                largest,
            }
        };
        match self.format {
            Format::Float32 | Format::Grid => {
                let finite = |value: f32| value.is_finite().then(|| value.to_le_bytes());
                pack(values, out, finite).map_err(refused(f32::MAX.into()))
            }
            Format::Bfloat16 => {
                let narrow = |value: f32| to_bfloat16(value.into()).map(u16::to_le_bytes);
                pack(values, out, narrow).map_err(refused(bfloat16::MAX))
            }
            Format::Float16 => {
                let narrow = |value: f32| to_float16(value.into()).map(u16::to_le_bytes);
                pack(values, out, narrow).map_err(refused(float16::MAX))
            }
            Format::Int8 => {
                for (scale, places) in self.scales.runs(first, values.len()) {
                    let narrow = |value: f32| int8::encode(scale, value).map(i8::to_le_bytes);
                    let error = refused(int8::largest(scale).into());
                    pack(&values[places.clone()], &mut out[places.clone()], narrow)
                        .map_err(|index| error(places.start + index))?;
                }
                Ok(())
            }
        }
    }

    /// Whether so many bytes of values and of float32 belong together.
    fn expect_lengths(&self, narrow: usize, wide: usize, width: usize) -> Result<()> {
        let values = narrow / self.format.width();
        if !narrow.is_multiple_of(self.format.width()) || values.checked_mul(width) != Some(wide) {
            let (what, expected) = ("bytes of float32 values", values.saturating_mul(width));
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

    const SCALES: [(u64, f32); 3] = [(0, 0.5), (7, 2.0), (20, 0.125)];

    fn codecs() -> [Codec; 4] {
        [
            Codec::new(Format::Float32, &[]).unwrap(),
            Codec::new(Format::Bfloat16, &[]).unwrap(),
            Codec::new(Format::Float16, &[]).unwrap(),
            Codec::new(Format::Int8, &SCALES).unwrap(),
        ]
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
                codec.decode(0, &sent[..cut * width], head).unwrap();
                codec.decode(cut as u64, &sent[cut * width..], tail).unwrap();
                prop_assert!(norm::inspect(&got).finite);
                let got = floats(&got);
                for (place, (got, value)) in got.iter().zip(&values).enumerate() {
                    let scale = SCALES.iter().rev().find(|s| s.0 <= place as u64).unwrap().1;
                    let error = match codec.format() {
                        Format::Bfloat16 => value.abs() / 256.0,
                        // Below 2^-14 the spacing is 2^-24.
                        Format::Float16 => value.abs() / 2048.0 + 2f32.powi(-25),
                        Format::Int8 => scale / 2.0,
                        Format::Float32 | Format::Grid => 0.0,
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
        for (codec, limit) in codecs().iter().zip([3.5e38, 3.4e38, 65520.0, 16.0]) {
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
            assert!(codec.decode(0, &vec![0; 3 * width], &mut [0; 8]).is_err());
            assert!(codec.encode(0, &[0.0; 2], &mut vec![0; 3 * width]).is_err());
            assert!(codec.decode(0, &[], &mut []).is_ok());
        }
        let half = &codecs()[2];
        assert!(half.decode(0, &[0; 3], &mut [0; 4]).is_err());
        assert!(matches!(Codec::new(Format::Grid, &[]), Err(Error::Format { .. })));
        assert!(matches!(Codec::new(Format::Int8, &[]), Err(Error::Empty { .. })));
        assert!(matches!(Codec::new(Format::Float16, &SCALES), Err(Error::Length { .. })));
    }

    #[test]
    fn no_format_hides_a_value_that_is_not_finite() {
        for (codec, bad) in codecs()[1..3].iter().zip([0x7f80u16, 0x7c00]) {
            for bits in [bad, bad | 1, bad | 0x8000, 0xffff] {
                let mut out = [0; 4];
                codec.decode(0, &bits.to_le_bytes(), &mut out).unwrap();
                assert!(!norm::inspect(&out).finite, "{:?} {bits:x}", codec.format());
            }
        }
    }
}
