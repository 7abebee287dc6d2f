use super::*;
use crate::tests::{keys, manifest, private};
use crate::{Claim, Feature, FeatureType, Optimiser};
use proptest::prelude::*;
use sealfold_aggregation::clipping::ClippedSum;
use sealfold_protocol::MultiSigned;
use sealfold_protocol::manifest::Manifested;

const QUERY: &str = r#"
[[statistic]]
kind = "count"
[[statistic]]
kind = "sum"
column = "age"
[[statistic]]
kind = "mean"
column = "age"
[[statistic]]
kind = "variance"
column = "age"
[[statistic]]
kind = "histogram"
column = "age"
cuts = [40, 60.5]
[[statistic]]
kind = "contingency"
axes = [{ column = "age", bins = 3 }, { column = "cp" }, { column = "num" }]
[[statistic]]
kind = "quantiles"
column = "age"
bins = 10
quantiles = [0.25, 0.5]
"#;

fn query() -> Query {
    toml::from_str(QUERY).unwrap()
}

/// A manifest of a query that checks.
fn asked() -> Manifest {
    let claim = Claim { epsilon: 2.0, delta: 1e-5, sampling_rate: None };
    let mut manifest = private(noise(4096.0), claim, 1);
    manifest.agreement.data.features.push(Feature {
        name: "cp".to_owned(),
        unit: "none".to_owned(),
        kind: FeatureType::Category,
        range: None,
        categories: vec![1.0, 2.0, 3.0, 4.0],
        missing_values: Vec::new(),
        missing_share: 0.5,
    });
    let (query, data) = (query(), &manifest.agreement.data);
    manifest.terms.model.tensors = query.tensors(data).unwrap();
    manifest.terms.model.initial = query.initial(data).unwrap();
    manifest.agreement.query = Some(query);
    manifest.check().unwrap();
    manifest
}

fn noise(steps: f64) -> Noise {
    Noise { clip: 1.0, step: 1.0 / steps, noise_multiplier: 5.0, adaptive_clip: None }
}

fn refused(change: impl FnOnce(&mut Manifest)) -> String {
    let mut manifest = asked();
    change(&mut manifest);
    manifest.check().unwrap_err().to_string()
}

fn statistic(change: impl FnOnce(&mut Statistic), place: usize) -> String {
    refused(|manifest| change(&mut manifest.agreement.query.as_mut().unwrap().statistics[place]))
}

#[test]
fn a_query_is_read_signed_and_read_again() {
    let manifest = asked();
    let shapes: Vec<_> = manifest.terms.model.tensors.iter().map(|tensor| &tensor.shape).collect();
    assert_eq!(
        shapes,
        [&vec![1], &vec![1], &vec![2], &vec![3], &vec![3], &vec![3, 4, 2], &vec![10]]
    );
    assert_eq!(manifest.terms.model.tensors[5].name, "contingency of age and cp and num");
    let signed = MultiSigned::sign(manifest.clone(), &keys()[0]).unwrap();
    assert_eq!(Manifest::open(&signed.envelope().unwrap()).unwrap().statement(), &manifest);
    let text = manifest.to_toml().unwrap();
    assert_eq!(Manifest::from_toml(&text).unwrap(), manifest);
    let draft = Draft::from_toml(&text).unwrap();
    assert_eq!(
        (Some(draft.query), draft.data),
        (manifest.agreement.query, manifest.agreement.data)
    );
    assert!(Manifest::from_toml(&text.replace("cuts = ", "edges = ")).is_err());
    let alone = Draft::from_toml("[[query.statistic]]\nkind = \"count\"").unwrap_err().to_string();
    assert!(alone.contains("field data: expected a section [data], found none"), "{alone}");
}

