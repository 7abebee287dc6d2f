//! A federation without processes: sites, rounds, and the aggregation library.

use super::Combined;
use super::attack::Attack;
use crate::cohort::{INPUTS, Patient};
use crate::experiment::Study;
use crate::logistic::Logistic;
use crate::train::{RATE, STEPS, STUDY_PATIENTS};
use crate::{HOSPITALS, REPLICAS};
use sealfold_aggregation::accumulate::weighted_sum;
use sealfold_aggregation::format::Format;
use sealfold_aggregation::integer::{IntegerRow, Term, Words, clip_factor, sum_of_squares};
use sealfold_aggregation::optimiser::{Dtype, Optimiser, TensorStep};
use sealfold_aggregation::quantise::{quantise, read_sums};
use sealfold_aggregation::rule::coordinate::Columns;
use sealfold_aggregation::rule::gram::PartialGram;
use sealfold_aggregation::rule::{Combination, Rule};
use sealfold_aggregation::{Result, norm, weights};

/// Rounds of training, as in the demo.
pub const ROUNDS: usize = 24;
/// The norm limit of the plain mean: about ten times an honest update. Sites scale a
/// longer one down, and the enclave refuses it.
const NORM_LIMIT: f64 = 9.0;
/// The grid step of the means: no sum of these sites leaves 64 bits.
const STEP: f64 = 1.0 / (1 << 26) as f64;

/// A site: one of the equal parts of a hospital.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Site {
    /// Its name.
    pub name: String,
    hospital: usize,
    part: usize,
    parts: usize,
}

/// Sites in the order of their names.
///
/// The row at place i of a hospital's table belongs to part i modulo the number
/// of parts. A split's held-out patients stay held out at every part.
#[must_use]
pub fn sites(parts: [usize; 4]) -> Vec<Site> {
    let of = |(hospital, name): (usize, &&str)| {
        let (name, parts) = ((*name).to_owned(), parts[hospital]);
        (0..parts).map(move |part| {
            let name = if parts == 1 { name.clone() } else { format!("{name}-{}", part + 1) };
            Site { name, hospital, part, parts }
        })
    };
    HOSPITALS.iter().enumerate().flat_map(of).collect()
}

impl Site {
    fn patients(&self, study: &Study, replica: usize, flipped: bool) -> Vec<Patient> {
        let patients = &study.cohorts[self.hospital].patients;
        let mine = |place: &&usize| **place % self.parts == self.part;
        let of = |place: &usize| {
            let mut patient = patients[*place].clone();
            patient.disease ^= flipped;
            patient
        };
        study.trains(self.hospital, replica).iter().filter(mine).map(of).collect()
    }
}

/// A federation with one aggregation rule, and the sites that attack it.
pub struct Federation<'a> {
    /// The data.
    pub study: &'a Study,
    /// The sites.
    pub sites: &'a [Site],
    /// How their updates are combined.
    pub rule: Combined,
    /// The places of the hostile sites and what they do.
    pub attack: Option<(&'a [usize], Attack)>,
}

impl Federation<'_> {
    /// Trains one model for each split, each by a federation of its own, and
    /// returns the mean AUC over the four hospitals' held-out patients.
    ///
    /// # Errors
    /// If the rule refuses so few sites, or the model leaves the numbers.
    pub fn auc(&self) -> Result<f64> {
        let models = (0..REPLICAS).map(|replica| self.train(replica));
        let aucs = self.study.auc(&models.collect::<Result<Vec<_>>>()?);
        Ok(aucs.iter().sum::<f64>() / aucs.len() as f64)
    }

    fn train(&self, replica: usize) -> Result<Logistic> {
        let attack = |place| self.attack.filter(|(hostile, _)| hostile.contains(&place));
        let patients: Vec<Vec<Patient>> = self
            .sites
            .iter()
            .enumerate()
            .map(|(place, site)| {
                let flipped = attack(place).is_some_and(|(_, attack)| attack.flips_labels());
                site.patients(self.study, replica, flipped)
            })
            .collect();
        #[allow(clippy::cast_possible_truncation)] // hundreds of patients
        let weights: Vec<_> = patients.iter().map(|patients| patients.len() as u32).collect();
        let mut base = vec![0; 4 * (INPUTS + 1)];
        let step = TensorStep::new(Optimiser::FedAvg { learning_rate: 1.0 }, Dtype::Float32)?;
        for round in 0..ROUNDS {
            let global = read(&base);
            let updates: Vec<_> = patients
                .iter()
                .enumerate()
                .map(|(place, patients)| {
                    let mut update = local_update(&global, patients);
                    if let Some((_, attack)) = attack(place) {
                        attack.corrupt(&mut update, &self.sites[place].name, replica, round);
                    }
                    write(&update)
                })
                .collect();
            let aggregate = fold(self.rule, &weights, &updates)?;
            step.apply(0, &mut base, &aggregate, &mut [])?;
        }
        Ok(read(&base))
    }
}

