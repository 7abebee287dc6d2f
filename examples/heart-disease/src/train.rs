//! The trainer: what a site's agent calls, as it would call a PyTorch script.
//!
//! It reads the global model and writes an update, trained minus global, and
//! metrics, as files. All replicas of the model are trained side by side, each
//! on its own split of the hospital's patients. It can train with `FedProx` or
//! SCAFFOLD, and write the gradients of single patients.

use crate::cohort::{Cohort, INPUTS};
use crate::drift::{Correction, next_control};
use crate::logistic::Logistic;
use crate::private::gradients::{Gradients, read_sample};
use crate::refusal::refused;
use crate::split::split;
use anyhow::Context;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde_json::json;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// Steps of local descent in a round.
pub const STEPS: usize = 8;
/// Their length.
pub const RATE: f64 = 0.3;
/// The number of training patients of the whole study, over which the penalty
/// is spread: agreed, like the penalty itself.
pub const STUDY_PATIENTS: usize = 644;

/// What the agent's command says of the training.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// The hospital, which decides the splits.
    #[arg(long)]
    pub hospital: String,
    /// Its table.
    #[arg(long, value_name = "FILE")]
    pub data: PathBuf,
    /// `FedProx`: pull the model back to the global one, so strongly.
    #[arg(long, value_name = "MU", value_parser = not_negative)]
    pub prox: Option<f64>,
    /// SCAFFOLD: correct gradients by control variates, the hospital's own kept
    /// in this folder from round to round.
    #[arg(long, value_name = "FOLDER", conflicts_with = "prox")]
    pub scaffold: Option<PathBuf>,
    /// Write each patient's gradient, for a study of the privacy unit patient.
    #[arg(long, conflicts_with_all = ["prox", "scaffold"])]
    pub patients: bool,
    /// The bins of that study's evaluation.
    #[arg(long, requires = "patients", default_value_t = 0)]
    pub bins: u16,
}

fn not_negative(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if value.is_finite() && value >= 0.0 => Ok(value),
        _ => Err("expected a number from 0".to_owned()),
    }
}

/// The names of the tensors of a model: weights and biases.
const MODEL: [&str; 2] = ["weight", "bias"];
/// The names of the tensors of its control variates.
const CONTROL: [&str; 2] = ["weight_control", "bias_control"];

/// Reads a model: weights `[replicas, INPUTS]` and biases `[replicas]`.
///
/// # Errors
/// If the file holds no such tensors.
pub fn read_model(path: &Path) -> anyhow::Result<Vec<Logistic>> {
    read(path, MODEL)
}

fn read(path: &Path, names: [&str; 2]) -> anyhow::Result<Vec<Logistic>> {
    let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let tensors = SafeTensors::deserialize(&bytes)?;
    let replicas = tensors.tensor(names[0])?.shape().first().copied().unwrap_or(0);
    let values = |name: &str, shape: &[usize]| -> anyhow::Result<Vec<f64>> {
        let tensor = tensors.tensor(name)?;
        let found = (tensor.dtype(), tensor.shape());
        if found != (Dtype::F32, shape) {
            let message = format!("{name}: expected float32 values {shape:?}, found {found:?}");
            return Err(refused(message));
        }
        let (fours, _) = tensor.data().as_chunks::<4>();
        Ok(fours.iter().map(|four| f64::from(f32::from_le_bytes(*four))).collect())
    };
    let (weights, bias) = (values(names[0], &[replicas, INPUTS])?, values(names[1], &[replicas])?);
    let models = weights.chunks(INPUTS).zip(bias);
    Ok(models.map(|(weights, bias)| Logistic { weights: weights.to_vec(), bias }).collect())
}

/// Writes a model or an update.
///
/// # Errors
/// If the file cannot be written.
pub fn write_model(path: &Path, models: &[Logistic]) -> anyhow::Result<()> {
    write(path, &[(MODEL, models)])
}

/// Writes a model or an update, with control variates.
///
/// # Errors
/// If the file cannot be written.
pub fn write_controlled(
    path: &Path,
    models: &[Logistic],
    controls: &[Logistic],
) -> anyhow::Result<()> {
    write(path, &[(MODEL, models), (CONTROL, controls)])
}

fn write(path: &Path, parts: &[([&str; 2], &[Logistic])]) -> anyhow::Result<()> {
    #[allow(clippy::cast_possible_truncation)]
    let bytes = |values: Vec<f64>| -> Vec<u8> {
        values.into_iter().flat_map(|value| (value as f32).to_le_bytes()).collect()
    };
    let mut values = Vec::new();
    for ([weight, bias], models) in parts {
        let weights = bytes(models.iter().flat_map(|model| model.weights.clone()).collect());
        values.push((*weight, vec![models.len(), INPUTS], weights));
        let biases = bytes(models.iter().map(|model| model.bias).collect());
        values.push((*bias, vec![models.len()], biases));
    }
    let tensors = values
        .iter()
        .map(|(name, shape, bytes)| {
            TensorView::new(Dtype::F32, shape.clone(), bytes).map(|view| (*name, view))
        })
        .collect::<Result<HashMap<_, _>, _>>()?;
    safetensors::serialize_to_file(tensors, None, path)
        .with_context(|| format!("cannot write {}", path.display()))
}

/// What a round of local training came to.
pub struct Trained {
    /// The model of each replica.
    pub models: Vec<Logistic>,
    /// The number of training patients.
    pub examples: usize,
    /// The mean loss before.
    pub loss: f64,
}

