//! The discrete Laplace: noise for counts.

use super::law::Law;
use super::rejection::Rejection;
use super::seed::{Label, Seed};
use crate::Result;

/// A sampler of the discrete Laplace on the integers: the probability of z is
/// proportional to exp(-|z| epsilon / sensitivity).
///
/// Added to counts that one unit changes by at most `sensitivity` in all, it
/// gives epsilon-differential privacy (Ghosh, Roughgarden and Sundararajan
/// 2009, "Universally utility-maximizing privacy mechanisms"). Each sample is
/// within 2^-118 of the ideal one in statistical distance.
#[derive(Debug, Clone)]
pub struct DiscreteLaplace(Rejection);

impl DiscreteLaplace {
    /// A sampler of scale sensitivity / epsilon, which is from 1/64 to 2^39.
    /// Epsilon is taken as the exact binary fraction that it is, and the
    /// quotient is not rounded.
    ///
    /// # Errors
    /// [`Error::Parameter`](crate::Error::Parameter) if one of them is not a
    /// positive finite number, [`Error::OutOfRange`](crate::Error::OutOfRange)
    /// if the scale is not served.
    pub fn new(sensitivity: u32, epsilon: f64) -> Result<Self> {
        Ok(Self(Rejection::new(Law::laplace(sensitivity, epsilon)?)))
    }

    /// Adds one sample to each of `out`, the values of row `row`.
    ///
    /// The samples depend on the seed, the label, the row and the place in the
    /// row, not on how many values the row has or who draws them.
    ///
    /// # Errors
    /// As in [`Gaussian::add`](super::Gaussian::add).
    pub fn add(&self, seed: &Seed, label: Label, row: u64, out: &mut [i64]) -> Result<()> {
        self.0.add(seed, label, row, out)
    }
}
