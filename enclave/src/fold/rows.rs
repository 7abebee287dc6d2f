//! The last pass: rows of the aggregate, made and sealed.

use super::combination::{Combination, refused};
use super::pass::Reader;
use super::values::Values;
use super::{Failure, Output};
use crate::door::{Doors, RecordDoor};
use sealfold_aggregation::accumulate::weighted_sum;
use sealfold_aggregation::integer::IntegerRow;
use sealfold_aggregation::rule::coordinate::Columns;
use sealfold_protocol::seal::{RECORD, RecordSeal};
use sealfold_protocol::update::PREAMBLE;
use sealfold_protocol::{Error, content, seal};
use zeroize::Zeroizing;

/// The hash of each record of the aggregate, with its number.
pub type Hashes = Vec<(u64, [u8; 32])>;

/// The seals of the aggregate's records that one record of an update leads to:
/// as many as float32 is wider than the update's values.
pub type Seals = Vec<RecordSeal>;

/// The records of the pass, each with the seals of its rows.
pub fn records<'a>(
    values: &Values,
    mut seals: impl Iterator<Item = RecordSeal> + Send + 'a,
) -> impl Iterator<Item = (u64, Seals)> + Send + 'a {
    let each = 4 / values.width();
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
    let mut maker = Maker::new(combination, values, reader.sites());
    // As long as they ever get from the start: a buffer that grows leaves what
    // it held behind.
    let mut plain = Zeroizing::new(Vec::with_capacity(RECORD * 4 / values.width()));
    let mut sealed = Vec::with_capacity(sealfold_protocol::door::MAX_LENGTH as usize);
    let mut hashes = Vec::new();
    while let Some((record, seals)) = reader.next() {
        maker.make(reader, record, &mut plain)?;
        if record == 0 {
            plain[..PREAMBLE].copy_from_slice(&output.preamble);
        }
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
    integers: IntegerRow,
    columns: Columns,
    /// A chunk of each site, decoded.
    decoded: Vec<Zeroizing<Vec<u8>>>,
}

impl<'a> Maker<'a> {
    fn new(combination: &'a Combination, values: &'a Values, sites: usize) -> Self {
        let decoded = (0..sites).map(|_| values.scratch()).collect();
        let (integers, columns) = (IntegerRow::new(), Columns::new());
        Self { combination, values, integers, columns, decoded }
    }

    /// Makes the row of a record: little-endian float32 values. What stands in
    /// the preamble's places has no meaning.
    fn make<D: RecordDoor>(
        &mut self,
        reader: &mut Reader<'_, '_, Seals, D>,
        record: u64,
        plain: &mut Vec<u8>,
    ) -> Result<(), Failure> {
        let count = self.values.in_record(record)?;
        plain.resize(4 * count, 0);
        let (values, decoded, columns) = (self.values, &mut self.decoded, &mut self.columns);
        match self.combination {
            Combination::Sum(factors) => reader.open(record, |offset, chunks| {
                side_by_side(values, record, (offset, chunks), decoded, plain, |floats, out| {
                    weighted_sum(factors, floats, out)
                })
            }),
            Combination::Coordinates(rule) => reader.open(record, |offset, chunks| {
                side_by_side(values, record, (offset, chunks), decoded, plain, |floats, out| {
                    rule.combine(columns, floats, out)
                })
            }),
            Combination::Noisy(noisy) => {
                let row = &mut self.integers;
                row.reset(count);
                reader.open(record, |offset, chunks| {
                    let mut sites = chunks.iter().zip(&mut *decoded).enumerate();
                    sites.try_for_each(|(site, (chunk, decoded))| {
                        noisy.add(row, site, values, (record, offset, chunk), decoded)
                    })
                })?;
                noisy.finish(row, record, plain)
            }
        }
    }
}

/// Combines the values that all sites have in one chunk into theirs of the row.
fn side_by_side(
    values: &Values,
    record: u64,
    (offset, chunks): (usize, &[&[u8]]),
    decoded: &mut [Zeroizing<Vec<u8>>],
    plain: &mut [u8],
    combine: impl FnOnce(&[&[u8]], &mut [u8]) -> sealfold_aggregation::Result<()>,
) -> Result<(), Failure> {
    let Some((at, floats)) = values.decode_all(record, offset, chunks, decoded)? else {
        return Ok(());
    };
    let length = floats.first().map_or(0, |floats| floats.len());
    combine(&floats, &mut plain[4 * at..4 * at + length])
        .map_err(|error| refused("values of all sites", &error))
}
