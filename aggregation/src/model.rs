//! The next model: what every site computes from a release, alike.

use crate::{Error, Result};

/// Adds `learning_rate` times the aggregate to the base model, in place. Both
/// are little-endian float32 values; the step is computed in binary64 and
/// rounded once, so the next model is the same bytes at every site.
///
/// # Errors
/// [`Error::Length`] if the two are of different lengths or not whole values;
/// [`Error::NotFinite`] naming the first value that overflows, with the base
/// changed up to there.
pub fn apply(base: &mut [u8], aggregate: &[u8], learning_rate: f64) -> Result<()> {
    if base.len() != aggregate.len() || !base.len().is_multiple_of(4) {
        let (expected, found) = (base.len(), aggregate.len());
        return Err(Error::Length { what: "bytes of the aggregate", expected, found });
    }
    let (base, _) = base.as_chunks_mut::<4>();
    let (aggregate, _) = aggregate.as_chunks::<4>();
    for (index, (value, step)) in base.iter_mut().zip(aggregate).enumerate() {
        let step = learning_rate * f64::from(f32::from_le_bytes(*step));
        #[allow(clippy::cast_possible_truncation)] // rounding to binary32 is the purpose
        let next = (f64::from(f32::from_le_bytes(*value)) + step) as f32;
        if !next.is_finite() {
            return Err(Error::NotFinite { index });
        }
        *value = next.to_le_bytes();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(values: &[f32]) -> Vec<u8> {
        values.iter().flat_map(|value| value.to_le_bytes()).collect()
    }

    #[test]
    fn a_step_is_added() {
        let mut base = bytes(&[1.0, -2.0, 0.0]);
        apply(&mut base, &bytes(&[0.5, 1.0, -1.0]), 2.0).unwrap();
        assert_eq!(base, bytes(&[2.0, 0.0, -2.0]));
    }

    #[test]
    fn overflow_and_foreign_lengths_are_refused() {
        let mut base = bytes(&[0.0, f32::MAX]);
        let error = apply(&mut base, &bytes(&[0.0, f32::MAX]), 1.0).unwrap_err();
        assert_eq!(error, Error::NotFinite { index: 1 });
        assert!(apply(&mut base, &bytes(&[0.0]), 1.0).is_err());
        assert!(apply(&mut [0; 3], &[0; 3], 1.0).is_err());
    }
}
