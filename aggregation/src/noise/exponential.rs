//! e to the power of a negative fraction, to more than 200 bits.

use num_bigint::BigUint;

/// The fractional bits of the fixed-point numbers here.
const BITS: u64 = 256;

/// A number from 0 to 1, as a multiple of 2^-256.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Fraction(BigUint);

impl Fraction {
    /// The first `bits` fractional bits, the rest cut off.
    pub(super) fn floor(&self, bits: u64) -> BigUint {
        &self.0 >> (BITS - bits)
    }

    /// The multiple of 2^-256 itself.
    pub(super) fn units(&self) -> &BigUint {
        &self.0
    }
}

/// e^(-numerator/denominator), with an error below 2^-235 if the exponent is
/// at most 2^8.
///
/// The exponent is halved until it is below 1, the Taylor series of the result
/// is summed, and the sum is squared as often. The argument, its terms (fewer
/// than 64) and each product are cut off at 2^-256, so the sum is off by less
/// than 2^-249; squaring a number up to 1 at most doubles its error and adds
/// one cut, and there are at most 9 squarings.
pub(super) fn exp_neg(numerator: &BigUint, denominator: &BigUint) -> Fraction {
    let halvings = (numerator / denominator).bits();
    let argument = (numerator << BITS) / (denominator << halvings);
    let (mut plus, mut minus) = (BigUint::ZERO, BigUint::ZERO);
    let mut term = BigUint::from(1u32) << BITS;
    let mut index = 0u32;
    while term != BigUint::ZERO {
        *if index.is_multiple_of(2) { &mut plus } else { &mut minus } += &term;
        index += 1;
        term = ((term * &argument) >> BITS) / index;
    }
    let mut value = plus - minus;
    for _ in 0..halvings {
        value = (&value * &value) >> BITS;
    }
    Fraction(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn exp(numerator: u64, denominator: u64) -> Fraction {
        exp_neg(&BigUint::from(numerator), &BigUint::from(denominator))
    }

    fn distance(a: &BigUint, b: &BigUint) -> BigUint {
        if a > b { a - b } else { b - a }
    }

    #[test]
    fn known_values() {
        assert_eq!(exp(0, 5).0, BigUint::from(1u32) << 256);
        // 1/e in 2^-128, from mpmath.
        let digits = exp(1, 1).floor(128).to_string();
        assert_eq!(digits, "125182886983370532117250726298150828301");
    }

    proptest! {
        #[test]
        fn close_to_binary64(n in 0u64..40_000, d in 100u64..1000) {
            let found = exp(n, d).floor(60).to_string().parse::<f64>().unwrap() / 60f64.exp2();
            let expected = (-(n as f64) / d as f64).exp();
            prop_assert!((found - expected).abs() <= 1e-13 * expected + 2e-18);
        }

        #[test]
        fn a_sum_of_exponents_is_a_product(a in 0u64..1 << 40, b in 0u64..1 << 40) {
            let one = 1 << 34;
            let product = (exp(a, one).0 * exp(b, one).0) >> BITS;
            prop_assert!(distance(&product, &exp(a + b, one).0) < (BigUint::from(1u32) << 21));
        }
    }
}
