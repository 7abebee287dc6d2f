//! Numbers only: how updates become an aggregate.
//!
//! No I/O, no keys, no clock. Every function here gives the same bytes for the
//! same updates, whatever the order of arrival, the number of threads or the
//! processor: sums over many values are exact ([`exact_sum`]) or taken in an
//! order that is fixed, and no multiplication is fused with an addition where
//! that changes a bit.
//!
//! - [`mod@format`]: how an update's values travel;
//! - [`noise`]: discrete Gaussian and Laplace numbers that hide one patient;
//! - [`norm`]: one pass over an update's bytes: finite, and how long;
//! - [`weights`]: the sites' shares, bounded by what the manifest allows;
//! - [`rule`]: the aggregation rules: a factor for each site, or what to do
//!   with the values at each coordinate;
//! - [`accumulate`]: one row of the aggregate;
//! - [`integer`]: one row of it on an integer grid, for noise;
//! - [`optimiser`]: the next model from the base and the aggregate;
//! - [`statistics`]: what noised sums over patients say of them;
//! - [`clipping`] and [`poisson`]: what a site does with its patients' gradients.
//! - [`privacy`]: what the releases cost in privacy.

// Counts become numbers to calculate with; what is rounded by that is stated
// where it happens. Tests compare exactly, because sums here are exact.
#![allow(clippy::cast_precision_loss)]
#![cfg_attr(test, allow(clippy::float_cmp, clippy::cast_possible_truncation))]

pub mod accumulate;
pub mod adaptive_clip;
pub mod clipping;
mod error;
pub mod evaluation;
pub mod exact_sum;
pub mod format;
pub mod integer;
pub mod noise;
pub mod norm;
pub mod optimiser;
pub mod poisson;
pub mod privacy;
mod rows;
pub mod rule;
pub mod statistics;
pub mod weights;

#[cfg(test)]
mod format_vectors;
#[cfg(test)]
mod reference;
#[cfg(test)]
mod vectors;

pub use error::{Error, Result};
