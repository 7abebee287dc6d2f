//! Applies a coordinate-wise rule, or the integer path, to the values in a file,
//! and prints nothing: the test `same_trace` watches what it reads and writes.
//!
//! `coordinate_rules RULE SITES FILE`, where FILE has the little-endian float32
//! values of one site after the other. `clipped-int8` and the like take the
//! bytes as integers.

use sealfold_aggregation::format::Format;
use sealfold_aggregation::integer::{IntegerRow, Term, Words, range, sum_of_squares};
use sealfold_aggregation::rule::coordinate::Columns;
use sealfold_aggregation::rule::gram::PartialGram;
use sealfold_aggregation::rule::{Combination, Rule};
use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let [rule, sites, file] = &arguments[..] else {
        return Err("expected RULE SITES FILE".into());
    };
    let sites: usize = sites.parse()?;
    let rule = match rule.as_str() {
        "median" => Rule::Median,
        "trimmed-mean" => Rule::TrimmedMean { trim: 2 },
        // The test's own test: a rule that has to be seen through.
        "plain-sort" => return plain_sort(sites, file),
        "clipped-int8" => return integers(sites, file, Format::Int8),
        "clipped-int16" => return integers(sites, file, Format::Int16),
        "clipped-int32" => return integers(sites, file, Format::Int32),
        "bulyan" => Rule::Bulyan { byzantine: 1 },
        other => return Err(format!("expected a coordinate-wise rule, found {other}").into()),
    };
    let bytes = std::fs::read(file)?;
    let rows: Vec<_> = bytes.chunks(bytes.len() / sites).collect();
    // Who is selected is not the question here, so all sites count as equal.
    let gram = PartialGram::new(sites).finish();
    let shares = vec![0.0; sites];
    let Combination::Coordinates(coordinates) = rule.combine(&shares, Some(&gram))? else {
        return Err("expected a coordinate-wise rule, found a sum".into());
    };
    let mut out = vec![0; rows[0].len()];
    coordinates.combine(&mut Columns::new(), &rows, &mut out)?;
    std::hint::black_box(&out);
    Ok(())
}

/// Norms, ranges, and sums with and without factors, one of which is 1.
fn integers(sites: usize, file: &str, format: Format) -> Result<(), Box<dyn Error>> {
    let bytes = std::fs::read(file)?;
    let chunks: Vec<_> = bytes.chunks(bytes.len() / sites).collect();
    for chunk in &chunks {
        std::hint::black_box((sum_of_squares(format, chunk)?, range(format, chunk)?));
    }
    let mut terms = vec![Term::new(3, 0.7)?; sites];
    terms[0] = Term::new(3, 1.0)?;
    for terms in [terms, vec![Term::whole(3)?; sites], vec![Term::whole(1)?; sites]] {
        for words in [Words::Bits32, Words::Bits64] {
            let mut row = IntegerRow::new(words);
            row.reset(chunks[0].len() / format.width());
            row.add_sites(0, &terms, format, &chunks)?;
            let mut out = vec![0; chunks[0].len() / format.width() * 4];
            row.write(Words::Bits32, &mut out)?;
            std::hint::black_box(&out);
        }
    }
    Ok(())
}

/// The median with the sorting of the standard library, which looks at values.
fn plain_sort(sites: usize, file: &str) -> Result<(), Box<dyn Error>> {
    let bytes = std::fs::read(file)?;
    let (values, _) = bytes.as_chunks::<4>();
    let places = values.len() / sites;
    for place in 0..places {
        let mut column: Vec<_> =
            values.iter().skip(place).step_by(places).map(|v| f32::from_le_bytes(*v)).collect();
        column.sort_by(f32::total_cmp);
        std::hint::black_box(column.get(sites / 2));
    }
    Ok(())
}
