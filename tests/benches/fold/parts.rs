//! What one core needs for each part of the weighted mean alone, on bytes that lie
//! in the cache: together with the cipher on what lies in memory they are the least
//! that a fold with all its checks can take.

use crate::figures::Bench;
use crate::limits::Limits;
use sealfold_aggregation::format::Format;
use sealfold_aggregation::integer::{IntegerRow, Term, Words};
use sealfold_enclave::keyed_hash::KeyedHash;
use sealfold_protocol::content;
use sealfold_protocol::seal::{CHUNK, InputKey, RECORD, Sealer};
use std::hint::black_box;

const BYTES: usize = 1 << 27;

/// Measures each part, and gives the speed of all of them one after the other for
/// so many sites.
pub fn together(bench: &mut Bench, sites: usize, limits: Limits) -> f64 {
    let hash = KeyedHash::new(&[1; 32]);
    let chunk = vec![1; CHUNK];
    let hashed = speed(bench, "the keyed hash", BYTES, || {
        (0..BYTES / RECORD).for_each(|record| {
            let mut record = hash.record(&[2; 32], record as u64);
            (0..RECORD / CHUNK).for_each(|_| record.chunk(&chunk));
            black_box(record.finish());
        });
    });
    let chunks = vec![vec![0; CHUNK]; sites];
    let rows: Vec<_> = chunks.iter().map(Vec::as_slice).collect();
    let terms = vec![Term::whole(1).unwrap(); sites];
    let (mut sums, mut row) = (IntegerRow::new(Words::Bits32), vec![0; CHUNK]);
    let added = speed(bench, &format!("the exact sum, {sites} sites"), BYTES, || {
        for _ in 0..BYTES / (sites * CHUNK) {
            sums.reset(CHUNK / 4);
            sums.add_sites(0, &terms, Format::Int32, &rows).unwrap();
            sums.write(Words::Bits32, &mut row).unwrap();
            black_box(&row);
        }
    });
    let (record, mut sealed) = (vec![0; RECORD], Vec::new());
    let made = speed(bench, "the row, hashed and sealed", BYTES, || {
        let (sealer, _) = Sealer::new(&InputKey::new([3; 32]), b"", BYTES as u64).unwrap();
        for seal in sealer.records() {
            black_box(content::record_hash(&record));
            sealed.clear();
            seal.seal(&record, &mut sealed).unwrap();
        }
    });
    let row = made * sites as f64;
    1.0 / [limits.cipher_in_memory, hashed, added, row].iter().map(|part| 1.0 / part).sum::<f64>()
}

fn speed(bench: &mut Bench, part: &str, bytes: usize, run: impl FnMut()) -> f64 {
    bench.speed(&format!("part: {part} alone, 1 thread"), bytes as f64, None, run)
}
