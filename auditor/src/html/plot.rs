//! The drawings of a report, as SVG in the page: they scale with it, print, and
//! need nothing else.

use super::escape;
use crate::privacy::Spent;
use crate::summary::Released;
use std::fmt::Write;

/// The width of a drawing, in its own units.
const WIDTH: f64 = 960.0;
/// The height of a plot without its labels.
const HEIGHT: f64 = 200.0;
/// The room for labels at the left and below.
const LEFT: f64 = 64.0;
const BELOW: f64 = 40.0;
/// The room that a label below takes.
const LABEL: f64 = 66.0;
/// The widest column of a round.
const STEP: f64 = 24.0;
/// The most labels below.
const LABELS: usize = 12;

fn begin(out: &mut String, label: &str, height: f64) {
    let _ = write!(
        out,
        "<svg role=\"img\" aria-label=\"{}\" viewBox=\"0 0 {WIDTH} {height}\">",
        escape(label)
    );
}

fn text(out: &mut String, x: f64, y: f64, anchor: &str, words: &str) {
    let _ = write!(
        out,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{}</text>",
        escape(words)
    );
}

/// Every so-manieth place has a label.
fn every(count: usize) -> usize {
    count.div_ceil(LABELS).max(1)
}

#[allow(clippy::cast_precision_loss)] // a drawing
fn real(count: usize) -> f64 {
    count as f64
}

/// A row for each site, a column for each round; filled where the site's update
/// was folded. Above it the round's number and the day of its evidence.
pub fn timeline(out: &mut String, sites: &[String], rounds: &[&Released]) {
    const ROW: f64 = 18.0;
    const TOP: f64 = 34.0;
    let names = 170.0;
    let step = STEP.min((WIDTH - names) / real(rounds.len().max(1)));
    let height = TOP + ROW * real(sites.len()) + 14.0;
    begin(out, "which sites were in which round", height);
    // A label is as wide as three of the widest columns.
    let nth = every(rounds.len()).max(3);
    for (place, round) in rounds.iter().enumerate() {
        let x = names + step * real(place);
        if place % nth == 0 && x + LABEL <= WIDTH {
            text(out, x, 12.0, "start", &round.round.to_string());
            let day = round.measured.as_ref().map(|m| m.time.strftime("%Y-%m-%d").to_string());
            text(out, x, 26.0, "start", &day.unwrap_or_default());
        }
        if round.abandoned > 0 {
            let _ = write!(
                out,
                "<rect class=\"given-up\" x=\"{x:.2}\" y=\"{:.1}\" width=\"{:.2}\" height=\"6\">\
                 <title>round {}: {} offers abandoned, perhaps released</title></rect>",
                height - 10.0,
                step * 0.85,
                round.round,
                round.abandoned
            );
        }
    }
    for (row, site) in sites.iter().enumerate() {
        let y = TOP + ROW * real(row);
        let short: String = site.chars().take(26).collect();
        text(out, 0.0, y + 12.0, "start", &short);
        for (place, round) in rounds.iter().enumerate() {
            let took_part = round.sites.contains(site);
            let (class, said) =
                if took_part { ("in", "folded") } else { ("out", "not on the roster") };
            let x = names + step * real(place);
            let _ = write!(
                out,
                "<rect class=\"{class}\" x=\"{x:.2}\" y=\"{y:.1}\" width=\"{:.2}\" height=\"14\">\
                 <title>{}, round {}: {said}</title></rect>",
                step * 0.85,
                escape(site),
                round.round,
            );
        }
    }
    out.push_str("</svg>\n");
}

/// The privacy loss after each release and abandonment, and the budget.
pub fn privacy(out: &mut String, spent: &Spent) {
    let points = &spent.curve;
    let most = points.iter().map(|point| point.epsilon).fold(spent.budget, f64::max) * 1.1;
    let count = real(points.len().max(1));
    let x = |place: f64| LEFT + (WIDTH - LEFT - 10.0) * place / count;
    let y = |epsilon: f64| 10.0 + HEIGHT * (1.0 - if most > 0.0 { epsilon / most } else { 0.0 });
    begin(out, "privacy spent over time", HEIGHT + 10.0 + BELOW);
    let (floor, right) = (y(0.0), x(count));
    let _ = write!(
        out,
        "<path class=\"axis\" d=\"M{LEFT} 10V{floor:.1}H{right:.1}\"/>\
         <path class=\"budget\" d=\"M{LEFT} {budget:.1}H{right:.1}\"/>",
        budget = y(spent.budget)
    );
    text(out, LEFT - 6.0, y(spent.budget) + 4.0, "end", &number(spent.budget));
    text(out, right, y(spent.budget) - 5.0, "end", "the budget");
    text(out, LEFT - 6.0, floor + 4.0, "end", "0");
    text(out, LEFT - 6.0, 20.0, "end", "epsilon");
    let mut line = format!("M{LEFT} {floor:.1}");
    let nth = every(points.len());
    for (place, point) in points.iter().enumerate() {
        let (left, top) = (x(real(place)), y(point.epsilon));
        let _ = write!(line, "H{left:.1}V{top:.1}");
        if place % nth == 0 {
            let (at, anchor) = if left + LABEL > right { (right, "end") } else { (left, "start") };
            text(out, at, floor + 16.0, anchor, &format!("round {}", point.round));
            let day = point.time.map(|time| time.strftime("%Y-%m-%d").to_string());
            text(out, at, floor + 30.0, anchor, &day.unwrap_or_default());
        }
    }
    let _ = write!(line, "H{right:.1}");
    let _ = write!(out, "<path class=\"spent\" d=\"{line}\"/>");
    for (place, point) in points.iter().enumerate() {
        let (class, what) = if point.abandoned {
            ("given-up", "abandoned, counted as released")
        } else {
            ("in", "released")
        };
        let over = if point.epsilon > spent.budget { ", MORE THAN THE BUDGET" } else { "" };
        let _ = write!(
            out,
            "<circle class=\"{class}\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"3\"><title>round {} {what} at \
             leaf {}: epsilon {}{over}</title></circle>",
            x(real(place)),
            y(point.epsilon),
            point.round,
            point.leaf,
            number(point.epsilon),
        );
    }
    out.push_str("</svg>\n");
}

/// Four digits are enough for people.
pub fn number(value: f64) -> String {
    if value.is_finite() { format!("{}", (value * 1e4).round() / 1e4) } else { value.to_string() }
}
