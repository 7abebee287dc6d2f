//! Privacy accounting: what releases cost, in epsilon and delta.
//!
//! The privacy unit is one person's record (or one site's whole update), and
//! two data sets are adjacent when one has that unit and the other does not:
//! *add/remove* adjacency. A [`Mechanism`] is one release; [`Spent`] adds
//! releases of any kind and number, also when a later one was chosen after
//! seeing an earlier one, and answers in (epsilon, delta).
//!
//! - [`orders`]: the Rényi orders, and why the discrete noise of a subsampled
//!   release is accounted at the integer ones only;
//! - [`gaussian`]: the Gaussian mechanism, whole and Poisson-subsampled;
//! - [`pure`]: epsilon-DP releases, such as counts with discrete Laplace noise;
//! - [`zcdp`]: concentrated DP, one number for all orders;
//! - [`spent`]: composition; [`conversion`]: from Rényi DP to (epsilon, delta);
//! - [`pld`]: tighter figures for continuous noise, from the whole
//!   distribution of the privacy loss;
//! - [`calibrate`]: the noise that a claim needs, and epsilon over the rounds.
//!
//! Nothing here reads a clock, a file or a random number. Logarithms,
//! exponentials and error functions come from `libm` and not from the
//! platform, so that site, enclave and auditor compute the same bits.

pub mod calibrate;
pub mod conversion;
mod fft;
pub mod gaussian;
mod golden;
mod log_space;
pub mod orders;
pub mod pld;
pub mod pure;
pub mod spent;
pub mod zcdp;

#[cfg(test)]
mod vectors;

pub use gaussian::SampledGaussian;
pub use orders::Orders;
pub use pure::Pure;
pub use spent::Spent;
pub use zcdp::Rho;

use crate::{Error, Result};

/// One release, as the accountant sees it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Mechanism {
    /// A sum with Gaussian noise, over all units or over a secret sample.
    Gaussian(SampledGaussian),
    /// A release that is epsilon-DP with no delta.
    Pure(Pure),
    /// A release that satisfies zero-concentrated DP.
    Concentrated(Rho),
}

impl Mechanism {
    /// Rényi DP of this release at `order`, which is above 1. Infinite where
    /// the order gives no bound.
    fn renyi(&self, order: f64) -> f64 {
        match self {
            Self::Gaussian(gaussian) => gaussian.renyi(order),
            Self::Pure(pure) => pure.renyi(order),
            Self::Concentrated(rho) => rho.renyi(order),
        }
    }
}

impl From<SampledGaussian> for Mechanism {
    fn from(gaussian: SampledGaussian) -> Self {
        Self::Gaussian(gaussian)
    }
}

impl From<Pure> for Mechanism {
    fn from(pure: Pure) -> Self {
        Self::Pure(pure)
    }
}

impl From<Rho> for Mechanism {
    fn from(rho: Rho) -> Self {
        Self::Concentrated(rho)
    }
}

/// Epsilon at `delta` of `rounds` releases through `mechanism`, by Rényi DP at
/// `orders`. Infinite where no order gives a bound.
///
/// # Errors
/// [`Error::Empty`] for no rounds, [`Error::Delta`] for a delta outside (0, 1).
pub fn epsilon(mechanism: &Mechanism, rounds: u64, delta: f64, orders: &Orders) -> Result<f64> {
    checked_rounds(rounds)?;
    Spent::new(orders.clone()).add(mechanism, rounds).epsilon(delta)
}

fn checked_rounds(rounds: u64) -> Result<()> {
    if rounds == 0 { Err(Error::Empty { what: "rounds" }) } else { Ok(()) }
}

fn checked_delta(delta: f64) -> Result<()> {
    if delta > 0.0 && delta < 1.0 { Ok(()) } else { Err(Error::Delta { found: delta }) }
}

fn checked_epsilon(epsilon: f64) -> Result<()> {
    if epsilon >= 0.0 { Ok(()) } else { Err(Error::Epsilon { found: epsilon }) }
}

fn positive(what: &'static str, found: f64) -> Result<f64> {
    if found.is_finite() && found > 0.0 { Ok(found) } else { Err(Error::Parameter { what, found }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_makes_no_sense_is_refused_by_name() {
        let gaussian = SampledGaussian::new(1.0, 1.0, 1.0).unwrap().into();
        let of = |rounds, delta| epsilon(&gaussian, rounds, delta, &Orders::default());
        assert_eq!(of(0, 1e-6), Err(Error::Empty { what: "rounds" }));
        for delta in [0.0, 1.0, -1e-6, f64::INFINITY] {
            assert_eq!(of(1, delta), Err(Error::Delta { found: delta }));
        }
        let error = of(1, f64::NAN).unwrap_err();
        assert_eq!(error.to_string(), "delta is NaN, expected a number between 0 and 1");
    }

    #[test]
    fn what_overflows_is_infinite() {
        let orders = Orders::default();
        for (sigma, q) in [(1e-200, 1.0), (1e-200, 0.5), (1e-3, 0.01)] {
            let gaussian = SampledGaussian::new(sigma, 1.0, q).unwrap().into();
            assert!(epsilon(&gaussian, u64::MAX, 1e-6, &orders).unwrap() > 1e20, "{sigma} {q}");
        }
        let gaussian = SampledGaussian::new(1e-200, 1.0, 0.5).unwrap().into();
        assert_eq!(epsilon(&gaussian, 1, 1e-6, &orders), Ok(f64::INFINITY));
    }

    /// The figure that everyone who reads of subsampling knows: q = 0.1, noise
    /// multiplier 1, 100 rounds, delta 1e-6.
    #[test]
    fn a_known_figure() {
        let gaussian = SampledGaussian::new(1.0, 1.0, 0.1).unwrap();
        let by_renyi = epsilon(&gaussian.into(), 100, 1e-6, &Orders::default()).unwrap();
        let at_integers = epsilon(&gaussian.into(), 100, 1e-6, &Orders::integer()).unwrap();
        let by_loss = pld::epsilon(&gaussian, 100, 1e-6).unwrap();
        assert!((by_renyi - 8.92).abs() < 0.01, "{by_renyi}");
        assert!((by_loss - 8.06).abs() < 0.01, "{by_loss}");
        assert!(at_integers >= by_renyi && at_integers < 1.03 * by_renyi, "{at_integers}");
    }
}