#[test]
fn what_a_query_takes_is_named() {
    let site = refused(|m| m.terms.privacy = Privacy::Site(noise(4096.0)));
    assert!(site.contains("privacy.unit: expected patient"), "{site}");
    let none = refused(|m| {
        let plain = manifest().terms;
        (m.terms.privacy, m.terms.aggregation) = (plain.privacy, plain.aggregation);
        m.terms.model.tensors.iter_mut().for_each(|tensor| tensor.step = Some(1e-6));
        m.agreement.claim = None;
    });
    assert!(none.contains("privacy.unit: expected patient"), "{none}");
    let rounds = refused(|m| {
        m.terms.rounds = 2;
        m.agreement.claim.as_mut().unwrap().epsilon = 4.0;
    });
    assert!(rounds.contains("study.rounds"), "{rounds}");
    assert!(refused(|m| m.terms.model.initial = Digest::new([0; 32])).contains("model.initial"));
    assert!(refused(|m| m.agreement.server.learning_rate = 0.5).contains("model.learning_rate"));
    let momentum = Optimiser::FedAvgM { momentum: 0.5 };
    assert!(refused(|m| m.agreement.server.optimiser = Some(momentum)).contains("optimiser"));
    let evaluation = crate::Evaluation { bins: 2 };
    let evaluated = refused(|m| {
        let channel = evaluation.channel(None, false, &m.terms);
        m.terms.channels.push(channel);
        m.agreement.evaluation = Some(evaluation);
        m.agreement.claim.as_mut().unwrap().epsilon = 4.0;
    });
    assert!(evaluated.contains("evaluation: expected none for a query"), "{evaluated}");
    let sampled = refused(|m| m.agreement.claim.as_mut().unwrap().sampling_rate = Some(0.5));
    assert!(sampled.contains("sampling_rate"), "{sampled}");
    let coarse = refused(|m| m.terms.privacy = Privacy::Patient(noise(600.0)));
    assert!(coarse.contains("privacy.step: expected at least 256"), "{coarse}");
    let tensor = refused(|m| m.terms.model.tensors[4].shape = vec![4]);
    assert!(tensor.contains("number 5 is \"histogram of age\" [3]"), "{tensor}");
    let fewer = refused(|m| _ = m.terms.model.tensors.pop());
    assert!(fewer.contains("number 7") && fewer.contains("found none"), "{fewer}");
}

#[test]
fn what_a_statistic_takes_is_named() {
    let unknown = |column: &str| {
        let column = column.to_owned();
        statistic(|s| *s = Statistic::Mean { column }, 2)
    };
    assert!(unknown("weight").contains("\"mean of weight\" column"), "{}", unknown("weight"));
    let found = "a column of [data]: age, cp, num, found \"weight\", which is none";
    assert!(unknown("weight").ends_with(found), "{}", unknown("weight"));
    assert!(unknown("cp").contains("a feature with a range"), "{}", unknown("cp"));
    let axis = |bins: Option<u32>, cuts: &[f64]| {
        let axis = Axis { column: "age".to_owned(), bins, cuts: cuts.to_vec() };
        statistic(|s| *s = Statistic::Histogram(axis), 4)
    };
    assert!(axis(Some(2), &[50.0]).contains("found both"));
    assert!(axis(None, &[]).contains("found neither"));
    assert!(axis(Some(0), &[]).contains("bins: expected 1 to"));
    for cuts in [&[0.0][..], &[120.0], &[50.0, 40.0], &[f64::NAN]] {
        assert!(axis(None, cuts).contains("cuts: expected rising numbers between 0 and 120"));
    }
    let of = |column: &str, bins| Axis { column: column.to_owned(), bins, cuts: Vec::new() };
    let axes = |axes: Vec<Axis>| statistic(|s| *s = Statistic::Contingency { axes }, 5);
    assert!(axes(vec![of("cp", None)]).contains("2 to 4 columns"));
    assert!(axes(vec![of("cp", None), of("cp", None)]).contains("each column once"));
    assert!(axes(vec![of("cp", Some(2)), of("num", None)]).contains("none for a category"));
    assert!(axes(vec![of("cp", None), of("num", Some(2))]).contains("none for the outcome"));
    let large = |column: &str| of(column, Some(10_000));
    assert!(axes(vec![large("age"), of("cp", None), of("num", None)]).contains("model.tensor"));
    let quantiles = |quantiles: &[f64]| {
        let (column, quantiles) = ("age".to_owned(), quantiles.to_vec());
        statistic(|s| *s = Statistic::Quantiles { column, bins: 10, quantiles }, 6)
    };
    for bad in [&[][..], &[0.0], &[1.0], &[f64::NAN]] {
        assert!(quantiles(bad).contains("shares between 0 and 1"));
    }
    let twice = refused(|m| {
        let query = m.agreement.query.as_mut().unwrap();
        query.statistics.push(Statistic::Count {});
    });
    assert!(twice.contains("one twice"), "{twice}");
    assert!(
        refused(|m| m.agreement.query.as_mut().unwrap().statistics.clear()).contains("1 to 100")
    );
}

