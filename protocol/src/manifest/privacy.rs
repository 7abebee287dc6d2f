//! The privacy that releases have by noise, and whether it is what the manifest
//! claims.

mod claim;

use super::{Aggregation, Manifest, Rule, UpdateType, expect, is_positive, refused};
use crate::release::PrivacySpent;
use crate::{Error, Result};
use sealfold_aggregation::clipping::ClippedSum;
use sealfold_aggregation::noise::Gaussian;
use sealfold_aggregation::poisson::Rate;
use sealfold_aggregation::privacy::{Orders, SampledGaussian, Spent};
use serde::{Deserialize, Serialize};

/// How far an adaptive clip may move from where it started, up or down.
const CLIP_RANGE: f64 = 1024.0;

/// Whose contribution the noise of a release hides.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "unit", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Privacy {
    /// Nobody's: a release protects a site only by the sum over the roster.
    None {},
    /// One patient's, who is one record at one site.
    Patient(Noise),
    /// One site's, whatever it sends.
    Site(Noise),
}

/// A Gaussian mechanism: sums of vectors of bounded norm on a grid of integers,
/// with discrete Gaussian noise.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Noise {
    /// The largest Euclidean norm of one contribution, in the model's units:
    /// a patient's gradient, or a site's update. What is longer is scaled down.
    pub clip: f64,
    /// The distance of two neighbours on the grid, in the model's units.
    pub step: f64,
    /// The standard deviation of the noise in units of the sensitivity.
    pub noise_multiplier: f64,
    /// Patients: the probability with which a site takes each of them into a
    /// round, secretly; 1 if it is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sampling_rate: Option<f64>,
    /// Sites: a clip that follows the sites' norms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adaptive_clip: Option<AdaptiveClip>,
    /// The privacy loss of all rounds together.
    pub epsilon: f64,
    /// The probability with which it may be more.
    pub delta: f64,
}

/// A clip that is moved, after each round, towards a quantile of the sites'
/// norms (Andrew et al., 2021), by a noisy count of the sites below it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdaptiveClip {
    /// The quantile that the clip follows, in (0, 1).
    pub quantile: f64,
    /// How fast.
    pub learning_rate: f64,
    /// The standard deviation of the count's noise, in sites.
    pub count_noise: f64,
}

impl Privacy {
    /// The unit's name in a manifest.
    #[must_use]
    pub fn unit(&self) -> &'static str {
        match self {
            Self::None {} => "none",
            Self::Patient(_) => "patient",
            Self::Site(_) => "site",
        }
    }

    /// The noise, if there is any.
    #[must_use]
    pub fn noise(&self) -> Option<&Noise> {
        match self {
            Self::None {} => None,
            Self::Patient(noise) | Self::Site(noise) => Some(noise),
        }
    }
}

impl Noise {
    /// The largest integer norm of a patient's contribution, in grid steps.
    #[must_use]
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // checked to be small
    pub fn patient_steps(&self) -> u64 {
        (self.clip / self.step).floor() as u64
    }

    /// The standard deviation of the noise in grid steps, for a sensitivity in
    /// grid steps.
    #[must_use]
    pub fn sigma(&self, sensitivity: f64) -> f64 {
        // A product that was rounded down is made up for.
        self.noise_multiplier * sensitivity * (1.0 + f64::EPSILON)
    }

    /// What so many rounds cost, at the orders for which the accounting holds
    /// for discrete noise.
    ///
    /// # Errors
    /// [`Error::Manifest`] if a parameter is out of range.
    pub fn spent(&self, rounds: u32) -> Result<f64> {
        self.accountant()?.spent(rounds.into())
    }

    /// One round's cost, worked out once for whoever asks about many rounds.
    ///
    /// # Errors
    /// [`Error::Manifest`] if a parameter is out of range.
    pub fn accountant(&self) -> Result<Accountant> {
        let round = [self.sum()?].into_iter().chain(self.count()?);
        let none = Spent::new(Orders::integer());
        let round = round.fold(none, |spent, release| spent.add(&release.into(), 1));
        Ok(Accountant { round, delta: self.delta })
    }

    /// The noisy sum of a round.
    fn sum(&self) -> Result<SampledGaussian> {
        let rate = self.sampling_rate.unwrap_or(1.0);
        SampledGaussian::new(self.noise_multiplier, 1.0, rate).map_err(|error| uncounted(&error))
    }

