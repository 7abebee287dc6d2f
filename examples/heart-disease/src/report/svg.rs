//! Plots as inline SVG: axes, lines, dots. Colours are told apart by people
//! with any colour vision (Okabe and Ito), and lines by their dashes too.

use std::fmt::Write as _;

/// A series' colour and dashes, by its place.
const STYLES: [(&str, &str); 4] =
    [("#0072b2", ""), ("#d55e00", "6 3"), ("#009e73", "2 3"), ("#cc79a7", "9 3 2 3")];
const WIDTH: f64 = 460.0;
const HEIGHT: f64 = 300.0;
const MARGIN: f64 = 46.0;

/// A named line.
pub struct Series {
    /// Its name.
    pub name: String,
    /// Its points.
    pub points: Vec<(f64, f64)>,
}

/// The frame of a plot.
pub struct Frame<'a> {
    /// The title, read aloud by screen readers too.
    pub title: &'a str,
    /// What goes right; without a name nothing is counted there.
    pub x: (&'a str, f64, f64),
    /// What goes up.
    pub y: (&'a str, f64, f64),
}

impl Frame<'_> {
    fn at(&self, (x, y): (f64, f64)) -> (f64, f64) {
        // What lies beyond the frame is drawn at its edge.
        let along = |v: f64, low: f64, high: f64| {
            ((v - low) / (high - low).max(f64::EPSILON)).clamp(0.0, 1.0)
        };
        (
            MARGIN + along(x, self.x.1, self.x.2) * (WIDTH - MARGIN - 12.0),
            HEIGHT - MARGIN - along(y, self.y.1, self.y.2) * (HEIGHT - MARGIN - 30.0),
        )
    }

    fn axes(&self, out: &mut String) {
        let (left, bottom) = self.at((self.x.1, self.y.1));
        let (right, top) = self.at((self.x.2, self.y.2));
        // Writing to a string does not fail, here and below.
        let _ = write!(
            out,
            "<title>{0}</title><text x='{left}' y='16' class='t'>{0}</text>\
             <path d='M{left} {top}V{bottom}H{right}' class='a'/>\
             <text x='{right}' y='{1}' text-anchor='end'>{2}</text>\
             <text x='12' y='{top}' transform='rotate(-90 12 {top})' text-anchor='end'>{3}</text>",
            self.title,
            HEIGHT - 8.0,
            self.x.0,
            self.y.0,
        );
        for step in 0..=4 {
            let part = f64::from(step) / 4.0;
            let (x, y) =
                (self.x.1 + part * (self.x.2 - self.x.1), self.y.1 + part * (self.y.2 - self.y.1));
            let (px, py) = self.at((x, y));
            let _ = write!(
                out,
                "<text x='{}' y='{}' text-anchor='end'>{y:.2}</text>",
                left - 5.0,
                py + 4.0,
            );
            if !self.x.0.is_empty() {
                let x = if self.x.2 > 2.0 { format!("{x:.0}") } else { format!("{x:.2}") };
                let _ = write!(
                    out,
                    "<text x='{px}' y='{}' text-anchor='middle'>{x}</text>",
                    bottom + 15.0
                );
            }
        }
    }
}

fn open() -> String {
    format!("<svg viewBox='0 0 {WIDTH} {HEIGHT}' role='img' xmlns='http://www.w3.org/2000/svg'>")
}

/// Lines.
#[must_use]
pub fn lines(frame: &Frame<'_>, series: &[Series]) -> String {
    let mut out = open();
    frame.axes(&mut out);
    for (place, line) in series.iter().enumerate() {
        let (colour, dash) = STYLES[place % STYLES.len()];
        let points: Vec<_> = line
            .points
            .iter()
            .map(|point| {
                let (x, y) = frame.at(*point);
                format!("{x:.1},{y:.1}")
            })
            .collect();
        let y =
            HEIGHT - MARGIN - 14.0 * (f64::from(u8::try_from(series.len() - place).unwrap_or(0)));
        let x = WIDTH - 130.0;
        let _ = write!(
            out,
            "<polyline points='{0}' fill='none' stroke='{colour}' stroke-width='2' \
             stroke-dasharray='{dash}'/><path d='M{x} {1}h24' stroke='{colour}' stroke-width='2' \
             stroke-dasharray='{dash}'/><text x='{2}' y='{3}'>{4}</text>",
            points.join(" "),
            y - 4.0,
            x + 30.0,
            y,
            line.name,
        );
    }
    out.push_str("</svg>");
    out
}

/// A dot: its series, value and spread.
pub type Dot = (&'static str, f64, f64);

/// Dots with their spread, in named groups.
#[must_use]
pub fn dots(frame: &Frame<'_>, groups: &[(String, Vec<Dot>)]) -> String {
    let mut out = open();
    frame.axes(&mut out);
    for (group, (name, dots)) in groups.iter().enumerate() {
        let middle = f64::from(u8::try_from(group).unwrap_or(0)) + 0.5;
        let (x, _) = frame.at((middle, frame.y.1));
        let _ =
            write!(out, "<text x='{x}' y='{}' text-anchor='middle'>{name}</text>", HEIGHT - 20.0);
        for (place, (series, value, spread)) in dots.iter().enumerate() {
            let colour = STYLES[place % STYLES.len()].0;
            let offset = (f64::from(u8::try_from(place).unwrap_or(0)) - 1.5) * 0.16;
            let (x, y) = frame.at((middle + offset, *value));
            let (_, low) = frame.at((0.0, (value - spread).max(frame.y.1)));
            let (_, high) = frame.at((0.0, (value + spread).min(frame.y.2)));
            let _ = write!(
                out,
                "<path d='M{x:.1} {low:.1}V{high:.1}' stroke='{colour}' stroke-opacity='.5' \
                 stroke-width='2'/><circle cx='{x:.1}' cy='{y:.1}' r='5' fill='{colour}'>\
                 <title>{name}, {series}: {value:.3} (spread {spread:.3})</title></circle>"
            );
            if group == 0 {
                let left = 70.0 + 95.0 * f64::from(u8::try_from(place).unwrap_or(0));
                let _ = write!(
                    out,
                    "<circle cx='{left}' cy='30' r='5' fill='{colour}'/><text x='{}' y='34'>{series}</text>",
                    left + 9.0
                );
            }
        }
    }
    out.push_str("</svg>");
    out
}
