//! Numbers kept as their natural logarithms: `-inf` is zero. Sums of terms
//! that range over hundreds of decades neither overflow nor lose the small
//! ones.

use libm::{erfc, exp, expm1, log, log1p};

/// ln(e^a + e^b).
pub(super) fn log_add(a: f64, b: f64) -> f64 {
    let (low, high) = if a < b { (a, b) } else { (b, a) };
    // Equal infinities have no difference.
    if low == f64::NEG_INFINITY || high == f64::INFINITY {
        return high;
    }
    high + log1p(exp(low - high))
}

/// ln(e^y - 1), for y >= 0.
pub(super) fn log_expm1(y: f64) -> f64 {
    // Above 40 the 1 is below the last bit.
    if y > 40.0 { y } else { log(expm1(y)) }
}

/// ln(erfc(x)), also where erfc(x) itself is below the smallest number.
pub(super) fn log_erfc(x: f64) -> f64 {
    if x < 10.0 {
        return log(erfc(x));
    }
    // Abramowitz and Stegun 7.1.23: erfc(x) = e^(-x^2) / (x sqrt(pi)) times
    // 1 - 1/(2x^2) + 1*3/(2x^2)^2 - ...; at 10 the term left out is 1e-17.
    let step = -0.5 / (x * x);
    let (mut term, mut series) = (1.0, 0.0);
    for odd in [1.0, 3.0, 5.0, 7.0, 9.0, 11.0, 13.0, 15.0, 17.0] {
        term *= odd * step;
        series += term;
    }
    log1p(series) - x * x - log(x) - 0.5 * log(std::f64::consts::PI)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(found: f64, expected: f64) {
        assert!((found - expected).abs() <= 1e-14 * expected.abs(), "{found} {expected}");
    }

    #[test]
    fn sums_of_logarithms() {
        near(log_add(log(2.0), log(3.0)), log(5.0));
        near(log_add(1000.0, 1000.0), 1000.0 + log(2.0));
        assert_eq!(log_add(f64::NEG_INFINITY, 1.0), 1.0);
        assert_eq!(log_add(f64::NEG_INFINITY, f64::NEG_INFINITY), f64::NEG_INFINITY);
        assert_eq!(log_add(f64::INFINITY, f64::INFINITY), f64::INFINITY);
        near(log_expm1(1e-20), log(1e-20));
        near(log_expm1(39.0), 39.0 + log1p(-exp(-39.0)));
        assert_eq!(log_expm1(800.0), 800.0);
    }

    /// Expected values from mpmath with 50 digits.
    #[test]
    fn the_tail_of_the_normal_distribution() {
        LOG_ERFC.iter().for_each(|(x, expected)| near(log_erfc(*x), *expected));
        assert_eq!(log_erfc(f64::NEG_INFINITY), log(2.0));
        assert_eq!(log_erfc(f64::INFINITY), f64::NEG_INFINITY);
    }

    const LOG_ERFC: [(f64, f64); 7] = [
        (-5.0, 0.693_147_180_559_176_6),
        (-0.5, 0.419_039_147_775_559_56),
        (0.5, -0.735_011_129_837_084_4),
        (5.0, -27.200_889_545_537_436),
        (9.999, -102.859_790_995_871_9),
        (10.0, -102.879_889_024_844_89),
        (40.0, -1_604.261_556_653_273_6),
    ];
}