/// One round of local training, each replica with its correction.
#[must_use]
pub fn train<'a>(
    cohort: &Cohort,
    global: &[Logistic],
    correction: impl Fn(usize) -> Correction<'a>,
) -> Trained {
    let (mut examples, mut loss) = (0, 0.0);
    let models = global
        .iter()
        .enumerate()
        .map(|(replica, global)| {
            let split = split(&cohort.name, &cohort.patients, replica);
            let patients: Vec<_> = split.training.iter().map(|i| &cohort.patients[*i]).collect();
            examples = patients.len();
            loss += global.loss(&patients, STUDY_PATIENTS);
            correction(replica).train(global, &patients)
        })
        .collect();
    Trained { models, examples, loss: loss / global.len().max(1) as f64 }
}

/// One round of plain local training: the update of each replica, the number of
/// training patients, and the mean loss before.
#[must_use]
pub fn update(cohort: &Cohort, global: &[Logistic]) -> (Vec<Logistic>, usize, f64) {
    let trained = train(cohort, global, |_| Correction::None);
    (differences(&trained.models, global), trained.examples, trained.loss)
}

/// The first less the second, replica by replica.
fn differences(a: &[Logistic], b: &[Logistic]) -> Vec<Logistic> {
    a.iter()
        .zip(b)
        .map(|(a, b)| Logistic {
            weights: a.weights.iter().zip(&b.weights).map(|(a, b)| a - b).collect(),
            bias: a.bias - b.bias,
        })
        .collect()
}

fn variable(name: &str) -> anyhow::Result<PathBuf> {
    let value = std::env::var_os(name);
    value.map(PathBuf::from).with_context(|| format!("{name} is not set: called by an agent?"))
}

/// Trains as the environment of the agent says.
///
/// # Errors
/// If a file or a variable is missing.
pub fn run(options: &Options) -> anyhow::Result<()> {
    let cohort = Cohort::read(&options.hospital, &options.data)?;
    let (model, update) = (variable("SEALFOLD_MODEL")?, variable("SEALFOLD_UPDATE")?);
    let global = read_model(&model)?;
    let loss = if options.patients {
        write_patients(&cohort, &global, options.bins, &update)?;
        None
    } else if let Some(folder) = &options.scaffold {
        let controls = read(&model, CONTROL)?;
        let kept = Kept::new(folder, &global)?;
        let trained = train(&cohort, &global, |replica| Correction::Scaffold {
            global: &controls[replica],
            own: &kept.own[replica],
        });
        let next: Vec<_> = (0..global.len())
            .map(|i| next_control(&kept.own[i], &controls[i], &global[i], &trained.models[i]))
            .collect();
        write_model(&kept.next, &next)?;
        let (models, changes) =
            (differences(&trained.models, &global), differences(&next, &kept.own));
        write_controlled(&update, &models, &changes)?;
        Some(trained.loss)
    } else {
        let correction = options.prox.map_or(Correction::None, |mu| Correction::Prox { mu });
        let trained = train(&cohort, &global, |_| correction);
        write_model(&update, &differences(&trained.models, &global))?;
        Some(trained.loss)
    };
    let metrics = loss.map_or(json!({}), |loss| json!({ "loss": loss }));
    let path = variable("SEALFOLD_METRICS")?;
    std::fs::write(&path, metrics.to_string())
        .with_context(|| format!("cannot write {}", path.display()))
}

/// Writes the gradients of a round's patients: all, or the sample that the
/// client drew.
fn write_patients(
    cohort: &Cohort,
    global: &[Logistic],
    bins: u16,
    update: &Path,
) -> anyhow::Result<()> {
    let [model] = global else {
        let expected = "expected one replica, which each patient has one gradient of";
        return Err(refused(format!("{expected}; found {}", global.len())));
    };
    let places = match std::env::var_os("SEALFOLD_SAMPLE") {
        Some(sample) => read_sample(Path::new(&sample))?,
        None => (0..cohort.patients.len()).collect(),
    };
    let split = split(&cohort.name, &cohort.patients, 0);
    Gradients::of(model, cohort, &split, &places, bins.into())?.write(update)
}

/// The hospital's own control variates, kept by round: a round that is tried
/// again begins where it began the first time.
struct Kept {
    own: Vec<Logistic>,
    next: PathBuf,
}

impl Kept {
    fn new(folder: &Path, global: &[Logistic]) -> anyhow::Result<Self> {
        let text = |name: &str| Ok::<_, anyhow::Error>(variable(name)?.display().to_string());
        let round: u32 = text("SEALFOLD_ROUND")?.parse().context("SEALFOLD_ROUND is no number")?;
        let study = text("SEALFOLD_STUDY")?;
        let after = |round: u32| folder.join(format!("{study}-{round:04}.safetensors"));
        std::fs::create_dir_all(folder)
            .with_context(|| format!("cannot make {}", folder.display()))?;
        let own = match (1..round).rev().map(after).find(|path| path.exists()) {
            Some(path) => read_model(&path)?,
            None => vec![Logistic::default(); global.len()],
        };
        if own.len() != global.len() {
            let (folder, expected, found) = (folder.display(), global.len(), own.len());
            return Err(refused(format!("{folder}: expected {expected} replicas, found {found}")));
        }
        Ok(Self { own, next: after(round) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::REPLICAS;

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
