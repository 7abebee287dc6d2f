//! A binary64 rounded once to a narrower binary format.

use crate::exact_sum::power_of_two;

/// The number of `precision` bits nearest to `value`, ties to even; below
/// 2^`least_exponent` the spacing stays what it is there, as subnormals have
/// it. The range is not bounded above: who calls looks at the size.
///
/// Exact but for the rounding itself: quotient and product are by a power of
/// two and stay normal, or become 0 where 0 is the result. By way of binary32
/// a value could be rounded twice.
pub fn nearest(value: f64, precision: i32, least_exponent: i32) -> f64 {
    let exponent = i32::try_from(value.to_bits() >> 52 & 0x7ff).unwrap_or(0) - 1023;
    let spacing = power_of_two(exponent.max(least_exponent) - (precision - 1));
    (value / spacing).round_ties_even() * spacing
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// The processor's own conversion is the oracle.
        #[test]
        fn binary32_is_met(value: f64, near: f32, nudge in -3i64..3) {
            // Values whose last bits decide, and values of any size.
            let near = f64::from(near) * (1.0 + 2f64.powi(-24));
            let near = f64::from_bits(near.to_bits().wrapping_add_signed(nudge));
            for value in [value, near].into_iter().filter(|v| v.abs() < f32::MAX.into()) {
                prop_assert_eq!(nearest(value, 24, -126).to_bits(), f64::from(value as f32).to_bits());
            }
        }
    }

    #[test]
    fn a_tie_that_binary32_would_hide_is_seen() {
        // 1 + 2^-11 is a tie of binary16; what is above it by 2^-40 is not, but
        // becomes one in binary32.
        let tie = 1.0 + 2f64.powi(-11);
        assert_eq!(nearest(tie, 11, -14), 1.0);
        assert_eq!(nearest(tie + 2f64.powi(-40), 11, -14), 1.0 + 2f64.powi(-10));
        assert_eq!(nearest(f64::from_bits(1), 11, -14), 0.0);
        assert!(nearest(f64::NAN, 11, -14).is_nan());
        assert_eq!(nearest(f64::NEG_INFINITY, 11, -14), f64::NEG_INFINITY);
    }
}
