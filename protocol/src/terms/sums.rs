//! The quantisation grid and the sums on it: how large they can get, and whether
//! a step is one that sites can use.

use super::{Privacy, RoundKind, Tensor, Terms, expect, expect_ordinary};
use crate::Result;
use sealfold_aggregation::integer::{Words, words_for};

/// How many standard deviations of noise a sum has room for: beyond them lies
/// less than one in 10^347 of a Gaussian.
const NOISE_ROOM: f64 = 40.0;
/// How many steps a value has on average, at least, in an update as long as the
/// norm limit: then rounding moves the update by 1 % of the limit at most.
const LEAST_STEPS: f64 = 50.0;

impl Terms {
    /// The grid step of a tensor of these terms, in the model's units: under
    /// noise one for all; none where values travel as floating-point numbers.
    #[must_use]
    pub fn step(&self, tensor: &Tensor) -> Option<f64> {
        self.privacy.noise().map(|noise| noise.step).or(tensor.step)
    }

    /// The smallest grid step; none without a grid.
    #[must_use]
    pub fn smallest_step(&self) -> Option<f64> {
        let steps = self.model.tensors.iter().filter_map(|tensor| self.step(tensor));
        steps.reduce(f64::min)
    }

    /// The norm that no update's part of a sum exceeds, in the model's units:
    /// what is longer is refused, or scaled down by the enclave. None under the
    /// privacy unit `patient`.
    #[must_use]
    pub fn norm_bound(&self) -> Option<f64> {
        let site_clip = match &self.privacy {
            Privacy::Site(noise) => Some(noise.largest_clip()),
            _ => None,
        };
        let bounds = [self.aggregation.norm_limit, self.aggregation.clip, site_clip];
        bounds.into_iter().flatten().reduce(f64::min)
    }

    /// The largest magnitude that one site's value of the model can have in a
    /// sum, in steps, its weight not counted.
    #[must_use]
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // saturates
    pub fn largest_value(&self) -> u64 {
        let format = self.aggregation.update_type.format();
        let largest = format.bound().map_or(0, u64::from);
        match (self.norm_bound(), self.smallest_step()) {
            // One more, for a value that is scaled down and rounded.
            (Some(bound), Some(step)) => largest.min((bound / step) as u64 + 1),
            _ => largest,
        }
    }

    /// The largest magnitude of a sum on the grid: of the model's values, with
    /// the noise, and of the channels'. None if it is beyond any number.
    fn largest_sums(&self, kind: RoundKind) -> Option<(u64, u64)> {
        let sites = self.sites.len() as u64;
        let weights: u64 = self.sites.iter().map(|site| u64::from(site.weight)).sum();
        let noise = self.privacy.noise().map_or(0.0, |noise| {
            noise.sigma(self.sensitivity(noise, noise.largest_clip())) * NOISE_ROOM
        });
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // saturates
        let noise = noise.ceil() as u64;
        let sum = |count: u64, each: u64| count.checked_mul(each)?.checked_add(noise);
        let model = match kind {
            RoundKind::Training => sum(weights, self.largest_value())?,
            RoundKind::Evaluation => 0,
        };
        let is_patient = matches!(self.privacy, Privacy::Patient(_));
        let channels = self.channels.iter().map(|channel| {
            let each = if is_patient { self.largest_value() } else { channel.largest() };
            sum(sites, each)
        });
        let channels = channels.collect::<Option<Vec<_>>>()?.into_iter().max().unwrap_or(0);
        Some((model, channels))
    }

    /// The words of an aggregate: 32 bits where the largest sum fits, else 64.
    /// A rule on floating-point numbers has 32-bit words.
    #[must_use]
    pub fn words(&self, kind: RoundKind) -> Words {
        if !self.aggregation.rule.is_exact() {
            return Words::Bits32;
        }
        let largest =
            self.largest_sums(kind).map_or(u64::MAX, |(model, channels)| model.max(channels));
        words_for(1, largest).unwrap_or(Words::Bits64)
    }

