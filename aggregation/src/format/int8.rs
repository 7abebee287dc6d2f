//! Integers of 8 bits with a scale for each tensor.
//!
//! The scale comes from the manifest and not from the update: a scale that a
//! site chose would say how large its values are. It belongs into the manifest
//! near (largest value expected) / 127; a site whose values are larger is told.

use crate::{Error, Result};
use multiversion::multiversion;
use std::ops::Range;

/// The largest integer that a site sends. -128 has no counterpart; a site that
/// sends it nonetheless sends -128 times the scale.
const LARGEST: f32 = 127.0;

/// The scales of an update's values: each from its first value up to the next.
#[derive(Debug, Clone, PartialEq)]
pub struct Scales(Vec<(u64, f32)>);

impl Scales {
    /// Scales in the order of their first values; the first of them at 0.
    ///
    /// # Errors
    /// [`Error::ScaleOrder`]; [`Error::Scale`] for a scale that is not
    /// positive, or so large that a decoded value might be infinite.
    pub fn new(scales: &[(u64, f32)]) -> Result<Self> {
        let mut least = 0;
        for (place, (first, scale)) in scales.iter().enumerate() {
            let ordered = if place == 0 { *first == 0 } else { *first >= least };
            if !ordered {
                return Err(Error::ScaleOrder { place, least, found: *first });
            }
            if !(*scale > 0.0 && (scale * 128.0).is_finite()) {
                return Err(Error::Scale { place, found: *scale });
            }
            least = first.saturating_add(1);
        }
        Ok(Self(scales.to_vec()))
    }

    /// The runs of one scale among `count` values from `first` on, as places
    /// relative to `first`.
    pub fn runs(&self, first: u64, count: usize) -> impl Iterator<Item = (f32, Range<usize>)> {
        // Where a scale begins, seen from `first`.
        let place = move |start: u64| {
            usize::try_from(start.saturating_sub(first)).map_or(count, |place| place.min(count))
        };
        let current = self.0.partition_point(|run| run.0 <= first).saturating_sub(1);
        let runs = self.0.get(current..).unwrap_or_default();
        let ends = runs.iter().skip(1).map(move |run| place(run.0)).chain([count]);
        runs.iter()
            .zip(ends)
            .map(move |(run, end)| (run.1, place(run.0)..end))
            .take_while(|(_, places)| !places.is_empty())
    }
}

/// The largest magnitude that a scale can send: what 127 is decoded to.
pub fn largest(scale: f32) -> f32 {
    LARGEST * scale
}

/// The integer nearest to value / scale, ties to even; none for a value beyond
/// the [`largest`].
///
/// A quotient of two binary32 that is no tie is further from one than the
/// rounding of a binary64 quotient, so it is rounded once in effect.
#[allow(clippy::cast_possible_truncation)] // at most 127
pub fn encode(scale: f32, value: f32) -> Option<i8> {
    // Also false for NaN.
    let fits = value.abs() <= largest(scale);
    fits.then(|| (f64::from(value) / f64::from(scale)).round_ties_even() as i8)
}

/// Each integer times the scale, rounded once, as little-endian binary32.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl", "x86_64+avx2", "aarch64+neon"))]
pub fn decode(scale: f32, values: &[u8], out: &mut [[u8; 4]]) {
    for (out, value) in out.iter_mut().zip(values) {
        *out = (f32::from(value.cast_signed()) * scale).to_le_bytes();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_integer_comes_back(scale in 1e-38f32..1e36) {
            let all: Vec<_> = (0..=u8::MAX).collect();
            let mut out = vec![[0; 4]; 256];
            decode(scale, &all, &mut out);
            for (byte, out) in all.iter().zip(out) {
                let (integer, value) = (byte.cast_signed(), f32::from_le_bytes(out));
                prop_assert_eq!(value, f32::from(integer) * scale);
                let sent = (integer != i8::MIN).then_some(integer);
                prop_assert_eq!(encode(scale, value), sent);
            }
        }

        #[test]
        fn the_nearest_is_sent(scale in 1e-30f32..1e30, ratio in -127f64..127.0) {
            let value = (f64::from(scale) * ratio) as f32;
            if let Some(sent) = encode(scale, value) {
                let error = (f64::from(value) - f64::from(sent) * f64::from(scale)).abs();
                prop_assert!(error <= f64::from(scale) / 2.0);
            } else {
                prop_assert!(ratio.abs() > 126.9);
            }
        }

        #[test]
        fn runs_are_the_scale_of_each_place(
            starts in prop::collection::btree_set(1u64..60, 0..8), first in 0u64..70, count in 0usize..70,
        ) {
            let starts: Vec<_> = [0].into_iter().chain(starts).collect();
            let list: Vec<_> = starts.iter().map(|s| (*s, *s as f32 + 1.0)).collect();
            let scales = Scales::new(&list).unwrap();
            let found: Vec<_> =
                scales.runs(first, count).flat_map(|(scale, places)| places.map(move |p| (p, scale))).collect();
            let expected: Vec<_> = (0..count)
                .map(|p| (p, list.iter().rev().find(|s| s.0 <= first + p as u64).unwrap().1))
                .collect();
            prop_assert_eq!(found, expected);
        }
    }

    #[test]
    fn ties_go_to_even_and_the_limit_is_exact() {
        assert_eq!(encode(2.0, 5.0), Some(2));
        assert_eq!(encode(2.0, 7.0), Some(4));
        assert_eq!(encode(2.0, 254.0), Some(127));
        assert_eq!(encode(2.0, 254f32.next_up()), None);
        assert_eq!(encode(2.0, -254.0), Some(-127));
        assert_eq!(encode(2.0, f32::NAN), None);
    }

    #[test]
    fn scales_that_cannot_be_are_refused() {
        let order = |place, least, found| Err(Error::ScaleOrder { place, least, found });
        assert_eq!(Scales::new(&[(1, 1.0)]), order(0, 0, 1));
        assert_eq!(Scales::new(&[(0, 1.0), (5, 1.0), (5, 1.0)]), order(2, 6, 5));
        for bad in [0.0, -1.0, f32::NAN, f32::INFINITY, f32::MAX / 64.0] {
            let error = Scales::new(&[(0, 1.0), (5, bad)]).unwrap_err();
            assert!(matches!(error, Error::Scale { place: 1, .. }), "{error}");
        }
        assert!(Scales::new(&[(0, f32::MAX / 128.0), (u64::MAX, 1.0)]).is_ok());
    }
}
