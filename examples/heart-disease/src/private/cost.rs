//! What privacy costs: the same training without noise, with the enclave's,
//! and with the noise that each hospital would have to add on its own.

use super::federation::{Noise, train};
use super::plan::Plan;
use crate::experiment::Study;
use crate::measures::{Measures, Prediction, auc, measure};
use crate::{HOSPITALS, REPLICAS};
use anyhow::Context;

/// How often noise is drawn for each split.
pub const REPETITIONS: usize = 5;

/// How good the models with one kind of noise are.
#[derive(Debug, Clone)]
pub struct Quality {
    /// Of each hospital's held-out patients, by [`HOSPITALS`]; the spread is
    /// over splits and draws of the noise.
    pub hospitals: Vec<Measures>,
    /// The mean over hospitals of the AUC.
    pub auc: f64,
    /// The standard deviation of that mean over splits and draws.
    pub auc_spread: f64,
    /// The mean over hospitals of the accuracy.
    pub accuracy: f64,
}

/// The three that are compared.
#[derive(Debug, Clone)]
pub struct Cost {
    /// With the enclave's noise.
    pub private: Quality,
    /// With none: clipped, rounded and averaged the same.
    pub without_noise: Quality,
    /// With each hospital's own.
    pub local_noise: Quality,
}

impl Cost {
    /// Trains all of them, on every split.
    ///
    /// # Errors
    /// As [`train`].
    pub fn new(study: &Study, plan: &Plan) -> anyhow::Result<Self> {
        Ok(Self {
            private: quality(study, plan, Noise::Enclave, REPETITIONS)?,
            without_noise: quality(study, plan, Noise::None, 1)?,
            local_noise: quality(study, plan, Noise::Hospitals, REPETITIONS)?,
        })
    }

    /// The three by name.
    #[must_use]
    pub fn named(&self) -> [(&'static str, &Quality); 3] {
        [
            ("private", &self.private),
            ("without_noise", &self.without_noise),
            ("local_noise", &self.local_noise),
        ]
    }
}

fn quality(
    study: &Study,
    plan: &Plan,
    noise: Noise,
    repetitions: usize,
) -> anyhow::Result<Quality> {
    let mut predictions: Vec<Vec<Vec<Prediction>>> = vec![Vec::new(); HOSPITALS.len()];
    for replica in 0..REPLICAS {
        for repetition in 0..repetitions {
            let model = train(study, plan, replica, noise, repetition)?;
            let model = model.last().context("no round")?;
            for (hospital, predictions) in predictions.iter_mut().enumerate() {
                predictions.push(study.held_out(hospital, replica, model));
            }
        }
    }
    let hospitals: Vec<_> = predictions.iter().map(|runs| measure(runs)).collect();
    let mean = |of: fn(&Measures) -> f64| {
        hospitals.iter().map(of).sum::<f64>() / hospitals.len().max(1) as f64
    };
    let (mean_auc, accuracy) = (mean(|m| m.auc), mean(|m| m.accuracy));
    let runs = REPLICAS * repetitions;
    let of_run = |run: usize| {
        predictions.iter().map(|of_hospital| auc(&of_hospital[run])).sum::<f64>()
            / HOSPITALS.len() as f64
    };
    let variance =
        (0..runs).map(|run| (of_run(run) - mean_auc).powi(2)).sum::<f64>() / runs.max(1) as f64;
    Ok(Quality { hospitals, auc: mean_auc, auc_spread: variance.sqrt(), accuracy })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::private::plan::ROUNDS;

    #[test]
    fn noise_costs_little_in_the_enclave_and_more_at_the_hospitals() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("data");
        let study = Study::read(&folder).unwrap();
        let cost = Cost::new(&study, &Plan::new(ROUNDS).unwrap()).unwrap();
        let [private, exact, local] = cost.named().map(|(_, quality)| quality.auc);
        assert!(exact - private < 0.01, "{exact:.4} {private:.4}");
        assert!(private > local, "{private:.4} {local:.4}");
        assert!(local > 0.75, "{local:.4}");
        let [private, _, local] = cost.named().map(|(_, quality)| quality.accuracy);
        assert!(private > local, "{private:.4} {local:.4}");
    }
}
