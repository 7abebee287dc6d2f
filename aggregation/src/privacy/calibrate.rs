//! Answers for people who plan a study: how much noise a claim needs, and how
//! epsilon grows over the rounds.

use super::{Mechanism, Orders, SampledGaussian, Spent, checked_rounds, positive};
use crate::{Error, Result};

/// Beyond this noise multiplier a claim counts as out of reach.
const MOST_NOISE: f64 = 1e15;

/// The smallest noise multiplier with which `rounds` rounds over a Poisson
/// sample of rate `sampling_rate` cost at most `epsilon` at `delta`, accounted
/// at `orders`. Noise of this many times the sensitivity satisfies the claim;
/// a part in a billion less does not.
///
/// ```
/// use sealfold_aggregation::privacy::{Orders, calibrate::noise_multiplier_for};
///
/// let multiplier = noise_multiplier_for(2.0, 1e-6, 0.01, 1000, &Orders::integer())?;
/// assert!((1.0..1.1).contains(&multiplier));
/// # Ok::<(), sealfold_aggregation::Error>(())
/// ```
///
/// # Errors
/// [`Error::Parameter`] unless `epsilon` is positive and finite;
/// [`Error::Delta`], [`Error::SamplingRate`], [`Error::Empty`] as for
/// [`epsilon`](super::epsilon) and [`SampledGaussian::new`];
/// [`Error::OutOfReach`] where the orders bound no noise so tightly;
/// [`Error::NothingSampled`] for a rate of 0, which needs no noise.
pub fn noise_multiplier_for(
    epsilon: f64,
    delta: f64,
    sampling_rate: f64,
    rounds: u64,
    orders: &Orders,
) -> Result<f64> {
    noise_multiplier_beside(&Spent::new(orders.clone()), epsilon, delta, sampling_rate, rounds)
}

/// As [`noise_multiplier_for`], where other releases are charged to the same
/// claim: `beside` is what they cost, at the orders of the accounting.
///
/// # Errors
/// As [`noise_multiplier_for`]; [`Error::OutOfReach`] also where the others
/// leave nothing of the claim.
pub fn noise_multiplier_beside(
    beside: &Spent,
    epsilon: f64,
    delta: f64,
    sampling_rate: f64,
    rounds: u64,
) -> Result<f64> {
    positive("epsilon", epsilon)?;
    checked_rounds(rounds)?;
    let enough = |noise_multiplier: f64| -> Result<bool> {
        let gaussian = SampledGaussian::new(noise_multiplier, 1.0, sampling_rate)?;
        Ok(beside.clone().add(&gaussian.into(), rounds).epsilon(delta)? <= epsilon)
    };
    if sampling_rate == 0.0 {
        return Err(Error::NothingSampled);
    }
    let mut high = 1.0;
    while !enough(high)? {
        high *= 2.0;
        if high > MOST_NOISE {
            return Err(Error::OutOfReach { epsilon, delta });
        }
    }
    let mut low = high / 2.0;
    while enough(low)? {
        (low, high) = (low / 2.0, low);
    }
    while high - low > 1e-9 * high {
        let middle = low + (high - low) / 2.0;
        if enough(middle)? { high = middle } else { low = middle }
    }
    Ok(high)
}

