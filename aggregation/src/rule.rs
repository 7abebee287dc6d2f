//! The aggregation rules: what each site's update is multiplied by.

use crate::{Error, Result};

/// An aggregation rule of this version. Both are sums, so that the enclave can
/// fold updates one after the other in constant memory.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Rule {
    /// The weighted mean (`FedAvg`; `McMahan` et al., 2017).
    WeightedMean,
    /// The weighted mean of updates that were scaled down to a Euclidean norm
    /// of at most `clip`.
    NormClippedMean {
        /// The largest norm.
        clip: f64,
    },
}

impl Rule {
    /// The multiplier of each site, from its share and its update's norm.
    ///
    /// # Errors
    /// [`Error::Length`] if the lists differ; [`Error::Parameter`] for a clip
    /// or a norm that is no number.
    pub fn factors(&self, shares: &[f64], norms: &[f64]) -> Result<Vec<f64>> {
        if shares.len() != norms.len() {
            let (expected, found) = (shares.len(), norms.len());
            return Err(Error::Length { what: "norms", expected, found });
        }
        let Self::NormClippedMean { clip } = *self else { return Ok(shares.to_vec()) };
        if !(clip.is_finite() && clip > 0.0) {
            return Err(Error::Parameter { what: "clip", found: clip });
        }
        let clipped = |(share, norm): (&f64, &f64)| {
            if !(norm.is_finite() && *norm >= 0.0) {
                return Err(Error::Parameter { what: "norm", found: *norm });
            }
            Ok(if *norm > clip { share * (clip / norm) } else { *share })
        };
        shares.iter().zip(norms).map(clipped).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_long_updates_are_scaled() {
        let rule = Rule::NormClippedMean { clip: 2.0 };
        assert_eq!(rule.factors(&[0.5, 0.5], &[1.0, 4.0]).unwrap(), [0.5, 0.25]);
        assert_eq!(Rule::WeightedMean.factors(&[0.5, 0.5], &[1.0, 4.0]).unwrap(), [0.5, 0.5]);
        assert!(rule.factors(&[1.0], &[]).is_err());
        assert!(rule.factors(&[1.0], &[f64::NAN]).is_err());
        assert!(Rule::NormClippedMean { clip: 0.0 }.factors(&[1.0], &[1.0]).is_err());
    }

    proptest! {
        #[test]
        fn a_clipped_update_is_no_longer_than_the_clip(norm in 0.0..1e20f64, clip in 1e-6..1e6f64) {
            let factor = Rule::NormClippedMean { clip }.factors(&[1.0], &[norm]).unwrap()[0];
            prop_assert!(factor * norm <= clip * (1.0 + 1e-12));
        }
    }
}
