//! The same aggregation, written for clarity with `ndarray`: the oracle of the
//! tests.

use crate::rule::Rule;
use crate::weights;
use ndarray::{Array1, Array2};

/// The weighted sum of updates, added in their order, rounded to float32.
pub fn weighted_sum(factors: &[f64], updates: &[Vec<f32>]) -> Vec<f32> {
    let rows = Array2::from_shape_fn((updates.len(), updates[0].len()), |(site, place)| {
        f64::from(updates[site][place])
    });
    let sum = rows
        .rows()
        .into_iter()
        .zip(factors)
        .fold(Array1::zeros(updates[0].len()), |sum: Array1<f64>, (row, factor)| {
            sum + row.mapv(|value| factor * value)
        });
    #[allow(clippy::cast_possible_truncation)]
    sum.mapv(|value| value as f32).to_vec()
}

/// A whole aggregation.
pub fn aggregate(rule: Rule, examples: &[u64], share: f64, updates: &[Vec<f32>]) -> Vec<f32> {
    let norm = |update: &Vec<f32>| {
        let update = Array1::from_vec(update.clone()).mapv(f64::from);
        update.dot(&update).sqrt()
    };
    let norms: Vec<_> = updates.iter().map(norm).collect();
    let shares = weights::bounded(examples, share).unwrap();
    weighted_sum(&rule.factors(&shares, &norms).unwrap(), updates)
}

mod tests {
    use super::*;
    use crate::accumulate;
    use crate::exact_sum::ExactSum;
    use crate::norm;
    use proptest::prelude::*;

    /// The aggregation as the enclave does it, in pieces.
    fn fold(rule: Rule, examples: &[u64], share: f64, updates: &[Vec<f32>]) -> Vec<f32> {
        let bytes: Vec<Vec<u8>> =
            updates.iter().map(|u| u.iter().flat_map(|v| v.to_le_bytes()).collect()).collect();
        let norms: Vec<_> = bytes
            .iter()
            .map(|bytes| {
                let mut sum = ExactSum::new();
                bytes.chunks(64).for_each(|c| sum.add(norm::inspect(c).sum_of_squares));
                sum.to_f64().sqrt()
            })
            .collect();
        let shares = weights::bounded(examples, share).unwrap();
        let factors = rule.factors(&shares, &norms).unwrap();
        let rows: Vec<_> = bytes.iter().map(Vec::as_slice).collect();
        let mut out = vec![0; updates[0].len() * 4];
        accumulate::weighted_sum(&factors, &rows, &mut out).unwrap();
        out.as_chunks::<4>().0.iter().map(|v| f32::from_le_bytes(*v)).collect()
    }

    proptest! {
        #[test]
        fn the_fold_is_the_reference(
            sites in prop::collection::vec((1u64..1000, prop::collection::vec(-100f32..100.0, 70)), 2..6),
            clip in prop::option::of(1.0..500.0f64),
        ) {
            let examples: Vec<_> = sites.iter().map(|site| site.0).collect();
            let updates: Vec<_> = sites.iter().map(|site| site.1.clone()).collect();
            let rule = clip.map_or(Rule::WeightedMean, |clip| Rule::NormClippedMean { clip });
            let (ours, theirs) = (fold(rule, &examples, 0.6, &updates), aggregate(rule, &examples, 0.6, &updates));
            for (ours, theirs) in ours.iter().zip(&theirs) {
                prop_assert!((ours - theirs).abs() <= 1e-4 * theirs.abs().max(1.0), "{} {}", ours, theirs);
            }
        }
    }
}
