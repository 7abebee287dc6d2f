//! Which study the demo runs: manifest, initial model, trainer.

use crate::REPLICAS;
use crate::logistic::Logistic;
use crate::private::manifest;
use crate::private::plan::{BINS, Plan};

/// The template of the plain study.
const PLAIN: &str = include_str!("../../study.template.toml");

/// A study, before its sites have keys.
pub struct Course {
    /// The manifest, with places for what only a run knows.
    pub template: String,
    /// The initial models, one a replica.
    pub initial: Vec<Logistic>,
    /// What the trainer is told besides hospital and table.
    pub trainer: String,
}

impl Course {
    /// The study without noise: every split in one model.
    pub fn plain() -> Self {
        let initial = vec![Logistic::default(); REPLICAS];
        Self { template: PLAIN.to_owned(), initial, trainer: String::new() }
    }

    /// The study with noise: one model, because noise that hides a patient in
    /// twenty models at once would be much wider.
    ///
    /// # Errors
    /// If the plain template lacks a section that is replaced.
    pub fn private(plan: &Plan) -> anyhow::Result<Self> {
        let template = manifest::template(PLAIN, plan)?;
        let trainer = format!(" --patients --bins {BINS}");
        Ok(Self { template, initial: vec![Logistic::default()], trainer })
    }
}
