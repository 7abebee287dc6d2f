//! Centred clipping: a mean of updates that were each clipped to a ball around
//! the current guess.
//!
//! Karimireddy, He and Jaggi, "Learning from History for Byzantine Robust
//! Optimization", ICML 2021: `v <- v + sum of s_i (x_i - v) min(1, radius /
//! |x_i - v|)`. Their guess begins at the last round's aggregate; here it
//! begins at 0, the base model, because a round's fold depends on nothing but
//! its updates. Where they write 1/n, a site has its share.
//!
//! Every guess lies in the span of the updates, so only the updates' factors
//! are computed, from the Gram matrix. Sites of a share s in all move the guess
//! by at most s x radius a step, and the steps of the others bring two guesses
//! no further apart (they descend a convex function whose gradient has Lipschitz
//! constant 1), so what hostile sites move in all is at most steps x s x radius.

use super::gram::Gram;
use crate::exact_sum;

/// The factor of each site after so many steps.
///
/// Sums over sites are exact, so a permutation of the sites permutes the
/// factors and changes no bit of them.
pub(super) fn factors(gram: &Gram, shares: &[f64], radius: f64, steps: usize) -> Vec<f64> {
    let mut factors = vec![0.0; shares.len()];
    for _ in 0..steps {
        let distances = gram.distances_from(&factors);
        let pull = |(share, distance): (&f64, &f64)| {
            if *distance > radius { share * (radius / distance) } else { *share }
        };
        let pulls: Vec<_> = shares.iter().zip(&distances).map(pull).collect();
        let rest = 1.0 - exact_sum::sum(pulls.iter().copied());
        factors.iter_mut().zip(&pulls).for_each(|(factor, pull)| *factor = *factor * rest + pull);
    }
    factors
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::reference_gram as gram;
    use proptest::prelude::*;

    #[test]
    fn a_wide_radius_gives_the_mean_and_a_narrow_one_clips() {
        let updates = [vec![3.0, 4.0], vec![0.0, 1.0]];
        assert_eq!(factors(&gram(&updates), &[0.5; 2], 100.0, 1), [0.5; 2]);
        assert_eq!(factors(&gram(&updates), &[0.5; 2], 100.0, 9), [0.5; 2]);
        assert_eq!(factors(&gram(&updates), &[0.5; 2], 1.0, 1), [0.1, 0.5]);
        assert_eq!(factors(&gram(&[vec![0.0], vec![0.0]]), &[0.5; 2], 1.0, 3), [0.5; 2]);
    }

    proptest! {
        /// The steps as the paper writes them, on the updates themselves.
        #[test]
        fn the_factors_stand_for_the_papers_guess(
            sites in prop::collection::vec((0.1..1f64, prop::collection::vec(-10f32..10.0, 6)), 1..8),
            radius in 0.1..30f64, steps in 1usize..6,
        ) {
            let total: f64 = sites.iter().map(|site| site.0).sum();
            let shares: Vec<_> = sites.iter().map(|site| site.0 / total).collect();
            let updates: Vec<_> = sites.into_iter().map(|site| site.1).collect();
            let mut guess = vec![0.0; 6];
            for _ in 0..steps {
                let mut step = vec![0.0; 6];
                for (update, share) in updates.iter().zip(&shares) {
                    let away: Vec<_> = update.iter().zip(&guess).map(|(u, g)| f64::from(*u) - g).collect();
                    let length = away.iter().map(|a| a * a).sum::<f64>().sqrt();
                    let scale = share * (radius / length).min(1.0);
                    step.iter_mut().zip(&away).for_each(|(s, a)| *s += scale * a);
                }
                guess.iter_mut().zip(&step).for_each(|(g, s)| *g += s);
            }
            let found = factors(&gram(&updates), &shares, radius, steps);
            for (place, guess) in guess.iter().enumerate() {
                let sum: f64 = updates.iter().zip(&found).map(|(u, f)| f * f64::from(u[place])).sum();
                prop_assert!((sum - guess).abs() < 1e-9, "{} {}", sum, guess);
            }
        }

        #[test]
        fn a_huge_update_moves_no_further_than_its_share_of_the_radius(
            honest in prop::collection::vec(prop::collection::vec(-1f32..1.0, 4), 3..6), steps in 1usize..5,
        ) {
            let mut updates = honest;
            let sites = updates.len() + 1;
            let point = |updates: &[Vec<f32>]| -> Vec<f64> {
                let found = factors(&gram(updates), &vec![1.0 / sites as f64; sites], 1.0, steps);
                let at = |place: usize| updates.iter().zip(&found).map(|(u, f)| f * f64::from(u[place])).sum();
                (0..4).map(at).collect()
            };
            updates.push(vec![f32::MAX; 4]);
            let with = point(&updates);
            updates[sites - 1] = vec![-f32::MAX; 4];
            let against = point(&updates);
            let moved = with.iter().zip(&against).map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt();
            // Once to each side.
            let bound = 2.0 * steps as f64 / sites as f64;
            prop_assert!(moved <= bound * (1.0 + 1e-9), "{} {}", moved, bound);
        }
    }
}
