//! The trainer: what a site's agent calls, as it would call a PyTorch script.
//!
//! It reads the global model and writes an update, trained minus global, and
//! metrics, as files. All replicas of the model are trained side by side, each
//! on its own split of the hospital's patients.

use crate::REPLICAS;
use crate::cohort::{Cohort, INPUTS};
use crate::logistic::Logistic;
use crate::split::split;
use anyhow::{Context, bail};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use std::collections::HashMap;
use std::path::Path;

/// Steps of local descent in a round.
pub const STEPS: usize = 8;
/// Their length.
pub const RATE: f64 = 0.3;
/// The number of training patients of the whole study, over which the penalty
/// is spread: agreed, like the penalty itself.
pub const STUDY_PATIENTS: usize = 644;

/// Reads a model: weights `[REPLICAS, INPUTS]` and biases `[REPLICAS]`.
///
/// # Errors
/// If the file holds anything else.
pub fn read_model(path: &Path) -> anyhow::Result<Vec<Logistic>> {
    let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let tensors = SafeTensors::deserialize(&bytes)?;
    let values = |name: &str, count: usize| -> anyhow::Result<Vec<f64>> {
        let tensor = tensors.tensor(name)?;
        let (fours, _) = tensor.data().as_chunks::<4>();
        if tensor.dtype() != Dtype::F32 || fours.len() != count {
            bail!("{name}: expected {count} float32 values, found {:?}", tensor.shape());
        }
        Ok(fours.iter().map(|four| f64::from(f32::from_le_bytes(*four))).collect())
    };
    let (weights, bias) = (values("weight", REPLICAS * INPUTS)?, values("bias", REPLICAS)?);
    let models = weights.chunks(INPUTS).zip(bias);
    Ok(models.map(|(weights, bias)| Logistic { weights: weights.to_vec(), bias }).collect())
}

/// Writes a model or an update.
///
/// # Errors
/// If the file cannot be written.
pub fn write_model(path: &Path, models: &[Logistic]) -> anyhow::Result<()> {
    #[allow(clippy::cast_possible_truncation)]
    let bytes = |values: Vec<f64>| -> Vec<u8> {
        values.into_iter().flat_map(|value| (value as f32).to_le_bytes()).collect()
    };
    let weights = bytes(models.iter().flat_map(|model| model.weights.clone()).collect());
    let bias = bytes(models.iter().map(|model| model.bias).collect());
    let tensors = HashMap::from([
        ("weight", TensorView::new(Dtype::F32, vec![models.len(), INPUTS], &weights)?),
        ("bias", TensorView::new(Dtype::F32, vec![models.len()], &bias)?),
    ]);
    safetensors::serialize_to_file(tensors, None, path)
        .with_context(|| format!("cannot write {}", path.display()))
}

/// One round of local training: the update of each replica, the number of
/// training patients, and the mean loss before.
#[must_use]
pub fn update(cohort: &Cohort, global: &[Logistic]) -> (Vec<Logistic>, usize, f64) {
    let (mut count, mut loss) = (0, 0.0);
    let updates = global
        .iter()
        .enumerate()
        .map(|(replica, global)| {
            let split = split(&cohort.name, &cohort.patients, replica);
            let patients: Vec<_> = split.training.iter().map(|i| &cohort.patients[*i]).collect();
            count = patients.len();
            loss += global.loss(&patients, STUDY_PATIENTS);
            let mut trained = global.clone();
            trained.descend(&patients, STUDY_PATIENTS, STEPS, RATE);
            Logistic {
                weights: trained.weights.iter().zip(&global.weights).map(|(t, g)| t - g).collect(),
                bias: trained.bias - global.bias,
            }
        })
        .collect();
    (updates, count, loss / global.len().max(1) as f64)
}

/// Trains as the environment of the agent says.
///
/// # Errors
/// If a file or a variable is missing.
pub fn run(name: &str, data: &Path) -> anyhow::Result<()> {
    let path = |name: &str| {
        std::env::var_os(name).with_context(|| format!("{name} is not set: called by an agent?"))
    };
    let cohort = Cohort::read(name, data)?;
    let global = read_model(Path::new(&path("SEALFOLD_MODEL")?))?;
    let (updates, examples, loss) = update(&cohort, &global);
    write_model(Path::new(&path("SEALFOLD_UPDATE")?), &updates)?;
    let metrics = serde_json::json!({ "examples": examples, "metrics": { "loss": loss } });
    let path = path("SEALFOLD_METRICS")?;
    std::fs::write(&path, metrics.to_string())
        .with_context(|| format!("cannot write {}", Path::new(&path).display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_comes_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        let mut models = vec![Logistic::default(); REPLICAS];
        models[3].weights[5] = 1.5;
        models[4].bias = -0.25;
        write_model(&path, &models).unwrap();
        assert_eq!(read_model(&path).unwrap(), models);
        std::fs::write(&path, b"nonsense").unwrap();
        assert!(read_model(&path).is_err());
    }
}
