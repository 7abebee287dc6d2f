//! What the channels of the terms mean: the counts of an evaluation, and metrics.
//!
//! The evaluation is one channel: for each bin of the score the number of
//! held-out patients without and with the outcome. A metric is two channels: the
//! sum of its values, and the number of sites that gave one.

use sealfold_protocol::Result;
use sealfold_protocol::terms::{Channel, Privacy, Terms, UpdateType, expect, is_name};
use serde::{Deserialize, Serialize};

/// The name of the evaluation's channel, and of its counts in an update's file.
pub const EVALUATION: &str = "evaluation";
/// The most bins of an evaluation.
const MAX_BINS: u32 = 1_000;
/// The most patients in a bin at one site, if the manifest does not say, and
/// the format and the sum have room for them.
const MOST_PATIENTS: u64 = 1_000_000;
/// How many steps a metric's range has, if the manifest does not say and the
/// format has room for them.
const METRIC_STEPS: u64 = 1 << 20;

/// What is measured of a model at each site: how many held-out patients with and
/// without the outcome have a score in each of `bins` bins of equal width from 0
/// to 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Evaluation {
    /// The number of bins.
    pub bins: u32,
}

/// A number that a training command reports of its site in a round.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Metric {
    /// Its name: lower-case letters, digits and hyphens.
    pub name: String,
}

/// What a bound in steps may be off by rounding, in steps.
const ROUNDED: f64 = 1e-6;

/// The name of the channel that counts the sites which gave a metric.
#[must_use]
pub fn presence_of(metric: &str) -> String {
    format!("{metric}-present")
}

/// What one step of the evaluation's counts is worth, in patients: under the
/// privacy unit `patient` one patient's count is as long as the clip.
fn count_step(terms: &Terms) -> f64 {
    match &terms.privacy {
        Privacy::Patient(noise) => noise.step / noise.clip,
        _ => 1.0,
    }
}

/// The largest value of a channel in steps for which the format and, in 32
/// bits, the sum over all sites have room.
pub(crate) fn room(update_type: UpdateType, sites: usize) -> u64 {
    let format = update_type.channel_format();
    let largest = u64::from(format.largest().unwrap_or(i32::MAX).unsigned_abs());
    largest.min(u64::from(i32::MAX.unsigned_abs()) / sites.max(1) as u64)
}

impl Evaluation {
    /// Its channel: counts up to `most` patients at one site, or what there is
    /// room for.
    pub(crate) fn channel(self, most: Option<u64>, per_site: bool, terms: &Terms) -> Channel {
        let most = match &terms.privacy {
            Privacy::Patient(noise) => noise.patient_steps(),
            _ => most.unwrap_or(
                MOST_PATIENTS.min(room(terms.aggregation.update_type, terms.sites.len())),
            ),
        };
        Channel {
            name: EVALUATION.to_owned(),
            length: 2 * u64::from(self.bins),
            step: count_step(terms),
            least: 0,
            most: i64::try_from(most).unwrap_or(i64::MAX),
            per_site,
        }
    }

    fn check(self, terms: &Terms) -> Result<()> {
        let bins = self.bins;
        let expected = format!("1 to {MAX_BINS}");
        expect("evaluation.bins", (1..=MAX_BINS).contains(&bins), expected, bins)?;
        let channel = terms.channels.first();
        let step = count_step(terms);
        let fits = channel.is_some_and(|channel| {
            channel.name == EVALUATION
                && channel.length == 2 * u64::from(bins)
                && channel.step.total_cmp(&step).is_eq()
                && channel.least == 0
        });
        expect(
            "evaluation",
            fits,
            format!("a first channel {EVALUATION:?} of {} counts, in steps of {step}", 2 * bins),
            channel.map_or("none".to_owned(), |channel| format!("{channel:?}")),
        )
    }
}

/// The smallest power of two that is at least so large, so that sums of steps
/// are read without rounding.
pub(crate) fn power_of_two(least: f64) -> f64 {
    least.log2().ceil().exp2()
}

impl Metric {
    /// Its channels, for values in a range.
    pub(crate) fn channels(
        &self,
        [low, high]: [f64; 2],
        step: Option<f64>,
        per_site: bool,
        terms: &Terms,
    ) -> [Channel; 2] {
        let largest = low.abs().max(high.abs());
        #[allow(clippy::cast_precision_loss)] // at most 2^20
        let steps = METRIC_STEPS.min(room(terms.aggregation.update_type, terms.sites.len())) as f64;
        let step = step.unwrap_or_else(|| power_of_two(largest / steps));
        // Saturates for what the check of the channel refuses.
        #[allow(clippy::cast_possible_truncation)]
        let (least, most) =
            ((low / step + ROUNDED).floor() as i64, (high / step - ROUNDED).ceil() as i64);
        let (least, most) = (least.min(0), most.max(0));
        let value = Channel { name: self.name.clone(), length: 1, step, least, most, per_site };
        let name = presence_of(&self.name);
        let present = Channel { name, length: 1, step: 1.0, least: 0, most: 1, per_site };
        [value, present]
    }

    fn check(&self, channels: &[Channel], terms: &Terms) -> Result<()> {
        let name = &self.name;
        let expected = "lower-case letters, digits and hyphens, at most 128";
        expect("metric.name", is_name(name), expected, format!("{name:?}"))?;
        // A metric of a whole hospital is not bounded by what one patient adds.
        expect(
            "metric",
            terms.privacy.noise().is_none(),
            "none under privacy noise, which hides what one patient adds to a sum",
            name,
        )?;
        let fits = match channels {
            [value, present] => {
                value.name == *name
                    && value.length == 1
                    && present.name == presence_of(name)
                    && present.length == 1
                    && present.step.total_cmp(&1.0).is_eq()
                    && (present.least, present.most) == (0, 1)
                    && present.per_site == value.per_site
            }
            _ => false,
        };
        expect(
            "metric",
            fits,
            format!("channels {name:?} and {:?}, of one value each", presence_of(name)),
            format!("{channels:?}"),
        )
    }
}

/// Checks that evaluation and metrics are what the channels of the terms are
/// for, each channel exactly once.
///
/// # Errors
/// [`sealfold_protocol::Error::Manifest`] naming what does not fit.
pub(crate) fn check(
    evaluation: Option<&Evaluation>,
    metrics: &[Metric],
    terms: &Terms,
) -> Result<()> {
    let expected = usize::from(evaluation.is_some()) + 2 * metrics.len();
    let found = terms.channels.len();
    let what = format!("{expected} channels, as evaluation and metrics need");
    expect("channel", expected == found, what, found)?;
    if let Some(evaluation) = evaluation {
        evaluation.check(terms)?;
    }
    let behind = &terms.channels[usize::from(evaluation.is_some())..];
    metrics.iter().zip(behind.chunks(2)).try_for_each(|(metric, pair)| metric.check(pair, terms))
}