/// Epsilon at `delta` after each of `rounds` rounds, by Rényi DP at `orders`:
/// entry i after i + 1 rounds. Rising.
///
/// # Errors
/// [`Error::Empty`] for no rounds, [`Error::Delta`] for a delta outside (0, 1).
pub fn epsilon_by_round(
    mechanism: &Mechanism,
    rounds: u32,
    delta: f64,
    orders: &Orders,
) -> Result<Vec<f64>> {
    Spent::new(orders.clone()).add(mechanism, 1).by_round(rounds, delta)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::privacy::{Pure, epsilon};

    #[test]
    fn the_noise_satisfies_the_claim_and_less_does_not() {
        for (claim, delta, q, rounds) in [
            (1.0, 1e-6, 0.01, 1000),
            (8.0, 1e-5, 1.0, 20),
            (0.1, 1e-9, 0.1, 1),
            (60.0, 1e-3, 0.5, 100),
            (3.0, 1e-6, 1e-4, 100_000),
        ] {
            for orders in [Orders::integer(), Orders::default()] {
                let noise = noise_multiplier_for(claim, delta, q, rounds, &orders).unwrap();
                let spent = |noise: f64| {
                    let gaussian = SampledGaussian::new(noise, 1.0, q).unwrap();
                    Spent::new(orders.clone()).add(&gaussian.into(), rounds).epsilon(delta).unwrap()
                };
                assert!(spent(noise) <= claim, "{claim} {q} {rounds}: {noise}");
                assert!(spent(noise * (1.0 - 2e-9)) > claim, "{claim} {q} {rounds}: {noise}");
            }
        }
    }

    #[test]
    fn what_no_noise_satisfies_is_refused_by_name() {
        let integer = Orders::integer();
        let of =
            |epsilon, delta, q, rounds| noise_multiplier_for(epsilon, delta, q, rounds, &integer);
        let error = of(0.01, 1e-300, 1.0, 1).unwrap_err();
        assert_eq!(error, Error::OutOfReach { epsilon: 0.01, delta: 1e-300 });
        assert_eq!(of(1.0, 1e-6, 0.0, 1), Err(Error::NothingSampled));
        for bad in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            let error = of(bad, 1e-6, 1.0, 1).unwrap_err();
            assert!(matches!(error, Error::Parameter { what: "epsilon", .. }));
        }
        assert!(matches!(of(1.0, 1.0, 1.0, 1), Err(Error::Delta { .. })));
        assert!(matches!(of(1.0, 1e-6, 1.5, 1), Err(Error::SamplingRate { .. })));
        assert!(matches!(of(1.0, 1e-6, 1.0, 0), Err(Error::Empty { .. })));
    }

    #[test]
    fn what_others_cost_is_left_out_of_the_claim() {
        let count = SampledGaussian::new(8.0, 1.0, 1.0).unwrap();
        let beside = Spent::new(Orders::integer()).add(&count.into(), 16);
        let alone = noise_multiplier_for(3.0, 1e-5, 1.0, 16, &Orders::integer()).unwrap();
        let noise = noise_multiplier_beside(&beside, 3.0, 1e-5, 1.0, 16).unwrap();
        assert!(noise > alone && noise < 2.0 * alone, "{noise} {alone}");
        let sum = SampledGaussian::new(noise, 1.0, 1.0).unwrap();
        let round = Spent::new(Orders::integer()).add(&sum.into(), 1).add(&count.into(), 1);
        let last = round.by_round(16, 1e-5).unwrap()[15];
        assert!(last <= 3.0 && last > 2.999, "{last}");
        // Counts that cost more than the claim leave no noise that would do.
        let error = noise_multiplier_beside(&beside, 1.0, 1e-5, 1.0, 16).unwrap_err();
        assert_eq!(error, Error::OutOfReach { epsilon: 1.0, delta: 1e-5 });
    }

    #[test]
    fn the_series_ends_with_the_whole_and_rises() {
        let orders = Orders::default();
        let gaussian: Mechanism = SampledGaussian::new(1.5, 1.0, 0.05).unwrap().into();
        for mechanism in [gaussian, Pure::new(0.1).unwrap().into()] {
            let series = epsilon_by_round(&mechanism, 300, 1e-6, &orders).unwrap();
            assert_eq!(series.len(), 300);
            assert!(series.is_sorted() && series[0] > 0.0);
            for round in [1, 17, 300] {
                let alone = epsilon(&mechanism, round, 1e-6, &orders).unwrap();
                assert_eq!(series[usize::try_from(round).unwrap() - 1], alone);
            }
        }
        assert!(matches!(epsilon_by_round(&gaussian, 0, 0.1, &orders), Err(Error::Empty { .. })));
        assert!(matches!(epsilon_by_round(&gaussian, 1, 0.0, &orders), Err(Error::Delta { .. })));
    }
}
