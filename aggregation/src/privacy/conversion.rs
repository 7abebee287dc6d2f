//! From Rényi DP at one order to (epsilon, delta) and back.
//!
//! Two bounds hold at an order a with Rényi DP r, and the better one counts:
//!
//! - Canonne, Kamath and Steinke 2020 (proposition 12 in version 4; also Asoodeh
//!   et al. 2020, equation 20): delta = e^((a - 1)(r - epsilon)) (1 - 1/a)^(a - 1)
//!   / a, which is tighter than Mironov's by nearly ln(a) / (a - 1);
//! - Rényi divergence is at least the Kullback-Leibler divergence, and total
//!   variation at most sqrt(1 - e^-KL) (Bretagnolle and Huber 1979): where that
//!   is below delta, epsilon is 0.
//!
//! dp-accounting uses the same two.

use libm::{exp, expm1, log, log1p};

/// Below this order the first bound is numerically unstable, and of no use.
const LOWEST_ORDER: f64 = 1.01;

/// Epsilon at `delta`, which lies in (0, 1), of Rényi DP `renyi` at `order`.
#[must_use]
pub fn epsilon(order: f64, renyi: f64, delta: f64) -> f64 {
    if delta * delta + expm1(-renyi) > 0.0 {
        return 0.0;
    }
    if order <= LOWEST_ORDER {
        return f64::INFINITY;
    }
    let tight = renyi + log1p(-1.0 / order) - (log(delta) + log(order)) / (order - 1.0);
    tight.max(0.0)
}

/// Delta at `epsilon`, which is not negative, of Rényi DP `renyi` at `order`.
#[must_use]
pub fn delta(order: f64, renyi: f64, epsilon: f64) -> f64 {
    let mut log_delta = log_total_variation(renyi);
    if order > LOWEST_ORDER {
        log_delta = log_delta.min(log_tight_delta(order, renyi, epsilon));
    }
    exp(log_delta)
}

/// ln of the first bound on delta, which may be above 0.
pub(super) fn log_tight_delta(order: f64, renyi: f64, epsilon: f64) -> f64 {
    (order - 1.0) * (renyi - epsilon + log1p(-1.0 / order)) - log(order)
}

/// ln of the second bound, which is not above 0.
pub(super) fn log_total_variation(divergence: f64) -> f64 {
    0.5 * log(-expm1(-divergence))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epsilon_and_delta_are_inverse() {
        for (order, renyi, target) in [(1.5, 0.3, 1e-3), (8.0, 1.2, 1e-9), (256.0, 40.0, 1e-300)] {
            let found = delta(order, renyi, epsilon(order, renyi, target));
            assert!((log(found) / log(target) - 1.0).abs() < 1e-12, "{found} {target}");
        }
    }

    #[test]
    fn the_bound_is_the_papers() {
        // a = 2, r = 1: delta = e^(1 - epsilon) / 4.
        assert!((delta(2.0, 1.0, 3.0) - exp(-2.0) / 4.0).abs() < 1e-16);
        assert!((epsilon(2.0, 1.0, exp(-2.0) / 4.0) - 3.0).abs() < 1e-14);
    }

    #[test]
    fn the_ends_are_defined() {
        assert_eq!(epsilon(2.0, 0.0, 1e-9), 0.0);
        assert_eq!(delta(2.0, 0.0, 0.0), 0.0);
        assert_eq!(epsilon(2.0, f64::INFINITY, 0.5), f64::INFINITY);
        assert_eq!(delta(2.0, f64::INFINITY, 1.0), 1.0);
        // A total variation below delta needs no epsilon at all.
        assert_eq!(epsilon(2.0, 1e-8, 1e-3), 0.0);
        assert!(epsilon(2.0, 1e-8, 1e-5) > 0.0);
    }
}
