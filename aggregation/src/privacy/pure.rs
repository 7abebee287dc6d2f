//! Releases that are epsilon-DP with no delta, such as counts with discrete
//! Laplace noise.
//!
//! Of all epsilon-DP mechanisms, randomised response loses most: every other
//! one can be simulated from its output (Kairouz, Oh and Viswanath 2015), so
//! its Rényi divergence bounds theirs (Bun and Steinke 2016, proposition 3.3).

use super::log_space::log_add;
use super::positive;
use crate::Result;
use libm::{exp, expm1, log1p};

/// An epsilon-DP release.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pure {
    epsilon: f64,
}

impl Pure {
    /// A release that is `epsilon`-DP.
    ///
    /// # Errors
    /// [`Error::Parameter`](crate::Error::Parameter) unless it is positive and
    /// finite.
    pub fn new(epsilon: f64) -> Result<Self> {
        Ok(Self { epsilon: positive("epsilon", epsilon)? })
    }

    /// Integer values with independent discrete Laplace noise, of which x has
    /// probability proportional to e^(-|x| / `scale`). One unit changes the
    /// values by at most `sensitivity` in the sum of absolute differences; 1
    /// for a histogram. Continuous Laplace noise costs the same.
    ///
    /// With sensitivity 1 the privacy loss takes two values only, so the
    /// mechanism *is* randomised response and the account is exact.
    ///
    /// # Errors
    /// [`Error::Parameter`](crate::Error::Parameter) unless both, and their
    /// quotient, are positive and finite.
    pub fn discrete_laplace(scale: f64, sensitivity: f64) -> Result<Self> {
        Self::new(positive("sensitivity", sensitivity)? / positive("scale", scale)?)
    }

    /// The epsilon of one release.
    #[must_use]
    pub fn epsilon(self) -> f64 {
        self.epsilon
    }

    /// Randomised response says the truth with probability p = e^x / (1 + e^x),
    /// x being epsilon. The moment p^a (1 - p)^(1 - a) + (1 - p)^a p^(1 - a) is
    /// 1 + (e^((a - 1) x) - 1) (1 - e^(-a x)) / (1 + e^-x): nothing cancels.
    pub(super) fn renyi(self, order: f64) -> f64 {
        let x = self.epsilon;
        let up = (order - 1.0) * x;
        let rest = -expm1(-order * x) / (1.0 + exp(-x));
        let log_moment = if up > 40.0 {
            // e^up - 1 is e^up, which may be too large for a number.
            log_add(0.0, up + libm::log(rest))
        } else {
            log1p(expm1(up) * rest)
        };
        // Not above epsilon itself, whatever the rounding.
        (log_moment / (order - 1.0)).min(x)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Error;
    use proptest::prelude::*;

    /// The divergence of discrete Laplace noise from itself shifted by `v`.
    fn summed(scale: f64, v: i32, order: f64) -> f64 {
        let (mut normaliser, mut moment) = (0.0, 0.0);
        for x in -4000..=4000 {
            let (here, there) = (f64::from(x).abs() / scale, f64::from(x - v).abs() / scale);
            normaliser += (-here).exp();
            moment += (-order * there + (order - 1.0) * here).exp();
        }
        (moment / normaliser).ln() / (order - 1.0)
    }

    #[test]
    fn discrete_laplace_noise_on_a_count_is_accounted_exactly() {
        for (scale, order) in [(1.0, 1.5), (2.0, 2.0), (0.5, 7.0), (10.0, 63.0)] {
            let found = Pure::discrete_laplace(scale, 1.0).unwrap().renyi(order);
            let expected = summed(scale, 1, order);
            assert!((found / expected - 1.0).abs() < 1e-10, "{scale} {order} {found} {expected}");
            let wider = Pure::discrete_laplace(scale, 3.0).unwrap().renyi(order);
            assert!(wider >= summed(scale, 3, order));
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_name() {
        for bad in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            let refused = [
                (Pure::new(bad), "epsilon"),
                (Pure::discrete_laplace(bad, 1.0), "scale"),
                (Pure::discrete_laplace(1.0, bad), "sensitivity"),
            ];
            for (result, name) in refused {
                let error = result.unwrap_err();
                assert!(matches!(error, Error::Parameter { what, .. } if what == name), "{error}");
            }
        }
    }

    proptest! {
        /// Bun and Steinke 2016, proposition 3.3, and the definition.
        #[test]
        fn it_is_below_epsilon_and_half_its_square(
            log_epsilon in -8.0..3.0f64, order in 1.01..2000.0f64,
        ) {
            let epsilon = 10f64.powf(log_epsilon);
            let found = Pure::new(epsilon).unwrap().renyi(order);
            prop_assert!(found > 0.0);
            prop_assert!(found <= epsilon);
            prop_assert!(found <= order * epsilon * epsilon / 2.0 * (1.0 + 1e-12));
        }
    }
}
