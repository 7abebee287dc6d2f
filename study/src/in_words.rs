//! A manifest in words: what a person reads before signing it, and what an
//! auditor reads years later.

use crate::data::Feature;
use crate::manifest::Manifest;
use crate::optimiser::Optimiser;
use crate::query::{Axis, Statistic};
use sealfold_protocol::Digest;
use sealfold_protocol::terms::{Aggregation, Readers, RoundKind, Terms};
use sealfold_protocol::text::{counted, shown};
use serde::Serialize;
use std::fmt::Write;

mod conclusions;
mod weaknesses;
pub use conclusions::{Conclusions, conclusions, weaker, weaker_noise};
pub use weaknesses::{expect_accepted, meaning};

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
    let (enforced, agreement) = (&manifest.terms, &manifest.agreement);
    let study = &agreement.study;
    line("study", format!("{} ({id})", study.name));
    line("purpose", study.purpose.clone());
    line("intended use", study.intended_use.clone());
    line("rounds", rounds(enforced));
    line("valid", format!("{} to {}", study.valid_from, study.valid_until));
    for site in &enforced.sites {
        let share = share(enforced, site.weight);
        line("site", format!("{} with key {}{share}", site.name, site.signing_key));
    }
    let approval = &enforced.approval;
    line("approval", format!("{} of these {}", approval.required, approval.approvers.len()));
    for approver in &approval.approvers {
        let name = enforced.sites.iter().find(|site| site.signing_key == *approver);
        let name = name.map_or(String::new(), |site| format!(" ({})", site.name));
        line("approver", format!("{approver}{name}"));
    }
    line("log", format!("{} with key {}", agreement.log.origin, agreement.log.key));
    for image in &agreement.measurements.nitro {
        line("image", format!("pcr0 {}", image.pcr0));
        line("", format!("pcr1 {}", image.pcr1));
        line("", format!("pcr2 {}", image.pcr2));
    }
    for image in &agreement.measurements.confidential_space {
        line("image", format!("confidential space {}", image.image_digest));
    }
    let data = &agreement.data;
    line("cohort", data.cohort.clone());
    line("minimum rows", data.minimum_rows.to_string());
    let outcome = &data.outcome;
    line("outcome", format!("{} {} {}", outcome.column, word(&outcome.rule), outcome.value));
    for feature in &data.features {
        line("feature", described(feature));
    }
    let model = &enforced.model;
    let (parameters, tensors) = (model.parameters(), model.tensors.len());
    line(
        "model",
        format!("{parameters} parameters in {tensors} tensors, initial {}", model.initial),
    );
    let server = &agreement.server;
    let optimiser = server.optimiser.as_ref().map_or("fed-avg".to_owned(), optimiser_in_words);
    line("optimiser", format!("{optimiser}, learning rate {}", server.learning_rate));
    let aggregation = &enforced.aggregation;
    line("rule", rule(aggregation));
    line("updates", travel(enforced));
    let limit = aggregation.norm_limit.map_or("none".to_owned(), |limit| limit.to_string());
    line("norm limit", limit);
    for channel in &enforced.channels {
        let apart = if channel.per_site { ", each site's apart" } else { "" };
        line(
            "channel",
            format!(
                "{}: {} from {} to {} in steps of {}{apart}",
                channel.name,
                counted(channel.length, "sum"),
                number(steps(channel.least) * channel.step),
                number(steps(channel.most) * channel.step),
                number(channel.step)
            ),
        );
    }
    for statistic in agreement.query.iter().flat_map(|query| &query.statistics) {
        line("statistic", statistic_in_words(statistic));
    }
    let deadlines = &enforced.deadlines;
    line(
        "deadlines",
        format!(
            "upload {} s, commit {} s, round {} s",
            deadlines.upload_seconds, deadlines.commit_seconds, deadlines.round_seconds
        ),
    );
    let readers = match enforced.readers {
        Readers::Everyone => "everyone",
        Readers::Sites => "the sites only",
    };
    line("readers", readers.to_owned());
    for weakness in &enforced.accepts {
        line("accepts", weakness.name().to_owned());
    }
    terms
}

/// The training rounds, and the one that measures the last model.
fn rounds(terms: &Terms) -> String {
    if terms.channels.is_empty() {
        return terms.rounds.to_string();
    }
    format!("{}, and one that measures the last model", terms.rounds)
}

/// A weight and the share that it is of all sites' weights.
#[allow(clippy::cast_precision_loss)] // a percentage
fn share(terms: &Terms, weight: u32) -> String {
    if !terms.aggregation.rule.counts_weights() {
        return String::new();
    }
    let all: u64 = terms.sites.iter().map(|site| u64::from(site.weight)).sum();
    let percent = 100.0 * f64::from(weight) / all as f64;
    format!(", weight {weight} ({percent:.1} % if all take part)")
}

/// How values travel, and the words of a release.
fn travel(terms: &Terms) -> String {
    let name = terms.aggregation.update_type.name();
    let Some(first) = terms.model.tensors.first().and_then(|tensor| terms.step(tensor)) else {
        return format!("{name}, released as float32");
    };
    let one = terms.model.tensors.iter().all(|tensor| terms.step(tensor) == Some(first));
    let own = "steps of each tensor's own".to_owned();
    let steps = if one { format!("steps of {first}") } else { own };
    let bits = 8 * terms.words(RoundKind::Training).width();
    format!("{name} in {steps}, released as exact sums of {bits} bits")
}

#[allow(clippy::cast_precision_loss)] // steps of a channel are below 2^31
fn steps(steps: i64) -> f64 {
    steps as f64
}

/// What the terms give and what they do not, each in a paragraph.
#[must_use]
pub fn notes(manifest: &Manifest) -> Vec<String> {
    let quorum = &manifest.terms.quorum;
    let (k, c) = (quorum.smallest_roster, quorum.colluders);
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
    let taken = aggregation.rule.parameters().iter();
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
