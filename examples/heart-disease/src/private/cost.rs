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
    /// That mean in each run: the draws of the first split, then of the second.
    pub runs: Vec<f64>,
    /// The mean over hospitals of the accuracy.
    pub accuracy: f64,
}

/// What noise takes from the AUC, the mean over hospitals: each run is compared
/// with the same split without noise.
#[derive(Debug, Clone, Copy)]
pub struct Loss {
    /// The mean over splits and draws; below 0 by chance only.
    pub mean: f64,
    /// The standard deviation of the difference over splits and draws.
    pub spread: f64,
}

impl Loss {
    fn new(exact: &[f64], noisy: &[f64]) -> Self {
        let draws = (noisy.len() / exact.len().max(1)).max(1);
        let pairs = exact.iter().zip(noisy.chunks(draws));
        let differences: Vec<_> =
            pairs.flat_map(|(exact, drawn)| drawn.iter().map(move |auc| exact - auc)).collect();
        let (mean, spread) = mean_and_spread(&differences);
        Self { mean, spread }
    }
}

/// Mean and standard deviation.
fn mean_and_spread(values: &[f64]) -> (f64, f64) {
    let count = values.len().max(1) as f64;
    let mean = values.iter().sum::<f64>() / count;
    let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / count;
    (mean, variance.sqrt())
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

    /// What the enclave's noise costs, and what the hospitals' own, by name.
    #[must_use]
    pub fn losses(&self) -> [(&'static str, Loss); 2] {
        let loss = |noisy: &Quality| Loss::new(&self.without_noise.runs, &noisy.runs);
        [("private", loss(&self.private)), ("local_noise", loss(&self.local_noise))]
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
    let of_run = |run: usize| {
        predictions.iter().map(|of_hospital| auc(&of_hospital[run])).sum::<f64>()
            / HOSPITALS.len() as f64
    };
    let runs: Vec<_> = (0..REPLICAS * repetitions).map(of_run).collect();
    let (mean_auc, auc_spread) = mean_and_spread(&runs);
    Ok(Quality { auc: mean_auc, auc_spread, accuracy: mean(|m| m.accuracy), hospitals, runs })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cohort::INPUTS;
    use crate::private::plan::{DIVISOR, EPSILON, ROUNDS};

    #[test]
    fn noise_costs_little_in_the_enclave_and_more_at_the_hospitals() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("data");
        let study = Study::read(&folder).unwrap();
        let cost = Cost::new(&study, &Plan::new(ROUNDS, EPSILON).unwrap()).unwrap();
        let [private, exact, local] = cost.named().map(|(_, quality)| quality.auc);
        assert!(exact - private < 0.01, "{exact:.4} {private:.4}");
        assert!(private > local, "{private:.4} {local:.4}");
        assert!(local > 0.75, "{local:.4}");
        let [private, _, local] = cost.named().map(|(_, quality)| quality.accuracy);
        assert!(private > local, "{private:.4} {local:.4}");
    }

    #[test]
    fn a_loss_is_of_each_run_beside_its_own_split() {
        // Splits far apart, noise that costs 0.1 and 0.3 by turns.
        let loss = Loss::new(&[0.9, 0.5], &[0.8, 0.6, 0.4, 0.2]);
        assert!((loss.mean - 0.2).abs() < 1e-12 && (loss.spread - 0.1).abs() < 1e-12, "{loss:?}");
        let none = Loss::new(&[0.9, 0.5], &[0.9, 0.5]);
        assert_eq!((none.mean, none.spread), (0.0, 0.0));
    }

    /// The rows of a page's table whose head begins so, in cells.
    fn rows(page: &str, head: &str) -> Vec<Vec<String>> {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(page);
        let text = std::fs::read_to_string(path).unwrap();
        let (_, rows) = text.split_once(head).unwrap();
        let rows = rows.lines().skip(2).take_while(|row| row.starts_with('|'));
        let cells = |row: &str| {
            row.trim_matches('|').split('|').map(str::trim).map(str::to_owned).collect()
        };
        rows.map(cells).collect()
    }

    #[test]
    fn the_pages_tables_are_what_the_demo_prints() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
        let example = rows("README.md", "| epsilon | noise multiplier |");
        let mut planning =
            rows("../../docs/privacy.md", "| epsilon | noise beside the sum |").into_iter();
        assert!(example.len() >= 5 && example.len() == planning.len(), "{example:?}");
        let study = Study::read(&folder.join("data")).unwrap();
        for cells in example {
            let plan = Plan::new(ROUNDS, cells[0].parse().unwrap()).unwrap();
            let cost = Cost::new(&study, &plan).unwrap();
            let mut found = vec![
                cells[0].clone(),
                plan.noise_multiplier.to_string(),
                format!("{:.3}", cost.private.auc),
            ];
            let losses = cost.losses();
            found.extend(losses.iter().map(|(_, l)| format!("{:.4} ± {:.4}", l.mean, l.spread)));
            assert_eq!(found, cells);
            // The noise's length over weights and bias, beside the sum's.
            let beside = plan.noise_multiplier * ((INPUTS + 1) as f64).sqrt() / DIVISOR;
            found[1] = format!("{beside:.2}");
            assert_eq!(found[..4], planning.next().unwrap());
        }
    }
}
