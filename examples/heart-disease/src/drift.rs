//! Local training that keeps hospitals with different patients together.
//!
//! Several local steps pull a model towards its own hospital. `FedProx` (Li et
//! al., 2020, "Federated optimization in heterogeneous networks") pulls it
//! back: mu (w - x) is added to each gradient, where x is the global model.
//! SCAFFOLD (Karimireddy et al., 2020, "Stochastic controlled averaging for
//! federated learning") takes the pull out: the gradient is corrected by `c - c_i`,
//! where the control variate `c_i` estimates the hospital's own gradient and c
//! the mean over hospitals.

use crate::cohort::Patient;
use crate::logistic::Logistic;
use crate::train::{RATE, STEPS, STUDY_PATIENTS};
use std::iter::zip;

/// What is done against the drift of one model.
#[derive(Debug, Clone, Copy)]
pub enum Correction<'a> {
    /// Nothing: federated averaging.
    None,
    /// `FedProx`.
    Prox {
        /// How strongly the model is pulled back.
        mu: f64,
    },
    /// SCAFFOLD.
    Scaffold {
        /// The control variate of all hospitals, as the global model has it.
        global: &'a Logistic,
        /// The control variate of this one.
        own: &'a Logistic,
    },
}

impl Correction<'_> {
    /// A hospital's model after the local steps of a round.
    #[must_use]
    pub fn train(&self, global: &Logistic, patients: &[&Patient]) -> Logistic {
        let from = global.parameters();
        let shift: Vec<f64> = match self {
            Self::Scaffold { global, own } => difference(global, own),
            _ => Vec::new(),
        };
        let mut trained = global.clone();
        trained.descend_corrected(patients, STUDY_PATIENTS, STEPS, RATE, |model, gradient| {
            if let Self::Prox { mu } = self {
                let moved = zip(model.parameters(), &from).map(|(w, x)| w - x);
                zip(gradient.iter_mut(), moved).for_each(|(g, moved)| *g += mu * moved);
            }
            zip(gradient.iter_mut(), &shift).for_each(|(g, shift)| *g += shift);
        });
        trained
    }
}

/// The first less the second: weights, then bias.
#[must_use]
pub fn difference(a: &Logistic, b: &Logistic) -> Vec<f64> {
    zip(a.parameters(), b.parameters()).map(|(a, b)| a - b).collect()
}

/// A hospital's control variate after a round: option II of the paper,
/// `c_i - c + (x - y) / (K rate)`, where y is x after the round's K steps.
#[must_use]
pub fn next_control(
    own: &Logistic,
    control: &Logistic,
    global: &Logistic,
    trained: &Logistic,
) -> Logistic {
    let length = STEPS as f64 * RATE;
    let next = |own: f64, c: f64, x: f64, y: f64| own - c + (x - y) / length;
    Logistic {
        weights: zip(zip(&own.weights, &control.weights), zip(&global.weights, &trained.weights))
            .map(|((own, c), (x, y))| next(*own, *c, *x, *y))
            .collect(),
        bias: next(own.bias, control.bias, global.bias, trained.bias),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::HOSPITALS;
    use crate::experiment::Study;

    fn study() -> Study {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("data");
        Study::read(&folder).unwrap()
    }

    fn norm(values: &[f64]) -> f64 {
        values.iter().map(|value| value * value).sum::<f64>().sqrt()
    }

    fn added(model: &Logistic, step: &[f64], share: f64) -> Logistic {
        let sum: Vec<_> = zip(model.parameters(), step).map(|(w, s)| w + share * s).collect();
        Logistic::of_parameters(&sum).unwrap()
    }

    /// The training patients of each hospital on the first split, and all.
    fn patients(study: &Study) -> (Vec<Vec<&Patient>>, Vec<&Patient>) {
        let of = |hospital: usize| {
            let patients = &study.cohorts[hospital].patients;
            study.trains(hospital, 0).iter().map(|place| &patients[*place]).collect()
        };
        let by_hospital: Vec<Vec<_>> = (0..HOSPITALS.len()).map(of).collect();
        let all = by_hospital.concat();
        (by_hospital, all)
    }

    /// Rounds with weights by patients; the model and the controls at the end.
    fn rounds(study: &Study, count: usize, scaffold: bool) -> (Logistic, Logistic, Vec<Logistic>) {
        let (patients, all) = patients(study);
        let mut model = Logistic::default();
        let (mut control, mut owns) = (Logistic::default(), vec![Logistic::default(); 4]);
        for _ in 0..count {
            let (base, c) = (model.clone(), control.clone());
            for (own, patients) in owns.iter_mut().zip(&patients) {
                let share = patients.len() as f64 / all.len() as f64;
                let correction = if scaffold {
                    Correction::Scaffold { global: &c, own }
                } else {
                    Correction::None
                };
                let trained = correction.train(&base, patients);
                model = added(&model, &difference(&trained, &base), share);
                let next = next_control(own, &c, &base, &trained);
                control = added(&control, &difference(&next, own), share);
                *own = next;
            }
        }
        (model, control, owns)
    }

    #[test]
    fn scaffold_ends_where_the_pooled_gradient_is_nothing_and_averaging_does_not() {
        let study = study();
        let (_, all) = patients(&study);
        let left = |model: &Logistic| norm(&model.gradient(&all, STUDY_PATIENTS));
        let (averaged, ..) = rounds(&study, 300, false);
        let (scaffold, control, owns) = rounds(&study, 300, true);
        assert!(
            left(&scaffold) < left(&averaged) / 10.0,
            "{} {}",
            left(&scaffold),
            left(&averaged)
        );
        // Each estimates its hospital's gradient; their mean is that of all.
        assert!(owns.iter().all(|own| norm(&own.parameters()) > 0.01));
        assert!(norm(&control.parameters()) < 0.01, "{}", norm(&control.parameters()));
    }

    #[test]
    fn prox_holds_the_model_back() {
        let study = study();
        let (patients, _) = patients(&study);
        let global = Logistic::default();
        let moved = |correction: Correction<'_>| {
            norm(&difference(&correction.train(&global, &patients[0]), &global))
        };
        let free = moved(Correction::None);
        assert!((moved(Correction::Prox { mu: 0.0 }) - free).abs() < 1e-12);
        let (little, much) =
            (moved(Correction::Prox { mu: 0.1 }), moved(Correction::Prox { mu: 1.0 }));
        assert!(much < little && little < free && much > 0.0, "{much} {little} {free}");
    }
}
