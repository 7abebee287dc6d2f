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
//! last. Steps cost next to nothing, so there may be a hundred.
//!
//! # Where they begin
//! Not at a point that is known beforehand, such as the base model: an update
//! that lies there would have a pull of its share over `smoothing`, and hold
//! every later step. They begin at the updates' mean, each weighted by its share
//! over its *reach*: the distance within which more than half of all shares lie,
//! its own among them. Honest sites have more than half, so the reach of each is
//! at most the largest distance between two of them, D, and that of any other is
//! at least its distance to the nearest of them. So a far update has no more
//! weight than its share, however far it lies, and moves the beginning by at
//! most D x (its share) / (the honest shares) or so; and it lies where the steps
//! begin only if that is among the honest updates.

use super::gram::Gram;
use crate::exact_sum::{self, ExactSum};

/// The factor of each site after so many steps; they sum to 1. A distance, or a
/// reach, below `smoothing` counts as `smoothing`.
///
/// Sums over sites are exact, so a permutation of the sites permutes the
/// factors and changes no bit of them.
pub(super) fn factors(gram: &Gram, shares: &[f64], smoothing: f64, steps: usize) -> Vec<f64> {
    let weighted = |distances: &[f64]| -> Vec<f64> {
        let pulls: Vec<_> =
            shares.iter().zip(distances).map(|(s, d)| s / d.max(smoothing)).collect();
        let sum = exact_sum::sum(pulls.iter().copied());
        pulls.iter().map(|pull| pull / sum).collect()
    };
    let reaches: Vec<_> = (0..shares.len()).map(|site| reach(gram, shares, site)).collect();
    (0..steps).fold(weighted(&reaches), |factors, _| weighted(&gram.distances_from(&factors)))
}

/// The smallest distance from a site's update within which more than half of
/// all shares lie.
fn reach(gram: &Gram, shares: &[f64], site: usize) -> f64 {
    let half = exact_sum::sum(shares.iter().copied()) / 2.0;
    let distance = |other| gram.squared_distance(site, other).sqrt();
    let mut others: Vec<_> = (0..shares.len()).map(|other| (distance(other), other)).collect();
    others.sort_by(|one, other| one.0.total_cmp(&other.0));
    let mut within = ExactSum::new();
    for (distance, other) in &others {
        within.add(shares[*other]);
        if within.to_f64() > half {
            return *distance;
        }
    }
    others.last().map_or(0.0, |(distance, _)| *distance)
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

    /// What one site can do, however few the steps and whatever it sends: the
    /// others' updates are of length one, and half a tenth apart.
    #[test]
    fn one_site_moves_nothing_from_the_first_step_on() {
        for (sites, seed) in [(4u16, 1u16), (7, 2), (10, 3)] {
            let place =
                |site: u16, place: u16| 0.2 + 0.01 * f32::from((site * 7 + place * 3 + seed) % 5);
            let honest: Vec<Vec<f32>> =
                (1..sites).map(|site| (0..25).map(|at| place(site, at)).collect()).collect();
            let mean = |at: usize| -> f64 {
                honest.iter().map(|update| f64::from(update[at])).sum::<f64>() / honest.len() as f64
            };
            for (hostile, name) in [
                (vec![0.0; 25], "zeros"),
                (vec![1e30; 25], "huge"),
                (vec![-f32::MAX; 25], "huge and opposite"),
                (honest[0].clone(), "a copy"),
                (honest[0].iter().map(|value| -value).collect(), "a sign flip"),
            ] {
                let updates = [vec![hostile], honest.clone()].concat();
                for steps in [1, 3, 8, 100] {
                    let shares = vec![1.0 / f64::from(sites); updates.len()];
                    let found = factors(&gram(&updates), &shares, 1e-6, steps);
                    let found = point(&updates, &found);
                    let square = |at: usize| (found[at] - mean(at)).powi(2);
                    let away = (0..25).map(square).sum::<f64>().sqrt();
                    assert!(away < 0.1, "{name}, {sites} sites, {steps} steps: {away}");
                }
            }
        }
    }

    /// Updates at right angles, of which nobody's is the odd one out: zeros get
    /// what they have in the median itself, which is 1/6 in each direction.
    #[test]
    fn zeros_among_updates_at_right_angles() {
        let unit = |place: usize| (0..4).map(|at| f32::from(u8::from(at == place))).collect();
        let mut updates: Vec<Vec<f32>> = (0..4).map(unit).collect();
        updates[0] = vec![0.0; 4];
        for (steps, within) in [(1, 0.06), (3, 0.05), (100, 1e-6)] {
            let found = point(&updates, &factors(&gram(&updates), &[0.25; 4], 1e-6, steps));
            let expected = [0.0, 1.0 / 6.0, 1.0 / 6.0, 1.0 / 6.0];
            for (value, expected) in found.iter().zip(expected) {
                assert!((value - expected).abs() < within, "{steps} steps: {found:?}");
            }
        }
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
