//! Where the values of an update lie in its records, and what they are: first
//! the model's, then the channels'.

use crate::admission::usize_of;
use sealfold_aggregation::format::{Codec, Format};
use sealfold_aggregation::integer::Words;
use sealfold_protocol::refusal::{Check, Refusal};
use sealfold_protocol::seal::{self, CHUNK, RECORD};
use sealfold_protocol::terms::{RoundKind, Terms};
use std::ops::Range;
use zeroize::Zeroizing;

/// The values of a round's updates.
pub(crate) struct Values {
    format: Format,
    /// None for whole numbers, which are never floating-point numbers.
    codec: Option<Codec>,
    channel_format: Format,
    /// The number of the model's values.
    model: u64,
    length: u64,
    words: Words,
}

/// The values of one chunk: the places in the record of the model's and of the
/// channels', and where in the chunk the channels' begin, in bytes.
pub(crate) struct Split {
    /// The first place of the model's values.
    pub model: usize,
    /// The first place of the channels' values.
    pub channels: usize,
    /// The number of the first value of the chunk in the update.
    pub first: u64,
    at: usize,
}

impl Split {
    /// The model's bytes of a chunk.
    pub fn model_of<'c>(&self, chunk: &'c [u8]) -> &'c [u8] {
        chunk.get(..self.at).unwrap_or_default()
    }

    /// The channels' bytes of a chunk.
    pub fn channels_of<'c>(&self, chunk: &'c [u8]) -> &'c [u8] {
        chunk.get(self.at..).unwrap_or_default()
    }
}

impl Values {
    /// As terms lay them out in a round of that kind.
    ///
    /// # Errors
    /// A refusal by `manifest` for a format that checked terms do not have.
    pub fn of(terms: &Terms, kind: RoundKind) -> Result<Self, Refusal> {
        let format = terms.aggregation.update_type.format();
        let codec = if format.is_integer() { None } else { Some(Codec::new(format)) };
        let codec = codec
            .transpose()
            .map_err(|error| Refusal::new(Check::Manifest, "values that can be decoded", error))?;
        Ok(Self {
            format,
            codec,
            channel_format: terms.aggregation.update_type.channel_format(),
            model: terms.model_values(kind),
            length: terms.update_length(kind),
            words: terms.words(kind),
        })
    }

    /// The format of the model's values.
    pub fn format(&self) -> Format {
        self.format
    }

    /// The format of the channels' values, as wide as the model's.
    pub fn channel_format(&self) -> Format {
        self.channel_format
    }

    /// The words of the aggregate.
    pub fn words(&self) -> Words {
        self.words
    }

    /// The bytes of one value.
    pub fn width(&self) -> usize {
        self.format.width()
    }

    /// The length of an update in bytes.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// The number of an update's records.
    pub fn records(&self) -> u64 {
        seal::record_count(self.length)
    }

    /// The number of values in a record.
    pub fn in_record(&self, record: u64) -> Result<usize, Refusal> {
        Ok(usize_of(seal::record_plain_len(self.length, record))? / self.width())
    }

    /// The number in the update of the first value of a record.
    fn first_of(&self, record: u64) -> u64 {
        record * (RECORD / self.width()) as u64
    }

    /// The place in a record at which the channels begin; its end if there are
    /// none in it.
    pub fn channels_begin(&self, record: u64) -> Result<usize, Refusal> {
        let model = self.model.saturating_sub(self.first_of(record));
        Ok(usize::try_from(model).unwrap_or(usize::MAX).min(self.in_record(record)?))
    }

    /// What of a chunk of so many bytes, from an offset in its record on, is the
    /// model's and what the channels'.
    pub fn split(&self, record: u64, offset: usize, bytes: usize) -> Split {
        let place = offset / self.width();
        let first = self.first_of(record) + place as u64;
        let values = bytes / self.width();
        let model = usize::try_from(self.model.saturating_sub(first)).unwrap_or(usize::MAX);
        let model = model.min(values);
        Split { model: place, channels: place + model, first, at: model * self.width() }
    }

    /// The bytes, among those of values that begin with number `first`, of the
    /// values whose numbers lie in a range.
    pub fn within<'c>(&self, first: u64, values: &'c [u8], numbers: &Range<u64>) -> &'c [u8] {
        let byte = |number: u64| {
            let before = usize::try_from(number.saturating_sub(first)).unwrap_or(usize::MAX);
            before.saturating_mul(self.width()).min(values.len())
        };
        values.get(byte(numbers.start)..byte(numbers.end)).unwrap_or_default()
    }

    /// Floating-point values as little-endian float32.
    ///
    /// # Errors
    /// A refusal by `layout` for bytes that are no whole number of values, or
    /// whole numbers.
    pub fn decode<'c>(
        &self,
        values: &'c [u8],
        scratch: &'c mut Vec<u8>,
    ) -> Result<&'c [u8], Refusal> {
        if self.format == Format::Float32 {
            return Ok(values);
        }
        let expected = "floating-point values of the agreed format";
        let codec = self.codec.ok_or_else(|| Refusal::new(Check::Layout, expected, "none"))?;
        scratch.resize(values.len() / self.width() * 4, 0);
        codec
            .decode(values, scratch)
            .map_err(|error| Refusal::new(Check::Layout, expected, error))?;
        Ok(scratch)
    }

    /// The model's values that all sites have in one place, as float32.
    ///
    /// # Errors
    /// As [`Values::decode`].
    pub fn decode_all<'c>(
        &self,
        split: &Split,
        chunks: &[&'c [u8]],
        scratch: &'c mut [Zeroizing<Vec<u8>>],
    ) -> Result<Vec<&'c [u8]>, Refusal> {
        let pairs = chunks.iter().zip(scratch);
        pairs.map(|(chunk, scratch)| self.decode(split.model_of(chunk), scratch)).collect()
    }

    /// Room for one decoded chunk; erased when dropped, and never grown.
    pub fn scratch(&self) -> Zeroizing<Vec<u8>> {
        Zeroizing::new(Vec::with_capacity(CHUNK / self.width() * 4))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(width: usize, model: u64, length: u64) -> Values {
        let format = [Format::Int8, Format::Int16, Format::Int32][width.ilog2() as usize];
        let words = Words::Bits32;
        Values { format, codec: None, channel_format: format, model, length, words }
    }

    /// Every byte of an update is the model's or a channel's, and its place in the
    /// record says which.
    #[test]
    fn a_split_lies_where_the_channels_begin() {
        for width in [1, 2, 4] {
            let in_record = (RECORD / width) as u64;
            for model in [0, 1, in_record - 1, in_record, in_record + 5] {
                let count = model + 10;
                let values = values(width, model, count * width as u64);
                for record in 0..values.records() {
                    let begin = values.channels_begin(record).unwrap();
                    let places = values.in_record(record).unwrap();
                    for offset in (0..places * width).step_by(CHUNK) {
                        let bytes = CHUNK.min(places * width - offset);
                        let split = values.split(record, offset, bytes);
                        let chunk = vec![0; bytes];
                        let ours = split.model_of(&chunk).len() / width;
                        assert_eq!(split.model, offset / width);
                        assert_eq!(ours, begin.saturating_sub(split.model).min(bytes / width));
                        assert_eq!(split.channels, split.model + ours);
                        assert_eq!(split.channels_of(&chunk).len(), bytes - ours * width);
                        let numbers = split.first..split.first + 1;
                        assert_eq!(values.within(split.first, &chunk, &numbers).len(), width);
                    }
                }
            }
        }
    }
}
