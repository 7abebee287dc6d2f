//! The statistics of a query, read from the model after its round.
//!
//! Only noised cells are looked at, also to decide what is suppressed, so
//! reading them costs no further privacy. A figure is suppressed if the noise
//! alone could be it: patients below three standard deviations of their noise.
//! Of cells without patients one in 740 is shown all the same.

use crate::error::SiteRefusal;
use crate::{Error, Result, tensors};
use sealfold_aggregation::statistics::{
    Estimate, TELLING, mean, mean_and_variance, patients, quantile,
};
use sealfold_study::{Manifest, query::Measure, query::Part};
use serde::Serialize;
use std::path::Path;

/// A statistic with its figures.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Reading {
    /// The statistic's name.
    pub statistic: String,
    /// What it comes to.
    pub figures: Vec<Figure>,
}

/// One figure of a statistic.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Figure {
    /// What it is: a cell, `patients`, `mean`.
    pub label: String,
    /// The figure; none if it is suppressed.
    pub value: Option<f64>,
    /// The standard deviation that it has by the noise; none if the figure that
    /// it depends on is suppressed.
    pub standard_error: Option<f64>,
}

impl Figure {
    fn new(label: impl Into<String>, estimate: Option<Estimate>) -> Self {
        Self {
            label: label.into(),
            value: estimate.map(|estimate| estimate.value),
            standard_error: estimate.map(|estimate| estimate.standard_error),
        }
    }

    /// A figure whose error is known whether it is shown or not.
    fn told(label: impl Into<String>, estimate: Estimate) -> Self {
        let value = estimate.told().map(|estimate| estimate.value);
        Self { value, ..Self::new(label, Some(estimate)) }
    }
}

/// Reads the statistics of a query's study from the model after its round,
/// safetensors or npz.
///
/// # Errors
/// A refusal by `query` for another study, or the model before any round, by `layout` or `finite` for another
/// model; [`Error::File`].
pub fn read(manifest: &Manifest, model: &Path) -> Result<Vec<Reading>> {
    let (query, noise) = super::of(manifest)?;
    let mut content = Vec::new();
    tensors::copy_content(model, &manifest.terms.model.tensors, &mut content)?;
    if content.iter().all(|byte| *byte == 0) {
        let found = "the model of zeros that the query starts from: no round has run";
        return Err(SiteRefusal::new("query", "the model after the round", found)
            .next("fetch it when the round is over: sealfold fetch")
            .into());
    }
    // The release is divided by a constant, and a patient is worth the weight.
    let unit = manifest.terms.aggregation.divisor.unwrap_or(1.0) / query.weight(noise);
    let values = content.as_chunks::<4>().0.iter();
    let mut cells = values.map(|four| f64::from(f32::from_le_bytes(*four)) * unit);
    let deviation = query.deviation(noise);
    let read = |part: &Part| {
        let count = usize::try_from(part.cells()).map_err(|e| Error::file(model, e))?;
        let cells: Vec<_> = cells.by_ref().take(count).collect();
        Ok(of_cells(part, &cells, deviation))
    };
    query.parts(&manifest.agreement.data)?.iter().map(read).collect()
}

/// The figures of a statistic from its cells, in patients.
#[must_use]
pub fn of_cells(part: &Part, cells: &[f64], deviation: f64) -> Reading {
    let cell = |value: f64| Estimate { value, standard_error: deviation };
    let total = Figure::told("patients", patients(cells, deviation));
    let scaled = |estimate: Estimate, [low, high]: [f64; 2]| {
        let Estimate { value, standard_error } = estimate.times(high - low);
        Estimate { value: low + value, standard_error }
    };
    let figures = match part.measure() {
        Measure::Count(divisions) if divisions.is_empty() => vec![total],
        Measure::Count(_) => {
            let of_cell =
                |(place, value): (usize, &f64)| Figure::told(part.label(place), cell(*value));
            std::iter::once(total).chain(cells.iter().enumerate().map(of_cell)).collect()
        }
        Measure::Sum { largest } => {
            let sum = cell(cells.iter().sum()).times(*largest);
            let told = sum.value.abs() >= TELLING * sum.standard_error;
            let figure = Figure::new("sum", Some(sum));
            vec![Figure { value: figure.value.filter(|_| told), ..figure }]
        }
        Measure::Mean { range } => {
            let mean = cells.try_into().ok().and_then(|cells| mean(cells, deviation));
            vec![total, Figure::new("mean", mean.map(|mean| scaled(mean, *range)))]
        }
        Measure::Variance { range } => {
            let both = cells.try_into().ok().and_then(|cells| mean_and_variance(cells, deviation));
            let width = range[1] - range[0];
            let variance = both.map(|[_, variance]| variance.times(width * width));
            vec![
                total,
                Figure::new("mean", both.map(|[mean, _]| scaled(mean, *range))),
                Figure::new("variance", variance),
            ]
        }
        Measure::Quantiles { range, quantiles, .. } => {
            let of_share = |share: &f64| {
                let quantile = quantile(cells, deviation, *share);
                Figure::new(
                    format!("quantile {share}"),
                    quantile.map(|quantile| scaled(quantile, *range)),
                )
            };
            std::iter::once(total).chain(quantiles.iter().map(of_share)).collect()
        }
    };
    Reading { statistic: part.name().to_owned(), figures }
}

