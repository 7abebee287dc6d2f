//! The distribution that is wanted, as exact fractions.

use super::exponential::{Fraction, exp_neg};
use crate::{Error, Result};
use num_bigint::BigUint;

/// The probability of an integer z is proportional to
/// exp(-|z|^degree * numerator / denominator).
#[derive(Debug, Clone)]
pub(super) struct Law {
    pub(super) degree: u32,
    pub(super) numerator: BigUint,
    pub(super) denominator: BigUint,
}

/// A binary64 that is positive and normal, as the fraction that it is:
/// numerator and denominator, one of which is a power of two.
fn fraction(value: f64) -> (BigUint, BigUint) {
    let bits = value.to_bits();
    let significand = (bits & ((1 << 52) - 1)) | (1 << 52);
    let exponent = bits >> 52;
    // The value is significand * 2^(exponent - 1075).
    let numerator = BigUint::from(significand) << exponent.saturating_sub(1075);
    (numerator, BigUint::from(1u32) << 1075u64.saturating_sub(exponent))
}

/// Refuses what is not a number, not positive, or outside of `smallest` to
/// `largest`.
fn check(what: &'static str, found: f64, smallest: f64, largest: f64) -> Result<()> {
    if !found.is_finite() || found <= 0.0 {
        return Err(Error::Parameter { what, found });
    }
    if found < smallest || found > largest {
        return Err(Error::OutOfRange { what, found, smallest, largest });
    }
    Ok(())
}

impl Law {
    /// The smallest and the largest standard deviation: 1/4 and 2^40.
    pub(super) const DEVIATION: (f64, f64) = (0.25, (1u64 << 40) as f64);
    /// The smallest and the largest Laplace scale: 1/64 and 2^39.
    pub(super) const SCALE: (f64, f64) = (1.0 / 64.0, (1u64 << 39) as f64);

    /// The discrete Gaussian: exp(-z^2 / (2 deviation^2)).
    pub(super) fn gaussian(deviation: f64) -> Result<Self> {
        let (smallest, largest) = Self::DEVIATION;
        check("noise deviation", deviation, smallest, largest)?;
        let (over, under) = fraction(deviation);
        Ok(Self { degree: 2, numerator: under.pow(2), denominator: over.pow(2) << 1u32 })
    }

    /// The discrete Laplace: exp(-|z| epsilon / sensitivity).
    pub(super) fn laplace(sensitivity: u32, epsilon: f64) -> Result<Self> {
        check("sensitivity", sensitivity.into(), 1.0, u32::MAX.into())?;
        let (smallest, largest) = Self::SCALE;
        let sensitivity_f64 = f64::from(sensitivity);
        check("epsilon", epsilon, sensitivity_f64 / largest, sensitivity_f64 / smallest)?;
        let (over, under) = fraction(epsilon);
        Ok(Self { degree: 1, numerator: over, denominator: under * sensitivity })
    }

    /// exp(-|z|^degree * numerator / denominator), 1 at 0.
    pub(super) fn density(&self, z: u64) -> Fraction {
        self.survival(0, z)
    }

    /// The density at `to` over the density at `from`, which is not larger.
    pub(super) fn survival(&self, from: u64, to: u64) -> Fraction {
        let power = |z: u64| BigUint::from(z).pow(self.degree);
        exp_neg(&((power(to) - power(from)) * &self.numerator), &self.denominator)
    }

    /// The largest integer that is at most the standard deviation (Gaussian)
    /// or the scale (Laplace).
    pub(super) fn width(&self) -> BigUint {
        match self.degree {
            2 => (&self.denominator / (&self.numerator << 1u32)).sqrt(),
            _ => &self.denominator / &self.numerator,
        }
    }

    /// The low bits that are drawn uniformly, at most 39: a step of so many is
    /// 1/4 to 1/2 of a Gaussian's deviation, 1/2 to 1 of a Laplace's scale, or
    /// 1 where these are narrow.
    pub(super) fn shift(&self) -> u32 {
        let bits = self.width().bits().saturating_sub(self.degree.into());
        u32::try_from(bits).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_binary64_is_taken_exactly(significand in 1u32.., shift in 0u32..80) {
            let value = f64::from(significand) * f64::from(shift).exp2() / 40f64.exp2();
            let (over, under) = fraction(value);
            let expected = BigUint::from(significand) << shift;
            prop_assert_eq!(over << 40u32, expected * under);
        }
    }

    #[test]
    fn widths_are_whole_and_never_above() {
        for (deviation, width) in [(0.25, 0u32), (0.999, 0), (1.0, 1), (3.999, 3), (1e6, 1_000_000)]
        {
            assert_eq!(Law::gaussian(deviation).unwrap().width(), width.into(), "{deviation}");
        }
        for (sensitivity, epsilon, width) in [(1, 1.0, 1u32), (1, 3.0, 0), (10, 0.125, 80)] {
            assert_eq!(Law::laplace(sensitivity, epsilon).unwrap().width(), width.into());
        }
    }

    #[test]
    fn steps_are_as_wide_as_the_survival_needs() {
        let (narrow, wide) = Law::DEVIATION;
        for (deviation, shift) in [(narrow, 0), (3.99, 0), (4.0, 1), (1e6, 18), (wide, 39)] {
            assert_eq!(Law::gaussian(deviation).unwrap().shift(), shift, "{deviation}");
        }
        let (narrow, wide) = Law::SCALE;
        for (scale, shift) in [(narrow, 0), (1.99, 0), (2.0, 1), (1000.0, 9), (wide, 39)] {
            assert_eq!(Law::laplace(1, 1.0 / scale).unwrap().shift(), shift, "{scale}");
        }
    }

    #[test]
    fn parameters_out_of_range_are_named() {
        let invalid = [0.0, -0.0, -1.0, f64::NAN, f64::INFINITY, f64::NEG_INFINITY];
        for value in invalid {
            let error = Law::gaussian(value).unwrap_err();
            assert!(matches!(error, Error::Parameter { what: "noise deviation", .. }), "{error}");
            let error = Law::laplace(1, value).unwrap_err();
            assert!(matches!(error, Error::Parameter { what: "epsilon", .. }), "{error}");
        }
        let largest = (1u64 << 40) as f64;
        for value in [f64::MIN_POSITIVE / 2.0, 0.2499, largest * 1.001, f64::MAX] {
            let error = Law::gaussian(value).unwrap_err();
            assert!(matches!(error, Error::OutOfRange { what: "noise deviation", .. }), "{error}");
        }
        for value in [1e-300, 1.999 / largest, 64.01] {
            let error = Law::laplace(1, value).unwrap_err();
            assert!(matches!(error, Error::OutOfRange { what: "epsilon", .. }), "{error}");
        }
        assert_eq!(
            Law::laplace(0, 1.0).unwrap_err(),
            Error::Parameter { what: "sensitivity", found: 0.0 }
        );
        for value in [0.25, largest] {
            Law::gaussian(value).unwrap();
        }
        Law::laplace(1, 64.0).unwrap();
        Law::laplace(u32::MAX, 0.01).unwrap();
    }
}
