//! Numbers only: how updates become an aggregate.
//!
//! No I/O, no keys, no clock. Every function here gives the same bytes for the
//! same updates, whatever the order of arrival, the number of threads or the
//! processor: sums over many values are exact ([`exact_sum`]) or taken in an
//! order that is fixed, and no multiplication is fused with an addition where
//! that changes a bit.
//!
//! - [`norm`]: one pass over an update's bytes: finite, and how long;
//! - [`weights`]: the sites' shares, bounded by what the manifest allows;
//! - [`rule`]: the aggregation rules: a factor for each site, or what to do
//!   with the values at each coordinate;
//! - [`accumulate`]: one row of the aggregate;
//! - [`model`]: the next model from the base and the aggregate.

// Counts become numbers to calculate with; what is rounded by that is stated
// where it happens. Tests compare exactly, because sums here are exact.
#![allow(clippy::cast_precision_loss)]
#![cfg_attr(test, allow(clippy::float_cmp))]

pub mod accumulate;
pub mod exact_sum;
pub mod model;
pub mod norm;
pub mod rule;
pub mod weights;

#[cfg(test)]
mod reference;
#[cfg(test)]
mod vectors;

/// What can be wrong with the numbers of an aggregation.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No site, or a site without examples.
    #[error("{what}: expected at least 1, found 0")]
    Empty {
        /// What there is none of.
        what: &'static str,
    },
    /// The largest share is too small for so few sites.
    #[error(
        "largest weight share is {share}, expected at least 1/{sites}, for the shares of {sites} sites to make one"
    )]
    Share {
        /// The share that the manifest allows.
        share: f64,
        /// The number of sites.
        sites: usize,
    },
    /// Two lists that belong together have different lengths.
    #[error("{what}: expected {expected}, found {found}")]
    Length {
        /// What was counted.
        what: &'static str,
        /// The count that belongs here.
        expected: usize,
        /// The count that was met.
        found: usize,
    },
    /// A parameter is not a positive finite number.
    #[error("{what} is {found}, expected a positive number")]
    Parameter {
        /// Which parameter.
        what: &'static str,
        /// Its value.
        found: f64,
    },
    /// A roster is too small for its rule.
    #[error("{rule}: expected at least {expected} sites ({condition}), found {found}")]
    Sites {
        /// The rule's name.
        rule: &'static str,
        /// The condition, in the letters of the rule's paper.
        condition: &'static str,
        /// The smallest roster.
        expected: usize,
        /// The size of this roster.
        found: usize,
    },
    /// A rule that compares updates was given no Gram matrix.
    #[error("{rule}: expected the gram matrix of the updates, found none")]
    NoGram {
        /// The rule's name.
        rule: &'static str,
    },
    /// Factors were asked of a rule that is no sum.
    #[error("{rule}: expected a rule that is a sum of updates, found one for each coordinate")]
    NoSum {
        /// The rule's name.
        rule: &'static str,
    },
    /// The next model would hold a value that is not finite.
    #[error("value {index} of the next model is not finite")]
    NotFinite {
        /// Its place.
        index: usize,
    },
}

/// A result of this library.
pub type Result<T> = std::result::Result<T, Error>;
