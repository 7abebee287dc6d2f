//! The Gaussian mechanism, whole and over a Poisson sample.
//!
//! With noise multiplier s (standard deviation over sensitivity) the whole
//! mechanism has Rényi DP a / (2 s^2) at order a (Mironov 2017). If every unit
//! takes part with probability q, in secret and independently of the others,
//! the bound at order a is ln(A) / (a - 1), where
//!
//! ```text
//! A = E over z ~ N(0, s^2) of ((1 - q) + q e^((2z - 1) / (2 s^2)))^a
//! ```
//!
//! (Mironov, Talwar and Zhang, "Rényi Differential Privacy of the Sampled
//! Gaussian Mechanism", 2019). It holds in both directions, for the unit added
//! and the unit removed.

use super::log_space::{log_add, log_erfc, log_expm1};
use super::positive;
use crate::{Error, Result};
use libm::{log, log1p};

/// A sum with Gaussian noise over units that take part with probability q.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SampledGaussian {
    noise_multiplier: f64,
    sampling_rate: f64,
}

impl SampledGaussian {
    /// Noise of standard deviation `sigma` on a sum that one unit changes by
    /// at most `sensitivity` in the Euclidean norm (both in the same measure:
    /// grid steps, or the values' own), over a Poisson sample with
    /// `sampling_rate`. A rate of 1 is the plain Gaussian mechanism.
    ///
    /// The unit is what the sensitivity says: one clipped gradient, or, where
    /// a site is the unit, its whole clipped update.
    ///
    /// # Errors
    /// [`Error::Parameter`] for a sigma, sensitivity or quotient of them that
    /// is not positive and finite; [`Error::SamplingRate`] for a rate outside
    /// [0, 1].
    pub fn new(sigma: f64, sensitivity: f64, sampling_rate: f64) -> Result<Self> {
        let quotient = positive("sigma", sigma)? / positive("sensitivity", sensitivity)?;
        let noise_multiplier = positive("noise multiplier", quotient)?;
        if !(0.0..=1.0).contains(&sampling_rate) {
            return Err(Error::SamplingRate { found: sampling_rate });
        }
        Ok(Self { noise_multiplier, sampling_rate })
    }

    /// Standard deviation over sensitivity.
    #[must_use]
    pub fn noise_multiplier(&self) -> f64 {
        self.noise_multiplier
    }

    /// The probability with which a unit takes part.
    #[must_use]
    pub fn sampling_rate(&self) -> f64 {
        self.sampling_rate
    }

    pub(super) fn renyi(&self, order: f64) -> f64 {
        let precision = 1.0 / (self.noise_multiplier * self.noise_multiplier);
        if self.sampling_rate == 0.0 {
            return 0.0;
        }
        if !precision.is_finite() {
            return f64::INFINITY;
        }
        if self.sampling_rate >= 1.0 {
            return order * precision / 2.0;
        }
        if order.fract() == 0.0 {
            return self.log_moment(order, precision) / (order - 1.0);
        }
        // Rényi divergence grows with its order, so the next integer's is a
        // bound too, and exact to the last bits. It stands in where the series
        // has not ended, and where a moment this close to 1 is lost in the
        // rounding of its own terms.
        let next = self.log_moment(order.ceil(), precision) / (order.ceil() - 1.0);
        let log_moment = self.log_moment_series(order);
        if log_moment > 1e-9 { next.min(log_moment / (order - 1.0)) } else { next }
    }

    /// ln(A) at an integer order, `precision` being 1 / s^2.
    ///
    /// The binomial theorem gives A as the sum of C(a, k) (1 - q)^(a - k) q^k
    /// e^((k^2 - k) / (2 s^2)). The weights sum to 1, so A - 1 is the same sum
    /// with e^y - 1 for e^y: no term cancels, and a tiny cost keeps its digits.
    fn log_moment(&self, order: f64, precision: f64) -> f64 {
        let (log_q, log_rest) = (log(self.sampling_rate), log1p(-self.sampling_rate));
        let mut log_excess = f64::NEG_INFINITY;
        let mut log_choose = log(order);
        let mut k = 2.0;
        while k <= order {
            log_choose += log((order - k + 1.0) / k);
            let growth = log_expm1((k * k - k) * precision / 2.0);
            let term = log_choose + k * log_q + (order - k) * log_rest + growth;
            log_excess = log_add(log_excess, term);
            k += 1.0;
        }
        log_add(0.0, log_excess)
    }

    /// ln(A) at a fractional order, from above: section 3.3 of the paper, two
    /// binomial series, one on each side of z0, where both parts of the
    /// mixture weigh the same. The coefficients change sign beyond the order;
    /// their absolute values are summed, as dp-accounting does, which can only
    /// raise the result. Infinite if the series has not ended in time.
    fn log_moment_series(&self, order: f64) -> f64 {
        let (q, sigma) = (self.sampling_rate, self.noise_multiplier);
        let variance = sigma * sigma;
        let (log_q, log_rest) = (log(q), log1p(-q));
        let z0 = variance * log(1.0 / q - 1.0) + 0.5;
        let width = sigma * std::f64::consts::SQRT_2;
        let log_half = -std::f64::consts::LN_2;
        let (mut log_choose, mut total) = (0.0, f64::NEG_INFINITY);
        let mut last = (f64::NEG_INFINITY, f64::NEG_INFINITY);
        for step in 0..LONGEST_SERIES {
            let i = f64::from(step);
            let j = order - i;
            let below = i * log_q
                + j * log_rest
                + (i * i - i) / (2.0 * variance)
                + log_erfc((i - z0) / width);
            let above = j * log_q
                + i * log_rest
                + (j * j - j) / (2.0 * variance)
                + log_erfc((z0 - j) / width);
            let terms = (log_choose + log_half + below, log_choose + log_half + above);
            total = log_add(total, log_add(terms.0, terms.1));
            let falling = terms.0 < last.0 && terms.1 < last.1;
            if falling && terms.0.max(terms.1) < total - 30.0 {
                return total;
            }
            last = terms;
            log_choose += log((j / (i + 1.0)).abs());
        }
        f64::INFINITY
    }
}

