//! What the channels of a release say of a model: pooled measures from counts of
//! held-out patients, and metrics; where each site has sums of its own, their
//! spread.
//!
//! The release of round t + 1 measures the model of release t.

use crate::Result;
use crate::home::write_json;
use crate::round::Site;
use sealfold_aggregation::evaluation::{Measures, measures};
use sealfold_protocol::terms::{Channel, RoundKind, Terms};
use sealfold_study::{EVALUATION, Evaluation, Manifest, presence_of};
use serde_json::{Map, Value, json};

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

/// The sums of a release's channels.
struct Sums<'a> {
    terms: &'a Terms,
    kind: RoundKind,
    words: &'a [i64],
}

impl Sums<'_> {
    /// A channel's sums, in its own unit, one list for each site if they are
    /// apart, else one for all.
    #[allow(clippy::cast_precision_loss)] // sums below 2^53 are exact
    fn of(&self, name: &str) -> Option<(&Channel, Vec<Vec<f64>>)> {
        let first = self.terms.model_values(self.kind);
        let mut places = self.terms.channel_places(self.kind);
        let (channel, places) = places.find(|(channel, _)| channel.name == name)?;
        let place = |number: u64| usize::try_from(number - first).ok();
        let sums = self.words.get(place(places.start)?..place(places.end)?)?;
        let values: Vec<f64> = sums.iter().map(|sum| *sum as f64 * channel.step).collect();
        let length = usize::try_from(channel.length).ok()?;
        Some((channel, values.chunks(length).map(<[f64]>::to_vec).collect()))
    }

    /// Values that each site has, by its name.
    fn by_site<T>(&self, values: impl IntoIterator<Item = T>) -> impl Iterator<Item = (String, T)> {
        self.terms.sites.iter().map(|site| site.name.clone()).zip(values)
    }
}

/// Adds lists of equal length place by place.
fn pooled(lists: &[Vec<f64>]) -> Vec<f64> {
    let mut all = lists.first().map_or(Vec::new(), |list| vec![0.0; list.len()]);
    for list in lists {
        all.iter_mut().zip(list).for_each(|(sum, value)| *sum += value);
    }
    all
}

fn pairs(counts: &[f64]) -> &[[f64; 2]] {
    counts.as_chunks().0
}

/// What the sums of a round's release say, as JSON; nothing without channels. Only
/// the sums as released, with their noise, are looked at.
#[must_use]
pub fn read(manifest: &Manifest, round: u32, sums: &[i64]) -> Option<Value> {
    let terms = &manifest.terms;
    if terms.channels.is_empty() {
        return None;
    }
    let sums = Sums { terms, kind: terms.kind(round), words: sums };
    let mut text = json!({ "model_round": round - 1, "measured_in_round": round });
    if let Some(evaluation) = manifest.agreement.evaluation {
        counts(manifest, evaluation, &sums, &mut text);
    }
    let metrics: Map<_, _> = manifest
        .agreement
        .metrics
        .iter()
        .filter_map(|metric| Some((metric.name.clone(), mean(&metric.name, &sums)?)))
        .collect();
    if !metrics.is_empty() {
        text["metrics"] = metrics.into();
    }
    Some(text)
}

/// A metric: its mean over the sites that gave one, and how many did.
fn mean(name: &str, sums: &Sums<'_>) -> Option<Value> {
    let (channel, values) = sums.of(name)?;
    let (_, present) = sums.of(&presence_of(name))?;
    let of = |value: f64, sites: f64| json!({ "mean": (sites > 0.0).then(|| value / sites), "sum": value, "sites": sites });
    let one = |list: &Vec<f64>| list.first().copied().unwrap_or(0.0);
    let mut text = of(values.iter().map(one).sum(), present.iter().map(one).sum());
    if channel.per_site {
        let each = values.iter().zip(&present);
        let each = each.map(|(value, present)| (one(present) > 0.0).then(|| one(value)));
        text["by_site"] = sums
            .by_site(each)
            .map(|(name, value)| (name, json!(value)))
            .collect::<Map<_, _>>()
            .into();
    }
    Some(text)
}

