//! A report as one file of HTML, for people to read and print: no script, no
//! other file, nothing that is fetched.

use crate::finding::{Finding, Severity};
use crate::report::Report;
use crate::summary::{Released, Summary};
use std::fmt::Write;

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;\
padding:0 1rem;color:#1b1b1b;background:#fff}h1{font-size:1.6rem}h2{margin-top:2.2rem;\
border-bottom:1px solid #ccc}table{border-collapse:collapse;width:100%;margin:.6rem 0}\
th,td{text-align:left;vertical-align:top;padding:.25rem .6rem;border-bottom:1px solid #e3e3e3}\
code{font:13px ui-monospace,monospace;overflow-wrap:anywhere}.verdict{padding:.8rem 1rem;\
border-left:6px solid #2a7d4f;background:#eef7f1}.wrong{border-color:#b3261e;background:#fbeeed}\
.late{border-color:#9a6700;background:#fdf6e3}.safety{color:#b3261e;font-weight:600}\
.liveness{color:#7a5200;font-weight:600}.scroll{overflow-x:auto}\
@media print{body{margin:0;max-width:none;font-size:11px}tr{break-inside:avoid}}";

/// The timeline's width for one round, and its height, in pixels.
const STEP: usize = 14;
const HEIGHT: usize = 120;

/// The report.
#[must_use]
pub fn html(report: &Report) -> String {
    let mut out = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\">\
         <title>Audit of {log}</title><style>{STYLE}</style></head><body>\n\
         <h1>Audit of the log {log}</h1>\n",
        log = escape(&report.log)
    );
    let class = match (report.safety, report.liveness) {
        (0, 0) => "verdict",
        (0, _) => "verdict late",
        _ => "verdict wrong",
    };
    let _ = writeln!(out, "<p class=\"{class}\">{}</p>", escape(&report.verdict()));
    findings(&mut out, report);
    let _ = write!(
        out,
        "<h2>The log</h2><table>\
         <tr><th>Leaves</th><td>{}</td></tr>\
         <tr><th>Root</th><td><code>{}</code></td></tr>\
         <tr><th>Completeness</th><td>{}</td></tr>\
         <tr><th>Replayed</th><td>{}, by sealfold-audit {}</td></tr>",
        report.size,
        report.root,
        escape(&report.completeness.words),
        report.replayed_at,
        crate::VERSION,
    );
    for (kind, count) in &report.leaves {
        let _ = write!(out, "<tr><th>Leaves of kind {kind}</th><td>{count}</td></tr>");
    }
    for cosigned in &report.completeness.cosigned {
        let time = cosigned.time.map_or(String::new(), |time| time.to_string());
        let name = escape(&cosigned.name);
        let _ = write!(out, "<tr><th>Cosigned</th><td>{name} {time}</td></tr>");
    }
    out.push_str("</table>\n");
    for summary in &report.studies {
        let rounds: Vec<_> =
            report.rounds.iter().filter(|round| round.study == summary.study).collect();
        study(&mut out, summary, &rounds);
    }
    out.push_str("</body></html>\n");
    out
}

fn findings(out: &mut String, report: &Report) {
    if report.findings.is_empty() {
        return;
    }
    out.push_str(
        "<h2>Findings</h2><table><tr><th>What</th><th>Where</th><th>Expected and found</th>\
                  <th>Look at</th></tr>\n",
    );
    for finding in &report.findings {
        let _ = writeln!(
            out,
            "<tr><td class=\"{severity}\">{severity}<br>{check}</td><td>{place}</td>\
             <td>expected {expected}<br>found {found}</td><td>{look}</td></tr>",
            severity = finding.severity,
            check = finding.check,
            place = place(finding),
            expected = escape(&finding.expected),
            found = escape(&finding.found),
            look = escape(finding.look),
        );
    }
    out.push_str("</table>\n");
    let all = report.safety + report.liveness;
    if all > report.findings.len() as u64 {
        let _ = writeln!(out, "<p>The first {} of {all}.</p>", report.findings.len());
    }
    let _ = writeln!(
        out,
        "<p><span class=\"safety\">{}</span>: something happened that must not have happened. \
         <span class=\"liveness\">{}</span>: something is late or missing.</p>",
        Severity::Safety,
        Severity::Liveness
    );
}

fn place(finding: &Finding) -> String {
    let mut parts = Vec::new();
    parts.extend(finding.leaf.map(|leaf| format!("leaf {leaf}")));
    parts.extend(finding.round.map(|round| format!("round {round}")));
    parts.extend(finding.study.map(|study| format!("study {}", study.short())));
    if parts.is_empty() { "the log".to_owned() } else { parts.join("<br>") }
}

fn study(out: &mut String, summary: &Summary, rounds: &[&Released]) {
    let manifest = &summary.manifest;
    let terms = &manifest.study;
    let _ = write!(
        out,
        "<h2>Study: {}</h2><table>\
         <tr><th>Identity</th><td><code>{}</code></td></tr>\
         <tr><th>Purpose</th><td>{}</td></tr><tr><th>Intended use</th><td>{}</td></tr>\
         <tr><th>Valid</th><td>{} to {}</td></tr>\
         <tr><th>Rounds</th><td>{} of {} released</td></tr>\
         <tr><th>Manifests</th><td>{}, the last approved by {} (required {} of {})</td></tr>\
         <tr><th>Quorum</th><td>No release of fewer than {} sites; {} of them may collude</td></tr>",
        escape(&terms.name),
        summary.study,
        escape(&terms.purpose),
        escape(&terms.intended_use),
        terms.valid_from,
        terms.valid_until,
        summary.released,
        terms.rounds,
        summary.manifests,
        summary.approvals,
        manifest.approval.required,
        manifest.approval.approvers.len(),
        manifest.quorum.smallest_roster,
        manifest.quorum.colluders,
    );
    for (title, value) in [
        ("Aggregation", serde_json::to_string(&manifest.aggregation)),
        ("Privacy", serde_json::to_string(&manifest.privacy)),
    ] {
        let value = escape(&value.unwrap_or_default());
        let _ = write!(out, "<tr><th>{title}</th><td><code>{value}</code></td></tr>");
    }
    if let Some(open) = &summary.open {
        let _ = write!(out, "<tr><th>Open at the end</th><td>{}</td></tr>", escape(open));
    }
    out.push_str(
        "</table>\n<h3>Who took part</h3><table><tr><th>Site</th><th>Signed the manifest</th>\
                  <th>Releases with its update</th></tr>\n",
    );
    for site in &manifest.sites {
        let signed = if summary.participants.contains(&site.name) { "yes" } else { "no" };
        let count = summary.took_part.get(&site.name).copied().unwrap_or(0);
        let name = escape(&site.name);
        let _ = writeln!(out, "<tr><td>{name}</td><td>{signed}</td><td>{count}</td></tr>");
    }
    out.push_str(
        "</table>\n<h3>Measured images</h3><table><tr><th>Image</th><th>Offers</th></tr>\n",
    );
    for (image, offers) in &summary.images {
        let _ = writeln!(out, "<tr><td><code>{image}</code></td><td>{offers}</td></tr>");
    }
    out.push_str("</table>\n");
    if rounds.iter().filter_map(|round| round.measured.as_ref()).any(|m| m.simulated) {
        out.push_str(
            "<p class=\"verdict late\">Rounds of this study ran in simulation: their \
                      evidence proves nothing.</p>\n",
        );
    }
    if !rounds.is_empty() {
        timeline(out, manifest.sites.len(), rounds);
        table(out, rounds);
    }
}

/// One bar a round, as high as the part of the sites that was folded.
fn timeline(out: &mut String, sites: usize, rounds: &[&Released]) {
    let width = rounds.len() * STEP + 2;
    let _ = write!(
        out,
        "<h3>Rounds</h3><div class=\"scroll\"><svg role=\"img\" aria-label=\"sites in each round\" \
         width=\"{width}\" height=\"{}\">",
        HEIGHT + 20
    );
    for (place, round) in rounds.iter().enumerate() {
        let height = HEIGHT * round.sites.len() / sites.max(1);
        let colour = if round.abandoned > 0 { "#9a6700" } else { "#2a7d4f" };
        let (x, y) = (place * STEP + 1, HEIGHT - height);
        let _ = write!(
            out,
            "<rect x=\"{x}\" y=\"{y}\" width=\"{}\" height=\"{height}\" fill=\"{colour}\">\
             <title>round {}: {} of {sites} sites</title></rect>",
            STEP - 3,
            round.round,
            round.sites.len()
        );
        if place % 5 == 0 {
            let (y, number) = (HEIGHT + 14, round.round);
            let _ = write!(out, "<text x=\"{x}\" y=\"{y}\" font-size=\"10\">{number}</text>");
        }
    }
    out.push_str(
        "</svg></div><p>Height: the share of the sites whose updates were folded. Brown: an \
                  offer of the round was abandoned, and counts as possibly released.</p>\n",
    );
}

fn table(out: &mut String, rounds: &[&Released]) {
    out.push_str(
        "<table><tr><th>Round</th><th>Evidence signed</th><th>Leaves</th><th>Sites</th>\
                  <th>Release</th></tr>\n",
    );
    for round in rounds {
        let time =
            round.measured.as_ref().map_or("not accepted".to_owned(), |m| m.time.to_string());
        let _ = writeln!(
            out,
            "<tr><td>{}</td><td>{time}</td><td>{} to {}</td><td>{}</td><td><code>{}</code></td></tr>",
            round.round,
            round.offer_leaf,
            round.release_leaf,
            escape(&round.sites.join(", ")),
            round.release,
        );
    }
    out.push_str("</table>\n");
}

/// Foreign text that stays text.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c if c.is_control() => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_text_stays_text() {
        let odd = "<script>alert('x')</script>\u{1b}[2J\"&";
        let safe = escape(odd);
        assert!(!safe.contains('<') && !safe.contains('"') && !safe.contains('\u{1b}'));
        assert!(safe.starts_with("&lt;script&gt;alert(&#39;x&#39;)"));
    }
}
