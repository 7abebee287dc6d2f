//! A manifest in words: what a person reads before signing it, and what an
//! auditor reads years later.

use super::{Aggregation, Axis, Feature, Manifest, Privacy, Readers, Statistic};
use crate::Digest;
use crate::text::shown;
use serde::Serialize;
use std::fmt::Write;

/// What a study without site-level noise does not protect.
const WITHOUT_NOISE: &str = "This study adds no site-level noise: the smallest roster protects \
within a round. Rosters that differ between rounds, and hospital totals, can still be compared by \
whoever reads releases.";

/// Everything that a site or an approver decides on, a line a term, and what
/// follows from it.
#[must_use]
pub fn describe(manifest: &Manifest, id: &Digest) -> String {
    let mut text = String::new();
    for (term, value) in terms(manifest, id) {
        let _ = writeln!(text, "{term:<12} {}", shown(&value));
    }
    text.push('\n');
    for note in notes(manifest) {
        text.push_str(&shown(&note));
        text.push('\n');
    }
    text
}

/// The terms of a manifest with their values; a term that goes on has no name.
#[must_use]
pub fn terms(manifest: &Manifest, id: &Digest) -> Vec<(&'static str, String)> {
    let mut terms = Vec::new();
    let mut line = |term: &'static str, value: String| terms.push((term, value));
    let study = &manifest.study;
    line("study", format!("{} ({id})", study.name));
    line("purpose", study.purpose.clone());
    line("intended use", study.intended_use.clone());
    line("rounds", study.rounds.to_string());
    line("valid", format!("{} to {}", study.valid_from, study.valid_until));
    for site in &manifest.sites {
        line("site", format!("{} with key {}", site.name, site.signing_key));
    }
    let approval = &manifest.approval;
    line("approval", format!("{} of these {}", approval.required, approval.approvers.len()));
    for approver in &approval.approvers {
        let name = manifest.sites.iter().find(|site| site.signing_key == *approver);
        let name = name.map_or(String::new(), |site| format!(" ({})", site.name));
        line("approver", format!("{approver}{name}"));
    }
    line("log", format!("{} with key {}", manifest.log.origin, manifest.log.key));
    for image in &manifest.measurements.nitro {
        line("image", format!("pcr0 {}", image.pcr0));
        line("", format!("pcr1 {}", image.pcr1));
        line("", format!("pcr2 {}", image.pcr2));
    }
    for image in &manifest.measurements.confidential_space {
        line("image", format!("confidential space {}", image.image_digest));
    }
    let data = &manifest.data;
    line("cohort", data.cohort.clone());
    line("minimum rows", data.minimum_rows.to_string());
    let outcome = &data.outcome;
    line("outcome", format!("{} {} {}", outcome.column, word(&outcome.rule), outcome.value));
    for feature in &data.features {
        line("feature", described(feature));
    }
    let model = &manifest.model;
    let (parameters, tensors) = (model.parameters(), model.tensors.len());
    line(
        "model",
        format!("{parameters} parameters in {tensors} tensors, initial {}", model.initial),
    );
    if let Some(optimiser) = &model.optimiser {
        line("optimiser", format!("{optimiser:?}, learning rate {}", model.learning_rate));
    } else {
        line("optimiser", format!("fed-avg, learning rate {}", model.learning_rate));
    }
    let aggregation = &manifest.aggregation;
    line("rule", rule(aggregation));
    line("update type", word(&aggregation.update_type));
    if let Some(share) = aggregation.largest_weight_share {
        line("share", format!("at most {share} of the weights for one site"));
    }
    let limit = aggregation.norm_limit.map_or("none".to_owned(), |limit| limit.to_string());
    line("norm limit", limit);
    if let Some(evaluation) = &manifest.evaluation {
        let apart = if evaluation.per_site { ", each site's apart" } else { "" };
        line(
            "evaluation",
            format!("counts of patients in {} bins of score{apart}", evaluation.bins),
        );
    }
    for statistic in manifest.query.iter().flat_map(|query| &query.statistics) {
        line("statistic", statistic_in_words(statistic));
    }
    let deadlines = &manifest.deadlines;
    line(
        "deadlines",
        format!(
            "upload {} s, commit {} s, round {} s",
            deadlines.upload_seconds, deadlines.commit_seconds, deadlines.round_seconds
        ),
    );
    let readers = match manifest.release.readers {
        Readers::Everyone => "everyone",
        Readers::Sites => "the sites only",
    };
    line("readers", readers.to_owned());
    terms
}

