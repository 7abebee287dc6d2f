//! What a sequence of releases has cost so far.

use super::{Mechanism, Orders, checked_delta, checked_epsilon, checked_rounds, conversion};
use crate::Result;

/// The sum of the Rényi costs of releases, order by order. Mechanisms of every
/// kind add up in one account, in any sequence, each chosen freely after the
/// results before it (Mironov 2017, proposition 1).
///
/// ```
/// use sealfold_aggregation::privacy::{Orders, Pure, SampledGaussian, Spent};
///
/// let round = SampledGaussian::new(1.1, 1.0, 0.02)?;
/// let table = Pure::discrete_laplace(20.0, 1.0)?;
/// let spent = Spent::new(Orders::integer()).add(&round.into(), 200).add(&table.into(), 12);
/// assert!(spent.epsilon(1e-6)? < 3.2);
/// # Ok::<(), sealfold_aggregation::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Spent {
    orders: Orders,
    costs: Vec<f64>,
}

impl Default for Spent {
    fn default() -> Self {
        Self::new(Orders::default())
    }
}

impl Spent {
    /// Nothing spent, kept at `orders`. What decides about discrete noise under
    /// subsampling takes [`Orders::integer`]; [`orders`](super::orders) says
    /// why.
    #[must_use]
    pub fn new(orders: Orders) -> Self {
        let costs = vec![0.0; orders.as_slice().len()];
        Self { orders, costs }
    }

    /// The account after `count` more releases through `mechanism`.
    #[must_use]
    pub fn add(mut self, mechanism: &Mechanism, count: u64) -> Self {
        // Nothing times an infinite cost is nothing.
        if count > 0 {
            for (cost, order) in self.costs.iter_mut().zip(self.orders.as_slice()) {
                *cost += mechanism.renyi(*order) * count as f64;
            }
        }
        self
    }

    /// The account of doing all of this so many times.
    #[must_use]
    pub fn times(mut self, count: u64) -> Self {
        for cost in &mut self.costs {
            // Nothing times an infinite cost is nothing.
            *cost = if count == 0 { 0.0 } else { *cost * count as f64 };
        }
        self
    }

    /// Epsilon at `delta` after each of `rounds` rounds, of which each costs all
    /// of this: entry i after i + 1 rounds. Rising.
    ///
    /// # Errors
    /// [`Error::Empty`](crate::Error::Empty) for no rounds,
    /// [`Error::Delta`](crate::Error::Delta) for a delta outside (0, 1).
    pub fn by_round(&self, rounds: u32, delta: f64) -> Result<Vec<f64>> {
        checked_rounds(rounds.into())?;
        checked_delta(delta)?;
        let after = |round: u32| {
            let epsilon =
                |(order, cost)| conversion::epsilon(order, cost * f64::from(round), delta);
            self.curve().map(epsilon).fold(f64::INFINITY, f64::min)
        };
        Ok((1..=rounds).map(after).collect())
    }

    /// Epsilon at `delta`: the least over the orders, infinite if none gives a
    /// bound.
    ///
    /// # Errors
    /// [`Error::Delta`](crate::Error::Delta) for a delta outside (0, 1).
    pub fn epsilon(&self, delta: f64) -> Result<f64> {
        Ok(self.epsilon_and_order(delta)?.0)
    }

    /// Epsilon at `delta`, and the order that gives it.
    pub(super) fn epsilon_and_order(&self, delta: f64) -> Result<(f64, f64)> {
        checked_delta(delta)?;
        let first = (f64::INFINITY, self.orders.as_slice()[0]);
        Ok(self.curve().fold(first, |best, (order, cost)| {
            let epsilon = conversion::epsilon(order, cost, delta);
            if epsilon < best.0 { (epsilon, order) } else { best }
        }))
    }

    /// Delta at `epsilon`: the least over the orders, at most 1.
    ///
    /// # Errors
    /// [`Error::Epsilon`](crate::Error::Epsilon) for an epsilon below 0 or that is no number.
    pub fn delta(&self, epsilon: f64) -> Result<f64> {
        checked_epsilon(epsilon)?;
        let delta = |(order, cost)| conversion::delta(order, cost, epsilon);
        Ok(self.curve().map(delta).fold(1.0, f64::min))
    }

    /// Pairs of an order and the cost at it.
    fn curve(&self) -> impl Iterator<Item = (f64, f64)> {
        self.orders.as_slice().iter().copied().zip(self.costs.iter().copied())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Error;
    use crate::privacy::{Pure, Rho, SampledGaussian, epsilon};
    use proptest::prelude::*;

    fn kinds() -> [Mechanism; 3] {
        [
            SampledGaussian::new(1.3, 1.0, 0.05).unwrap().into(),
            Pure::new(0.1).unwrap().into(),
            Rho::gaussian(40.0, 1.0).unwrap().into(),
        ]
    }

    #[test]
    fn a_whole_gaussian_costs_its_rho() {
        let gaussian = SampledGaussian::new(4.0, 1.0, 1.0).unwrap();
        let rho = Rho::gaussian(4.0, 1.0).unwrap();
        for orders in [Orders::default(), Orders::integer()] {
            let one = Spent::new(orders.clone()).add(&gaussian.into(), 7);
            let other = Spent::new(orders).add(&rho.into(), 7);
            assert_eq!(one, other);
        }
        // All orders are a little better than those on a list.
        let listed = epsilon(&gaussian.into(), 7, 1e-6, &Orders::default()).unwrap();
        let all = rho.times(7).unwrap().epsilon(1e-6).unwrap();
        assert!(all <= listed && listed < 1.01 * all, "{all} {listed}");
    }

    #[test]
    fn nothing_costs_nothing_and_nonsense_is_refused() {
        assert_eq!(Spent::default().epsilon(1e-9), Ok(0.0));
        assert_eq!(Spent::default().delta(0.0), Ok(0.0));
        let endless = SampledGaussian::new(1e-200, 1.0, 1.0).unwrap().into();
        assert_eq!(Spent::default().add(&endless, 0), Spent::default());
        assert_eq!(Spent::default().add(&endless, 1).epsilon(0.5), Ok(f64::INFINITY));
        assert_eq!(Spent::default().add(&endless, 1).delta(9.0), Ok(1.0));
        assert!(matches!(Spent::default().epsilon(0.0), Err(Error::Delta { .. })));
        assert!(matches!(Spent::default().delta(f64::NAN), Err(Error::Epsilon { .. })));
        assert!(matches!(Spent::default().delta(-1.0), Err(Error::Epsilon { .. })));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn the_sequence_does_not_matter_and_more_costs_more(
            counts in proptest::array::uniform3(0u64..500), log_delta in -20.0..-2.0f64,
        ) {
            let delta = log_delta.exp();
            let orders = Orders::integer;
            let forward = (0..3).fold(Spent::new(orders()), |s, i| s.add(&kinds()[i], counts[i]));
            let backward = (0..3).rev().fold(Spent::new(orders()), |s, i| s.add(&kinds()[i], counts[i]));
            let (a, b) = (forward.epsilon(delta).unwrap(), backward.epsilon(delta).unwrap());
            prop_assert!((a - b).abs() <= 1e-12 * a);
            for kind in kinds() {
                prop_assert!(forward.clone().add(&kind, 1).epsilon(delta).unwrap() >= a);
            }
            prop_assert!(forward.delta(a).unwrap() <= delta * (1.0 + 1e-9));
        }
    }
}
