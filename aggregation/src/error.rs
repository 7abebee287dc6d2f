//! What can be wrong with numbers.

/// What can be wrong with the numbers of an aggregation.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No site, a site without weight, or none of what else there must be some.
    #[error("{what}: expected at least 1, found 0")]
    Empty {
        /// What there is none of.
        what: &'static str,
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
    /// A factor that is to shorten an update would lengthen or undo it.
    #[error("{what} is {found}, expected above 0 and at most 1")]
    Factor {
        /// Which factor.
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
    /// A parameter of the noise is a number that this library does not serve.
    #[error("{what} is {found}, expected {smallest} to {largest}")]
    OutOfRange {
        /// Which parameter.
        what: &'static str,
        /// Its value.
        found: f64,
        /// The smallest value that is served.
        smallest: f64,
        /// The largest value that is served.
        largest: f64,
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
    /// A sum with its noise does not fit into 64 bits.
    #[error("row {row}: expected sums that leave room for noise, found one beyond 64 bits")]
    NoiseOverflow {
        /// The row.
        row: u64,
    },
    /// A row has so many values that its key stream ends before them.
    #[error("row {row}: expected at most about 2^33 values, found more than its key stream serves")]
    RowTooLong {
        /// The row.
        row: u64,
    },
    /// A delta that is no probability, or a certain one.
    #[error("delta is {found}, expected a number between 0 and 1")]
    Delta {
        /// Its value.
        found: f64,
    },
    /// An epsilon that is negative or no number.
    #[error("epsilon is {found}, expected at least 0")]
    Epsilon {
        /// Its value.
        found: f64,
    },
    /// A sampling rate that is no probability.
    #[error("sampling rate is {found}, expected a number from 0 to 1")]
    SamplingRate {
        /// Its value.
        found: f64,
    },
    /// Nobody takes part, so no noise is needed and none is the smallest.
    #[error("sampling rate is 0, expected more: a release of nothing needs no noise")]
    NothingSampled,
    /// A claim that the accountant cannot confirm for any noise.
    #[error(
        "no noise is accounted as epsilon {epsilon} at delta {delta}: claim a larger epsilon or delta"
    )]
    OutOfReach {
        /// The claimed epsilon.
        epsilon: f64,
        /// The claimed delta.
        delta: f64,
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