/// The measures that counts of patients give.
fn counts(manifest: &Manifest, evaluation: Evaluation, sums: &Sums<'_>, text: &mut Value) {
    let Some((channel, counts)) = sums.of(EVALUATION) else { return };
    let noise = manifest.terms.privacy.noise().map(|noise| noise.noise_multiplier);
    text["pooled"] = json!(measures(pairs(&pooled(&counts))).as_ref().map(shown));
    text["noise_of_a_count"] = json!(noise);
    if !channel.per_site {
        return;
    }
    let told = |counts: &Vec<f64>| {
        // The noise of a total is that of its bins together.
        let least = TELLING * noise.unwrap_or(0.0) * f64::from(evaluation.bins).sqrt();
        measures(pairs(counts)).filter(|m| m.with_outcome.min(m.without_outcome) >= least)
    };
    let sites: Vec<_> = sums.by_site(counts.iter().map(told)).collect();
    let aucs: Vec<f64> = sites.iter().filter_map(|(_, m)| m.map(|m| m.auc)).collect();
    let spread = aucs.iter().copied().fold(None, |spread: Option<(f64, f64)>, auc| {
        let (least, most) = spread.unwrap_or((auc, auc));
        Some((least.min(auc), most.max(auc)))
    });
    text["sites"] = sites
        .into_iter()
        .map(|(name, measures)| (name, measures.as_ref().map_or(Value::Null, shown)))
        .collect::<Map<_, _>>()
        .into();
    text["auc_spread"] = json!(spread.map(|(least, most)| [least, most]));
}

impl Site<'_> {
    /// Keeps what a release says of the model that its round began with, under that
    /// model's round.
    pub(crate) fn keep_evaluation(
        &self,
        manifest: &Manifest,
        round: u32,
        sums: &[i64],
    ) -> Result<()> {
        let Some(text) = read(manifest, round, sums) else { return Ok(()) };
        let folder = self.joined.local.folder.join("evaluations");
        write_json(&folder.join(format!("{:04}.json", round - 1)), &text)?;
        self.voice.event("evaluated", text);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(more: &str) -> Manifest {
        let text = include_str!("../../study/example.toml");
        Manifest::from_toml(&text.replace("[quorum]", &format!("{more}\n[quorum]"))).unwrap()
    }

    #[test]
    fn counts_are_counts_and_a_metric_has_a_mean_over_those_who_gave_one() {
        let manifest =
            manifest("[evaluation]\nbins = 2\n[[metric]]\nname = \"loss\"\nrange = [0, 8]\n");
        let step = manifest.terms.channels[1].step;
        #[allow(clippy::cast_possible_truncation)]
        let loss = (1.5 / step) as i64;
        let read = read(&manifest, 3, &[30, 5, 2, 13, loss, 3]).unwrap();
        assert_eq!((&read["model_round"], &read["measured_in_round"]), (&2.into(), &3.into()));
        assert_eq!(read["pooled"]["patients"], 50.0);
        assert_eq!(read["pooled"]["with_outcome"], 18.0);
        let auc = (13.0 * (30.0 + 1.0) + 5.0 * 15.0) / (18.0 * 32.0);
        assert!((read["pooled"]["auc"].as_f64().unwrap() - auc).abs() < 1e-12);
        assert_eq!(read["metrics"]["loss"], json!({ "mean": 0.5, "sum": 1.5, "sites": 3.0 }));
        assert!(super::read(&self::manifest(""), 3, &[]).is_none());
    }

    #[test]
    fn the_last_round_has_channels_only() {
        let manifest = manifest("[[metric]]\nname = \"loss\"\nrange = [0, 8]\n");
        assert_eq!(manifest.terms.last_round(), 21);
        let read = read(&manifest, 21, &[0, 0]).unwrap();
        assert_eq!(read["model_round"], 20);
        assert_eq!(read["metrics"]["loss"]["mean"], Value::Null);
    }
}