/// After so many terms a series counts as divergent, as in dp-accounting.
const LONGEST_SERIES: u32 = 1000;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn gaussian(noise_multiplier: f64, q: f64) -> SampledGaussian {
        SampledGaussian::new(noise_multiplier, 1.0, q).unwrap()
    }

    /// A by Simpson's rule over z.
    fn integrated(noise_multiplier: f64, q: f64, order: f64) -> f64 {
        let s2 = noise_multiplier * noise_multiplier;
        let (low, high) = (-14.0 * noise_multiplier, order + 14.0 * noise_multiplier);
        let steps = 20_000;
        let h = (high - low) / f64::from(steps);
        let density = |z: f64| {
            let mixture = 1.0 - q + q * ((2.0 * z - 1.0) / (2.0 * s2)).exp();
            (order * mixture.ln() - z * z / (2.0 * s2)).exp()
        };
        let sum: f64 = (0..=steps)
            .map(|i| {
                let weight = if i == 0 || i == steps { 1.0 } else { f64::from(2 + 2 * (i % 2)) };
                weight * density(low + h * f64::from(i))
            })
            .sum();
        let moment = sum * h / 3.0 / (s2 * std::f64::consts::TAU).sqrt();
        moment.ln() / (order - 1.0)
    }

    #[test]
    fn at_integer_orders_the_sum_is_the_integral() {
        for (s, q, order) in [(1.0, 0.01, 2.0), (0.7, 0.2, 5.0), (2.0, 0.5, 17.0)] {
            let (found, expected) = (gaussian(s, q).renyi(order), integrated(s, q, order));
            assert!((found / expected - 1.0).abs() < 1e-9, "{order} {found} {expected}");
        }
    }

    #[test]
    fn at_fractional_orders_the_series_is_the_integral_or_a_little_more() {
        for (s, q, order) in [(2.0, 0.1, 3.5), (5.0, 0.3, 10.7), (1.0, 0.001, 1.5), (0.8, 0.2, 6.1)]
        {
            let (found, expected) = (gaussian(s, q).renyi(order), integrated(s, q, order));
            assert!(found > expected * (1.0 - 1e-9), "{order} {found} {expected}");
            assert!(found < expected * 1.005, "{order} {found} {expected}");
        }
    }

    #[test]
    fn a_tiny_cost_keeps_its_digits() {
        // To first order the cost is a q^2 (e^(1 / s^2) - 1) / 2.
        let (s, q) = (50.0, 1e-9);
        let expected = 2.0 * q * q * libm::expm1(1.0 / (s * s)) / 2.0;
        assert!((gaussian(s, q).renyi(2.0) / expected - 1.0).abs() < 1e-9);
        // And a fractional order is bounded by the next integer's.
        assert_eq!(gaussian(s, q).renyi(2.5), gaussian(s, q).renyi(3.0));
    }

    #[test]
    fn only_the_quotient_of_noise_and_sensitivity_counts() {
        let in_steps = SampledGaussian::new(300_000.0, 250_000.0, 0.1).unwrap();
        assert_eq!(in_steps.noise_multiplier(), 1.2);
        assert_eq!(in_steps.renyi(7.0), gaussian(1.2, 0.1).renyi(7.0));
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_name() {
        for sigma in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            let error = SampledGaussian::new(sigma, 1.0, 0.5).unwrap_err();
            assert!(matches!(error, Error::Parameter { what: "sigma", .. }));
            let error = SampledGaussian::new(1.0, sigma, 0.5).unwrap_err();
            assert!(matches!(error, Error::Parameter { what: "sensitivity", .. }));
        }
        let error = SampledGaussian::new(1e-300, 1e300, 0.5).unwrap_err();
        assert!(matches!(error, Error::Parameter { what: "noise multiplier", .. }));
        for rate in [-0.1, 1.1, f64::NAN] {
            let error = SampledGaussian::new(1.0, 1.0, rate).unwrap_err();
            assert!(matches!(error, Error::SamplingRate { .. }));
        }
    }

    proptest! {
        /// No sampling rate, noise or order gives a number that is not one.
        #[test]
        fn the_cost_lies_between_nothing_and_the_whole_mechanism(
            log_s in -2.0..6.0f64, log_q in -18.0..0.0f64, order in 1.1..300.0f64,
        ) {
            let (s, q) = (10f64.powf(log_s), 10f64.powf(log_q));
            for order in [order, order.ceil()] {
                let found = gaussian(s, q).renyi(order);
                let whole = gaussian(s, 1.0).renyi(order.ceil());
                prop_assert!(found >= 0.0);
                prop_assert!(found == f64::INFINITY || found <= whole * (1.0 + 1e-9));
            }
        }

        #[test]
        fn it_falls_with_noise_and_grows_with_rate_and_order(
            s in 0.3..50.0f64, q in 1e-4..0.9f64, order in 2u32..200,
        ) {
            let order = f64::from(order);
            let cost = gaussian(s, q).renyi(order);
            prop_assert!(gaussian(s * 1.01, q).renyi(order) <= cost);
            prop_assert!(gaussian(s, q * 1.01).renyi(order) >= cost);
            prop_assert!(gaussian(s, q).renyi(order + 1.0) >= cost);
        }
    }
}
