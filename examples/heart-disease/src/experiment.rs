//! The comparison: alone, federated, pooled, and with a hospital left out.
//!
//! The federated models come from the real system. The others are trained here,
//! on data that no real study would have in one place: that is what makes them
//! a yardstick.

use crate::cohort::{Cohort, Patient};
use crate::logistic::Logistic;
use crate::measures::{Measures, Prediction, auc, measure, roc};
use crate::split::{Split, split};
use crate::{HOSPITALS, REPLICAS};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::Path;

/// The four cohorts and all their splits.
pub struct Study {
    /// By [`HOSPITALS`].
    pub cohorts: Vec<Cohort>,
    splits: Vec<Vec<Split>>,
}

/// What is compared at one hospital.
#[derive(Debug, Clone, Serialize)]
pub struct Comparison<T> {
    /// The model that the hospital could train alone.
    pub local: T,
    /// The federated model.
    pub federated: T,
    /// A model of all hospitals' training data in one place.
    pub pooled: T,
    /// A model of the other three hospitals' training data.
    pub left_out: T,
}

/// Predictions of one model: one list a split.
type Predictions = Vec<Vec<Prediction>>;

impl Study {
    /// Reads the tables in a folder.
    ///
    /// # Errors
    /// If one cannot be read.
    pub fn read(folder: &Path) -> anyhow::Result<Self> {
        let cohorts = HOSPITALS
            .iter()
            .map(|name| Cohort::read(name, &folder.join(format!("{name}.csv"))))
            .collect::<anyhow::Result<Vec<_>>>()?;
        let splits = cohorts
            .iter()
            .map(|c| (0..REPLICAS).map(|replica| split(&c.name, &c.patients, replica)).collect())
            .collect();
        Ok(Self { cohorts, splits })
    }

    /// Who trains at a hospital in a split, by their place in its table.
    #[must_use]
    pub fn trains(&self, hospital: usize, replica: usize) -> &[usize] {
        &self.splits[hospital][replica].training
    }

    fn training(&self, hospitals: impl Iterator<Item = usize>, replica: usize) -> Vec<&Patient> {
        hospitals
            .flat_map(|h| {
                self.splits[h][replica].training.iter().map(move |i| &self.cohorts[h].patients[*i])
            })
            .collect()
    }

    fn predict(&self, hospital: usize, models: &[Logistic]) -> Predictions {
        models.iter().enumerate().map(|(split, m)| self.held_out(hospital, split, m)).collect()
    }

    /// A model's predictions for the held-out patients of a hospital.
    #[must_use]
    pub fn held_out(&self, hospital: usize, replica: usize, model: &Logistic) -> Vec<Prediction> {
        let of = |place: &usize| {
            let patient = &self.cohorts[hospital].patients[*place];
            let probability = model.predict(&patient.inputs);
            Prediction { probability, disease: patient.disease }
        };
        self.splits[hospital][replica].held_out.iter().map(of).collect()
    }

    fn fit(&self, hospitals: impl Iterator<Item = usize> + Clone) -> Vec<Logistic> {
        let one = |replica| Logistic::fit(&self.training(hospitals.clone(), replica));
        (0..REPLICAS).map(one).collect()
    }

    /// The held-out AUC of models at each hospital.
    #[must_use]
    pub fn auc(&self, models: &[Logistic]) -> Vec<f64> {
        let mean = |splits: Predictions| {
            splits.iter().map(|s| auc(s)).sum::<f64>() / splits.len().max(1) as f64
        };
        (0..HOSPITALS.len()).map(|hospital| mean(self.predict(hospital, models))).collect()
    }

    /// Predictions of all models at all hospitals.
    #[must_use]
    pub fn compare(&self, federated: &[Logistic]) -> BTreeMap<String, Comparison<Predictions>> {
        let pooled = self.fit(0..HOSPITALS.len());
        let compare = |(hospital, name): (usize, &&str)| {
            let others = (0..HOSPITALS.len()).filter(move |h| *h != hospital);
            let comparison = Comparison {
                local: self.predict(hospital, &self.fit(hospital..=hospital)),
                federated: self.predict(hospital, federated),
                pooled: self.predict(hospital, &pooled),
                left_out: self.predict(hospital, &self.fit(others)),
            };
            ((*name).to_owned(), comparison)
        };
        HOSPITALS.iter().enumerate().map(compare).collect()
    }
}

impl<T> Comparison<T> {
    /// The same of something else about each model.
    pub fn map<U>(&self, of: impl Fn(&T) -> U) -> Comparison<U> {
        Comparison {
            local: of(&self.local),
            federated: of(&self.federated),
            pooled: of(&self.pooled),
            left_out: of(&self.left_out),
        }
    }

    /// The models by name.
    pub fn named(&self) -> [(&'static str, &T); 4] {
        [
            ("local", &self.local),
            ("federated", &self.federated),
            ("pooled", &self.pooled),
            ("left_out", &self.left_out),
        ]
    }
}

impl Comparison<Predictions> {
    /// Their measures.
    #[must_use]
    pub fn measures(&self) -> Comparison<Measures> {
        self.map(|splits| measure(splits))
    }

    /// Their ROC curves over all splits.
    #[must_use]
    pub fn curves(&self) -> Comparison<Vec<(f64, f64)>> {
        self.map(|splits| roc(&splits.concat()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train;

    /// Rounds of the same trainer without the system: the numbers alone.
    #[test]
    fn the_federated_model_comes_within_two_points_of_the_pooled_one() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("data");
        let study = Study::read(&folder).unwrap();
        let mut global = vec![Logistic::default(); REPLICAS];
        for _ in 0..24 {
            let updates: Vec<_> =
                study.cohorts.iter().map(|cohort| train::update(cohort, &global)).collect();
            let total: usize = updates.iter().map(|u| u.1).sum();
            assert_eq!(total, train::STUDY_PATIENTS);
            for (update, examples, _) in &updates {
                let share = *examples as f64 / total as f64;
                for (model, step) in global.iter_mut().zip(update) {
                    model.weights.iter_mut().zip(&step.weights).for_each(|(w, s)| *w += share * s);
                    model.bias += share * step.bias;
                }
            }
        }
        let compared = study.compare(&global);
        let mean = |of: &dyn Fn(&Comparison<Measures>) -> f64| {
            compared.values().map(|c| of(&c.measures())).sum::<f64>() / 4.0
        };
        let (federated, pooled) = (mean(&|c| c.federated.auc), mean(&|c| c.pooled.auc));
        for (name, c) in &compared {
            println!("{name}: {:?}", c.measures().map(|m| m.auc));
        }
        assert!(federated > pooled - 0.02, "federated {federated:.4}, pooled {pooled:.4}");
    }
}
