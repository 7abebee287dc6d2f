//! A report as text, findings first.

use crate::finding::Finding;
use crate::report::Report;
use crate::summary::{Released, Summary};
use sealfold_protocol::terms::RoundKind;
use sealfold_protocol::text::shown;
use std::fmt::Write;

/// The rounds that the text lists; JSON and HTML have more.
const ROUNDS: usize = 20;

/// The report for a terminal.
#[must_use]
pub fn text(report: &Report) -> String {
    let mut text = String::new();
    let out = &mut text;
    let _ = writeln!(out, "log            {}", shown(&report.log));
    let _ = writeln!(out, "leaves         {}", report.size);
    let _ = writeln!(out, "root           {}", report.root);
    let kinds: Vec<_> = report.leaves.iter().map(|(kind, n)| format!("{n} {kind}")).collect();
    let _ = writeln!(out, "read           {}", kinds.join(", "));
    let _ = writeln!(out, "completeness   {}", report.completeness.words);
    for cosigned in &report.completeness.cosigned {
        let time = cosigned.time.map_or("at no time".to_owned(), |time| time.to_string());
        let _ = writeln!(out, "cosigned       {} {time}", shown(&cosigned.name));
    }
    let _ = writeln!(out, "\n{}", report.verdict());
    for finding in &report.findings {
        let _ = write!(out, "\n{}", self::finding(finding));
    }
    for study in &report.studies {
        let _ = write!(out, "\n{}", self::study(study));
        let rounds = report.rounds.iter().filter(|round| round.study == study.study);
        let rounds: Vec<_> = rounds.collect();
        for round in &rounds[rounds.len().saturating_sub(ROUNDS)..] {
            let _ = writeln!(out, "  {}", self::round(round));
        }
    }
    text
}

/// A finding.
#[must_use]
pub fn finding(finding: &Finding) -> String {
    let mut text = format!("{} {}", finding.severity, finding.check);
    if let Some(leaf) = finding.leaf {
        let _ = write!(text, " at leaf {leaf}");
    }
    if let Some(study) = finding.study {
        let _ = write!(text, ", study {}", study.short());
    }
    if let Some(round) = finding.round {
        let _ = write!(text, ", round {round}");
    }
    let _ = writeln!(text, "\n  expected {}", shown(&finding.expected));
    let _ = writeln!(text, "  found    {}", shown(&finding.found));
    let _ = writeln!(text, "  look at  {}", finding.look);
    if let Some(leaf) = finding.follows {
        let _ =
            writeln!(text, "  follows  perhaps from leaf {leaf} alone, which could not be judged");
    }
    text
}

fn study(summary: &Summary) -> String {
    let manifest = &summary.manifest;
    let mut text = format!(
        "study {}  {}\n  {}; {} manifests; {} of {} approvers signed; \
         k = {}, c = {}\n",
        summary.study,
        shown(&manifest.agreement.study.name),
        summary.progress(),
        summary.manifests,
        summary.approvals,
        manifest.terms.approval.approvers.len(),
        manifest.terms.quorum.smallest_roster,
        manifest.terms.quorum.colluders,
    );
    text.push_str(&privacy(summary));
    for (site, rounds) in &summary.took_part {
        let _ = writeln!(text, "  {site:<20} in {rounds} releases");
    }
    for (image, offers) in &summary.images {
        let _ = writeln!(text, "  image {image} made {offers} offers");
    }
    if let Some(open) = &summary.open {
        let _ = writeln!(text, "  open at the end: {open}");
    }
    text
}

fn privacy(summary: &Summary) -> String {
    let Some(spent) = &summary.privacy else {
        return "  no privacy noise: the smallest roster protects within a round\n".to_owned();
    };
    format!(
        "  privacy of one {}: epsilon {:.4} of {} spent at delta {} ({} releases, {} abandoned \
         offers counted as released)\n",
        spent.unit, spent.epsilon, spent.budget, spent.delta, spent.releases, spent.abandoned
    )
}

fn round(round: &Released) -> String {
    let time = round.measured.as_ref().map_or(String::new(), |m| m.time.to_string());
    let simulated = round.measured.as_ref().is_some_and(|m| m.simulated);
    let mut text = format!(
        "round {:>4}  {time:<24}  leaves {}..{}  {} sites",
        round.round,
        round.offer_leaf,
        round.release_leaf,
        round.sites.len()
    );
    if round.kind == RoundKind::Evaluation {
        text.push_str("  measures the last model");
    }
    if simulated {
        text.push_str("  SIMULATED");
    }
    if round.abandoned > 0 {
        let _ = write!(text, "  {} offers abandoned, perhaps released", round.abandoned);
    }
    text
}
