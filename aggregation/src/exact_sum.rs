//! An exact sum of floating-point numbers.
//!
//! Floating-point addition depends on its order; a sum over the records of an
//! update, taken by several threads, must not. The accumulator is a fixed-point
//! number that covers every finite binary64 (Kulisch, 2008); it is rounded
//! once, at the end, to the nearest binary64, ties to even.

use zeroize::Zeroize;

/// Digits of 32 bits: 2,098 bits for all finite values, and room for 2^62 of
/// the largest.
const DIGITS: usize = 68;
/// The weight of the lowest bit is 2^-1074, the smallest subnormal.
const LOWEST: i32 = -1074;
/// Additions between two carries: a digit takes 2^32 at most from each, and
/// holds 2^63.
const ADDITIONS: u32 = 1 << 30;

/// The exact sum of the values that were added.
#[derive(Debug, Clone, Zeroize)]
pub struct ExactSum {
    digits: [i64; DIGITS],
    additions: u32,
    finite: bool,
}

/// The exact sum of some values, rounded once.
pub(crate) fn sum(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut sum = ExactSum::new();
    values.into_iter().for_each(|value| sum.add(value));
    sum.to_f64()
}

impl Default for ExactSum {
    fn default() -> Self {
        Self::new()
    }
}

impl ExactSum {
    /// The empty sum, 0.
    #[must_use]
    pub fn new() -> Self {
        Self { digits: [0; DIGITS], additions: 0, finite: true }
    }

    /// Adds a value. One that is not finite makes the sum NaN for good.
    pub fn add(&mut self, value: f64) {
        if !value.is_finite() {
            self.finite = false;
            return;
        }
        let bits = value.to_bits();
        let exponent = usize::try_from(bits >> 52 & 0x7ff).unwrap_or(0);
        let fraction = bits & ((1 << 52) - 1);
        // A subnormal has exponent 1 and no hidden bit.
        let (mantissa, shift) =
            if exponent == 0 { (fraction, 0) } else { (fraction | 1 << 52, exponent - 1) };
        let wide = u128::from(mantissa) << (shift % 32);
        let negative = bits >> 63 == 1;
        for (place, digit) in self.digits[shift / 32..].iter_mut().take(3).enumerate() {
            let part = i64::try_from(wide >> (32 * place) & 0xffff_ffff).unwrap_or(0);
            *digit += if negative { -part } else { part };
        }
        self.additions += 1;
        if self.additions == ADDITIONS {
            self.carry();
        }
    }

    /// Adds everything that another sum holds.
    pub fn merge(&mut self, other: &Self) {
        self.carry();
        let mut other = other.clone();
        other.carry();
        self.digits.iter_mut().zip(&other.digits).for_each(|(mine, theirs)| *mine += theirs);
        self.finite &= other.finite;
        self.carry();
    }

    /// The sum, rounded once.
    #[must_use]
    pub fn to_f64(&self) -> f64 {
        if !self.finite {
            return f64::NAN;
        }
        let mut magnitude = self.clone();
        magnitude.carry();
        let negative = magnitude.digits[DIGITS - 1] < 0;
        if negative {
            magnitude.digits.iter_mut().for_each(|digit| *digit = -*digit);
            magnitude.carry();
        }
        let value = magnitude.round();
        if negative { -value } else { value }
    }

    /// Brings every digit but the highest into 0..2^32.
    fn carry(&mut self) {
        let mut carry = 0;
        let last = DIGITS - 1;
        for digit in &mut self.digits[..last] {
            let sum = *digit + carry;
            *digit = sum & 0xffff_ffff;
            carry = sum >> 32;
        }
        self.digits[last] += carry;
        self.additions = 1;
    }

    /// Rounds a sum that is not negative and whose digits are carried.
    fn round(&self) -> f64 {
        let digit = |place: usize| u128::try_from(self.digits[place]).unwrap_or(0);
        let top = (0..DIGITS).rev().find(|place| self.digits[*place] != 0).unwrap_or(0).max(2);
        let high = digit(top) << 64 | digit(top - 1) << 32 | digit(top - 2);
        // What lies below decides nothing but ties: at least 65 bits stand
        // above it unless there is nothing below.
        let sticky = self.digits[..top - 2].iter().any(|digit| *digit != 0);
        let exponent = i32::try_from(32 * (top - 2)).unwrap_or(i32::MAX) + LOWEST;
        scale((high | u128::from(sticky)) as f64, exponent)
    }
}

/// value x 2^exponent, exactly where it is representable: in two steps, since
/// 2^-1074 to 2^1000 are not all normal numbers.
fn scale(value: f64, exponent: i32) -> f64 {
    let half = exponent / 2;
    value * power_of_two(half) * power_of_two(exponent - half)
}

/// 2^exponent for an exponent of a normal number.
fn power_of_two(exponent: i32) -> f64 {
    f64::from_bits(u64::try_from(exponent + 1023).unwrap_or(0) << 52)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sum(values: &[f64]) -> f64 {
        super::sum(values.iter().copied())
    }

    #[test]
    fn what_floating_point_loses_is_kept() {
        assert_eq!(sum(&[1e300, 1.0, -1e300]), 1.0);
        assert_eq!(sum(&[1e16, 1.0, 1.0, -1e16]), 2.0);
        assert_eq!(sum(&[]), 0.0);
        assert_eq!(sum(&[f64::MAX, f64::MAX, -f64::MAX]), f64::MAX);
        assert_eq!(sum(&[f64::MAX, f64::MAX]), f64::INFINITY);
        assert!(sum(&[1.0, f64::NAN]).is_nan());
        assert!(sum(&[f64::INFINITY, f64::NEG_INFINITY]).is_nan());
        let tiny = f64::from_bits(1);
        assert_eq!(sum(&[tiny, tiny, tiny]), f64::from_bits(3));
        // Ties go to even: 2^53 + 1 lies between 2^53 and 2^53 + 2.
        let big = 9_007_199_254_740_992.0;
        assert_eq!(sum(&[big, 1.0]), big);
        assert_eq!(sum(&[big, 1.0, tiny]), big + 2.0);
    }

    proptest! {
        #[test]
        fn one_value_is_itself(value in any::<f64>().prop_filter("finite", |v| v.is_finite())) {
            prop_assert_eq!(sum(&[value]), value);
        }

        #[test]
        fn integers_are_added_exactly(values in prop::collection::vec(-1i64 << 50..1i64 << 50, 0..50)) {
            let exact: i128 = values.iter().map(|v| i128::from(*v)).sum();
            let floats: Vec<_> = values.iter().map(|v| *v as f64).collect();
            prop_assert_eq!(sum(&floats), exact as f64);
        }

        #[test]
        fn order_and_grouping_do_not_matter(
            values in prop::collection::vec(any::<f64>().prop_filter("finite", |v| v.is_finite()), 1..40),
            cut: prop::sample::Index, seed: u64,
        ) {
            let cut = cut.index(values.len());
            let mut shuffled = values.clone();
            shuffled.sort_by_key(|v| v.to_bits().wrapping_mul(seed | 1));
            let mut parts = [ExactSum::new(), ExactSum::new()];
            shuffled[..cut].iter().for_each(|v| parts[0].add(*v));
            shuffled[cut..].iter().for_each(|v| parts[1].add(*v));
            let [mut first, second] = parts;
            first.merge(&second);
            prop_assert_eq!(first.to_f64().to_bits(), sum(&values).to_bits());
        }
    }
}
