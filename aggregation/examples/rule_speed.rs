//! How fast the robust rules go through updates, on one core: bytes of all
//! sites' records a second of processor time (Linux).
//!
//! `cargo run --release -p sealfold-aggregation --example rule_speed`

#![allow(clippy::cast_precision_loss)] // sizes become rates

use sealfold_aggregation::accumulate::weighted_sum;
use sealfold_aggregation::rule::coordinate::Columns;
use sealfold_aggregation::rule::gram::PartialGram;
use sealfold_aggregation::rule::{Combination, Rule};
use sealfold_aggregation::{Result, norm};
use std::error::Error;

/// The plaintext of a record.
const RECORD: usize = 256 << 10;
/// Bytes for each measurement, over all sites.
const BYTES: usize = 128 << 20;
/// Times that they are gone through: the kernel counts in milliseconds.
const RUNS: u64 = 8;

/// Values between -1 and 1 that look random, from `SplitMix64`.
fn values(count: usize, seed: u64) -> Vec<u8> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = (state ^ state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        // 24 random bits as a value from 1 to 2.
        let bits = u32::try_from(mixed >> 41).unwrap_or(0) | 0x3f80_0000;
        2.0 * f32::from_bits(bits) - 3.0
    };
    (0..count).flat_map(|_| next().to_le_bytes()).collect()
}

/// Nanoseconds that this thread has had a processor: on a busy machine the time
/// on the wall says little.
fn processor_time() -> std::result::Result<u64, Box<dyn Error>> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat")?;
    Ok(text.split_whitespace().next().unwrap_or_default().parse()?)
}

fn measure(
    name: &str,
    updates: &[Vec<u8>],
    mut each: impl FnMut(&[&[u8]]) -> Result<()>,
) -> std::result::Result<(), Box<dyn Error>> {
    let start = processor_time()?;
    for _ in 0..RUNS {
        for from in (0..updates[0].len()).step_by(RECORD) {
            let rows: Vec<_> = updates.iter().map(|update| &update[from..from + RECORD]).collect();
            each(&rows)?;
        }
    }
    let nanoseconds = (processor_time()? - start) / RUNS;
    let bytes = updates.len() * updates[0].len();
    println!("{:>5} {name:<24} {:6.2} GB/s", updates.len(), bytes as f64 / nanoseconds as f64);
    Ok(())
}

fn main() -> std::result::Result<(), Box<dyn Error>> {
    for sites in [10, 50, 200] {
        let length = (BYTES / sites / RECORD).max(1) * RECORD;
        let updates: Vec<_> = (1..).take(sites).map(|seed| values(length / 4, seed)).collect();
        let mut out = vec![0; RECORD];
        measure("norms (memory, nearly)", &updates, |rows| {
            rows.iter().map(|row| norm::inspect(row)).for_each(|seen| {
                std::hint::black_box(seen);
            });
            Ok(())
        })?;
        let factors = vec![0.1; sites];
        measure("weighted mean", &updates, |rows| weighted_sum(&factors, rows, &mut out))?;
        let mut gram = PartialGram::new(sites);
        measure("gram matrix", &updates, |rows| gram.add(rows))?;
        let gram = gram.finish();
        let byzantine = (sites - 3) / 4;
        let rules =
            [Rule::Median, Rule::TrimmedMean { trim: sites / 5 }, Rule::Bulyan { byzantine }];
        for rule in rules {
            let (shares, norms) = (vec![1.0 / sites as f64; sites], vec![1.0; sites]);
            if let Combination::Coordinates(coordinates) =
                rule.combine(&shares, &norms, Some(&gram))?
            {
                let mut columns = Columns::new();
                measure(rule.name(), &updates, |rows| {
                    coordinates.combine(&mut columns, rows, &mut out)
                })?;
            }
        }
    }
    Ok(())
}
