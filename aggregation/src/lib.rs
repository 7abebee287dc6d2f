//! Numbers only: how updates become an aggregate.
//!
//! No I/O, no keys, no clock. Every function here gives the same bytes for the
//! same updates, whatever the order of arrival, the number of threads or the
//! processor: sums over many values are exact ([`exact_sum`]) or taken in an
//! order that is fixed, and no multiplication is fused with an addition.
//!
//! - [`mod@format`]: how an update's values travel;
//! - [`norm`]: one pass over an update's bytes: finite, and how long;
//! - [`weights`]: the sites' shares, bounded by what the manifest allows;
//! - [`rule`]: the multiplier of each site;
//! - [`accumulate`]: one row of the aggregate;
//! - [`integer`]: one row of it on an integer grid, for noise;
//! - [`optimiser`]: the next model from the base and the aggregate;
//! - [`clipping`] and [`poisson`]: what a site does with its patients' gradients.

// Counts become numbers to calculate with; what is rounded by that is stated
// where it happens. Tests compare exactly, because sums here are exact.
#![allow(clippy::cast_precision_loss)]
#![cfg_attr(test, allow(clippy::float_cmp, clippy::cast_possible_truncation))]

pub mod accumulate;
pub mod clipping;
pub mod exact_sum;
pub mod format;
pub mod integer;
pub mod norm;
pub mod optimiser;
pub mod poisson;
pub mod rule;
pub mod weights;

#[cfg(test)]
mod format_vectors;
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
    /// A parameter is not a fraction of one.
    #[error("{what} is {found}, expected at least 0 and below 1")]
    Fraction {
        /// Which parameter.
        what: &'static str,
        /// Its value.
        found: f64,
    },
    /// The next model, or the optimiser's state, would hold a value that is not
    /// finite.
    #[error("value {index} of the next model is not finite")]
    NotFinite {
        /// Its place.
        index: usize,
    },
    /// A number of another kind than belongs here.
    #[error("expected {expected}, found {found}")]
    Format {
        /// What belongs here.
        expected: &'static str,
        /// The name of what was met.
        found: &'static str,
    },
    /// The scales of an int8 update are out of order.
    #[error(
        "scale {place} begins at value {found}, expected the first at value 0 and this one at {least} or later"
    )]
    ScaleOrder {
        /// Which scale, from 0.
        place: usize,
        /// The first value at which it may begin.
        least: u64,
        /// The value at which it begins.
        found: u64,
    },
    /// A scale of an int8 update is not usable.
    #[error("scale {place} is {found}, expected a positive number of at most 2.6e36")]
    Scale {
        /// Which scale, from 0.
        place: usize,
        /// Its value.
        found: f32,
    },
    /// A value cannot be sent in the study's format.
    #[error(
        "value {index} is {found}, expected at most {largest} in magnitude, to be sent as {format}"
    )]
    Unrepresentable {
        /// The format's name.
        format: &'static str,
        /// The value's place in the update.
        index: u64,
        /// The value.
        found: f64,
        /// The largest magnitude that the format has.
        largest: f64,
    },
    /// More terms than a sum is sure to hold.
    #[error("{what}: expected at most {most}, found one more")]
    TooMany {
        /// What was added.
        what: &'static str,
        /// How many there may be.
        most: u32,
    },
    /// A rate of sampling is no probability, or too small to be drawn.
    #[error("the sampling rate is {found}, expected at least 2^-64 and at most 1")]
    Rate {
        /// Its value.
        found: f64,
    },
    /// A patient's gradient is not finite.
    #[error(
        "the gradient of patient {patient} is {found} at {coordinate}, expected a finite number"
    )]
    Gradient {
        /// The patient's ordinal among those that were added, from 1.
        patient: u32,
        /// The first coordinate that is not finite.
        coordinate: usize,
        /// Its value.
        found: f32,
    },
    /// The sum over a site's patients is too large for an update.
    #[error(
        "coordinate {coordinate} of the sum over {patients} patients is {sum}, expected an int32: this clip and step are sure to fit {most} patients, and these patients a step of {step}"
    )]
    GridSum {
        /// The first coordinate that does not fit.
        coordinate: usize,
        /// Its sum.
        sum: i64,
        /// The number of patients that were added.
        patients: u32,
        /// The number of patients that always fit.
        most: u32,
        /// A step with which this number of patients always fits.
        step: f64,
    },
    /// An integer of the next model does not fit its type.
    #[error("value {index} of the next model does not fit {dtype}")]
    IntegerOverflow {
        /// Its place.
        index: usize,
        /// The type's name.
        dtype: &'static str,
    },
}

/// A result of this library.
pub type Result<T> = std::result::Result<T, Error>;