/// The readings as a table for people.
#[must_use]
pub fn table(readings: &[Reading]) -> String {
    let labels = readings.iter().flat_map(|reading| &reading.figures).map(|f| f.label.len());
    let width = labels.max().unwrap_or(0);
    let mut text = String::new();
    for Reading { statistic, figures } in readings {
        text.push_str(&format!("\n{statistic}\n"));
        for Figure { label, value, standard_error } in figures {
            let (figure, error) = match (value, standard_error) {
                (Some(value), Some(error)) => (rounded(*value, *error), rounded(*error, *error)),
                (None, Some(error)) => ("suppressed".to_owned(), rounded(*error, *error)),
                // What it depends on is suppressed, so its error is not known either.
                _ => ("suppressed".to_owned(), String::new()),
            };
            let error = if error.is_empty() { error } else { format!("  +- {error}") };
            text.push_str(&format!("  {label:<width$}  {figure:>12}{error}\n"));
        }
    }
    text.trim_start_matches('\n').to_owned()
}

/// A figure with as many decimals as two digits of its error have.
#[must_use]
pub fn rounded(value: f64, error: f64) -> String {
    let magnitude = if error > 0.0 { error.log10().floor() } else { 0.0 };
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // from 0 to 9
    let decimals = (1.0 - magnitude).clamp(0.0, 9.0) as usize;
    format!("{value:.decimals$}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use sealfold_study::query::Draft;

    const DRAFT: &str = r#"
[data]
cohort = "all"
minimum_rows = 1
outcome = { column = "num", rule = ">", value = 0 }
[[data.feature]]
name = "chol"
unit = "mg/dl"
type = "real"
range = [100, 500]
missing_share = 0
[[query.statistic]]
kind = "count"
[[query.statistic]]
kind = "histogram"
column = "num"
[[query.statistic]]
kind = "sum"
column = "chol"
[[query.statistic]]
kind = "mean"
column = "chol"
[[query.statistic]]
kind = "variance"
column = "chol"
[[query.statistic]]
kind = "quantiles"
column = "chol"
bins = 4
quantiles = [0.5]
"#;

    fn parts() -> Vec<Part> {
        let draft = Draft::from_toml(DRAFT).unwrap();
        draft.query.parts(&draft.data).unwrap()
    }

    fn figures(place: usize, cells: &[f64], deviation: f64) -> Vec<(String, Option<f64>, f64)> {
        let reading = of_cells(&parts()[place], cells, deviation);
        let round = |value: f64| (value * 1e6).round() / 1e6;
        let figure =
            |f: Figure| (f.label, f.value.map(round), f.standard_error.map_or(-1.0, round));
        reading.figures.into_iter().map(figure).collect()
    }

    #[test]
    fn cells_become_figures_in_the_units_of_the_data() {
        let row = |label: &str, value: f64, error: f64| (label.to_owned(), Some(value), error);
        assert_eq!(figures(0, &[50.0], 2.0), [row("patients", 50.0, 2.0)]);
        // Two cells: the errors add up as their squares do.
        let outcome = figures(1, &[30.0, 20.0], 5.0);
        assert_eq!(outcome[0], row("patients", 50.0, 7.071_068));
        assert_eq!(outcome[1], row("num without outcome", 30.0, 5.0));
        assert_eq!(outcome[2], row("num with outcome", 20.0, 5.0));
        assert_eq!(figures(2, &[20.0], 1.0), [row("sum", 10_000.0, 500.0)]);
        // 50 patients, 10 of them worth the upper end: 180 of 100 to 500.
        let mean = figures(3, &[40.0, 10.0], 1.0);
        assert_eq!(mean[1], row("mean", 180.0, 6.596_969));
        // All in the middle: half of the square's middle part, a quarter each end.
        let variance = figures(4, &[10.0, 20.0, 10.0], 1.0);
        assert_eq!((variance[1].1, variance[2].1), (Some(300.0), Some(0.0)));
        assert_eq!(figures(5, &[10.0, 10.0, 10.0, 10.0], 0.1)[1], row("quantile 0.5", 300.0, 1.0));
    }

    #[test]
    fn what_the_noise_could_be_is_suppressed() {
        let outcome = figures(1, &[30.0, 5.9], 2.0);
        assert_eq!(outcome[2], ("num with outcome".to_owned(), None, 2.0));
        assert_eq!(figures(2, &[2.9], 1.0)[0].1, None);
        assert!(figures(2, &[-3.1], 1.0)[0].1.is_some());
        for (place, cells) in [(3, &[1.0, 1.0][..]), (4, &[1.0; 3]), (5, &[1.0; 4])] {
            assert!(figures(place, cells, 1.0).iter().all(|(_, value, _)| value.is_none()));
        }
        let text = table(&[of_cells(&parts()[3], &[1.0, 1.0], 1.0)]);
        assert!(text.contains("mean        suppressed\n"), "{text}");
    }

    #[test]
    fn figures_are_rounded_to_two_digits_of_their_error() {
        assert_eq!(rounded(1234.5678, 0.0123), "1234.568");
        assert_eq!(rounded(1234.5678, 12.3), "1235");
        assert_eq!(rounded(1.0, 0.0), "1.0");
    }
}
