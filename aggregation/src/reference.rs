//! The same aggregation, written for clarity with `ndarray`: the oracle of the
//! tests.

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

/// The weighted mean of updates, each scaled down to the clip if there is one,
/// in floating point.
pub fn mean(weights: &[u32], clip: Option<f64>, updates: &[Vec<f32>]) -> Vec<f32> {
    let total: f64 = weights.iter().map(|weight| f64::from(*weight)).sum();
    let factor = |(weight, update): (&u32, &Vec<f32>)| {
        let update = Array1::from_vec(update.clone()).mapv(f64::from);
        let norm = update.dot(&update).sqrt();
        f64::from(*weight) / total * clip.map_or(1.0, |clip| (clip / norm).min(1.0))
    };
    let factors: Vec<_> = weights.iter().zip(updates).map(factor).collect();
    weighted_sum(&factors, updates)
}

mod tests {
    use super::*;
    use crate::format::Format;
    use crate::integer::{IntegerRow, Term, clip_factor, sum_of_squares, words_for};
    use crate::quantise::{quantise, read_sums};
    use proptest::prelude::*;

    /// The whole integer path, from the sites' values to theirs of the mean.
    fn fold(
        (format, step): (Format, f64),
        weights: &[u32],
        clip: Option<f64>,
        updates: &[Vec<f32>],
    ) -> Vec<f32> {
        let count = updates[0].len();
        let sent = updates.iter().map(|update| {
            let mut sent = vec![0; count * format.width()];
            quantise(format, 1.0 / step, update, &mut sent).unwrap();
            sent
        });
        let sent: Vec<_> = sent.collect();
        let total = weights.iter().map(|weight| u64::from(*weight)).sum();
        let words = words_for(total, format.bound().unwrap().into()).unwrap();
        let mut row = IntegerRow::new(words);
        row.reset(count);
        for (weight, sent) in weights.iter().zip(&sent) {
            let norm = (sum_of_squares(format, sent).unwrap() as f64).sqrt();
            let factor = |clip: f64| clip_factor(norm, clip / step);
            let term = clip.map_or(Term::whole(*weight), |clip| Term::new(*weight, factor(clip)));
            row.add(0, term.unwrap(), format, sent).unwrap();
        }
        let mut sums = vec![0; count * words.width()];
        row.write(words, &mut sums).unwrap();
        let mut out = vec![0.0; count];
        read_sums(words, &sums, step / total as f64, &mut out).unwrap();
        out
    }

    proptest! {
        #[test]
        fn the_fold_is_the_reference_to_within_a_step(
            sites in prop::collection::vec((1u32..1000, prop::collection::vec(-100f32..100.0, 70)), 2..6),
            clip in prop::option::of(1.0..500.0f64),
        ) {
            let (weights, updates): (Vec<_>, Vec<_>) = sites.into_iter().unzip();
            let expected = mean(&weights, clip, &updates);
            for grid in [(Format::Int8, 1.0), (Format::Int16, 0.01), (Format::Int32, 1e-6)] {
                // Clipped values are rounded twice, and the norm is of rounded ones.
                let bound = grid.1 * if clip.is_some() { 1.0 + 70f64.sqrt() / 2.0 } else { 0.5 } + 1e-5;
                let found = fold(grid, &weights, clip, &updates);
                for (found, expected) in found.iter().zip(&expected) {
                    let error = f64::from((found - expected).abs());
                    prop_assert!(error <= bound, "{:?}: {} beside {}", grid.0, found, expected);
                }
            }
        }
    }
}
