//! Every aggregation rule and every form of values, through a real enclave:
//! what comes out is what the rule says, number by number.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use sealfold_aggregation::rule::coordinate::Columns;
use sealfold_aggregation::rule::gram::PartialGram;
use sealfold_aggregation::rule::{Combination, Rule};
use sealfold_aggregation::weights;
use sealfold_tests::hostile_host::HostileHost;
use sealfold_tests::site;
use sealfold_tests::study::{Options, Study};

/// A site's values: all are different, and one site is far away.
fn update(site: usize, parameters: usize) -> Vec<f32> {
    let scale = if site == 2 { -40.0 } else { 1.0 };
    (0..parameters)
        .map(|place| {
            let whole = u16::try_from((place * 31 + site * 57) % 1009).unwrap();
            scale * (f32::from(whole) / 64.0 - 7.0)
        })
        .collect()
}

/// A round of these updates through an enclave; the aggregate.
fn round(options: &Options, updates: &[Vec<f32>]) -> Vec<f32> {
    let host = HostileHost::new();
    let enclave = host.enclave("enclave");
    let study = Study::new(options);
    let offer = enclave.offer(&study.first_offer()).unwrap();
    let sealed: Vec<_> = study
        .sites
        .iter()
        .zip(updates)
        .map(|(site, values)| {
            let update = site.seal(&offer, study.terms(), values);
            enclave.admit(&host.door, &offer, &update).unwrap();
            update
        })
        .collect();
    let roster = enclave.roster(&offer).unwrap();
    for (site, update) in study.sites.iter().zip(&sealed) {
        enclave.commit(&site.commit(&roster, update.header.digest())).unwrap();
    }
    let release = enclave.release(&offer).unwrap();
    let sealed = host.door.object(&release.statement().object);
    site::released(&study, study.sites.len(), &release, &sealed)
}

/// What a rule makes of whole updates in memory.
fn expected(rule: Rule, updates: &[Vec<f32>], weights: &[u32]) -> Vec<f32> {
    let bytes: Vec<Vec<u8>> = updates
        .iter()
        .map(|update| update.iter().flat_map(|value| value.to_le_bytes()).collect())
        .collect();
    let rows: Vec<&[u8]> = bytes.iter().map(Vec::as_slice).collect();
    let shares = weights::shares(weights).unwrap();
    // In pieces as the enclave sees them: chunks of 4,096 values.
    let mut gram = PartialGram::new(rows.len());
    for start in (0..rows[0].len()).step_by(16 << 10) {
        let end = (start + (16 << 10)).min(rows[0].len());
        let pieces: Vec<_> = rows.iter().map(|row| &row[start..end]).collect();
        gram.add(&pieces).unwrap();
    }
    match rule.combine(&shares, Some(&gram.finish())).unwrap() {
        Combination::Sum(factors) => (0..updates[0].len())
            .map(|place| {
                let terms = factors.iter().zip(updates);
                #[allow(clippy::cast_possible_truncation)]
                let sum =
                    terms.map(|(f, u)| f * f64::from(u[place])).fold(0.0, |a, b| a + b) as f32;
                sum
            })
            .collect(),
        Combination::Coordinates(rule) => {
            let mut out = vec![0; rows[0].len()];
            rule.combine(&mut Columns::new(), &rows, &mut out).unwrap();
            site::floats(&out)
        }
    }
}

#[test]
fn every_rule_gives_what_its_library_says_of_the_whole() {
    let rules = [
        (Rule::Median, "median", ""),
        (Rule::TrimmedMean { trim: 2 }, "trimmed-mean", "trim = 2"),
        (
            Rule::GeometricMedian { smoothing: 1e-6, steps: 8 },
            "geometric-median",
            "smoothing = 1e-6\nsteps = 8",
        ),
        (
            Rule::CentredClipping { radius: 900.0, steps: 3 },
            "centred-clipping",
            "clip = 900\nsteps = 3",
        ),
        (Rule::Krum { byzantine: 1 }, "krum", "byzantine = 1"),
        (Rule::MultiKrum { byzantine: 1, selected: 3 }, "multi-krum", "byzantine = 1\nkeep = 3"),
        (Rule::Bulyan { byzantine: 1 }, "bulyan", "byzantine = 1"),
    ];
    // More than one record, and a last one that is short.
    let parameters = 70_001;
    let updates: Vec<_> = (0..7).map(|site| update(site, parameters)).collect();
    for (rule, name, more) in rules {
        let aggregation = format!("rule = \"{name}\"\n{more}");
        let is_weighted = ["geometric-median", "centred-clipping"].contains(&name);
        let weights = if is_weighted { vec![2, 3, 4, 2, 3, 4, 2] } else { vec![1; 7] };
        let options = Options {
            sites: 7,
            smallest_roster: 7,
            parameters,
            aggregation,
            weights: weights.clone(),
            accepts: vec!["selective-rule"],
            ..Options::default()
        };
        let found = round(&options, &updates);
        let expected = expected(rule, &updates, &weights);
        let same = |(a, b): (&f32, &f32)| {
            let close = (a - b).abs() <= 1e-5 * b.abs().max(1.0);
            // Norms and distances are summed by records; comparisons are exact.
            if matches!(rule, Rule::Median | Rule::TrimmedMean { .. }) {
                a.to_bits() == b.to_bits()
            } else {
                close
            }
        };
        let wrong = found.iter().zip(&expected).position(|pair| !same(pair));
        assert_eq!(wrong, None, "{name}: {:?}", wrong.map(|at| (found[at], expected[at])));
        // The far site does not get far.
        if !matches!(rule, Rule::CentredClipping { .. }) {
            assert!(found.iter().all(|value| value.abs() < 12.0), "{name}");
        }
    }
}

