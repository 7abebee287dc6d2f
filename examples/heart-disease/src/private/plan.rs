//! The numbers of the private study, and what they cost.

use crate::train::STUDY_PATIENTS;
use sealfold_aggregation::Result;
use sealfold_aggregation::privacy::calibrate::{epsilon_by_round, noise_multiplier_for};
use sealfold_aggregation::privacy::{Orders, SampledGaussian};

/// The privacy loss of all rounds together, for each patient, unless another is
/// asked for.
pub const EPSILON: f64 = 3.0;
/// The probability with which it may be more: less than one in the number of
/// patients, by far.
pub const DELTA: f64 = 1e-5;
/// The rounds: few, because each needs the more noise the more there are. Of
/// 4 to 50 rounds and rates from 0.5 to 8 this pair was among the best.
pub const ROUNDS: u32 = 16;
/// The largest Euclidean norm of a patient's gradient.
pub const CLIP: f64 = 1.0;
/// The grid: 2^22 steps to a clip, so that the sum of 512 patients fits an int32,
/// which is more than a hospital has, and a hospital that lies adds no more to a
/// value than those could. Rounding does not show.
pub const STEP: f64 = CLIP / 4_194_304.0;
/// What the noisy sum is divided by: agreed, not counted.
#[allow(clippy::cast_precision_loss)] // some hundred patients
pub const DIVISOR: f64 = STUDY_PATIENTS as f64;
/// The server's learning rate.
pub const LEARNING_RATE: f64 = 4.0;
/// The share of a step that is carried into the next.
pub const MOMENTUM: f64 = 0.5;
/// The bins of the score in which held-out patients are counted: few, because
/// the noise of each adds up.
pub const BINS: u32 = 4;

/// A number of rounds, and the noise with which they cost what is claimed.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// The rounds.
    pub rounds: u32,
    /// The privacy loss of all rounds that the manifest claims.
    pub claimed: f64,
    /// The standard deviation of the noise of a round, in units of the clip.
    pub noise_multiplier: f64,
    /// Epsilon after each release: of the rounds, and of the evaluation that
    /// measures the last model. The last is what is claimed or a little less.
    pub epsilon: Vec<f64>,
}

impl Plan {
    /// The plan for so many rounds over all patients, which together cost each of
    /// them `claimed`, an epsilon at [`DELTA`].
    ///
    /// # Errors
    /// For no rounds, a privacy loss that is no positive number, or rounds so many
    /// or a loss so small that no noise is enough.
    pub fn new(rounds: u32, claimed: f64) -> Result<Self> {
        let orders = Orders::integer();
        let releases = rounds + u32::from(rounds > 0);
        let least = noise_multiplier_for(claimed, DELTA, 1.0, releases.into(), &orders)?;
        // A manifest is read by people: four digits, rounded up.
        let noise_multiplier = (least * 1e4).ceil() / 1e4;
        let mechanism = SampledGaussian::new(noise_multiplier, 1.0, 1.0)?.into();
        let epsilon = epsilon_by_round(&mechanism, releases, DELTA, &orders)?;
        Ok(Self { rounds, claimed, noise_multiplier, epsilon })
    }

    /// The standard deviation of the noise in steps of the grid.
    #[must_use]
    pub fn sigma(&self) -> f64 {
        self.noise_multiplier * (CLIP / STEP).floor()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_number_of_rounds_costs_the_same() {
        for rounds in [1, 3, ROUNDS, 100] {
            let plan = Plan::new(rounds, EPSILON).unwrap();
            let last = plan.epsilon[plan.epsilon.len() - 1];
            assert!(last <= EPSILON && last > EPSILON - 0.01, "{rounds}: {last}");
            assert!(plan.epsilon.is_sorted());
        }
        let noise = |rounds| Plan::new(rounds, EPSILON).unwrap().noise_multiplier;
        assert!(noise(1) < noise(10) && noise(10) < noise(100));
        assert!(Plan::new(0, EPSILON).is_err());
    }

    #[test]
    fn less_privacy_loss_takes_more_noise() {
        let plan = |epsilon| Plan::new(ROUNDS, epsilon).unwrap();
        for (less, more) in [(0.1, 0.5), (0.5, 3.0), (3.0, 20.0)] {
            assert!(plan(less).noise_multiplier > plan(more).noise_multiplier);
            assert!(plan(less).epsilon.last().unwrap() <= &less);
        }
        for none in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert!(Plan::new(ROUNDS, none).is_err(), "{none}");
        }
    }

    #[test]
    fn the_grid_fits_every_hospitals_patients() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("data");
        let study = crate::experiment::Study::read(&folder).unwrap();
        let largest = study.cohorts.iter().map(|cohort| cohort.patients.len()).max().unwrap();
        assert!((CLIP / STEP) * (largest as f64) < f64::from(i32::MAX), "{largest}");
    }
}
