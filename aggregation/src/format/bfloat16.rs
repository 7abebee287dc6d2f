//! bfloat16: sign, exponent and the first 7 bits of the fraction of a binary32.

use super::rounding::nearest;
use multiversion::multiversion;

/// The largest finite value: (2 - 2^-7) x 2^127.
pub const MAX: f64 = f32::from_bits(0x7f7f_0000) as f64;
/// Bits of precision, the hidden one counted, and the exponent of the smallest
/// normal value.
const PRECISION: i32 = 8;
const LEAST_EXPONENT: i32 = -126;

/// The binary32 of the same value, NaN with all its bits.
pub fn widen(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

/// The bfloat16 nearest to a value, ties to even; none if that is not finite.
#[allow(clippy::cast_possible_truncation)] // exact: every bfloat16 is a binary32
pub fn from_f64(value: f64) -> Option<u16> {
    let rounded = nearest(value, PRECISION, LEAST_EXPONENT);
    let finite = rounded.abs() <= MAX;
    finite.then_some(((rounded as f32).to_bits() >> 16) as u16)
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
    use half::bf16;
    use proptest::prelude::*;

    #[test]
    fn every_bit_pattern_is_widened_and_comes_back() {
        let patterns: Vec<_> = (0..=u16::MAX).map(u16::to_le_bytes).collect();
        let mut out = vec![[0; 4]; patterns.len()];
        decode(&patterns, &mut out);
        for (bits, out) in (0..=u16::MAX).zip(out) {
            let (ours, theirs) = (f32::from_le_bytes(out), bf16::from_bits(bits));
            assert_eq!(ours.to_bits(), u32::from(bits) << 16);
            assert!(theirs.is_nan() || ours == theirs.to_f32());
            assert_eq!(from_f64(f64::from(ours)), theirs.is_finite().then_some(bits));
        }
    }

    #[test]
    fn halfway_between_two_goes_to_even_and_beyond_it_to_the_nearer() {
        for bits in 0..0x7f7fu16 {
            let (low, high) = (f64::from(widen(bits)), f64::from(widen(bits + 1)));
            let middle = f64::midpoint(low, high);
            assert_eq!(from_f64(middle), Some(bits + (bits & 1)));
            assert_eq!(from_f64(middle.next_up()), Some(bits + 1));
            assert_eq!(from_f64(-middle.next_down()), Some(bits | 0x8000));
        }
        assert_eq!(from_f64(MAX), Some(0x7f7f));
        assert_eq!(from_f64(f32::MAX.into()), None);
        assert_eq!(from_f64(f64::NAN), None);
    }

    proptest! {
        #[test]
        fn any_binary32_is_narrowed_as_others_do(value: f32) {
            let theirs = bf16::from_f32(value);
            prop_assert_eq!(from_f64(value.into()), theirs.is_finite().then_some(theirs.to_bits()));
        }
    }
}
