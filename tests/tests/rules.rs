//! Every aggregation rule and every form of values, through a real enclave:
//! what comes out is what the rule says, number by number.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use sealfold_aggregation::rule::coordinate::Columns;
use sealfold_aggregation::rule::gram::PartialGram;
use sealfold_aggregation::rule::{Combination, Rule};
use sealfold_aggregation::{norm, weights};
use sealfold_tests::hostile_host::HostileHost;
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
fn round(options: &Options, updates: &[Vec<f32>], examples: impl Fn(usize) -> u64) -> Vec<f32> {
    let host = HostileHost::new();
    let enclave = host.enclave("enclave");
    let study = Study::new(options);
    let manifest = study.manifest.statement();
    let offer = enclave.offer(&study.first_offer()).unwrap();
    let sealed: Vec<_> = study
        .sites
        .iter()
        .zip(updates)
        .enumerate()
        .map(|(i, (site, values))| {
            let update = site.seal_as_agreed(&offer, manifest, examples(i), values);
            enclave.admit(&host.door, &offer, &update).unwrap();
            update
        })
        .collect();
    let roster = enclave.roster(&offer).unwrap();
    for (site, update) in study.sites.iter().zip(&sealed) {
        enclave.commit(&site.commit(&roster, update.header.digest())).unwrap();
    }
    let release = enclave.release(&offer).unwrap();
    study.sites[0].open(&release, &host.door.object(&release.statement().object))
}

/// What a rule makes of whole updates in memory.
fn expected(rule: Rule, share: f64, updates: &[Vec<f32>], examples: &[u64]) -> Vec<f32> {
    let bytes: Vec<Vec<u8>> = updates
        .iter()
        .map(|update| update.iter().flat_map(|value| value.to_le_bytes()).collect())
        .collect();
    let rows: Vec<&[u8]> = bytes.iter().map(Vec::as_slice).collect();
    let norms: Vec<_> = rows.iter().map(|row| norm::inspect(row).sum_of_squares.sqrt()).collect();
    let shares = weights::bounded(examples, share).unwrap();
    // In pieces as the enclave sees them: chunks of 4,096 values.
    let mut gram = PartialGram::new(rows.len());
    for start in (0..rows[0].len()).step_by(16 << 10) {
        let end = (start + (16 << 10)).min(rows[0].len());
        let pieces: Vec<_> = rows.iter().map(|row| &row[start..end]).collect();
        gram.add(&pieces).unwrap();
    }
    match rule.combine(&shares, &norms, Some(&gram.finish())).unwrap() {
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
            sealfold_tests::site::floats(&out)
        }
    }
}

#[test]
fn every_rule_gives_what_its_library_says_of_the_whole() {
    let weighted = "largest_weight_share = 0.5";
    let accepts = "accepts = [\"fewer-sites-than-roster\"]";
    let rules = [
        (Rule::Median, "median", String::new()),
        (Rule::TrimmedMean { trim: 2 }, "trimmed-mean", "trim = 2".to_owned()),
        (
            Rule::GeometricMedian { smoothing: 1e-6, steps: 8 },
            "geometric-median",
            "smoothing = 1e-6\nsteps = 8\nlargest_weight_share = 0.49".to_owned(),
        ),
        (
            Rule::CentredClipping { radius: 900.0, steps: 3 },
            "centred-clipping",
            format!("clip = 900\nsteps = 3\n{weighted}"),
        ),
        (Rule::Krum { byzantine: 1 }, "krum", format!("byzantine = 1\n{accepts}")),
        (
            Rule::MultiKrum { byzantine: 1, selected: 3 },
            "multi-krum",
            format!("byzantine = 1\nkeep = 3\n{accepts}"),
        ),
        (Rule::Bulyan { byzantine: 1 }, "bulyan", format!("byzantine = 1\n{accepts}")),
        (
            Rule::NormClippedMean { clip: 1e3 },
            "norm-clipped-mean",
            format!("clip = 1000\n{weighted}"),
        ),
    ];
    // More than one record, and a last one that is short.
    let parameters = 70_001;
    let updates: Vec<_> = (0..7).map(|site| update(site, parameters)).collect();
    let examples: Vec<u64> = (0..7).map(|site| 100 + 50 * site).collect();
    for (rule, name, more) in rules {
        let aggregation = format!("rule = \"{name}\"\n{more}");
        let options =
            Options { sites: 7, smallest_roster: 7, parameters, aggregation, ..Options::default() };
        let found = round(&options, &updates, |site| examples[site]);
        let expected = expected(rule, 0.5, &updates, &examples);
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
        if !matches!(rule, Rule::NormClippedMean { .. } | Rule::CentredClipping { .. }) {
            assert!(found.iter().all(|value| value.abs() < 12.0), "{name}");
        }
    }
}

#[test]
fn narrow_values_are_widened_and_folded_like_float32() {
    for (update_type, tensor) in
        [("float16", ""), ("bfloat16", ""), ("int8", "scale = 0.25"), ("float32", "")]
    {
        for parameters in [5, 200_003] {
            let options = Options {
                parameters,
                aggregation: format!(
                    "rule = \"weighted-mean\"\nlargest_weight_share = 0.5\n\
                     update_type = \"{update_type}\""
                ),
                model: ["", "", tensor],
                ..Options::default()
            };
            // Quarters of small whole numbers, which every format holds.
            let value = |site: usize, place: usize| {
                f32::from(i8::try_from((place + 7 * site) % 101).unwrap() - 50) / 4.0
            };
            let updates: Vec<Vec<f32>> =
                (0..4).map(|s| (0..parameters).map(|p| value(s, p)).collect()).collect();
            let found = round(&options, &updates, |_| 1);
            assert_eq!(found.len(), parameters);
            for (place, found) in found.iter().enumerate() {
                let mean = (0..4).map(|site| value(site, place)).sum::<f32>() / 4.0;
                assert_eq!(found.to_bits(), mean.to_bits(), "{update_type} {parameters} {place}");
            }
        }
    }
}

#[test]
fn a_median_of_narrow_values_is_the_median() {
    let options = Options {
        sites: 5,
        smallest_roster: 4,
        parameters: 140_000,
        aggregation: "rule = \"median\"\nupdate_type = \"int8\"".to_owned(),
        model: ["", "", "scale = 0.5"],
        ..Options::default()
    };
    let updates: Vec<Vec<f32>> =
        [3.0, -60.0, 1.5, 2.0, 63.5].iter().map(|value| vec![*value; 140_000]).collect();
    assert!(round(&options, &updates, |_| 1).iter().all(|value| value.to_bits() == 2f32.to_bits()));
}
