//! The discrete Gaussian: noise for sums of clipped updates.

use super::law::Law;
use super::rejection::Rejection;
use super::seed::{Label, Seed};
use crate::Result;

/// A sampler of the discrete Gaussian on the integers: the probability of z is
/// proportional to exp(-z^2 / (2 sigma^2)).
///
/// Added to sums of integers whose Euclidean norm one unit changes by at most
/// D, it gives D^2 / (2 sigma^2)-zero-concentrated differential privacy, as the
/// continuous one does (Canonne, Kamath and Steinke 2020, "The discrete
/// Gaussian for differential privacy", theorem 4, added up over the values). Each sample is within 2^-120
/// of the ideal one in statistical distance.
#[derive(Debug, Clone)]
pub struct Gaussian(Rejection);

impl Gaussian {
    /// A sampler of parameter `sigma`, in grid steps, from 1/4 to 2^40. The
    /// number is taken as the exact binary fraction that it is.
    ///
    /// # Errors
    /// [`Error::Parameter`](crate::Error::Parameter) if sigma is not a positive
    /// finite number, [`Error::OutOfRange`](crate::Error::OutOfRange) if it is
    /// another that is not served.
    pub fn new(sigma: f64) -> Result<Self> {
        Ok(Self(Rejection::new(Law::gaussian(sigma)?)))
    }

    /// Adds one sample to each of `out`, the values of row `row`.
    ///
    /// The samples depend on the seed, the label, the row and the place in the
    /// row, not on how many values the row has or who draws them.
    ///
    /// # Errors
    /// [`Error::NoiseOverflow`](crate::Error::NoiseOverflow) if a sum does not
    /// fit, [`Error::RowTooLong`](crate::Error::RowTooLong) if the row is longer
    /// than about 2^33 values. Then all of `out` is 0, so that no sum is left
    /// without noise.
    pub fn add(&self, seed: &Seed, label: Label, row: u64, out: &mut [i64]) -> Result<()> {
        self.0.add(seed, label, row, out)
    }
}