/// What the terms give and what they do not, each in a paragraph.
#[must_use]
pub fn notes(manifest: &Manifest) -> Vec<String> {
    let (k, c) = (manifest.quorum.smallest_roster, manifest.quorum.colluders);
    let mut notes = vec![format!(
        "No aggregate of fewer than {k} sites is ever released, and {c} colluding sites are \
         withstood."
    )];
    for weakness in &manifest.quorum.accepts {
        notes.push(format!("WEAKER ({weakness}): {}.", weakness.meaning()));
    }
    for leak in &manifest.aggregation.accepts {
        notes.push(format!("WEAKER: {}.", leak.meaning()));
    }
    notes.push(privacy(manifest));
    notes
}

/// A statistic of a query and the cells that it has.
fn statistic_in_words(statistic: &Statistic) -> String {
    let axis = |axis: &Axis| match (axis.bins, axis.cuts.as_slice()) {
        (Some(bins), _) => format!("{} in {bins} cells of equal width", axis.column),
        (None, []) => format!("{} by value", axis.column),
        (None, cuts) => format!("{} cut at {cuts:?}", axis.column),
    };
    let cells = match statistic {
        Statistic::Histogram(only) => axis(only),
        Statistic::Contingency { axes } => axes.iter().map(axis).collect::<Vec<_>>().join(", "),
        Statistic::Quantiles { column, bins, quantiles } => {
            format!("{quantiles:?} of {column} in {bins} cells of equal width")
        }
        _ => return statistic.name(),
    };
    format!("{}: {cells}", statistic.name())
}

/// A rule and its parameters.
fn rule(aggregation: &Aggregation) -> String {
    let values = toml::Table::try_from(aggregation).unwrap_or_default();
    let taken =
        aggregation.rule.parameters().iter().filter(|name| **name != "largest_weight_share");
    taken.fold(aggregation.rule.name().to_owned(), |text, name| {
        let value = values.get(*name).map_or(String::new(), ToString::to_string);
        format!("{text}, {name} {value}")
    })
}

/// What the releases let out of whom, as far as it can be said in words.
fn privacy(manifest: &Manifest) -> String {
    let (who, noise) = match &manifest.privacy {
        Privacy::None {} => return WITHOUT_NOISE.to_owned(),
        Privacy::Patient(noise) => ("one patient", noise),
        Privacy::Site(noise) => ("one whole site", noise),
    };
    let rounds = manifest.study.rounds;
    let spent = match noise.spent(rounds) {
        Ok(spent) => format!("{spent:.3}"),
        Err(error) => error.to_string(),
    };
    let factor = noise.epsilon.exp();
    let sampled = noise.sampling_rate.map_or(String::new(), |rate| {
        format!(" Each patient takes part in a round with probability {rate}, in secret.")
    });
    let adaptive = noise.adaptive_clip.map_or(String::new(), |adaptive| {
        format!(
            " The clip follows the {} quantile of the sites' norms, by counts with noise {}.",
            adaptive.quantile, adaptive.count_noise
        )
    });
    let spread = match manifest.privacy {
        Privacy::Patient(_) => {
            " Sums over a whole hospital are not hidden: only what one patient adds to them is."
        }
        _ => "",
    };
    format!(
        "Noise hides {who}: whatever is computed from all {rounds} releases is at most {factor:.3} \
         times as likely with {who} in the study as without, but for a probability of {} \
         (epsilon {}, delta {}; the rounds cost epsilon {spent}). Contributions longer than {} are \
         scaled down; the noise has {} times that length in every direction.{sampled}{adaptive}\
         {spread}",
        noise.delta, noise.epsilon, noise.delta, noise.clip, noise.noise_multiplier
    )
}

fn described(feature: &Feature) -> String {
    let values = match feature.range {
        Some([least, most]) => format!("{least} to {most}"),
        None => format!("one of {:?}", feature.categories),
    };
    let missing = feature.missing_share * 100.0;
    format!(
        "{}: {}, {values}, unit {}, at most {missing} % missing",
        feature.name,
        word(&feature.kind),
        feature.unit
    )
}

/// The word that a manifest has for something.
fn word(value: &impl Serialize) -> String {
    let value = toml::Value::try_from(value).ok();
    value.and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}