#[test]
fn values_fall_into_their_cells() {
    let manifest = asked();
    let parts = query().parts(&manifest.agreement.data).unwrap();
    let cell = |place: usize, values: &[Option<f64>]| {
        let part: &Part = &parts[place];
        let mut cells = vec![7.0; usize::try_from(part.cells()).unwrap()];
        part.contribute(values, &mut cells);
        cells
    };
    assert_eq!(cell(0, &[]), [1.0]);
    assert_eq!(cell(1, &[Some(60.0)]), [0.5]);
    assert_eq!(cell(2, &[Some(30.0)]), [0.75, 0.25]);
    assert_eq!(cell(3, &[Some(60.0)]), [0.25, 0.5, 0.25]);
    // A cut belongs to the cell above it, the end of the range to the last.
    assert_eq!(cell(4, &[Some(39.9)]), [1.0, 0.0, 0.0]);
    assert_eq!(cell(4, &[Some(40.0)]), [0.0, 1.0, 0.0]);
    assert_eq!(cell(4, &[Some(120.0)]), [0.0, 0.0, 1.0]);
    assert_eq!(cell(4, &[None]), [0.0; 3]);
    let table = cell(5, &[Some(40.0), Some(4.0), Some(2.0)]);
    let place = table.iter().position(|value| *value > 0.0).unwrap();
    assert_eq!(place, 8 + 3 * 2 + 1);
    assert_eq!(parts[5].label(place), "age 40 to 80, cp 4, num with outcome");
    // What a category's list lacks is in no cell.
    assert_eq!(cell(5, &[Some(40.0), Some(9.0), Some(2.0)]), [0.0; 24]);
    assert_eq!(cell(5, &[Some(40.0), None, Some(2.0)]), [0.0; 24]);
}

proptest! {
    #[test]
    fn no_contribution_is_ever_clipped(
        age in prop::option::of(0.0f64..=120.0),
        cp in prop::option::of(prop::sample::select(vec![1.0, 2.0, 3.0, 4.0])),
        num in prop::option::of(0.0f64..3.0),
        steps in prop::sample::select(vec![800.0, 4096.0, 1e5 / 3.0, 1e9]),
        clip in prop::sample::select(vec![1e-3, 1.0, 7.7, 1e4]),
    ) {
        let query = query();
        let noise = Noise { clip, step: clip / steps, ..noise(steps) };
        let weight = query.weight(&noise);
        let mut gradient = Vec::new();
        for part in query.parts(&asked().agreement.data).unwrap() {
            let value = |column: &String| match column.as_str() {
                "age" => age,
                "cp" => cp,
                _ => num,
            };
            let values: Vec<_> = part.columns().iter().map(value).collect();
            let mut cells = vec![0.0; usize::try_from(part.cells()).unwrap()];
            part.contribute(&values, &mut cells);
            prop_assert!(cells.iter().map(|cell| cell * cell).sum::<f64>() <= 1.0 + 1e-12);
            #[allow(clippy::cast_possible_truncation)]
            gradient.extend(cells.iter().map(|cell| (cell * weight) as f32));
        }
        let norm = gradient.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt();
        prop_assert!(norm <= clip, "{norm}");
        let mut sum = ClippedSum::new(clip, noise.step, gradient.len()).unwrap();
        sum.add(&gradient).unwrap();
        // Rounded to nearest, and not scaled.
        for (found, value) in sum.finish().unwrap().iter().zip(&gradient) {
            let exact = f64::from(*value) / noise.step;
            let off = (f64::from(*found) - exact).abs();
            prop_assert!(off <= 0.5 + exact.abs() * 1e-12, "{found} for {exact}");
        }
    }

    #[test]
    fn shares_use_nearly_the_whole_clip(steps in 3e3f64..1e8) {
        let (query, noise) = (query(), noise(steps));
        let share = query.weight(&noise) * 7f64.sqrt() / noise.clip;
        prop_assert!(share < 1.0 && share > 1.0 - 4.0 / steps - 2e-6, "{share}");
        let deviation = query.deviation(&noise);
        prop_assert!((deviation / (5.0 * 7f64.sqrt()) - 1.0).abs() < 0.01, "{deviation}");
    }
}
