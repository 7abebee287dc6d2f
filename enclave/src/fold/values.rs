//! Where the values of an update lie in its records, and what they are.

use crate::admission::usize_of;
use sealfold_aggregation::format::{Codec, Format};
use sealfold_protocol::manifest::Manifest;
use sealfold_protocol::refusal::{Check, Refusal};
use sealfold_protocol::seal::{self, CHUNK};
use zeroize::Zeroizing;

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

    /// The values of a chunk as little-endian float32, with their first place
    /// in the record. None for a chunk that is all preamble, or grid integers.
    pub fn decode<'c>(
        &self,
        record: u64,
        offset: usize,
        chunk: &'c [u8],
        scratch: &'c mut Vec<u8>,
    ) -> Option<(usize, &'c [u8])> {
        let (place, values) = self.behind_preamble(record, offset, chunk)?;
        let codec = self.codec.as_ref()?;
        if self.format == Format::Float32 {
            return Some((place, values));
        }
        let before = record * (seal::RECORD / self.width()) as u64;
        let first = (before + place as u64).saturating_sub((self.preamble / self.width()) as u64);
        scratch.resize(values.len() / self.width() * 4, 0);
        codec.decode(first, values, scratch).ok()?;
        Some((place, scratch))
    }

    /// Room for one decoded chunk; erased when dropped, and never grown.
    pub fn scratch(&self) -> Zeroizing<Vec<u8>> {
        Zeroizing::new(Vec::with_capacity(CHUNK / self.width() * 4))
    }
}
