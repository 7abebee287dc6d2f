//! The evaluation in a release: pooled measures of the base model, and, where
//! each site's counts are in it, their spread.

use crate::Result;
use crate::home::write_json;
use crate::round::Site;
use sealfold_aggregation::evaluation::{Measures, measures};
use sealfold_study::{Evaluation, Manifest};
use serde_json::{Value, json};

/// Counts below so many standard deviations of their noise are not told from
/// none, and a site that has no more is left out of the spread.
const TELLING: f64 = 3.0;

fn shown(measures: &Measures) -> Value {
    json!({
        "patients": measures.with_outcome + measures.without_outcome,
        "with_outcome": measures.with_outcome,
        "auc": measures.auc,
        "sensitivity": measures.sensitivity,
        "specificity": measures.specificity,
        "calibration_error": measures.calibration_error,
    })
}

/// What the counts in an aggregate say, as JSON. Only the counts as released,
/// with their noise, are looked at.
#[must_use]
pub fn read(manifest: &Manifest, evaluation: &Evaluation, values: &[f32]) -> Value {
    // Under noise a count is worth the clip; without, counts are shares.
    let unit = match (manifest.terms.privacy.noise(), manifest.terms.aggregation.divisor) {
        (Some(noise), Some(divisor)) => divisor / noise.clip,
        _ => 1.0,
    };
    let noise = manifest.terms.privacy.noise().map(|noise| noise.noise_multiplier);
    let counts: Vec<[f64; 2]> = values
        .as_chunks::<2>()
        .0
        .iter()
        .map(|pair| pair.map(|count| f64::from(count) * unit))
        .collect();
    let bins = usize::try_from(evaluation.bins).unwrap_or(usize::MAX);
    let mut pooled = vec![[0.0; 2]; bins.min(counts.len())];
    for of_site in counts.chunks(bins) {
        for (sum, pair) in pooled.iter_mut().zip(of_site) {
            sum.iter_mut().zip(pair).for_each(|(sum, count)| *sum += count);
        }
    }
    let mut text = json!({
        "pooled": measures(&pooled).as_ref().map(shown),
        "noise_of_a_count": noise,
    });
    if evaluation.per_site {
        let told = |counts: &[[f64; 2]]| {
            // The noise of a total is that of its bins together.
            let least = TELLING * noise.unwrap_or(0.0) * f64::from(evaluation.bins).sqrt();
            measures(counts).filter(|m| m.with_outcome.min(m.without_outcome) >= least)
        };
        let sites: Vec<_> = manifest
            .sites
            .iter()
            .zip(counts.chunks(bins))
            .map(|(site, counts)| (site.name.clone(), told(counts)))
            .collect();
        let aucs: Vec<f64> = sites.iter().filter_map(|(_, m)| m.map(|m| m.auc)).collect();
        let spread = aucs.iter().copied().fold(None, |spread: Option<(f64, f64)>, auc| {
            let (least, most) = spread.unwrap_or((auc, auc));
            Some((least.min(auc), most.max(auc)))
        });
        text["sites"] = sites
            .into_iter()
            .map(|(name, measures)| (name, measures.as_ref().map_or(Value::Null, shown)))
            .collect::<serde_json::Map<_, _>>()
            .into();
        text["auc_spread"] = json!(spread.map(|(least, most)| [least, most]));
    }
    text
}

impl Site<'_> {
    /// Keeps what a release says of the base model of its round, if the round's
    /// manifest has an evaluation.
    pub(crate) fn keep_evaluation(
        &self,
        manifest: &Manifest,
        round: u32,
        values: &[f32],
    ) -> Result<()> {
        let Some(evaluation) = &manifest.evaluation else { return Ok(()) };
        let mut text = read(manifest, evaluation, values);
        text["round"] = json!(round);
        let folder = self.joined.local.folder.join("evaluations");
        write_json(&folder.join(format!("{round:04}.json")), &text)?;
        self.voice.event("evaluated", text);
        Ok(())
    }
}
