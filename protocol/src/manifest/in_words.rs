//! A manifest in words: what a person reads before signing it, and what an
//! auditor reads years later.

use super::{Aggregation, Axis, Feature, Manifest, Optimiser, Readers, Statistic};
use crate::Digest;
use crate::text::{counted, shown};
use serde::Serialize;
use std::fmt::Write;

mod conclusions;
pub use conclusions::{Conclusions, conclusions, weaker, weaker_noise};

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
        let optimiser = optimiser_in_words(optimiser);
        line("optimiser", format!("{optimiser}, learning rate {}", model.learning_rate));
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
            format!(
                "counts of patients in {} of score{apart}",
                counted(evaluation.bins.into(), "bin")
            ),
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
        "No aggregate of fewer than {k} sites is ever released, and {} withstood.",
        if c == 1 { "1 colluding site is".to_owned() } else { format!("{c} colluding sites are") }
    )];
    notes.extend(weaker(manifest));
    notes.push(conclusions::hidden(manifest).unwrap_or_else(|| WITHOUT_NOISE.to_owned()));
    notes
}

/// A statistic of a query and the cells that it has.
fn statistic_in_words(statistic: &Statistic) -> String {
    let axis = |axis: &Axis| match (axis.bins, axis.cuts.as_slice()) {
        (Some(bins), _) => format!("{} in {}", axis.column, of_equal_width(bins)),
        (None, []) => format!("{} by value", axis.column),
        (None, cuts) => format!("{} cut at {}", axis.column, listed(cuts)),
    };
    let cells = match statistic {
        Statistic::Histogram(only) => axis(only),
        Statistic::Contingency { axes } => axes.iter().map(axis).collect::<Vec<_>>().join(", "),
        Statistic::Quantiles { column, bins, quantiles } => {
            format!("{} of {column} in {}", listed(quantiles), of_equal_width(*bins))
        }
        _ => return statistic.name(),
    };
    format!("{}: {cells}", statistic.name())
}

fn of_equal_width(bins: u32) -> String {
    let width = if bins == 1 { "" } else { " of equal width" };
    format!("{}{width}", counted(bins.into(), "cell"))
}

/// Numbers, with commas between them.
fn listed(values: &[f64]) -> String {
    values.iter().map(|value| number(*value)).collect::<Vec<_>>().join(", ")
}

/// A number as people write it: without needless zeros.
fn number(value: f64) -> String {
    if value != 0.0 && !(1e-12..1e15).contains(&value.abs()) {
        return format!("{value:e}");
    }
    value.to_string()
}

/// A value of a manifest, as people write it.
fn plain(value: &toml::Value) -> String {
    match value {
        toml::Value::Float(value) => number(*value),
        toml::Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// An optimiser and its parameters.
fn optimiser_in_words(optimiser: &Optimiser) -> String {
    let values = toml::Table::try_from(optimiser).unwrap_or_default();
    let name = values.get("kind").map_or(String::new(), plain);
    let parameters = values.iter().filter(|(key, _)| *key != "kind");
    parameters.fold(name, |text, (key, value)| format!("{text}, {key} {}", plain(value)))
}

/// A rule and its parameters.
fn rule(aggregation: &Aggregation) -> String {
    let values = toml::Table::try_from(aggregation).unwrap_or_default();
    let taken =
        aggregation.rule.parameters().iter().filter(|name| **name != "largest_weight_share");
    taken.fold(aggregation.rule.name().to_owned(), |text, name| {
        format!("{text}, {name} {}", values.get(*name).map_or(String::new(), plain))
    })
}

fn described(feature: &Feature) -> String {
    let values = match feature.range {
        Some([least, most]) => format!("{least} to {most}"),
        None => format!("one of {}", listed(&feature.categories)),
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