/// Whole numbers of every width, in words of both, are added exactly, each times
/// its site's weight.
#[test]
fn a_mean_of_whole_numbers_is_exact_in_every_width() {
    let fine = 2f64.powi(-13);
    for (update_type, step, limits, heavy) in [
        ("int8", 0.25, [40, 8000], 1),
        ("int16", 0.25, [40, 65_536], 1),
        ("int32", 0.25, [40, 65_536], 1),
        // Words of 64 bits.
        ("int32", fine, [65_536, 65_536], 10),
    ] {
        for (parameters, weights, limit) in [
            (5, vec![2 * heavy, 3 * heavy, 3 * heavy, 2 * heavy], limits[0]),
            (200_003, vec![heavy; 4], limits[1]),
        ] {
            let aggregation = format!(
                "rule = \"weighted-mean\"\nnorm_limit = {limit}.0\nstep = {step}\n\
                 update_type = \"{update_type}\""
            );
            let options =
                Options { parameters, aggregation, weights: weights.clone(), ..Options::default() };
            // Quarters of small whole numbers.
            let value = |site: usize, place: usize| {
                f32::from(i8::try_from((place + 7 * site) % 25).unwrap() - 12) / 4.0
            };
            let updates: Vec<Vec<f32>> =
                (0..4).map(|s| (0..parameters).map(|p| value(s, p)).collect()).collect();
            let found = round(&options, &updates);
            assert_eq!(found.len(), parameters);
            let total: u32 = weights.iter().sum();
            for (place, found) in found.iter().enumerate() {
                let term = |site: usize| f64::from(value(site, place)) * f64::from(weights[site]);
                let sum: f64 = (0..4).map(term).sum();
                #[allow(clippy::cast_possible_truncation)]
                let mean = (sum / step * (step / f64::from(total))) as f32;
                assert_eq!(found.to_bits(), mean.to_bits(), "{update_type} {parameters} {place}");
            }
        }
    }
}

/// Two colluders whose huge values cancel absorb nobody's: no partial sum is
/// rounded. In floating point the first two hospitals would be forgotten.
#[test]
fn rounding_in_the_order_of_the_roster_isolates_nobody() {
    let limit = 2f64.powi(20);
    let aggregation = format!("rule = \"weighted-mean\"\nnorm_limit = {limit:?}\nstep = 0.001");
    let options = Options {
        sites: 5,
        smallest_roster: 5,
        colluders: 2,
        parameters: 1,
        aggregation,
        ..Options::default()
    };
    let values = [0.125f32, 0.25, 1_048_575.0, -1_048_575.0, 0.5];
    let updates: Vec<_> = values.iter().map(|value| vec![*value]).collect();
    let found = round(&options, &updates)[0];
    assert_eq!(found.to_bits(), 0.175f32.to_bits(), "{found}");
    // In binary64, in that order, the first two hospitals would be forgotten.
    let sum: f64 = [0.125, 0.25, 1e20, -1e20, 0.5].iter().sum();
    assert_eq!((sum / 5.0).to_bits(), 0.1f64.to_bits());
}

#[test]
fn narrow_floats_are_widened_before_they_are_compared() {
    for update_type in ["float16", "bfloat16", "float32"] {
        let options = Options {
            sites: 5,
            smallest_roster: 4,
            parameters: 140_000,
            aggregation: format!("rule = \"median\"\nupdate_type = \"{update_type}\""),
            accepts: vec!["selective-rule"],
            ..Options::default()
        };
        let updates: Vec<Vec<f32>> =
            [3.0, -60.0, 1.5, 2.0, 63.5].iter().map(|value| vec![*value; 140_000]).collect();
        let found = round(&options, &updates);
        assert!(found.iter().all(|value| value.to_bits() == 2f32.to_bits()), "{update_type}");
    }
}
