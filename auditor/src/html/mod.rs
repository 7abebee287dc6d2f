//! A report as one file of HTML, for people to read and print: no script, no
//! other file, nothing that is fetched.

use crate::finding::{Finding, Severity};
use crate::report::Report;
use crate::summary::{Released, Summary};
use sealfold_protocol::terms::RoundKind;
use sealfold_protocol::text::is_hidden;
use sealfold_study::in_words;
use std::fmt::Write;

mod plot;

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;color:#1b1f24;max-width:70rem;\
margin:2rem auto;padding:0 1rem}h1{font-size:1.6rem}h2{margin-top:2.5rem;border-bottom:1px solid \
#ccc}h3{margin-bottom:.4rem}table{border-collapse:collapse;width:100%}th,td{text-align:left;\
vertical-align:top;padding:.25rem .6rem;border-bottom:1px solid #e3e3e3}th{font-weight:600}\
code{font:13px ui-monospace,monospace;overflow-wrap:anywhere}.verdict{padding:.8rem 1rem;\
border-left:6px solid #2a7d4f;background:#eef7f1}.wrong{border-color:#b3261e;background:#fbeeed}\
.late{border-color:#9a6700;background:#fdf6e3}.safety{color:#b3261e;font-weight:600}\
.liveness{color:#7a5200;font-weight:600}.what{white-space:nowrap}.terms th{width:9rem}\
svg{width:100%;height:auto;font:11px system-ui,sans-serif}svg text{fill:#444}.in{fill:#2a7d4f}\
.out{fill:#e6e6e6}.given-up{fill:#b26a00}.axis{fill:none;stroke:#777}.budget{fill:none;\
stroke:#b3261e;stroke-dasharray:6 4}.spent{fill:none;stroke:#2a7d4f;stroke-width:2}\
td,p{overflow-wrap:anywhere}.when{white-space:nowrap;overflow-wrap:normal}\
@media print{body{margin:0;max-width:none;font-size:11px}tr,svg{break-inside:avoid}\
h2,h3{break-after:avoid}*{print-color-adjust:exact;-webkit-print-color-adjust:exact}}";

/// The rounds that the page draws and lists; earlier ones are in the JSON report.
const ROUNDS: usize = 200;

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
            "<tr><td class=\"what {severity}\">{severity}<br>{check}</td><td class=\"what\">{place}</td>\
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
    let _ = write!(
        out,
        "<h2>Study: {}</h2>\n<p>{}. Manifests: {}; {} of {} approvers \
         signed the last one, and {} must.</p>\n",
        escape(&manifest.agreement.study.name),
        summary.progress(),
        summary.manifests,
        summary.approvals,
        manifest.terms.approval.approvers.len(),
        manifest.terms.approval.required,
    );
    for note in in_words::notes(manifest) {
        let _ = writeln!(out, "<p>{}</p>", escape(&note));
    }
    if let Some(open) = &summary.open {
        let _ = writeln!(out, "<p class=\"verdict late\">Open at the end: {}</p>", escape(open));
    }
    if rounds.iter().filter_map(|round| round.measured.as_ref()).any(|m| m.simulated) {
        out.push_str(
            "<p class=\"verdict late\">Rounds of this study ran in simulation: their \
                      evidence proves nothing.</p>\n",
        );
    }
    privacy(out, summary);
    let shown = &rounds[rounds.len().saturating_sub(ROUNDS)..];
    if !shown.is_empty() {
        if shown.len() < rounds.len() || (rounds.len() as u64) < summary.released {
            let _ = writeln!(
                out,
                "<p>Of {} released rounds the latest {} are shown below.</p>",
                summary.released,
                shown.len()
            );
        }
        timeline(out, summary, shown);
    }
    took_part(out, summary);
    out.push_str("<h3>Measured images</h3><table><tr><th>Image</th><th>Offers</th></tr>\n");
    for (image, offers) in &summary.images {
        let image = escape(image);
        let _ = writeln!(out, "<tr><td><code>{image}</code></td><td>{offers}</td></tr>");
    }
    out.push_str("</table>\n");
    if !shown.is_empty() {
        table(out, shown);
    }
    out.push_str("<h3>What the sites agreed to</h3><table class=\"terms\">\n");
    for (term, value) in in_words::terms(manifest, &summary.study) {
        let (term, value) = (escape(term), escape(&value));
        let _ = writeln!(out, "<tr><th>{term}</th><td>{value}</td></tr>");
    }
    out.push_str("</table>\n");
}

fn privacy(out: &mut String, summary: &Summary) {
    out.push_str("<h3>Privacy spent over time</h3>\n");
    let Some(spent) = &summary.privacy else {
        out.push_str(
            "<p>The study adds no noise, so there is no budget to spend. What protects a site is \
             the smallest roster.</p>\n",
        );
        return;
    };
    let _ = writeln!(
        out,
        "<p>Of one {}: epsilon {} of {} at delta {}, worked out from the manifest's noise for \
         {} releases and {} abandoned offers, each of which counts as released.{}</p>",
        spent.unit,
        plot::number(spent.epsilon),
        plot::number(spent.budget),
        spent.delta,
        spent.releases,
        spent.abandoned,
        if summary.manifest.terms.channels.is_empty() {
            ""
        } else {
            " A round that measures the last model costs as much as one that trains it."
        }
    );
    if !spent.curve.is_empty() {
        plot::privacy(out, spent);
    }
}

fn timeline(out: &mut String, summary: &Summary, rounds: &[&Released]) {
    // Also the sites of manifests before the last one.
    let mut sites: Vec<String> =
        summary.manifest.terms.sites.iter().map(|site| site.name.clone()).collect();
    let earlier = summary.took_part.keys().filter(|site| !sites.contains(site));
    let earlier: Vec<_> = earlier.cloned().collect();
    sites.extend(earlier);
    out.push_str("<h3>Timeline of rounds</h3>\n");
    plot::timeline(out, &sites, rounds);
    out.push_str(
        "<p>Green: the site's update was folded in that round. Grey: it was not on the roster. \
         Brown, below: an offer of the round was abandoned, and counts as possibly released.</p>\n",
    );
}

fn took_part(out: &mut String, summary: &Summary) {
    out.push_str(
        "<h3>Who took part</h3><table><tr><th>Site</th><th>Signed the manifest</th>\
                  <th>Releases with its update</th></tr>\n",
    );
    let listed = summary.manifest.terms.sites.iter().map(|site| &site.name);
    let gone = summary.took_part.keys().filter(|site| listed.clone().all(|name| name != *site));
    for site in listed.clone().chain(gone) {
        let signed = if summary.participants.contains(site) { "yes" } else { "no" };
        let count = summary.took_part.get(site).copied().unwrap_or(0);
        let name = escape(site);
        let _ = writeln!(out, "<tr><td>{name}</td><td>{signed}</td><td>{count}</td></tr>");
    }
    out.push_str("</table>\n");
}

fn table(out: &mut String, rounds: &[&Released]) {
    out.push_str(
        "<h3>Releases</h3><table><tr><th>Round</th><th>Evidence signed</th><th>Leaves</th>\
                  <th>Sites</th><th>Release</th></tr>\n",
    );
    for round in rounds {
        let time = round.measured.as_ref().map_or("not accepted".to_owned(), |m| {
            m.time.strftime("%Y-%m-%d %H:%M:%SZ").to_string()
        });
        let _ = writeln!(
            out,
            "<tr><td>{}{}</td><td class=\"when\">{time}</td><td class=\"when\">{} to {}</td>\
             <td>{}</td><td><code>{}</code></td></tr>",
            round.round,
            match round.kind {
                RoundKind::Training => "",
                RoundKind::Evaluation => " (measures the last model)",
            },
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
            c if is_hidden(c) => out.push('\u{fffd}'),
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
        let turned = escape("a\u{202e}b\u{2066}c\u{2028}d\u{9b}e");
        assert_eq!(turned, "a\u{fffd}b\u{fffd}c\u{fffd}d\u{fffd}e");
    }
}
