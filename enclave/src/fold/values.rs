//! Where the values of an update lie in its records, and what they are.

use crate::admission::usize_of;
use sealfold_aggregation::format::{Codec, Format};
use sealfold_protocol::manifest::Manifest;
use sealfold_protocol::refusal::{Check, Refusal};
use sealfold_protocol::seal::{self, CHUNK};
use std::ops::Range;
use zeroize::Zeroizing;

/// The values that all sites have in one place: the first place in the record,
/// and each site's float32 values.
type SideBySide<'c> = (usize, Vec<&'c [u8]>);

/// The values of a study's updates.
pub(crate) struct Values {
    format: Format,
    /// None for grid integers, which are never floating-point numbers.
    codec: Option<Codec>,
    length: u64,
    preamble: usize,
}

impl Values {
    /// As a manifest lays them out.
    ///
    /// # Errors
    /// A refusal by `manifest` for scales that a checked one does not have.
    pub fn of(manifest: &Manifest) -> Result<Self, Refusal> {
        let format = manifest.aggregation.update_type.format();
        let codec = match format {
            Format::Grid => None,
            format => Some(Codec::new(format, &manifest.scales()).map_err(|error| {
                Refusal::new(Check::Manifest, "values that can be decoded", error)
            })?),
        };
        let (length, preamble) = (manifest.update_length(), manifest.preamble_length());
        Ok(Self { format, codec, length, preamble })
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

    /// The number of places in a record, those of the preamble included.
    pub fn in_record(&self, record: u64) -> Result<usize, Refusal> {
        Ok(usize_of(seal::record_plain_len(self.length, record))? / self.width())
    }

    /// The length of the preamble in bytes; it lies within the first chunk.
    pub fn preamble(&self) -> usize {
        self.preamble
    }

    /// What of a chunk are values: their first place in the record, and their
    /// bytes. None for a chunk that is all preamble.
    pub fn behind_preamble<'c>(
        &self,
        record: u64,
        offset: usize,
        chunk: &'c [u8],
    ) -> Option<(usize, &'c [u8])> {
        let skipped = if record == 0 { self.preamble.saturating_sub(offset) } else { 0 };
        let values = chunk.get(skipped..).filter(|values| !values.is_empty())?;
        Some(((offset + skipped) / self.width(), values))
    }

    /// The number among the update's values of the one at a place of a record.
    fn number(&self, record: u64, place: usize) -> u64 {
        let before = record * (seal::RECORD / self.width()) as u64;
        (before + place as u64).saturating_sub((self.preamble / self.width()) as u64)
    }

    /// Whether those values of a chunk whose numbers lie in one of the ranges
    /// are all zero. All of them are read, whatever they hold.
    pub fn are_zero(
        &self,
        record: u64,
        offset: usize,
        chunk: &[u8],
        ranges: &[Range<u64>],
    ) -> bool {
        let Some((place, values)) = self.behind_preamble(record, offset, chunk) else {
            return true;
        };
        let first = self.number(record, place);
        let byte = |number: u64| {
            let values_before = usize::try_from(number.saturating_sub(first)).unwrap_or(usize::MAX);
            values_before.saturating_mul(self.width()).min(values.len())
        };
        let any = |range: &Range<u64>| {
            let bytes = values.get(byte(range.start)..byte(range.end)).unwrap_or_default();
            bytes.iter().fold(0, |any, byte| any | byte)
        };
        ranges.iter().fold(0, |all, range| all | any(range)) == 0
    }

    /// The values of a chunk as little-endian float32, with their first place
    /// in the record. None for a chunk that is all preamble, or grid integers.
    ///
    /// # Errors
    /// A refusal by `layout` for a chunk that is no whole number of values.
    pub fn decode<'c>(
        &self,
        record: u64,
        offset: usize,
        chunk: &'c [u8],
        scratch: &'c mut Vec<u8>,
    ) -> Result<Option<(usize, &'c [u8])>, Refusal> {
        let Some((place, values)) = self.behind_preamble(record, offset, chunk) else {
            return Ok(None);
        };
        let Some(codec) = &self.codec else { return Ok(None) };
        if self.format == Format::Float32 {
            return Ok(Some((place, values)));
        }
        let first = self.number(record, place);
        scratch.resize(values.len() / self.width() * 4, 0);
        codec
            .decode(first, values, scratch)
            .map_err(|error| Refusal::new(Check::Layout, "values of the agreed format", error))?;
        Ok(Some((place, scratch)))
    }

    /// As [`Values::decode`], of the chunks that all sites have in one place.
    ///
    /// # Errors
    /// As [`Values::decode`].
    pub fn decode_all<'c>(
        &self,
        record: u64,
        offset: usize,
        chunks: &[&'c [u8]],
        scratch: &'c mut [Zeroizing<Vec<u8>>],
    ) -> Result<Option<SideBySide<'c>>, Refusal> {
        let mut decoded = Vec::with_capacity(chunks.len());
        let mut place = None;
        for (chunk, scratch) in chunks.iter().zip(scratch) {
            if let Some((at, values)) = self.decode(record, offset, chunk, scratch)? {
                place = Some(at);
                decoded.push(values);
            }
        }
        Ok(place.map(|place| (place, decoded)))
    }

    /// Room for one decoded chunk; erased when dropped, and never grown.
    pub fn scratch(&self) -> Zeroizing<Vec<u8>> {
        Zeroizing::new(Vec::with_capacity(CHUNK / self.width() * 4))
    }
}
