//! One pass over the values of an update: are they finite, and how long is it.

use multiversion::multiversion;
use multiversion::target::target_cfg_f;

/// Independent sums, so that additions need not wait for one another.
const LANES: usize = 32;

/// What a run of values is like.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Inspection {
    /// Whether every value is finite.
    pub finite: bool,
    /// The sum of the squares; not a number to go by unless `finite`.
    pub sum_of_squares: f64,
}

/// Inspects little-endian float32 values; bytes beyond the last whole value
/// are not looked at.
///
/// The squares are exact in binary64, and they are added in an order that only
/// the number of values decides, so the sum is the same on every processor.
/// A sum of squares of finite binary32 values is below 2^1024, so it is finite
/// if and only if they are.
#[must_use]
pub fn inspect(bytes: &[u8]) -> Inspection {
    let sum_of_squares = sum_of_squares(bytes);
    Inspection { finite: sum_of_squares.is_finite(), sum_of_squares }
}

#[multiversion(targets("x86_64+avx512f+avx512vl+fma", "x86_64+avx2+fma", "aarch64+neon"))]
fn sum_of_squares(bytes: &[u8]) -> f64 {
    // The square is exact, so a fused multiply-add gives the same bits.
    let fused = target_cfg_f!(any(target_feature = "fma", target_arch = "aarch64"));
    let (values, _) = bytes.as_chunks::<4>();
    let (blocks, rest) = values.as_chunks::<LANES>();
    let mut lanes = [0.0; LANES];
    for block in blocks {
        for (lane, value) in lanes.iter_mut().zip(block) {
            let value = f64::from(f32::from_le_bytes(*value));
            *lane = if fused { value.mul_add(value, *lane) } else { *lane + value * value };
        }
    }
    for (lane, value) in lanes.iter_mut().zip(rest) {
        let value = f64::from(f32::from_le_bytes(*value));
        *lane += value * value;
    }
    lanes.iter().sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bytes(values: &[f32]) -> Vec<u8> {
        values.iter().flat_map(|value| value.to_le_bytes()).collect()
    }

    #[test]
    fn every_place_is_looked_at() {
        for length in [1, 31, 32, 33, 100] {
            for place in 0..length {
                for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -f32::NAN] {
                    let mut values = vec![1.0; length];
                    values[place] = bad;
                    assert!(!inspect(&bytes(&values)).finite, "{bad} at {place} of {length}");
                }
            }
            assert!(inspect(&bytes(&vec![f32::MAX; length])).finite);
        }
    }

    proptest! {
        #[test]
        fn the_sum_is_that_of_the_squares(values in prop::collection::vec(-1000i16..1000, 0..500)) {
            // Small integers: every partial sum is exact.
            let floats: Vec<_> = values.iter().map(|v| f32::from(*v)).collect();
            let exact: i64 = values.iter().map(|v| i64::from(*v).pow(2)).sum();
            prop_assert_eq!(inspect(&bytes(&floats)).sum_of_squares, exact as f64);
        }
    }
}
