//! Which study the demo runs: manifest, initial model, trainer.

use crate::REPLICAS;
use crate::logistic::Logistic;
use crate::private::manifest;
use crate::private::plan::{BINS, Plan};

/// The template of the plain study.
const PLAIN: &str = include_str!("../../study.template.toml");

/// The hospitals' weights in the plain study: their patients, rounded to
/// hundreds. Whoever reads the log reads them, so they are no exact numbers.
const WEIGHTS: [u32; 4] = [3, 3, 1, 2];

/// A study, before its sites have keys.
pub struct Course {
    /// The manifest, with places for what only a run knows.
    pub template: String,
    /// The initial models, one a replica.
    pub initial: Vec<Logistic>,
    /// What the trainer is told besides hospital and table.
    pub trainer: String,
    /// The hospitals' weights.
    pub weights: [u32; 4],
    /// Whether a round behind the last one measures the last model.
    pub is_evaluated: bool,
}

impl Course {
    /// The study without noise: every split in one model.
    pub fn plain() -> Self {
        let initial = vec![Logistic::default(); REPLICAS];
        let (template, trainer) = (PLAIN.to_owned(), String::new());
        Self { template, initial, trainer, weights: WEIGHTS, is_evaluated: true }
    }

    /// The study with noise: one model, because noise that hides a patient in
    /// twenty models at once would be much wider.
    ///
    /// # Errors
    /// If the plain template lacks a section that is replaced.
    pub fn private(plan: &Plan) -> anyhow::Result<Self> {
        let template = manifest::template(PLAIN, plan)?;
        let trainer = format!(" --patients --bins {BINS}");
        let initial = vec![Logistic::default()];
        Ok(Self { template, initial, trainer, weights: [1; 4], is_evaluated: true })
    }
}
