//! What counts of patients by score say of a model.
//!
//! A site counts its held-out patients, without and with the outcome, in bins
//! of equal width over the scores from 0 to 1. Counts of several sites are
//! added, and noised, like any other values; measures are computed from the
//! sums alone, so they say no more than those. Counts below zero, which noise
//! makes, are taken as zero.

/// Measures of a model that gives scores from 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Measures {
    /// The patients that were counted with the outcome.
    pub with_outcome: f64,
    /// The patients that were counted without it.
    pub without_outcome: f64,
    /// The area under the ROC curve: the probability that a patient with the
    /// outcome has a higher score than one without; within a bin, one half.
    pub auc: f64,
    /// The share of patients with the outcome that have a score of 1/2 or more.
    pub sensitivity: f64,
    /// The share of patients without the outcome that have a lower one.
    pub specificity: f64,
    /// The expected calibration error (Naeini et al., 2015): the mean distance
    /// between a bin's middle and its share of patients with the outcome,
    /// weighted by the bin's patients.
    pub calibration_error: f64,
}

/// Measures from counts by bin, `[without, with]` the outcome. None if there
/// are no patients with the outcome, or none without.
#[must_use]
pub fn measures(counts: &[[f64; 2]]) -> Option<Measures> {
    let counts: Vec<_> = counts.iter().map(|pair| pair.map(|count| count.max(0.0))).collect();
    let total = |outcome: usize| counts.iter().map(|pair| pair[outcome]).sum::<f64>();
    let (without, with) = (total(0), total(1));
    if !(without > 0.0 && with > 0.0) {
        return None;
    }
    let bins = counts.len() as f64;
    let (mut below, mut pairs, mut error) = (0.0, 0.0, 0.0);
    let (mut found, mut spared) = (0.0, 0.0);
    for (bin, [negative, positive]) in counts.iter().enumerate() {
        pairs += positive * (below + negative / 2.0);
        below += negative;
        let middle = (bin as f64 + 0.5) / bins;
        if middle >= 0.5 {
            found += positive;
        } else {
            spared += negative;
        }
        error += (positive - middle * (positive + negative)).abs();
    }
    Some(Measures {
        with_outcome: with,
        without_outcome: without,
        auc: pairs / (without * with),
        sensitivity: found / with,
        specificity: spared / without,
        calibration_error: error / (with + without),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_perfect_an_inverted_and_a_blind_model() {
        let auc = |counts: &[[f64; 2]]| measures(counts).unwrap().auc;
        assert_eq!(auc(&[[5.0, 0.0], [0.0, 7.0]]), 1.0);
        assert_eq!(auc(&[[0.0, 7.0], [5.0, 0.0]]), 0.0);
        assert_eq!(auc(&[[3.0, 4.0]]), 0.5);
        let all = measures(&[[5.0, 1.0], [1.0, 3.0]]).unwrap();
        assert_eq!((all.sensitivity, all.specificity), (0.75, 5.0 / 6.0));
        // Bin middles are 1/4 and 3/4; 1 of 6 and 3 of 4 have the outcome.
        assert!((all.calibration_error - 0.05).abs() < 1e-12);
    }

    #[test]
    fn nothing_is_said_of_nobody() {
        assert_eq!(measures(&[]), None);
        assert_eq!(measures(&[[5.0, 0.0], [1.0, -2.0]]), None);
        assert_eq!(measures(&[[f64::NAN, 1.0]]), None);
    }

    proptest! {
        #[test]
        fn the_area_is_that_of_all_pairs(
            scores in prop::collection::vec((0usize..10, any::<bool>()), 2..80),
        ) {
            let mut counts = vec![[0.0; 2]; 10];
            scores.iter().for_each(|(bin, outcome)| counts[*bin][usize::from(*outcome)] += 1.0);
            let of = |outcome| scores.iter().filter(move |s| s.1 == outcome).map(|s| s.0);
            let (mut won, mut pairs) = (0.0, 0.0);
            for positive in of(true) {
                for negative in of(false) {
                    pairs += 1.0;
                    won += match positive.cmp(&negative) {
                        std::cmp::Ordering::Greater => 1.0,
                        std::cmp::Ordering::Equal => 0.5,
                        std::cmp::Ordering::Less => 0.0,
                    };
                }
            }
            if let Some(measures) = measures(&counts) {
                prop_assert!((measures.auc - won / pairs).abs() < 1e-9);
            } else {
                prop_assert_eq!(pairs, 0.0);
            }
        }
    }
}
