//! A clip that follows a quantile of the updates' norms.
//!
//! Andrew et al., "Differentially Private Learning with Adaptive Clipping", 2021: after each round the clip is multiplied by
//! exp(-rate (share - quantile)), where `share` is a noisy share of the updates
//! that are no longer than the clip.

/// The next clip. The exponential is computed in software, so every processor
/// gives the same bits.
#[must_use]
pub fn next(clip: f64, share: f64, quantile: f64, rate: f64) -> f64 {
    clip * libm::exp(-rate * (share - quantile))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clip_that_too_few_are_below_grows_and_the_other_way_round() {
        assert!(next(1.0, 0.2, 0.5, 0.2) > 1.05);
        assert!(next(1.0, 0.9, 0.5, 0.2) < 0.95);
        assert_eq!(next(3.0, 0.5, 0.5, 0.2), 3.0);
        assert!((next(1.0, 0.0, 1.0, 1.0) - std::f64::consts::E).abs() < 1e-15);
    }
}
