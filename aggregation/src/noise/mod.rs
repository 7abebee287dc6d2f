//! Privacy noise: discrete Gaussian and discrete Laplace numbers, drawn from a
//! cryptographic generator and added to integers.
//!
//! The noise lies on the integers, where the sums lie too. Floating-point
//! noise does not: its low bits tell which sum it was added to (Mironov 2012,
//! "On significance of the least significant bits for differential privacy").
//! No floating-point number takes part in drawing a sample; a deviation given
//! as binary64 is taken as the exact fraction that it is.
//!
//! - [`Gaussian`], [`DiscreteLaplace`]: fast, and what a host can time or see
//!   in a shared cache does not depend on the noise;
//! - [`exact`]: the samplers of Canonne, Kamath and Steinke, slow, and exact to
//!   the last bit: what the fast ones are tested against;
//! - [`Seed`], [`Label`]: which noise.
//!
//! How it works, how far it is from the ideal distribution and what it leaks:
//! `docs/privacy.md`, "Noise".

pub mod exact;
mod exponential;
mod gaussian;
mod laplace;
mod law;
mod rejection;
mod seed;
mod steps;
mod survival;

pub use gaussian::Gaussian;
pub use laplace::DiscreteLaplace;
pub use seed::{Label, Seed};

#[cfg(test)]
mod goodness;
#[cfg(test)]
mod vectors;
