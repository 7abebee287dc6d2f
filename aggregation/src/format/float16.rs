//! IEEE 754 binary16.

use super::rounding::nearest;
use multiversion::multiversion;

/// The largest finite value.
pub const MAX: f64 = 65504.0;
/// Bits of precision, the hidden one counted, and the exponent of the smallest
/// normal value.
const PRECISION: i32 = 11;
const LEAST_EXPONENT: i32 = -14;
/// What the bias of binary32 has more, where binary32 keeps its exponent.
const BIAS: u32 = (127 - 15) << 23;
/// The spacing of subnormals.
const SUBNORMAL: f32 = 1.0 / (1 << 24) as f32;

/// The binary32 of the same value, NaN with all its bits.
///
/// All three cases are computed and one is selected, so that the loop over it
/// has no branches; a subnormal is made from its integer, because processors
/// are slow to calculate with subnormals.
pub fn widen(bits: u16) -> f32 {
    let magnitude = bits & 0x7fff;
    let normal = (u32::from(magnitude) << 13).wrapping_add(BIAS);
    let special = normal.wrapping_add(BIAS);
    let subnormal = (f32::from(magnitude) * SUBNORMAL).to_bits();
    let finite = if magnitude < 0x0400 { subnormal } else { normal };
    let widened = if magnitude < 0x7c00 { finite } else { special };
    f32::from_bits(widened | u32::from(bits & 0x8000) << 16)
}

/// The binary16 nearest to a value, ties to even; none if that is not finite.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // exact, as said
pub fn from_f64(value: f64) -> Option<u16> {
    let rounded = nearest(value, PRECISION, LEAST_EXPONENT);
    let magnitude = rounded.abs();
    // Also false for NaN.
    let finite = magnitude <= MAX;
    // Exact: every binary16 is a binary32, normal and with its low bits clear.
    let bits = (magnitude as f32).to_bits();
    let magnitude = if bits < BIAS + (1 << 23) {
        (magnitude / f64::from(SUBNORMAL)) as u16
    } else {
        (bits.wrapping_sub(BIAS) >> 13) as u16
    };
    finite.then_some(magnitude | u16::from(rounded.is_sign_negative()) << 15)
}

/// Widens little-endian values into little-endian binary32.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl", "x86_64+avx2", "aarch64+neon"))]
pub fn decode(values: &[[u8; 2]], out: &mut [[u8; 4]]) {
    for (out, value) in out.iter_mut().zip(values) {
        *out = widen(u16::from_le_bytes(*value)).to_bits().to_le_bytes();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use half::f16;
    use proptest::prelude::*;

    #[test]
    fn every_bit_pattern_is_widened_and_comes_back() {
        let patterns: Vec<_> = (0..=u16::MAX).map(u16::to_le_bytes).collect();
        let mut out = vec![[0; 4]; patterns.len()];
        decode(&patterns, &mut out);
        for (bits, out) in (0..=u16::MAX).zip(out) {
            let (ours, theirs) = (f32::from_le_bytes(out), f16::from_bits(bits));
            if theirs.is_nan() {
                let kept =
                    u32::from(bits & 0x8000) << 16 | 0x7f80_0000 | u32::from(bits & 0x3ff) << 13;
                assert_eq!(ours.to_bits(), kept);
            } else {
                assert_eq!(ours.to_bits(), theirs.to_f32().to_bits(), "{bits:04x}");
            }
            let back = from_f64(f64::from(ours));
            assert_eq!(back, theirs.is_finite().then_some(bits));
        }
    }

    #[test]
    fn halfway_between_two_goes_to_even_and_beyond_it_to_the_nearer() {
        for bits in 0..0x7bffu16 {
            let (low, high) = (f64::from(widen(bits)), f64::from(widen(bits + 1)));
            let middle = f64::midpoint(low, high);
            assert_eq!(from_f64(middle), Some(bits + (bits & 1)));
            assert_eq!(from_f64(middle.next_up()), Some(bits + 1));
            assert_eq!(from_f64(-middle.next_down()), Some(bits | 0x8000));
        }
        assert_eq!(from_f64(65520f64.next_down()), Some(0x7bff));
        assert_eq!(from_f64(65520.0), None);
        assert_eq!(from_f64(f64::MAX), None);
        assert_eq!(from_f64(f64::NAN), None);
        assert_eq!(from_f64(-0.0), Some(0x8000));
    }

    proptest! {
        #[test]
        fn any_binary32_is_narrowed_as_others_do(value: f32, small in -70000f32..70000.0) {
            for value in [value, small] {
                let theirs = f16::from_f32(value);
                prop_assert_eq!(from_f64(value.into()), theirs.is_finite().then_some(theirs.to_bits()));
            }
        }
    }
}
