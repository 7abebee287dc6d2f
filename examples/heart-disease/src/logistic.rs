//! Logistic regression with a ridge penalty.

use crate::cohort::{INPUTS, Patient};

/// The penalty on half the squared norm of the weights, in patients.
pub const PENALTY: f64 = 5.0;

/// Weights and bias.
#[derive(Debug, Clone, PartialEq)]
pub struct Logistic {
    /// One for each input.
    pub weights: Vec<f64>,
    /// The bias; not penalised.
    pub bias: f64,
}

impl Default for Logistic {
    fn default() -> Self {
        Self { weights: vec![0.0; INPUTS], bias: 0.0 }
    }
}

impl Logistic {
    /// The probability of the disease.
    #[must_use]
    pub fn predict(&self, inputs: &[f64]) -> f64 {
        let score: f64 = self.weights.iter().zip(inputs).map(|(w, x)| w * x).sum();
        1.0 / (1.0 + (-(score + self.bias)).exp())
    }

    /// The mean loss with its share of the penalty. `total` is the number of
    /// patients of the whole study, over which the penalty is spread.
    #[must_use]
    pub fn loss(&self, patients: &[&Patient], total: usize) -> f64 {
        let log = |p: f64| p.max(1e-12).ln();
        let sum: f64 = patients
            .iter()
            .map(|patient| {
                let p = self.predict(&patient.inputs);
                if patient.disease { -log(p) } else { -log(1.0 - p) }
            })
            .sum();
        let norm: f64 = self.weights.iter().map(|w| w * w).sum();
        sum / patients.len() as f64 + PENALTY * norm / 2.0 / total as f64
    }

    /// The gradient of [`Logistic::loss`]: weights, then bias.
    #[must_use]
    pub fn gradient(&self, patients: &[&Patient], total: usize) -> Vec<f64> {
        let mut gradient = vec![0.0; INPUTS + 1];
        let share = 1.0 / patients.len() as f64;
        for patient in patients {
            let error =
                (self.predict(&patient.inputs) - f64::from(u8::from(patient.disease))) * share;
            for (g, x) in gradient.iter_mut().zip(&patient.inputs) {
                *g += error * x;
            }
            gradient[INPUTS] += error;
        }
        for (g, w) in gradient.iter_mut().zip(&self.weights) {
            *g += PENALTY * w / total as f64;
        }
        gradient
    }

    /// Takes steps of gradient descent.
    pub fn descend(&mut self, patients: &[&Patient], total: usize, steps: usize, rate: f64) {
        self.descend_corrected(patients, total, steps, rate, |_, _| ());
    }

    /// The same, with something done to each gradient (weights, then bias)
    /// first; it is given the model at which the gradient was taken.
    pub fn descend_corrected(
        &mut self,
        patients: &[&Patient],
        total: usize,
        steps: usize,
        rate: f64,
        correct: impl Fn(&Self, &mut [f64]),
    ) {
        for _ in 0..steps {
            let mut gradient = self.gradient(patients, total);
            correct(self, &mut gradient);
            self.weights.iter_mut().zip(&gradient).for_each(|(w, g)| *w -= rate * g);
            self.bias -= rate * gradient[INPUTS];
        }
    }

    /// The direction in which one patient's loss falls: what that patient would
    /// have added to the weights and to the bias. Without the penalty, which is
    /// nobody's.
    #[must_use]
    pub fn direction(&self, patient: &Patient) -> Vec<f64> {
        let error = f64::from(u8::from(patient.disease)) - self.predict(&patient.inputs);
        patient.inputs.iter().map(|x| error * x).chain([error]).collect()
    }

    /// All parameters: weights, then bias.
    #[must_use]
    pub fn parameters(&self) -> Vec<f64> {
        self.weights.iter().copied().chain([self.bias]).collect()
    }

    /// The model of these parameters; none if there are not [`INPUTS`] + 1.
    #[must_use]
    pub fn of_parameters(parameters: &[f64]) -> Option<Self> {
        let (bias, weights) = parameters.split_last()?;
        (weights.len() == INPUTS).then(|| Self { weights: weights.to_vec(), bias: *bias })
    }

    /// Trains from nothing until the gradient is small (accelerated descent).
    #[must_use]
    pub fn fit(patients: &[&Patient]) -> Self {
        let mut model = Self::default();
        let mut before = model.clone();
        for step in 0..4000u32 {
            let momentum = f64::from(step) / (f64::from(step) + 3.0);
            let ahead = |now: f64, old: f64| now + momentum * (now - old);
            let mut look = Self {
                weights: model
                    .weights
                    .iter()
                    .zip(&before.weights)
                    .map(|(now, old)| ahead(*now, *old))
                    .collect(),
                bias: ahead(model.bias, before.bias),
            };
            look.descend(patients, patients.len(), 1, 0.3);
            before = std::mem::replace(&mut model, look);
            let gradient = model.gradient(patients, patients.len());
            if gradient.iter().all(|g| g.abs() < 1e-5) {
                break;
            }
        }
        model
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patients() -> Vec<Patient> {
        (0..40)
            .map(|i| {
                let x = f64::from(i) / 20.0 - 1.0;
                let inputs = (0..INPUTS)
                    .map(|j| if j == 0 { x } else { (x * j as f64).sin() / 9.0 })
                    .collect();
                Patient { inputs, disease: x + (f64::from(i) * 7.0).sin() / 3.0 > 0.0 }
            })
            .collect()
    }

    #[test]
    fn the_gradient_is_that_of_the_loss() {
        let patients = patients();
        let patients: Vec<_> = patients.iter().collect();
        let mut model = Logistic::default();
        model.weights.iter_mut().zip(0..).for_each(|(w, i)| *w = f64::from(i % 5) / 9.0 - 0.2);
        let gradient = model.gradient(&patients, 100);
        for place in [0, 3, INPUTS - 1, INPUTS] {
            let moved = |by: f64| {
                let mut moved = model.clone();
                if place == INPUTS {
                    moved.bias += by;
                } else {
                    moved.weights[place] += by;
                }
                moved.loss(&patients, 100)
            };
            let slope = (moved(1e-5) - moved(-1e-5)) / 2e-5;
            assert!((slope - gradient[place]).abs() < 1e-7, "{place}: {slope} {}", gradient[place]);
        }
    }

    #[test]
    fn the_patients_directions_add_up_to_the_descent() {
        let patients = patients();
        let all: Vec<_> = patients.iter().collect();
        let model = Logistic::of_parameters(&[&[0.0; INPUTS][..], &[0.3]].concat()).unwrap();
        // The weights are 0, so there is no penalty.
        let gradient = model.gradient(&all, 40);
        let directions: Vec<_> = patients.iter().map(|p| model.direction(p)).collect();
        for (place, g) in gradient.iter().enumerate() {
            let sum: f64 = directions.iter().map(|direction| direction[place]).sum();
            assert!((sum / 40.0 + g).abs() < 1e-12, "{place}");
        }
    }

    #[test]
    fn training_ends_where_the_gradient_is_small() {
        let patients = patients();
        let patients: Vec<_> = patients.iter().collect();
        let model = Logistic::fit(&patients);
        assert!(model.gradient(&patients, 40).iter().all(|g| g.abs() < 1e-4));
        let right = patients.iter().filter(|p| (model.predict(&p.inputs) > 0.5) == p.disease);
        assert!(right.count() >= 32);
    }
}