    /// The noisy count of a round, of the sites below an adaptive clip.
    fn count(&self) -> Result<Option<SampledGaussian>> {
        let of = |adaptive: AdaptiveClip| SampledGaussian::new(adaptive.count_noise, 1.0, 1.0);
        self.adaptive_clip.map(of).transpose().map_err(|error| uncounted(&error))
    }
}

/// What rounds of one study cost, each like the other.
#[derive(Debug, Clone)]
pub struct Accountant {
    round: Spent,
    delta: f64,
}

impl Accountant {
    /// The privacy loss of so many rounds at the manifest's delta.
    ///
    /// # Errors
    /// [`Error::Manifest`] if that delta is none.
    pub fn spent(&self, rounds: u64) -> Result<f64> {
        self.round.clone().times(rounds).epsilon(self.delta).map_err(|error| uncounted(&error))
    }
}

fn uncounted(error: &sealfold_aggregation::Error) -> Error {
    refused("privacy", "a mechanism that can be accounted for", error)
}

impl AdaptiveClip {
    /// The clip of the next round, from the noisy count of this one: each site
    /// counts 1 below the clip and -1 above it, so that a site that is missing
    /// moves the count by 1 (Andrew et al., 2021, with the count centred).
    #[must_use]
    #[allow(clippy::cast_precision_loss)] // a count of sites and its noise
    pub fn next(&self, clip: f64, below: i64, sites: usize) -> f64 {
        let share = (below as f64 / sites.max(1) as f64 / 2.0 + 0.5).clamp(0.0, 1.0);
        sealfold_aggregation::adaptive_clip::next(clip, share, self.quantile, self.learning_rate)
    }
}

impl Manifest {
    /// The first round's clip, if the clip is adaptive.
    #[must_use]
    pub fn first_clip(&self) -> Option<f64> {
        let noise = self.privacy.noise()?;
        noise.adaptive_clip.map(|_| noise.clip)
    }

    /// The clip of a round, if the clip is adaptive: that to which the release
    /// before led, unless that was under a manifest without one.
    #[must_use]
    pub fn round_clip(&self, last: Option<f64>) -> Option<f64> {
        let first = self.first_clip()?;
        Some(last.unwrap_or(first).clamp(first / CLIP_RANGE, first * CLIP_RANGE))
    }

    /// The clip of the round after a release, if the clip is adaptive. It stays
    /// within a factor of 1,024 of the manifest's, for which the values fit.
    #[must_use]
    pub fn next_clip(&self, clip: Option<f64>, below: Option<i64>) -> Option<f64> {
        let noise = self.privacy.noise()?;
        let adaptive = noise.adaptive_clip?;
        let next = adaptive.next(clip.unwrap_or(noise.clip), below?, self.sites.len());
        Some(next.clamp(noise.clip / CLIP_RANGE, noise.clip * CLIP_RANGE))
    }

    /// Checks that a clip is one that a round of this study may have.
    ///
    /// # Errors
    /// [`Error::Link`] naming what it must be.
    pub fn check_clip(&self, clip: Option<f64>) -> Result<()> {
        let Some(first) = self.first_clip() else {
            let Some(found) = clip else { return Ok(()) };
            let (expected, found) = ("none".to_owned(), found.to_string());
            return Err(Error::Link { what: "clip without adaptive_clip", expected, found });
        };
        let (least, most) = (first / CLIP_RANGE, first * CLIP_RANGE);
        if clip.is_some_and(|clip| (least..=most).contains(&clip)) {
            return Ok(());
        }
        let found = clip.map_or("none".to_owned(), |clip| clip.to_string());
        Err(Error::Link { what: "clip", expected: format!("from {least} to {most}"), found })
    }

    /// What the rounds up to this one cost; none without privacy noise.
    ///
    /// # Errors
    /// As [`Noise::spent`].
    pub fn spent(&self, round: u32) -> Result<Option<PrivacySpent>> {
        let spent =
            |noise: &Noise| Ok(PrivacySpent { epsilon: noise.spent(round)?, delta: noise.delta });
        self.privacy.noise().map(spent).transpose()
    }

    /// The sensitivity of a round's sum, in grid steps, for the clip of that
    /// round.
    #[must_use]
    #[allow(clippy::cast_precision_loss)] // of a bound that is rounded up
    pub fn sensitivity(&self, noise: &Noise, clip: f64) -> f64 {
        match self.privacy {
            // Rounded inside the norm.
            Privacy::Patient(_) => noise.patient_steps() as f64,
            // Rounding moves each value by half a step at most; the norm and
            // the scaling are rounded in binary64 on the way.
            _ => clip / noise.step * (1.0 + 1e-12) + (self.values() as f64).sqrt() / 2.0,
        }
    }

