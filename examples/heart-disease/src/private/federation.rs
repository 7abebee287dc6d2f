//! The private study without processes: the same sums, noise and steps, from
//! the same library, so that they can be repeated over many splits.

use super::gradients::direction;
use super::plan::{CLIP, DIVISOR, LEARNING_RATE, MOMENTUM, Plan, STEP};
use crate::HOSPITALS;
use crate::cohort::INPUTS;
use crate::experiment::Study;
use crate::logistic::Logistic;
use crate::split::mix;
use anyhow::Context;
use sealfold_aggregation::clipping::ClippedSum;
use sealfold_aggregation::noise::{Gaussian, Label, Seed};
use sealfold_aggregation::optimiser::{Dtype, Optimiser, TensorStep};

/// Weights and bias.
const PARAMETERS: usize = INPUTS + 1;

/// Who adds noise to the sum of a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Noise {
    /// Nobody.
    None,
    /// The enclave, once for all hospitals.
    Enclave,
    /// Each hospital to its own sum, as it must where it trusts no enclave: for
    /// the same epsilon as much as the enclave adds once, so that the noise of
    /// the sum is the square root of their number times as wide.
    Hospitals,
}

impl Noise {
    /// The number of times that a round's noise is drawn.
    fn draws(self) -> usize {
        match self {
            Self::None => 0,
            Self::Enclave => 1,
            Self::Hospitals => HOSPITALS.len(),
        }
    }
}

/// A seed for a figure. It follows from its numbers, so that the figure is the
/// same every time; noise that hides anybody is never made this way.
fn seed(replica: usize, repetition: usize, draw: usize) -> Seed {
    let mut bytes = [0; 32];
    for (place, eight) in bytes.as_chunks_mut::<8>().0.iter_mut().enumerate() {
        let number = (repetition * HOSPITALS.len() + draw) * 4 + place;
        *eight = mix("noise of a figure", replica, number).to_le_bytes();
    }
    Seed::new(bytes)
}

/// Trains one model on one split, from nothing, with the noise of one
/// repetition; the model after each round.
///
/// # Errors
/// If the plan's numbers do not fit the library.
pub fn train(
    study: &Study,
    plan: &Plan,
    replica: usize,
    noise: Noise,
    repetition: usize,
) -> anyhow::Result<Vec<Logistic>> {
    let sampler = Gaussian::new(plan.sigma())?;
    let seeds: Vec<_> = (0..noise.draws()).map(|draw| seed(replica, repetition, draw)).collect();
    let optimiser = Optimiser::FedAvgM { learning_rate: LEARNING_RATE, momentum: MOMENTUM };
    let step = TensorStep::new(optimiser, Dtype::Float32)?;
    let mut base = vec![0; 4 * PARAMETERS];
    let mut state = vec![0; PARAMETERS * step.state_width()];
    step.begin(&mut state)?;
    let mut model = Logistic::default();
    let mut models = Vec::new();
    for round in 0..plan.rounds {
        let mut sum = vec![0; PARAMETERS];
        for hospital in 0..HOSPITALS.len() {
            let mut clipped = ClippedSum::new(CLIP, STEP, PARAMETERS)?;
            for place in study.trains(hospital, replica) {
                clipped.add(&direction(&model, &study.cohorts[hospital].patients[*place]))?;
            }
            let of_hospital = clipped.finish()?;
            sum.iter_mut().zip(of_hospital).for_each(|(sum, value)| *sum += i64::from(value));
        }
        for seed in &seeds {
            sampler.add(seed, Label::Aggregate, round.into(), &mut sum)?;
        }
        step.apply(0, &mut base, &aggregate(&sum), &mut state)?;
        let parameters: Vec<_> =
            base.as_chunks::<4>().0.iter().map(|four| f32::from_le_bytes(*four).into()).collect();
        model = Logistic::of_parameters(&parameters).context("a model of another size")?;
        models.push(model.clone());
    }
    Ok(models)
}

/// A sum in grid steps, as a release has it.
#[allow(clippy::cast_possible_truncation)] // an aggregate is binary32
fn aggregate(sum: &[i64]) -> Vec<u8> {
    sum.iter().flat_map(|value| ((*value as f64 * (STEP / DIVISOR)) as f32).to_le_bytes()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn study() -> Study {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("data");
        Study::read(&folder).unwrap()
    }

    fn distance(a: &Logistic, b: &Logistic) -> f64 {
        let squares =
            a.parameters().iter().zip(b.parameters()).map(|(a, b)| (a - b).powi(2)).sum::<f64>();
        squares.sqrt()
    }

    #[test]
    fn hospitals_noise_is_twice_as_wide_as_the_enclaves() {
        let study = study();
        let plan = Plan::new(1, 3.0).unwrap();
        let exact = train(&study, &plan, 0, Noise::None, 0).unwrap().remove(0);
        let spread = |noise| {
            let squares = (0..40).map(|repetition| {
                let noisy = train(&study, &plan, 0, noise, repetition).unwrap().remove(0);
                distance(&noisy, &exact).powi(2)
            });
            (squares.sum::<f64>() / 40.0 / PARAMETERS as f64).sqrt()
        };
        // What one round adds to a value of the model.
        let expected = LEARNING_RATE * plan.noise_multiplier * CLIP / DIVISOR;
        let (enclave, hospitals) = (spread(Noise::Enclave), spread(Noise::Hospitals));
        assert!((enclave / expected - 1.0).abs() < 0.1, "{enclave} {expected}");
        assert!((hospitals / expected / 2.0 - 1.0).abs() < 0.1, "{hospitals} {expected}");
    }

    #[test]
    fn noise_is_the_same_again_and_another_in_another_repetition() {
        let study = study();
        let plan = Plan::new(2, 3.0).unwrap();
        let last = |repetition| train(&study, &plan, 1, Noise::Enclave, repetition).unwrap().pop();
        assert_eq!(last(0), last(0));
        assert_ne!(last(0), last(1));
    }
}
