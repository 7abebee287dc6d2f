//! The last pass: rows of the aggregate, made and sealed.

use super::combination::{Combination, refused};
use super::pass::Reader;
use super::values::{Split, Values};
use super::{Failure, Output};
use crate::door::{Doors, RecordDoor};
use sealfold_aggregation::accumulate::weighted_sum;
use sealfold_aggregation::integer::{IntegerRow, Term, Words};
use sealfold_aggregation::rule::coordinate::Columns;
use sealfold_protocol::seal::{RECORD, RecordSeal};
use sealfold_protocol::{Error, content, seal};
use zeroize::Zeroizing;

/// The hash of each record of the aggregate, with its number.
pub type Hashes = Vec<(u64, [u8; 32])>;

/// The seals of the aggregate's records that one record of an update leads to:
/// as many as the aggregate's words are wider than the update's values.
pub type Seals = Vec<RecordSeal>;

/// The records of the pass, each with the seals of its rows.
pub fn records<'a>(
    values: &Values,
    mut seals: impl Iterator<Item = RecordSeal> + Send + 'a,
) -> impl Iterator<Item = (u64, Seals)> + Send + 'a {
    let each = values.words().width() / values.width();
    (0..values.records()).map(move |record| (record, seals.by_ref().take(each).collect()))
}

/// One thread's part: makes rows until no record is left.
pub fn make<D: Doors>(
    reader: &mut Reader<'_, '_, Seals, D::Door>,
    combination: &Combination,
    values: &Values,
    output: &Output,
    door: &D,
) -> Result<Hashes, Failure> {
    // A connection of its own, so that neither side waits for the other to read.
    let mut writer = door.open()?;
    let mut maker = Maker::new(combination, values, reader.sites())?;
    // As long as they ever get from the start: a buffer that grows leaves what
    // it held behind.
    let mut plain =
        Zeroizing::new(Vec::with_capacity(RECORD * values.words().width() / values.width()));
    let mut sealed = Vec::with_capacity(sealfold_protocol::door::MAX_LENGTH as usize);
    let mut hashes = Vec::new();
    while let Some((record, seals)) = reader.next() {
        maker.make(reader, record, &mut plain)?;
        for (seal, part) in seals.into_iter().zip(plain.chunks(RECORD)) {
            let range = seal::record_range(output.length, seal.index());
            hashes.push((seal.index(), content::record_hash(part)));
            sealed.clear();
            seal.seal(part, &mut sealed).map_err(Error::from)?;
            writer.write(output.object.as_bytes(), range.start, &sealed)?;
        }
    }
    writer.settle()?;
    Ok(hashes)
}

/// Makes one row after the other, in memory that is kept.
struct Maker<'a> {
    combination: &'a Combination,
    values: &'a Values,
    /// The sums of a row; beside floating-point values those of the channels.
    integers: IntegerRow,
    /// How each site's channels count beside floating-point values: once.
    channels: Vec<Term>,
    columns: Columns,
    /// A chunk of each site, decoded.
    decoded: Vec<Zeroizing<Vec<u8>>>,
}

impl<'a> Maker<'a> {
    fn new(
        combination: &'a Combination,
        values: &'a Values,
        sites: usize,
    ) -> Result<Self, Failure> {
        let decoded = (0..sites).map(|_| values.scratch()).collect();
        let integers = match combination {
            Combination::Exact(exact) => exact.row(),
            _ => IntegerRow::new(Words::Bits32),
        };
        let once = Term::whole(1).map_err(|e| refused("a sum", &e))?;
        let (channels, columns) = (vec![once; sites], Columns::new());
        Ok(Self { combination, values, integers, channels, columns, decoded })
    }

