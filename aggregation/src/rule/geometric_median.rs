//! The geometric median: the point with the smallest weighted sum of Euclidean
//! distances to the updates.
//!
//! The smoothed Weiszfeld algorithm of Pillutla, Kakade and Harchaoui, "Robust
//! Aggregation for Federated Learning" (RFA), IEEE Transactions on Signal
//! Processing 70, 2022. As there, a site weighs by its share. The sites that
//! are not honest must have less than half of all shares.
//!
//! Each step is a weighted mean of the updates, so only its factors are
//! computed, from the Gram matrix; the updates are read again once, for the
//! last. Steps cost next to nothing, so there may be a hundred. They begin at
//! the base model: an update of any length then has at most the pull of its
//! share from the first step on, where a beginning at the mean would have to
//! find its way back.

use super::gram::Gram;
use crate::exact_sum;

/// The factor of each site after so many steps; they sum to 1. A distance
/// below `smoothing` counts as `smoothing`.
///
/// Sums over sites are exact, so a permutation of the sites permutes the
/// factors and changes no bit of them.
pub(super) fn factors(gram: &Gram, shares: &[f64], smoothing: f64, steps: usize) -> Vec<f64> {
    let mut factors = vec![0.0; shares.len()];
    for _ in 0..steps {
        let distances = gram.distances_from(&factors);
        let pulls: Vec<_> =
            shares.iter().zip(&distances).map(|(s, d)| s / d.max(smoothing)).collect();
        let sum = exact_sum::sum(pulls.iter().copied());
        factors = pulls.iter().map(|pull| pull / sum).collect();
    }
    factors
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::reference_gram as gram;
    use proptest::prelude::*;

    /// The point that the factors stand for.
    fn point(updates: &[Vec<f32>], factors: &[f64]) -> Vec<f64> {
        let at =
            |place: usize| updates.iter().zip(factors).map(|(u, f)| f * f64::from(u[place])).sum();
        (0..updates[0].len()).map(at).collect()
    }

    #[test]
    fn the_corner_of_most_weight_and_the_middle_of_a_triangle() {
        // A site with half of all shares is the median itself.
        let updates = [vec![0.0, 0.0], vec![4.0, 0.0], vec![0.0, 4.0]];
        let found = factors(&gram(&updates), &[0.2, 0.6, 0.2], 1e-9, 200);
        let median = point(&updates, &found);
        assert!((median[0] - 4.0).abs() < 1e-6 && median[1].abs() < 1e-6, "{median:?}");
        // Fermat's point of a right isosceles triangle: x = y = 4 / (3 + sqrt 3).
        let found = factors(&gram(&updates), &[1.0 / 3.0; 3], 1e-9, 500);
        let fermat = 4.0 / (3.0 + 3f64.sqrt());
        for value in point(&updates, &found) {
            assert!((value - fermat).abs() < 1e-6, "{value} {fermat}");
        }
    }

    #[test]
    fn equal_updates_and_zeros_are_their_own_median() {
        for value in [0.0, 2.5, f32::MAX, f32::from_bits(1)] {
            let updates = vec![vec![value; 3]; 4];
            let found = factors(&gram(&updates), &[0.25; 4], 1e-6, 10);
            assert_eq!(found, [0.25; 4], "{value}");
        }
    }

    #[test]
    fn one_huge_update_of_three_tenths_moves_nothing() {
        let honest =
            [[1.0, 2.0], [1.5, 2.5], [0.5, 2.0], [1.0, 1.5], [1.0, 2.5], [1.5, 2.0], [1.0, 2.0]];
        let mut updates: Vec<_> = honest.iter().map(|update| update.to_vec()).collect();
        updates.extend(vec![vec![-f32::MAX; 2]; 3]);
        for steps in [1, 5, 100] {
            let found = factors(&gram(&updates), &[0.1; 10], 1e-6, steps);
            let median = point(&updates, &found);
            let distance = (median[0] - 1.0).hypot(median[1] - 2.0);
            assert!(distance < 3.0, "{steps}: {median:?}");
        }
        let settled = point(&updates, &factors(&gram(&updates), &[0.1; 10], 1e-6, 100));
        assert!((settled[0] - 1.0).hypot(settled[1] - 2.0) < 0.6, "{settled:?}");
    }

    proptest! {
        #[test]
        fn no_neighbour_is_better(
            updates in prop::collection::vec(prop::collection::vec(-10f32..10.0, 3), 3..8),
            direction in prop::collection::vec(-1f64..1.0, 3),
        ) {
            let shares = vec![1.0 / updates.len() as f64; updates.len()];
            let median = point(&updates, &factors(&gram(&updates), &shares, 1e-6, 2000));
            let cost = |point: &[f64]| -> f64 {
                let distance = |update: &Vec<f32>| {
                    let square = |(u, p): (&f32, &f64)| (f64::from(*u) - p).powi(2);
                    update.iter().zip(point).map(square).sum::<f64>().sqrt()
                };
                updates.iter().map(distance).sum()
            };
            for size in [1.0, 0.1] {
                let moved: Vec<_> = median.iter().zip(&direction).map(|(m, d)| m + size * d).collect();
                prop_assert!(cost(&median) <= cost(&moved) + 1e-4);
            }
        }
    }
}
