//! Krum, multi-Krum, and the selection of Bulyan: the sites whose updates lie
//! closest to others.
//!
//! Blanchard, El Mhamdi, Guerraoui and Stainer, "Machine Learning with
//! Adversaries: Byzantine Tolerant Gradient Descent", NIPS 2017; El Mhamdi,
//! Guerraoui and Rouault, "The Hidden Vulnerability of Distributed Learning in
//! Byzantium", ICML 2018.
//!
//! A site's score is the sum of the squared distances to its n - f - 2 closest
//! others; low is good. Sums are exact, so a score does not depend on the order
//! of the sites. Of equal scores the site that comes first in the roster, which
//! is sorted by name, is the better one. Shares play no part.
//!
//! The branches here depend on distances. They are taken a few times a round,
//! inside the enclave, and never on a value of an update.

use super::gram::Gram;
use crate::exact_sum;

/// The `count` sites with the best scores, in the roster's order.
pub(super) fn select(gram: &Gram, byzantine: usize, count: usize) -> Vec<usize> {
    let sites: Vec<_> = (0..gram.sites()).collect();
    let scores = scores(gram, &sites, byzantine);
    let mut selected = sites;
    // The sort is stable: equal scores stay in the roster's order.
    selected.sort_by(|a, b| scores[*a].total_cmp(&scores[*b]));
    selected.truncate(count);
    selected.sort_unstable();
    selected
}

/// The n - 2f sites that Krum chooses one after the other, each among those
/// that it has not chosen, in the roster's order.
pub(super) fn select_for_bulyan(gram: &Gram, byzantine: usize) -> Vec<usize> {
    let mut left: Vec<_> = (0..gram.sites()).collect();
    let mut selected = Vec::new();
    while left.len() > 2 * byzantine {
        let scores = scores(gram, &left, byzantine);
        let best = (1..left.len()).fold(
            0,
            |best, place| {
                if scores[place] < scores[best] { place } else { best }
            },
        );
        selected.push(left.remove(best));
    }
    selected.sort_unstable();
    selected
}

/// The score of each of some sites among themselves. Where Bulyan's last
/// choices leave no n - f - 2 >= 1 others, the closest one decides.
fn scores(gram: &Gram, among: &[usize], byzantine: usize) -> Vec<f64> {
    let neighbours = among.len().saturating_sub(byzantine + 2).max(1);
    let score = |site: &usize| {
        let others = among.iter().filter(|other| *other != site);
        let mut distances: Vec<_> =
            others.map(|other| gram.squared_distance(*site, *other)).collect();
        distances.sort_by(f64::total_cmp);
        exact_sum::sum(distances.into_iter().take(neighbours))
    };
    among.iter().map(score).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::reference_gram as gram;
    use proptest::prelude::*;

    #[test]
    fn the_site_in_the_crowd_is_chosen_and_ties_go_by_name() {
        let updates: Vec<_> = [9.0f32, 1.0, 1.5, 0.9, 1.05].map(|value| vec![value]).to_vec();
        // With f = 1, each of five sites has two neighbours.
        assert_eq!(select(&gram(&updates), 1, 1), [1]);
        assert_eq!(select(&gram(&updates), 1, 2), [1, 4]);
        assert_eq!(select(&gram(&vec![vec![2.0]; 5]), 1, 2), [0, 1]);
        let huge: Vec<_> =
            [f32::MAX, 1.0, 1.5, 0.5, 1.0, -f32::MAX, 1.0].map(|value| vec![value]).to_vec();
        assert_eq!(select(&gram(&huge), 2, 3), [1, 4, 6]);
    }

    #[test]
    fn bulyan_leaves_two_outliers_for_each_hostile_site() {
        let updates: Vec<_> = [0.0f32, 1.0, 0.5, 90.0, 0.4, 0.6, 0.7].map(|v| vec![v]).to_vec();
        let selected = select_for_bulyan(&gram(&updates), 1);
        assert_eq!(selected.len(), 5);
        assert!(!selected.contains(&3), "{selected:?}");
        assert_eq!(select_for_bulyan(&gram(&updates), 0).len(), 7);
    }

    proptest! {
        #[test]
        fn who_is_chosen_does_not_depend_on_the_order(
            updates in prop::collection::vec(prop::collection::vec(-1e3f32..1e3, 5), 7..12),
            seed: u64,
        ) {
            let mut order: Vec<_> = (0..updates.len()).collect();
            order.sort_by_key(|i| (*i as u64 + 1).wrapping_mul(seed | 1));
            let shuffled: Vec<_> = order.iter().map(|i| updates[*i].clone()).collect();
            let back = |selected: Vec<usize>| {
                let mut back: Vec<_> = selected.iter().map(|i| order[*i]).collect();
                back.sort_unstable();
                back
            };
            let (one, other) = (gram(&updates), gram(&shuffled));
            prop_assert_eq!(select(&one, 1, 3), back(select(&other, 1, 3)));
            // The last choices of Bulyan can tie: two sites are each other's
            // closest. A tie goes by the order, so the choice must not be one.
            let first = select_for_bulyan(&one, 1);
            prop_assert_eq!(first.len(), updates.len() - 2);
        }
    }
}