    /// Makes the row of a record: the words of the aggregate, little-endian.
    fn make<D: RecordDoor>(
        &mut self,
        reader: &mut Reader<'_, '_, Seals, D>,
        record: u64,
        plain: &mut Vec<u8>,
    ) -> Result<(), Failure> {
        let (values, count) = (self.values, self.values.in_record(record)?);
        plain.resize(values.words().width() * count, 0);
        match self.combination {
            Combination::Exact(exact) => {
                let row = &mut self.integers;
                row.reset(count);
                reader.open(record, |offset, chunks| {
                    exact.add(row, values, &split_of(values, record, offset, chunks), chunks)
                })?;
                exact.finish(row, record, plain)
            }
            Combination::Factors(factors) => {
                self.floats(reader, record, plain, |_, floats, out| {
                    weighted_sum(factors, floats, out)
                })
            }
            Combination::Coordinates(rule) => {
                self.floats(reader, record, plain, |columns, floats, out| {
                    rule.combine(columns, floats, out)
                })
            }
        }
    }

    /// Makes the row of a record of floating-point values, the channels' sums
    /// behind them.
    fn floats<D: RecordDoor>(
        &mut self,
        reader: &mut Reader<'_, '_, Seals, D>,
        record: u64,
        plain: &mut [u8],
        combine: impl Fn(&mut Columns, &[&[u8]], &mut [u8]) -> sealfold_aggregation::Result<()>,
    ) -> Result<(), Failure> {
        let (values, columns, decoded) = (self.values, &mut self.columns, &mut self.decoded);
        let mut beside = Beside::new(&mut self.integers, values, record, &self.channels)?;
        reader.open(record, |offset, chunks| {
            let split = split_of(values, record, offset, chunks);
            beside.add(&split, chunks)?;
            side_by_side(values, &split, chunks, decoded, plain, |floats, out| {
                combine(columns, floats, out)
            })
        })?;
        beside.finish(plain)
    }
}

/// The parts of the chunks that all sites have in one place.
fn split_of(values: &Values, record: u64, offset: usize, chunks: &[&[u8]]) -> Split {
    values.split(record, offset, chunks.first().map_or(0, |chunk| chunk.len()))
}

/// The channels of a record whose other values are floating-point numbers.
struct Beside<'r> {
    row: &'r mut IntegerRow,
    values: &'r Values,
    once: &'r [Term],
    /// The place in the record at which the channels begin.
    begin: usize,
}

impl<'r> Beside<'r> {
    fn new(
        row: &'r mut IntegerRow,
        values: &'r Values,
        record: u64,
        once: &'r [Term],
    ) -> Result<Self, Failure> {
        let begin = values.channels_begin(record)?;
        row.reset(values.in_record(record)? - begin);
        Ok(Self { row, values, once, begin })
    }

    fn add(&mut self, split: &Split, chunks: &[&[u8]]) -> Result<(), Failure> {
        let channels: Vec<_> = chunks.iter().map(|chunk| split.channels_of(chunk)).collect();
        // Before the channels there is nothing to add.
        let place = split.channels.saturating_sub(self.begin);
        self.row
            .add_sites(place, self.once, self.values.channel_format(), &channels)
            .map_err(|e| refused("a sum that fits", &e))
    }

    fn finish(self, plain: &mut [u8]) -> Result<(), Failure> {
        let out = plain.get_mut(4 * self.begin..).unwrap_or_default();
        self.row.write(Words::Bits32, out).map_err(|e| refused("a row of words", &e))
    }
}

/// Combines the model's values that all sites have in one chunk into theirs of
/// the row.
fn side_by_side(
    values: &Values,
    split: &Split,
    chunks: &[&[u8]],
    decoded: &mut [Zeroizing<Vec<u8>>],
    plain: &mut [u8],
    combine: impl FnOnce(&[&[u8]], &mut [u8]) -> sealfold_aggregation::Result<()>,
) -> Result<(), Failure> {
    let floats = values.decode_all(split, chunks, decoded)?;
    let length = floats.first().map_or(0, |floats| floats.len());
    combine(&floats, &mut plain[4 * split.model..4 * split.model + length])
        .map_err(|error| refused("values of all sites", &error))
}
