//! Zero-concentrated DP (Bun and Steinke 2016): one number, rho, that says the
//! Rényi DP at every order a is at most rho a. It adds up over releases.
//!
//! The discrete Gaussian has the rho of the continuous one, d^2 / (2 s^2), in
//! any dimension (Canonne, Kamath and Steinke 2020). Poisson subsampling is not
//! described by a rho: see [`gaussian`](super::gaussian).

use super::{checked_delta, checked_epsilon, checked_rounds, conversion, golden, positive};
use crate::Result;
use libm::{exp, log, sqrt};

/// The rho of one or more releases.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct Rho(f64);

impl Rho {
    /// A given rho.
    ///
    /// # Errors
    /// [`Error::Parameter`](crate::Error::Parameter) unless it is positive and finite.
    pub fn new(rho: f64) -> Result<Self> {
        Ok(Self(positive("rho", rho)?))
    }

    /// Gaussian noise, discrete or continuous, of parameter `sigma`, on values
    /// that one unit changes by at most `sensitivity` in the Euclidean norm;
    /// whole numbers if the noise is discrete.
    ///
    /// # Errors
    /// [`Error::Parameter`](crate::Error::Parameter) unless both are positive and finite and give such
    /// a rho.
    pub fn gaussian(sigma: f64, sensitivity: f64) -> Result<Self> {
        let quotient = positive("sensitivity", sensitivity)? / positive("sigma", sigma)?;
        Self::new(quotient * quotient / 2.0)
    }

    /// An `epsilon`-DP release: epsilon^2 / 2. [`Pure`](super::Pure) is
    /// tighter.
    ///
    /// # Errors
    /// [`Error::Parameter`](crate::Error::Parameter) unless it is positive and finite.
    pub fn pure(epsilon: f64) -> Result<Self> {
        let epsilon = positive("epsilon", epsilon)?;
        Self::new(epsilon * epsilon / 2.0)
    }

    /// The number itself.
    #[must_use]
    pub fn get(self) -> f64 {
        self.0
    }

    /// This release and another one. Infinite if the sum is too large for a
    /// number.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }

    /// This release `rounds` times.
    ///
    /// # Errors
    /// [`Error::Empty`](crate::Error::Empty) for no rounds.
    pub fn times(self, rounds: u64) -> Result<Self> {
        checked_rounds(rounds)?;
        Ok(Self(self.0 * rounds as f64))
    }

    pub(super) fn renyi(self, order: f64) -> f64 {
        self.0 * order
    }

    /// Epsilon at `delta`: the least over all orders, fractional ones too. The
    /// search stops close to the best order, and any order is a valid bound.
    ///
    /// # Errors
    /// [`Error::Delta`](crate::Error::Delta) for a delta outside (0, 1).
    pub fn epsilon(self, delta: f64) -> Result<f64> {
        checked_delta(delta)?;
        // The order that is best for Mironov's simpler conversion.
        let near = sqrt(-log(delta) / self.0);
        Ok(least(near, |order| conversion::epsilon(order, self.renyi(order), delta)))
    }

    /// Delta at `epsilon`, in the same way.
    ///
    /// # Errors
    /// [`Error::Epsilon`](crate::Error::Epsilon) for an epsilon below 0 or that is no number.
    pub fn delta(self, epsilon: f64) -> Result<f64> {
        checked_epsilon(epsilon)?;
        let near = (epsilon / self.0 - 1.0).max(0.01) / 2.0;
        let tight = least(near, |a| conversion::log_tight_delta(a, self.renyi(a), epsilon));
        // The Kullback-Leibler divergence is that of order 1, which is rho.
        Ok(exp(tight.min(conversion::log_total_variation(self.0))))
    }
}

/// The least value of `bound` over orders, by golden-section search over the
/// logarithm of the order less 1, from a thousandth to a thousand times `near`.
fn least(near: f64, bound: impl Fn(f64) -> f64) -> f64 {
    let at = |t: f64| bound(1.0 + near * exp(t));
    at(golden::least(-log(1000.0)..log(1000.0), 60, at))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Error;

    #[test]
    fn rho_of_noise_and_of_pure_releases() {
        assert_eq!(Rho::gaussian(2.0, 1.0).unwrap().get(), 0.125);
        assert_eq!(Rho::gaussian(500_000.0, 250_000.0).unwrap().get(), 0.125);
        assert_eq!(Rho::pure(1.0).unwrap().get(), 0.5);
        let both = Rho::new(0.1).unwrap().times(5).unwrap().and(Rho::pure(1.0).unwrap());
        assert_eq!(both.get(), 1.0);
    }

    #[test]
    fn the_conversion_beats_the_closed_form_and_no_order_beats_it() {
        for rho in [1e-8, 1e-3, 0.1, 1.0, 30.0, 1e4] {
            for delta in [1e-12, 1e-6, 1e-3] {
                let found = Rho(rho).epsilon(delta).unwrap();
                // Bun and Steinke 2016, proposition 1.3.
                assert!(found <= rho + 2.0 * (-rho * delta.ln()).sqrt(), "{rho} {delta}");
                let best = (1..4000)
                    .map(|i| 1.0 + 1.006f64.powi(i) / 1000.0)
                    .map(|order| conversion::epsilon(order, rho * order, delta))
                    .fold(f64::INFINITY, f64::min);
                assert!(found <= best * (1.0 + 1e-9), "{rho} {delta} {found} {best}");
                if found > 0.0 {
                    let back = Rho(rho).delta(found).unwrap();
                    assert!((back / delta - 1.0).abs() < 1e-6, "{rho} {delta} {back}");
                }
            }
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_name() {
        assert!(matches!(Rho::new(0.0), Err(Error::Parameter { what: "rho", .. })));
        assert!(matches!(Rho::gaussian(0.0, 1.0), Err(Error::Parameter { what: "sigma", .. })));
        assert!(matches!(Rho::pure(-1.0), Err(Error::Parameter { what: "epsilon", .. })));
        let rho = Rho::new(1.0).unwrap();
        assert!(matches!(rho.times(0), Err(Error::Empty { .. })));
        assert!(matches!(rho.epsilon(1.0), Err(Error::Delta { .. })));
        assert!(matches!(rho.delta(-0.5), Err(Error::Epsilon { .. })));
        assert!(matches!(rho.delta(f64::NAN), Err(Error::Epsilon { .. })));
        assert_eq!(Rho::new(f64::MAX).unwrap().times(9).unwrap().epsilon(0.1), Ok(f64::INFINITY));
    }
}