    /// What a sum of the model is divided by: the weights of these sites, or
    /// the constant of the terms.
    #[must_use]
    #[allow(clippy::cast_precision_loss)] // at most 200 x 10^6
    pub fn divisor<'a>(&self, roster: impl IntoIterator<Item = &'a str>) -> f64 {
        if let Some(divisor) = self.aggregation.divisor {
            return divisor;
        }
        let weight = |name: &str| self.site(name).map_or(0, |site| u64::from(site.weight));
        roster.into_iter().map(weight).sum::<u64>() as f64
    }

    /// The shortest step that a norm limit and an update type allow for a model
    /// of so many values, and the longest.
    #[must_use]
    #[allow(clippy::cast_precision_loss)] // bounds of a choice, not of a sum
    pub fn step_range(&self, limit: f64) -> [f64; 2] {
        let format = self.aggregation.update_type.format();
        let largest = format.largest().map_or(f64::INFINITY, f64::from);
        let average = limit / (self.model.parameters() as f64).sqrt();
        [average / largest, average / LEAST_STEPS]
    }

    pub(super) fn check_grid(&self) -> Result<()> {
        let update_type = self.aggregation.update_type;
        let on_grid = update_type.format().is_integer();
        let has_noise = self.privacy.noise().is_some();
        if on_grid && !has_noise {
            // First of all, because the steps follow from it.
            expect(
                "aggregation.norm_limit",
                self.norm_bound().is_some(),
                "a positive number: without noise and without a bound on an update's length, one \
                 site can end the study",
                "none",
            )?;
        }
        for tensor in &self.model.tensors {
            let field = format!("model.tensor {:?} step", tensor.name);
            let found = tensor.step.map_or("none".to_owned(), |step| step.to_string());
            let expected = match (on_grid, has_noise) {
                (true, false) => {
                    format!("a positive number, the grid step of {}", update_type.name())
                }
                (true, true) => "none: privacy.step is that of all tensors".to_owned(),
                (false, _) => format!("none for {}, which has no grid", update_type.name()),
            };
            expect(&field, tensor.step.is_some() == (on_grid && !has_noise), expected, found)?;
            tensor.step.map_or(Ok(()), |step| expect_ordinary(&field, step))?;
        }
        self.check_bound()?;
        self.check_sums()
    }

    /// Whether a mean without noise has steps that suit its bound.
    fn check_bound(&self) -> Result<()> {
        if self.privacy.noise().is_some() || !self.aggregation.rule.is_exact() {
            return Ok(());
        }
        let Some(limit) = self.norm_bound() else { return Ok(()) };
        let [least, most] = self.step_range(limit);
        for tensor in &self.model.tensors {
            let step = tensor.step.unwrap_or(0.0);
            let field = format!("model.tensor {:?} step", tensor.name);
            expect(
                &field,
                step <= most,
                format!(
                    "at most {most}, or rounding moves an update by more than 1 % of the limit {limit}"
                ),
                step,
            )?;
            expect(
                &field,
                step >= least,
                format!(
                    "at least {least}, or an update as long as the limit {limit} does not fit {}",
                    self.aggregation.update_type.name()
                ),
                step,
            )?;
        }
        Ok(())
    }

    /// Whether all sums fit 64 bits, with what would do.
    fn check_sums(&self) -> Result<()> {
        let kinds = [RoundKind::Training, RoundKind::Evaluation];
        let fits =
            |kind| self.largest_sums(kind).is_some_and(|(a, b)| words_for(1, a.max(b)).is_some());
        let weights: u64 = self.sites.iter().map(|site| u64::from(site.weight)).sum();
        expect(
            "site.weight",
            kinds.into_iter().all(fits),
            format!(
                "weights, steps and noise with which every sum is below 2^62: with these, at most {} \
                 in all",
                (1u64 << 62) / self.largest_value().max(1)
            ),
            weights,
        )
    }
}
