//! A query before anybody signs it: the sections of the manifest that follow
//! from its statistics and its privacy, and the accuracy to expect.

use super::reading::{Reading, of_cells};
use crate::{Error, Result};
use sealfold_aggregation::privacy::Orders;
use sealfold_aggregation::privacy::calibrate::noise_multiplier_for;
use sealfold_protocol::terms::{Model, Noise};
use sealfold_protocol::text::counted;
use sealfold_study::Claim;
use sealfold_study::in_words::weaker_noise;
use sealfold_study::query::{Draft, Part};
use std::fmt::Write;

/// The fewest grid steps of a statistic's share: two million patients of a site
/// in one cell still fit an update's integers.
const STEPS: f64 = 1024.0;

/// What follows from a draft.
#[derive(Debug)]
pub struct Plan {
    /// The model of zeros.
    pub model: Model,
    /// The noise.
    pub noise: Noise,
    /// What it buys.
    pub claim: Claim,
    /// The standard deviation of a cell's noise, in patients.
    pub deviation: f64,
    /// What would be read of so many patients, evenly spread over all cells and
    /// ranges.
    pub readings: Vec<Reading>,
}

/// Plans a draft for a privacy loss and a number of patients at all sites
/// together.
///
/// # Errors
/// [`Error::Input`] by `privacy` for a loss that no noise buys;
/// [`Error::Protocol`] naming a statistic that cannot be had.
pub fn plan(draft: &Draft, epsilon: f64, delta: f64, patients: f64) -> Result<Plan> {
    let Draft { data, query } = draft;
    let multiplier = noise_multiplier_for(epsilon, delta, 1.0, 1, &Orders::integer());
    let multiplier = multiplier.map_err(Error::unaccounted)?;
    let least = STEPS * f64::from(u32::try_from(query.statistics.len()).unwrap_or(u32::MAX)).sqrt();
    let noise = Noise {
        clip: 1.0,
        step: least.log2().ceil().exp2().recip(),
        // A manifest that people read, rounded to the safe side.
        noise_multiplier: (multiplier * 1e4).ceil() / 1e4,
        adaptive_clip: None,
    };
    let claim = Claim { epsilon, delta, sampling_rate: None };
    let model = Model { initial: query.initial(data)?, tensors: query.tensors(data)? };
    let deviation = query.deviation(&noise);
    let parts = query.parts(data)?;
    // Bernstein polynomials of one degree have the same mean over the range, so
    // that patients who are evenly spread fill all cells alike.
    let read = |part: &Part| {
        #[allow(clippy::cast_precision_loss)] // at most 100,000
        let even = patients / part.cells() as f64;
        let cells = vec![even; usize::try_from(part.cells()).unwrap_or_default()];
        of_cells(part, &cells, deviation)
    };
    let readings = parts.iter().map(read).collect();
    Ok(Plan { model, noise, claim, deviation, readings })
}

impl Plan {
    /// The sections `[model]`, `[aggregation]` and `[privacy]` of the manifest,
    /// as TOML.
    #[must_use]
    pub fn sections(&self) -> String {
        let Model { initial, tensors, .. } = &self.model;
        let mut text = format!("[model]\ninitial = \"{initial}\"\nlearning_rate = 1\n");
        for tensor in tensors {
            // A JSON string is a TOML string.
            let name = serde_json::Value::from(tensor.name.as_str());
            let _ = write!(
                text,
                "\n[[model.tensor]]\nname = {name}\nshape = {:?}\ndtype = \"float32\"\n",
                tensor.shape
            );
        }
        let Noise { clip, step, noise_multiplier, .. } = self.noise;
        let Claim { epsilon, delta, .. } = self.claim;
        text.push_str("\n[aggregation]\nrule = \"sum\"\ndivisor = 1\n");
        let _ = write!(
            text,
            "\n[privacy]\nunit = \"patient\"\nclip = {clip}\nstep = {step}\n\
             noise_multiplier = {noise_multiplier}\nepsilon = {epsilon}\ndelta = {delta}\n"
        );
        text
    }

    /// The standard errors to expect, as comments of a TOML file.
    #[must_use]
    pub fn accuracy(&self, patients: u32) -> String {
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // positive, saturates
        let least = (self.deviation * sealfold_aggregation::statistics::TELLING).ceil() as u64;
        let mut text = format!(
            "# standard errors by noise, for {} evenly spread over cells and ranges;\n# cells below {} will be suppressed\n",
            counted(patients.into(), "patient"),
            counted(least, "patient")
        );
        if u64::from(patients) < least {
            let _ = writeln!(
                text,
                "# WEAKER: of {} in all the noise leaves nothing to be told; ask for fewer \
                 statistics, a larger epsilon, or more patients",
                counted(patients.into(), "patient")
            );
        }
        for weaker in weaker_noise(&self.claim) {
            let _ = writeln!(text, "# {weaker}");
        }
        for Reading { statistic, figures } in &self.readings {
            // The cells of a table are all alike.
            let shown = figures.iter().take(if figures.len() > 100 { 2 } else { figures.len() });
            for figure in shown {
                let error =
                    figure.standard_error.map_or("not told from none".to_owned(), |error| {
                        super::reading::rounded(error, error)
                    });
                let _ = writeln!(text, "#   {statistic}, {}: +- {error}", figure.label);
            }
        }
        text
    }
}
