//! The trainer of the private study: each patient's gradient, and the score of
//! each who is held out, as the site's client wants them. The client clips,
//! rounds and adds them up; nothing of a single patient leaves the site.

use crate::cohort::{Cohort, INPUTS, Patient};
use crate::logistic::Logistic;
use crate::refusal::refused;
use crate::split::Split;
use anyhow::Context;
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use std::path::Path;

/// The rows of a round's file, one for each patient.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Gradients {
    patients: usize,
    bins: usize,
    weights: Vec<f32>,
    bias: Vec<f32>,
    evaluation: Vec<f32>,
}

/// What a patient would have added to the model: weights, then bias. Not
/// clipped yet.
#[must_use]
#[allow(clippy::cast_possible_truncation)] // gradients are binary32
pub fn direction(model: &Logistic, patient: &Patient) -> Vec<f32> {
    model.direction(patient).into_iter().map(|value| value as f32).collect()
}

impl Gradients {
    /// The rows of the patients at these places of the table.
    ///
    /// A patient who trains has a gradient and no count, one who is held out a
    /// count and no gradient, so that neither is clipped for the other.
    ///
    /// # Errors
    /// If a place is beyond the table.
    pub fn of(
        model: &Logistic,
        cohort: &Cohort,
        split: &Split,
        places: &[usize],
        bins: usize,
    ) -> anyhow::Result<Self> {
        let mut rows = Self { bins, ..Self::default() };
        for place in places {
            let count = cohort.patients.len();
            let patient = cohort
                .patients
                .get(*place)
                .with_context(|| format!("expected a row below {count}, found {place}"))?;
            if split.held_out.binary_search(place).is_ok() {
                rows.add_held_out(model, patient);
            } else {
                rows.add_training(model, patient);
            }
        }
        Ok(rows)
    }

    fn add_training(&mut self, model: &Logistic, patient: &Patient) {
        let direction = direction(model, patient);
        let (weights, bias) = direction.split_at(INPUTS);
        self.weights.extend_from_slice(weights);
        self.bias.extend_from_slice(bias);
        self.evaluation.extend(std::iter::repeat_n(0.0, 2 * self.bins));
        self.patients += 1;
    }

    fn add_held_out(&mut self, model: &Logistic, patient: &Patient) {
        self.weights.extend([0.0; INPUTS]);
        self.bias.push(0.0);
        let mut counts = vec![0.0; 2 * self.bins];
        if self.bins > 0 {
            let score = model.predict(&patient.inputs) * self.bins as f64;
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
            let bin = (score as usize).min(self.bins - 1);
            counts[2 * bin + usize::from(patient.disease)] = 1.0;
        }
        self.evaluation.extend(counts);
        self.patients += 1;
    }

    /// The number of rows.
    #[must_use]
    pub fn patients(&self) -> usize {
        self.patients
    }

    /// Writes the file: the model's tensors and `evaluation`, `[bins, 2]`, each
    /// behind an axis over the patients.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write(&self, path: &Path) -> anyhow::Result<()> {
        let bytes = |values: &[f32]| -> Vec<u8> {
            values.iter().flat_map(|value| value.to_le_bytes()).collect()
        };
        let (weights, bias) = (bytes(&self.weights), bytes(&self.bias));
        let evaluation = bytes(&self.evaluation);
        let n = self.patients;
        let mut tensors = vec![
            ("weight", TensorView::new(Dtype::F32, vec![n, 1, INPUTS], &weights)?),
            ("bias", TensorView::new(Dtype::F32, vec![n, 1], &bias)?),
        ];
        if self.bins > 0 {
            let counts = TensorView::new(Dtype::F32, vec![n, self.bins, 2], &evaluation)?;
            tensors.push(("evaluation", counts));
        }
        safetensors::serialize_to_file(tensors, None, path)
            .with_context(|| format!("cannot write {}", path.display()))
    }
}

/// Reads a sample that the site's client drew: places in the table from 0, one
/// on a line.
///
/// # Errors
/// If the file holds anything else.
pub fn read_sample(path: &Path) -> anyhow::Result<Vec<usize>> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("cannot read the sample {}", path.display()))?;
    let wrong =
        |line: &str| refused(format!("{}: expected a row number, found {line:?}", path.display()));
    let place = |line: &str| line.parse().map_err(|_| wrong(line));
    text.lines().map(place).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::split::split;

    fn cohort() -> Cohort {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/switzerland.csv");
        Cohort::read("switzerland", &path).unwrap()
    }

    #[test]
    fn a_patient_trains_or_is_counted() {
        let cohort = cohort();
        let split = split(&cohort.name, &cohort.patients, 0);
        let model = Logistic { bias: 0.9, ..Logistic::default() };
        let all: Vec<_> = (0..cohort.patients.len()).collect();
        let rows = Gradients::of(&model, &cohort, &split, &all, 4).unwrap();
        assert_eq!(rows.patients(), 123);
        for (place, patient) in cohort.patients.iter().enumerate() {
            let counts = &rows.evaluation[8 * place..][..8];
            let held_out = split.held_out.contains(&place);
            assert_eq!(rows.bias[place] == 0.0, held_out);
            // The score is 0.71: the third bin.
            let expected = [0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0];
            let mut expected = if held_out { expected } else { [0.0; 8] };
            if patient.disease {
                expected.swap(4, 5);
            }
            assert_eq!(counts, expected);
        }
        let beyond = Gradients::of(&model, &cohort, &split, &[123], 4).unwrap_err();
        assert!(beyond.to_string().contains("below 123, found 123"), "{beyond}");
    }

    #[test]
    fn only_the_sample_is_written_and_with_its_axis() {
        let folder = tempfile::tempdir().unwrap();
        let (sample, update) = (folder.path().join("sample"), folder.path().join("update"));
        std::fs::write(&sample, "3\n7\n11\n").unwrap();
        let places = read_sample(&sample).unwrap();
        assert_eq!(places, [3, 7, 11]);
        let cohort = cohort();
        let split = split(&cohort.name, &cohort.patients, 0);
        let rows = Gradients::of(&Logistic::default(), &cohort, &split, &places, 2).unwrap();
        rows.write(&update).unwrap();
        let bytes = std::fs::read(&update).unwrap();
        let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let shape = |name: &str| tensors.tensor(name).unwrap().shape().to_vec();
        assert_eq!(shape("weight"), [3, 1, INPUTS]);
        assert_eq!(shape("bias"), [3, 1]);
        assert_eq!(shape("evaluation"), [3, 2, 2]);
        std::fs::write(&sample, "3\nx\n").unwrap();
        assert!(read_sample(&sample).unwrap_err().to_string().contains("found \"x\""));
    }
}