    pub(super) fn check_privacy(&self) -> Result<()> {
        let Aggregation { rule, update_type, norm_limit, .. } = self.aggregation;
        let is_patient = matches!(self.privacy, Privacy::Patient(_));
        let unit = self.privacy.unit();
        expect(
            "aggregation.update_type",
            (update_type == UpdateType::Grid) == is_patient,
            if is_patient {
                "grid for the privacy unit patient"
            } else {
                "another than grid, which is for the privacy unit patient"
            },
            format!("{} with the privacy unit {unit}", update_type.name()),
        )?;
        expect(
            "aggregation.rule",
            (rule == Rule::Sum) == self.privacy.noise().is_some(),
            if self.privacy.noise().is_some() {
                "sum for the privacy units patient and site"
            } else {
                "another than sum, which is for the privacy units patient and site"
            },
            format!("{} with the privacy unit {unit}", rule.name()),
        )?;
        let Some(noise) = self.privacy.noise() else { return Ok(()) };
        let limit = norm_limit.map_or("none".to_owned(), |limit| limit.to_string());
        // A refusal would tell the norm to whoever sees it.
        expect(
            "aggregation.norm_limit",
            norm_limit.is_none(),
            "none under privacy noise: long updates are clipped, not refused",
            limit,
        )?;
        for (field, value) in [
            ("privacy.clip", noise.clip),
            ("privacy.step", noise.step),
            ("privacy.noise_multiplier", noise.noise_multiplier),
            ("privacy.epsilon", noise.epsilon),
        ] {
            expect(field, is_positive(value), "a positive number", value)?;
        }
        let delta = noise.delta;
        expect("privacy.delta", delta > 0.0 && delta < 1.0, "between 0 and 1", delta)?;
        Self::check_unit(noise, is_patient)?;
        self.check_grid(noise, is_patient)?;
        claim::check(noise, self.study.rounds)
    }

    fn check_unit(noise: &Noise, is_patient: bool) -> Result<()> {
        if let Some(rate) = noise.sampling_rate {
            let expected = "above 0 and at most 1, for the unit patient only";
            let holds = is_patient && rate > 0.0 && rate <= 1.0;
            expect("privacy.sampling_rate", holds, expected, rate)?;
            let drawn = Rate::new(rate).map(drop);
            drawn.map_err(|error| refused("privacy.sampling_rate", "one that is drawn", &error))?;
        }
        let Some(adaptive) = &noise.adaptive_clip else { return Ok(()) };
        expect(
            "privacy.adaptive_clip",
            !is_patient,
            "none but for the unit site: patients are clipped before the enclave sees them",
            "one",
        )?;
        let quantile = adaptive.quantile;
        let holds = quantile > 0.0 && quantile < 1.0;
        expect("privacy.adaptive_clip.quantile", holds, "between 0 and 1", quantile)?;
        for (field, value) in [
            ("privacy.adaptive_clip.learning_rate", adaptive.learning_rate),
            ("privacy.adaptive_clip.count_noise", adaptive.count_noise),
        ] {
            expect(field, is_positive(value), "a positive number", value)?;
        }
        drawn("privacy.adaptive_clip.count_noise", adaptive.count_noise)
    }

    /// Whether every value fits the integers of the grid, and the noise can be drawn,
    /// for each clip that a round may have.
    fn check_grid(&self, noise: &Noise, is_patient: bool) -> Result<()> {
        let range = if noise.adaptive_clip.is_some() { CLIP_RANGE } else { 1.0 };
        let (steps, most) = (noise.clip / noise.step, f64::from(i32::MAX));
        expect(
            "privacy.step",
            steps >= 1.0 && steps * range <= most,
            format!("a clip of 1 to {} steps", most / range),
            format!("clip / step = {steps}"),
        )?;
        if is_patient {
            let grid = ClippedSum::new(noise.clip, noise.step, 1).map(drop);
            grid.map_err(|error| refused("privacy.step", "a grid that sites can use", &error))?;
        }
        [noise.clip / range, noise.clip * range].into_iter().try_for_each(|clip| {
            drawn("privacy.noise_multiplier", noise.sigma(self.sensitivity(noise, clip)))
        })
    }
}

/// Whether noise of that standard deviation, in grid steps, can be drawn.
fn drawn(field: &str, sigma: f64) -> Result<()> {
    let gaussian = Gaussian::new(sigma).map(drop);
    gaussian
        .map_err(|error| refused(field, "noise that can be drawn, in steps of the grid", &error))
}
