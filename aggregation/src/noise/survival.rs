//! Whether a candidate survives: the probability of it in fixed-point numbers
//! with a proven error, for many candidates at once.

use super::law::Law;

/// 2^s for s from 0 to 1: polynomial coefficients in 2^-31, highest first,
/// from `aggregation/vectors/noise.py`. The polynomial is off by less than
/// 2^-28.
pub(super) const POWER_OF_TWO: [u64; 7] =
    [469_564, 2_661_018, 20_796_632, 119_143_746, 515_890_973, 1_488_521_704, 2_147_483_653];

/// log2(e) in 2^-64, cut off.
const LOG2_E: u128 = 0x1_7154_7652_b82f_e177;

/// No survival is further than this from the exact one, in 2^-32. What is
/// proven is 60 (`docs/privacy.md`, "Noise"); the rest is room.
pub(super) const ERROR: u64 = 128;

/// The lower half of a number. The mask lets the compiler take the short
/// multiplication.
const LOW: u64 = 0xffff_ffff;

/// The survival of a candidate x << shift | y is the density there over the
/// density at x << shift. With f = y / 2^shift in [0, 1) it is 2^-t with
/// t = f * (square * f + step * x + constant); a Gaussian has no constant, a
/// Laplace has only that.
#[derive(Debug, Clone, Copy)]
pub(super) struct Survival {
    square: u32,
    step: u32,
    constant: u64,
}

impl Survival {
    /// Coefficients in 2^-33, rounded. Where the shift is not 0, a Gaussian is
    /// at least 2 steps wide and a Laplace at least 1, so that `square` and
    /// `step` are below 1/2 and `constant` is below 3/2. With shift 0, y is 0
    /// and everything survives.
    pub(super) fn new(law: &Law, shift: u32) -> Self {
        let rate = |bits: u32| -> u64 {
            let scaled = (&law.numerator * LOG2_E) << (shift * law.degree + bits);
            let twice = (scaled / &law.denominator) >> 63u32;
            u64::try_from((twice + 1u32) >> 1u32).unwrap_or(u64::MAX)
        };
        #[allow(clippy::cast_possible_truncation)] // they are below 2^32, as is said above
        match (shift, law.degree) {
            (0, _) => Self { square: 0, step: 0, constant: 0 },
            // (x + f)^2 - x^2 = f * (f + 2 x)
            (_, 2) => Self { square: rate(33) as u32, step: rate(34) as u32, constant: 0 },
            _ => Self { square: 0, step: 0, constant: rate(33) },
        }
    }

    /// The survival in 2^-32, off by at most [`ERROR`]. `step` is x, `fraction`
    /// is f in 2^-32, cut off.
    #[allow(clippy::inline_always)] // to be compiled for the processor of the caller
    #[inline(always)]
    pub(super) fn approximate(self, step: u64, fraction: u64) -> u64 {
        let fraction = fraction & LOW;
        let square = (fraction * u64::from(self.square)) >> 32;
        let slope = (square + (step & 0xff) * u64::from(self.step)).wrapping_add(self.constant);
        // 27 fractional bits of the slope, 59 of the exponent.
        let exponent = fraction * ((slope >> 6) & LOW);
        // 2^-(whole + part) = 2^(1 - part) / 2^(1 + whole), and all ones less
        // the part is 1 - part, less 2^-32.
        let power = !(exponent >> 27) & LOW;
        let mut value = POWER_OF_TWO[0];
        for coefficient in &POWER_OF_TWO[1..] {
            value = (((value & LOW) * power) >> 32) + coefficient;
        }
        value >> (exponent >> 59)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use num_bigint::BigUint;
    use proptest::prelude::*;

    /// The error of the survival of (step, y), in 2^-32.
    fn error(law: &Law, shift: u32, step: u64, y: u64) -> u64 {
        let from = step << shift;
        let exact = u64::try_from(law.survival(from, from + y).floor(32)).unwrap();
        let fraction = (y << (39 - shift)) >> 7;
        Survival::new(law, shift).approximate(step, fraction).abs_diff(exact)
    }

    fn laws() -> Vec<(Law, u32, u64)> {
        let gaussian = |sigma, shift| (Law::gaussian(sigma).unwrap(), shift, 55);
        let laplace = |epsilon, shift| (Law::laplace(1, epsilon).unwrap(), shift, 184);
        let top = 39f64.exp2();
        vec![
            gaussian(4.0, 1),
            gaussian(7.999, 1),
            gaussian(1e6, 18),
            gaussian(2.0 * top, 39),
            gaussian(1.999 * top, 38),
            laplace(0.5, 1),
            laplace(0.2501, 1),
            laplace(1e-6, 19),
            laplace(1.0 / top, 39),
        ]
    }

    #[test]
    fn the_error_is_as_proven_at_the_corners() {
        for (law, shift, last) in laws() {
            let end = (1u64 << shift) - 1;
            for step in 0..=last {
                // The Gaussian's table ends where the density does.
                if law.density(step << shift).floor(132) == BigUint::ZERO {
                    break;
                }
                for y in [0, 1, end / 3, end / 2, end - end / 5, end] {
                    assert!(error(&law, shift, step, y) <= 60, "{law:?} {step} {y}");
                }
            }
        }
    }

    #[test]
    fn without_low_bits_nearly_everything_survives() {
        let law = Law::gaussian(0.25).unwrap();
        assert!(Survival::new(&law, 0).approximate(5, 0).abs_diff(1 << 32) < ERROR);
    }

    proptest! {
        #[test]
        fn the_error_is_as_proven(which in 0usize..9, step in 0u64..26, y: u64) {
            let (law, shift, _) = laws().swap_remove(which);
            prop_assert!(error(&law, shift, step, y & ((1 << shift) - 1)) <= 60);
        }
    }
}
