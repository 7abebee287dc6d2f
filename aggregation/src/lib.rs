//! Numbers only: how updates become an aggregate.
//!
//! No I/O, no keys, no clock. Every function here gives the same bytes for the
//! same updates, whatever the order of arrival, the number of threads or the
//! processor.
//!
//! There are two paths from updates to an aggregate. Every mean and every sum
//! with noise is made of integers on the study's grid, and is exact. The rules
//! that select updates or values compare them, and need floating-point numbers:
//! their sums over many values are exact ([`exact_sum`]) or taken in an order
//! that is fixed, and no multiplication is fused with an addition where that
//! changes a bit.
//!
//! - [`mod@format`]: how an update's values travel;
//!
//! Means and noisy sums:
//! - [`mod@quantise`]: a site's values on the grid, and the sums back from it;
//! - [`integer`]: one row of exact sums, and how long an update is;
//! - [`noise`]: discrete Gaussian and Laplace numbers that hide one patient;
//!
//! Rules that select:
//! - [`norm`]: one pass over an update's bytes: finite, and how long;
//! - [`weights`]: the sites' shares;
//! - [`rule`]: a factor for each site, or what to do with the values at each
//!   coordinate;
//! - [`accumulate`]: one row of the aggregate, from factors;
//!
//! Around them:
//! - [`optimiser`]: the next model from the base and the aggregate;
//! - [`statistics`]: what noised sums over patients say of them;
//! - [`clipping`] and [`poisson`]: what a site does with its patients' gradients;
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
pub mod quantise;
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
