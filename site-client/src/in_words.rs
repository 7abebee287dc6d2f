//! A manifest in words: what a person reads before signing it.

use sealfold_protocol::Digest;
use sealfold_protocol::manifest::{Feature, Manifest, Readers};
use serde::Serialize;
use std::fmt::Write;

/// What a study without site-level noise does not protect.
const WITHOUT_NOISE: &str = "This study adds no site-level noise: the smallest roster protects \
within a round. Rosters that differ between rounds, and hospital totals, can still be compared by \
whoever reads releases.";

/// Everything that a site or an approver decides on, a line a term.
#[must_use]
pub fn describe(manifest: &Manifest, id: &Digest) -> String {
    let mut text = String::new();
    let mut line = |term: &str, value: String| _ = writeln!(text, "{term:<12} {value}");
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
    let aggregation = &manifest.aggregation;
    let clip = aggregation.clip.map_or(String::new(), |clip| format!(", clip {clip}"));
    line("rule", format!("{}{clip}", word(&aggregation.rule)));
    line(
        "share",
        format!("at most {} of the weights for one site", aggregation.largest_weight_share),
    );
    let limit = aggregation.norm_limit.map_or("none".to_owned(), |limit| limit.to_string());
    line("norm limit", limit);
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
    let (k, c) = (manifest.quorum.smallest_roster, manifest.quorum.colluders);
    text.push_str(&format!(
        "\nNo aggregate of fewer than {k} sites is ever released, and {c} colluding sites are \
         withstood.\n"
    ));
    for weakness in &manifest.quorum.accepts {
        text.push_str(&format!("WEAKER ({weakness}): {}.\n", weakness.meaning()));
    }
    text.push_str(WITHOUT_NOISE);
    text.push('\n');
    text
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
    let value = serde_json::to_value(value).unwrap_or_default();
    value.as_str().unwrap_or_default().to_owned()
}
