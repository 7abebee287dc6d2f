//! Where a model comes from, and the card that goes with it.
//!
//! A model is named by the digest that the log names it by: the base of an
//! offer, the initial model of a manifest, or the digest of the release that
//! leads to it (only the release's readers can compute the model itself).

use crate::copy::LogCopy;
use crate::given::{CannotTell, Kept};
use crate::replay::Replay;
use crate::report::Report;
use crate::summary::{Released, Summary};
use jiff::Timestamp;
use sealfold_attestation::Policy;
use sealfold_protocol::Digest;
use sealfold_protocol::terms::{RoundKind, listed};
use sealfold_protocol::text::shown;
use serde::Serialize;
use serde_json::{Value, json};
use std::fmt::Write;

/// A model's history.
#[derive(Debug, Serialize)]
pub struct Lineage {
    /// The digest that was asked for.
    pub model: Digest,
    /// What it names.
    pub names: String,
    /// The study.
    pub study: Summary,
    /// The releases that lead to it, oldest first.
    pub rounds: Vec<Released>,
    /// Whether the log was shown to be whole.
    pub completeness: String,
    /// Findings anywhere in the log.
    pub safety: u64,
    /// Findings anywhere in the log.
    pub liveness: u64,
}

/// Replays the log and finds a model in it. Keeps every released round, so its
/// memory grows with their number.
///
/// # Errors
/// [`CannotTell`] if the log cannot be replayed or does not name the model.
pub fn of(
    copy: &LogCopy,
    policy: &Policy,
    model: Digest,
    kept: &[Kept],
    now: Timestamp,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Lineage, CannotTell> {
    let report = Replay::new(copy, policy, usize::MAX).run(kept, now, progress)?;
    let (study, upto, names) = find(&report, &model).ok_or_else(|| {
        let expected = "a model that the log names (initial model, base of an offer), or a release; \
                        the log names the last model of a study only if a round measured it: give \
                        the release that leads to it, which replay lists";
        CannotTell::new(expected, model)
    })?;
    let rounds = report.rounds.iter().filter(|r| r.study == study && r.round <= upto);
    let rounds = rounds.cloned().collect();
    let completeness = report.completeness.words;
    let (safety, liveness) = (report.safety, report.liveness);
    let mut studies = report.studies.into_iter();
    let study = studies.find(|summary| summary.study == study);
    let study = study.ok_or_else(|| CannotTell::new("its study", "none"))?;
    Ok(Lineage { model, names, study, rounds, completeness, safety, liveness })
}

/// The study, the last round that leads to the model, and what it is.
fn find(report: &Report, model: &Digest) -> Option<(Digest, u32, String)> {
    for round in &report.rounds {
        if round.release == *model || round.aggregate == *model {
            let names = match round.kind {
                RoundKind::Training => format!("the release of round {}", round.round),
                RoundKind::Evaluation => format!(
                    "the release of round {}, which measures the model {} and does not change it",
                    round.round, round.base
                ),
            };
            return Some((round.study, round.round, names));
        }
        if round.base == *model && round.round > 1 {
            let names = match round.kind {
                RoundKind::Training => {
                    format!("the model that round {} was trained from", round.round)
                }
                RoundKind::Evaluation => format!("the model that round {} measured", round.round),
            };
            return Some((round.study, round.round - 1, names));
        }
    }
    let initial = |summary: &&Summary| summary.manifest.terms.model.initial == *model;
    let study = report.studies.iter().find(initial)?;
    Some((study.study, 0, "the initial model".to_owned()))
}

impl Lineage {
    /// The lineage as text.
    #[must_use]
    pub fn text(&self) -> String {
        let study = &self.study.manifest.agreement.study;
        let mut text = format!(
            "model {}\n{} of study {} ({})\ninitial model {}\n",
            self.model,
            self.names,
            shown(&study.name),
            self.study.study,
            self.study.manifest.terms.model.initial
        );
        for round in &self.rounds {
            let time = round.measured.as_ref().map_or("at an unknown time".to_owned(), |m| {
                format!("{}, image {}", m.time, m.image.get(..21).unwrap_or(&m.image))
            });
            let _ = writeln!(
                text,
                "round {:>4}  leaf {:>8}  {time}\n            {} {}\n            release {}\n            \
                 sites {}",
                round.round,
                round.release_leaf,
                match round.kind {
                    RoundKind::Training => "base",
                    RoundKind::Evaluation => "measures",
                },
                round.base,
                round.release,
                round.sites.iter().map(|site| shown(site)).collect::<Vec<_>>().join(", ")
            );
        }
        text.push_str(&format!("completeness {}\n", self.completeness));
        if self.safety + self.liveness > 0 {
            let (safety, liveness) = (self.safety, self.liveness);
            text.push_str(&format!(
                "THE LOG HAS {safety} safety and {liveness} liveness findings: sealfold-audit replay\n"
            ));
        }
        text
    }

    /// What the releases that lead to the model cost, and the abandoned offers
    /// on the way.
    fn spent(&self) -> Value {
        let Some(mechanism) = self.study.manifest.mechanism() else { return Value::Null };
        let (budget, delta) = (mechanism.claim.epsilon, mechanism.claim.delta);
        let abandoned: usize = self.rounds.iter().map(|round| round.abandoned).sum();
        let rounds = (self.rounds.len() + abandoned) as u64;
        if rounds == 0 {
            return json!({ "epsilon": 0, "delta": delta });
        }
        let epsilon = mechanism.accountant().and_then(|accountant| accountant.spent(rounds));
        json!({ "epsilon": epsilon.ok(), "delta": delta, "budget": budget,
                "releases": self.rounds.len(), "abandoned": abandoned })
    }

    /// The model card for machines.
    ///
    /// # Errors
    /// [`CannotTell`] if a field has no JSON form.
    pub fn card(&self) -> Result<Value, CannotTell> {
        let manifest = serde_json::to_value(&self.study.manifest)
            .map_err(|error| CannotTell::new("a manifest in JSON", error))?;
        let mut sites = std::collections::BTreeMap::<&str, u64>::new();
        let mut images = std::collections::BTreeSet::new();
        for round in &self.rounds {
            round.sites.iter().for_each(|site| *sites.entry(site).or_default() += 1);
            images.extend(round.measured.iter().map(|m| m.image.as_str()));
        }
        let simulated = self.rounds.iter().filter_map(|r| r.measured.as_ref()).any(|m| m.simulated);
        let (terms, agreement) = (&self.study.manifest.terms, &self.study.manifest.agreement);
        let accepts: Vec<_> = terms.accepts.iter().map(|weakness| weakness.name()).collect();
        let metrics: Vec<_> = agreement.metrics.iter().map(|metric| &metric.name).collect();
        let trained: Vec<_> =
            self.rounds.iter().filter(|round| round.kind == RoundKind::Training).collect();
        let time =
            |round: Option<&&Released>| round.and_then(|round| Some(round.measured.as_ref()?.time));
        Ok(json!({
            "model": self.model,
            "names": self.names,
            "study": self.study.study,
            "name": manifest["study"]["name"],
            "purpose": manifest["study"]["purpose"],
            "intended_use": manifest["study"]["intended_use"],
            "data": manifest["data"],
            "model_layout": manifest["model"],
            "aggregation": manifest["aggregation"],
            "privacy": manifest["privacy"],
            "privacy_spent": self.spent(),
            "quorum": manifest["quorum"],
            "readers": manifest["release"]["readers"],
            "sites": sites,
            "rounds": trained.len(),
            "measured": self.rounds.len() - trained.len(),
            "last_release": self.rounds.last().map(|round| round.release),
            "first_trained": time(trained.first()),
            "last_trained": time(trained.last()),
            "measurements": images,
            "simulated": simulated,
            "approvals": { "signed": self.study.approvals,
                           "required": self.study.manifest.terms.approval.required },
            "evaluation": manifest["evaluation"],
            "metrics": metrics,
            "accepts": accepts,
            "log": { "completeness": self.completeness, "safety_findings": self.safety,
                     "liveness_findings": self.liveness },
        }))
    }

    /// The model card for people, in Markdown.
    ///
    /// # Errors
    /// As [`Lineage::card`].
    pub fn markdown(&self) -> Result<String, CannotTell> {
        let card = self.card()?;
        let line = |value: &Value| match value {
            Value::String(text) => escaped(text),
            other => escaped(&other.to_string()),
        };
        let mut text = format!("# Model card: {}\n\n", line(&card["name"]));
        for (title, field) in [
            ("Model", "model"),
            ("What that is", "names"),
            ("Study", "study"),
            ("Purpose", "purpose"),
            ("Intended use", "intended_use"),
            ("Rounds", "rounds"),
            ("First round", "first_trained"),
            ("Last round", "last_trained"),
            ("Last release", "last_release"),
            ("Who may read it", "readers"),
        ] {
            let _ = writeln!(text, "- **{title}**: {}", line(&card[field]));
        }
        if card["simulated"] == Value::Bool(true) {
            text.push_str("- **Made in simulation**: the evidence proves nothing\n");
        }
        text.push_str("\n## Data\n\n");
        let _ = writeln!(text, "Cohort: {}\n", line(&card["data"]["cohort"]));
        text.push_str("| feature | type | unit | range |\n| --- | --- | --- | --- |\n");
        for feature in card["data"]["feature"].as_array().into_iter().flatten() {
            let _ = writeln!(
                text,
                "| {} | {} | {} | {} |",
                line(&feature["name"]),
                line(&feature["type"]),
                line(&feature["unit"]),
                line(&feature["range"])
            );
        }
        text.push_str("\n## Sites\n\n| site | releases with its update |\n| --- | --- |\n");
        for (site, rounds) in card["sites"].as_object().into_iter().flatten() {
            let _ = writeln!(text, "| {} | {rounds} |", escaped(site));
        }
        let given_up = listed(&self.study.manifest.terms.accepts);
        let _ = writeln!(text, "\n## Promises given up\n\n{given_up}");
        for (title, field) in [
            ("Aggregation", "aggregation"),
            ("Privacy", "privacy"),
            ("Privacy spent", "privacy_spent"),
            ("Quorum", "quorum"),
            ("Measured images", "measurements"),
            ("Approvals", "approvals"),
        ] {
            let _ = writeln!(text, "\n## {title}\n\n{}", line(&card[field]));
        }
        text.push_str("\n## Evaluation\n\n");
        if !card["evaluation"].is_null() {
            let _ = writeln!(
                text,
                "Each release counts held-out patients by score and outcome ({}).",
                line(&card["evaluation"])
            );
        }
        for metric in card["metrics"].as_array().into_iter().flatten() {
            let _ = writeln!(text, "Each release sums the metric {}.", line(metric));
        }
        text.push_str(if self.study.manifest.terms.channels.is_empty() {
            "The releases measure nothing.\n"
        } else {
            "A round measures the model of the release before it. The sums are in the aggregates, \
             which the log names and does not hold: ask the study's sites.\n"
        });
        let _ = writeln!(
            text,
            "\n## Audit\n\nCompleteness: {}. {} safety and {} liveness findings.",
            self.completeness, self.safety, self.liveness
        );
        Ok(text)
    }
}

/// Text that stays on its line and in its cell.
fn escaped(text: &str) -> String {
    let text = shown(text);
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if matches!(c, '|' | '<' | '>' | '`' | '*' | '_' | '[' | ']' | '#' | '\\') {
            out.push('\\');
        }
        out.push(c);
    }
    out
}
