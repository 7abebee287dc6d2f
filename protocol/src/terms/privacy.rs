//! The noise of a release, and whether it can be drawn. What it buys in privacy
//! is worked out by those who read the agreement.

use super::{Rule, Terms, UpdateType, expect, expect_ordinary, refused};
use crate::{Error, Result};
use sealfold_aggregation::noise::Gaussian;
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
    /// Sites: a clip that follows the sites' norms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adaptive_clip: Option<AdaptiveClip>,
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

    /// The largest clip that a round may have.
    #[must_use]
    pub fn largest_clip(&self) -> f64 {
        self.clip * if self.adaptive_clip.is_some() { CLIP_RANGE } else { 1.0 }
    }
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

impl Terms {
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
            _ => clip / noise.step * (1.0 + 1e-12) + (self.model.parameters() as f64).sqrt() / 2.0,
        }
    }

    pub(super) fn check_privacy(&self) -> Result<()> {
        let (rule, update_type) = (self.aggregation.rule, self.aggregation.update_type);
        let (is_patient, unit) = (matches!(self.privacy, Privacy::Patient(_)), self.privacy.unit());
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
        self.check_weights()?;
        let Some(noise) = self.privacy.noise() else { return Ok(()) };
        expect(
            "aggregation.update_type",
            !is_patient || update_type == UpdateType::Int32,
            "int32 for the privacy unit patient: a site's sum over its patients",
            update_type.name(),
        )?;
        let limit = self.aggregation.norm_limit;
        // A refusal would tell the norm to whoever sees it.
        expect(
            "aggregation.norm_limit",
            limit.is_none(),
            "none under privacy noise: long updates are clipped, not refused",
            limit.map_or("none".to_owned(), |limit| limit.to_string()),
        )?;
        for (field, value) in [
            ("privacy.clip", noise.clip),
            ("privacy.step", noise.step),
            ("privacy.noise_multiplier", noise.noise_multiplier),
        ] {
            expect_ordinary(field, value)?;
        }
        self.check_adaptive_clip(noise)?;
        self.check_drawn(noise)
    }

    /// Whether the weights are ones that the rule uses.
    fn check_weights(&self) -> Result<()> {
        let rule = self.aggregation.rule;
        let uneven = self.sites.iter().find(|site| site.weight != 1);
        let found =
            uneven.map_or_else(String::new, |site| format!("{} for {}", site.weight, site.name));
        expect(
            "site.weight",
            rule.counts_weights() || uneven.is_none(),
            format!("1 for {}, which counts all sites alike", rule.name()),
            found,
        )?;
        if rule != Rule::GeometricMedian {
            return Ok(());
        }
        // One site with half of all shares is the median.
        let heavy = self.sites.iter().max_by_key(|site| site.weight);
        let mut weights: Vec<_> = self.sites.iter().map(|site| u64::from(site.weight)).collect();
        weights.sort_unstable();
        let most = weights.pop().unwrap_or(0);
        let others: u64 = weights.iter().take(self.quorum.smallest_roster - 1).sum();
        expect(
            "site.weight",
            most < others,
            format!(
                "below {others} for geometric-median: the lightest others of the smallest roster \
                 together"
            ),
            heavy.map_or_else(String::new, |site| format!("{most} for {}", site.name)),
        )
    }

    fn check_adaptive_clip(&self, noise: &Noise) -> Result<()> {
        let Some(adaptive) = &noise.adaptive_clip else { return Ok(()) };
        expect(
            "privacy.adaptive_clip",
            matches!(self.privacy, Privacy::Site(_)),
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
            expect_ordinary(field, value)?;
        }
        drawn("privacy.adaptive_clip.count_noise", adaptive.count_noise)
    }

    /// Whether every value fits the grid's integers, and the noise can be drawn,
    /// for each clip that a round may have.
    fn check_drawn(&self, noise: &Noise) -> Result<()> {
        let range = noise.largest_clip() / noise.clip;
        let (steps, most) = (noise.clip / noise.step, f64::from(i32::MAX));
        expect(
            "privacy.step",
            steps >= 1.0 && steps * range <= most,
            format!("a clip of 1 to {} steps", most / range),
            format!("clip / step = {steps}"),
        )?;
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