/// Trained minus global: weights, then bias.
fn local_update(global: &Logistic, patients: &[Patient]) -> Vec<f64> {
    let patients: Vec<_> = patients.iter().collect();
    let mut trained = global.clone();
    trained.descend(&patients, STUDY_PATIENTS, STEPS, RATE);
    let weights = trained.weights.iter().zip(&global.weights).map(|(t, g)| t - g);
    weights.chain([trained.bias - global.bias]).collect()
}

/// The aggregate of updates in bytes, as the enclave and the sites make it.
fn fold(rule: Combined, weights: &[u32], updates: &[Vec<u8>]) -> Result<Vec<u8>> {
    match rule {
        Combined::Mean => mean(weights, updates, NORM_LIMIT, None),
        // Any length is admitted; the factor depends on it.
        Combined::Clipped(clip) => mean(weights, updates, f64::INFINITY, Some(clip)),
        Combined::Selective(rule) => selective(rule, weights, updates),
    }
}

/// The exact mean: sites scale their update to the limit and to what the format
/// holds, and round it to the grid; the enclave clips and adds.
fn mean(weights: &[u32], updates: &[Vec<u8>], limit: f64, clip: Option<f64>) -> Result<Vec<u8>> {
    let mut row = IntegerRow::new(Words::Bits64);
    row.reset(INPUTS + 1);
    for (update, weight) in updates.iter().zip(weights) {
        let (values, _) = update.as_chunks::<4>();
        let values: Vec<_> = values.iter().map(|value| f32::from_le_bytes(*value)).collect();
        let norm = norm::inspect(update).sum_of_squares.sqrt();
        let largest = values.iter().fold(0.0, |most, value| f64::max(most, value.abs().into()));
        let fit = f64::from(i32::MAX - 1) * STEP / largest;
        let factor = (limit / norm).min(fit).min(1.0);
        let mut whole = vec![0; update.len()];
        quantise(Format::Int32, factor / STEP, &values, &mut whole)?;
        let norm = (sum_of_squares(Format::Int32, &whole)? as f64).sqrt() * STEP;
        let term = match clip {
            Some(clip) => Term::new(*weight, clip_factor(norm, clip))?,
            None => Term::whole(*weight)?,
        };
        row.add(0, term, Format::Int32, &whole)?;
    }
    let mut sums = vec![0; 8 * (INPUTS + 1)];
    row.write(Words::Bits64, &mut sums)?;
    let total: u32 = weights.iter().sum();
    let mut out = [0.0; INPUTS + 1];
    read_sums(Words::Bits64, &sums, STEP / f64::from(total), &mut out)?;
    Ok(out.iter().flat_map(|value| value.to_le_bytes()).collect())
}

fn selective(rule: Rule, weights: &[u32], updates: &[Vec<u8>]) -> Result<Vec<u8>> {
    let shares = weights::shares(weights)?;
    let rows: Vec<_> = updates.iter().map(Vec::as_slice).collect();
    let gram = if rule.needs_gram() {
        let mut partial = PartialGram::new(rows.len());
        partial.add(&rows)?;
        Some(partial.finish())
    } else {
        None
    };
    let mut aggregate = vec![0; 4 * (INPUTS + 1)];
    match rule.combine(&shares, gram.as_ref())? {
        Combination::Sum(factors) => weighted_sum(&factors, &rows, &mut aggregate)?,
        Combination::Coordinates(rule) => {
            rule.combine(&mut Columns::new(), &rows, &mut aggregate)?;
        }
    }
    Ok(aggregate)
}

fn read(bytes: &[u8]) -> Logistic {
    let (values, _) = bytes.as_chunks::<4>();
    let mut values = values.iter().map(|value| f64::from(f32::from_le_bytes(*value)));
    let weights = values.by_ref().take(INPUTS).collect();
    Logistic { weights, bias: values.next().unwrap_or(0.0) }
}

#[allow(clippy::cast_possible_truncation)] // an update is binary32
fn write(values: &[f64]) -> Vec<u8> {
    values.iter().flat_map(|value| (*value as f32).to_le_bytes()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_training_patient_is_at_one_site() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("data");
        let study = Study::read(&folder).unwrap();
        for parts in [[1, 1, 1, 1], [3, 3, 2, 2]] {
            let sites = sites(parts);
            assert!(sites.is_sorted_by_key(|site| &site.name));
            assert_eq!(sites.len(), parts.iter().sum::<usize>());
            let total: usize = sites.iter().map(|site| site.patients(&study, 0, false).len()).sum();
            assert_eq!(total, STUDY_PATIENTS);
        }
        let site = &sites([1, 1, 1, 1])[0];
        let (honest, flipped) = (site.patients(&study, 0, false), site.patients(&study, 0, true));
        assert!(honest.iter().zip(&flipped).all(|(h, f)| h.disease != f.disease));
    }
}
