//! How fast sums, norms and the robust rules go through updates, on one core:
//! bytes of all sites' updates, and values, a second of processor time (Linux).
//! Each way is measured with updates that come from memory, and with few that
//! stay in the second cache, where what has just been opened stands.
//!
//! `cargo run --release -p sealfold-aggregation --example rule_speed`

#![allow(clippy::cast_precision_loss)] // sizes become rates

use sealfold_aggregation::accumulate::weighted_sum;
use sealfold_aggregation::format::Format;
use sealfold_aggregation::integer::{IntegerRow, Term, Words, range, sum_of_squares};
use sealfold_aggregation::norm;
use sealfold_aggregation::rule::coordinate::Columns;
use sealfold_aggregation::rule::gram::PartialGram;
use sealfold_aggregation::rule::{Combination, Rule};
use std::error::Error;
use std::hint::black_box;

/// The plaintext of a record.
const RECORD: usize = 256 << 10;
/// The bytes of a record that are opened at a time, as the enclave does.
const CHUNK: usize = 16 << 10;
/// Bytes for each measurement from memory, over all sites.
const BYTES: usize = 128 << 20;
/// Bytes that stay in the second cache.
const CACHED: usize = 640 << 10;
/// Bytes that are gone through for one figure: the kernel counts in
/// milliseconds.
const WORK: usize = 1 << 30;

type Outcome = Result<(), Box<dyn Error>>;

/// Values between -1 and 1 that look random, from `SplitMix64`. As integers they
/// are below 2^30 in magnitude, and all their bytes take part.
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
fn processor_time() -> Result<u64, Box<dyn Error>> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat")?;
    Ok(text.split_whitespace().next().unwrap_or_default().parse()?)
}

/// Updates of the sites, many bytes and few.
struct Updates {
    memory: Vec<Vec<u8>>,
    cache: Vec<Vec<u8>>,
}

impl Updates {
    fn of(sites: usize) -> Self {
        let length = |bytes: usize| (bytes / sites / CHUNK).max(1) * CHUNK;
        let of = |bytes: usize| (1..).take(sites).map(|s| values(length(bytes) / 4, s)).collect();
        Self { memory: of(BYTES), cache: of(CACHED) }
    }

    /// Measures `each`, which is given the same chunk of all sites and the
    /// place of the chunk in its record.
    fn measure(
        &self,
        name: &str,
        width: usize,
        mut each: impl FnMut(usize, &[&[u8]]) -> sealfold_aggregation::Result<()>,
    ) -> Outcome {
        print!("{:>5} {name:<34}", self.memory.len());
        for updates in [&self.memory, &self.cache] {
            let (sites, length) = (updates.len(), updates[0].len());
            let runs = (WORK / sites / length).max(1);
            let start = processor_time()?;
            for _ in 0..runs {
                for from in (0..length).step_by(CHUNK) {
                    let rows: Vec<_> = updates.iter().map(|u| &u[from..from + CHUNK]).collect();
                    each(from % RECORD, &rows)?;
                }
            }
            let rate = (runs * sites * length) as f64 / (processor_time()? - start) as f64;
            print!("  {rate:6.2} GB/s {:6.2} G values/s", rate / width as f64);
        }
        println!();
        Ok(())
    }

    /// The integer path's sum.
    fn sum(&self, name: &str, words: Words, term: Term, format: Format) -> Outcome {
        let mut row = IntegerRow::new(words);
        row.reset(RECORD / format.width());
        let terms = vec![term; self.memory.len()];
        self.measure(name, format.width(), |place, rows| {
            row.add_sites(place / format.width(), &terms, format, rows)
        })
    }
}

/// The floating-point way of a mean and its norms beside the integer way.
fn means(updates: &Updates) -> Outcome {
    let sites = updates.memory.len();
    let (factors, mut out) = (vec![0.1; sites], vec![0; CHUNK]);
    updates.measure("float32 mean, in binary64", 4, |_, rows| {
        weighted_sum(&factors, rows, &mut out)
    })?;
    let (one, many, clipped) = (Term::whole(1)?, Term::whole(1234)?, Term::new(1234, 0.7)?);
    for (bits, format) in [(32, Format::Int32), (16, Format::Int16), (8, Format::Int8)] {
        for (into, words) in [(32, Words::Bits32), (64, Words::Bits64)] {
            for (how, term) in [("weight 1", one), ("weighted", many), ("clipped", clipped)] {
                updates.sum(&format!("int{bits} sum, {into} bits, {how}"), words, term, format)?;
            }
        }
    }
    updates.measure("float32 norm", 4, |_, rows| {
        for row in rows {
            black_box(norm::inspect(row));
        }
        Ok(())
    })?;
    for format in [Format::Int32, Format::Int16, Format::Int8] {
        updates.measure(&format!("{} norm", format.name()), format.width(), |_, rows| {
            for row in rows {
                black_box(sum_of_squares(format, row)?);
            }
            Ok(())
        })?;
        updates.measure(&format!("{} range", format.name()), format.width(), |_, rows| {
            for row in rows {
                black_box(range(format, row)?);
            }
            Ok(())
        })?;
    }
    Ok(())
}

fn rules(updates: &Updates) -> Outcome {
    let sites = updates.memory.len();
    let mut gram = PartialGram::new(sites);
    updates.measure("gram matrix", 4, |_, rows| gram.add(rows))?;
    let (gram, mut out) = (gram.finish(), vec![0; CHUNK]);
    let byzantine = (sites - 3) / 4;
    for rule in [Rule::Median, Rule::TrimmedMean { trim: sites / 5 }, Rule::Bulyan { byzantine }] {
        let shares = vec![1.0 / sites as f64; sites];
        if let Combination::Coordinates(coordinates) = rule.combine(&shares, Some(&gram))? {
            let mut columns = Columns::new();
            updates.measure(rule.name(), 4, |_, rows| {
                coordinates.combine(&mut columns, rows, &mut out)
            })?;
        }
    }
    Ok(())
}

fn main() -> Outcome {
    let only_means = std::env::args().any(|argument| argument == "means");
    println!(
        "sites                                         from memory                      from the second cache"
    );
    means(&Updates::of(10))?;
    if !only_means {
        for sites in [10, 50, 200] {
            rules(&Updates::of(sites))?;
        }
    }
    Ok(())
}
