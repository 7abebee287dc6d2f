//! One statistic over the columns of a data specification: its cells, and what
//! a patient adds to them.

use super::Statistic;
use super::axis::{Axis, Division, number};
use crate::data::DataSpecification;
use sealfold_aggregation::statistics::{line, parabola};
use sealfold_protocol::Result;
use sealfold_protocol::terms::expect;

/// The most axes of a contingency table.
const MAX_AXES: usize = 4;

/// A statistic over columns that are there.
#[derive(Debug, Clone, PartialEq)]
pub struct Part {
    name: String,
    columns: Vec<String>,
    measure: Measure,
}

/// What is computed.
#[derive(Debug, Clone, PartialEq)]
pub enum Measure {
    /// Patients in each combination of cells, row-major; without a division all
    /// of them.
    Count(Vec<Division>),
    /// A sum, in units of the largest magnitude.
    Sum {
        /// The largest magnitude that a value may have.
        largest: f64,
    },
    /// A mean, from the values' positions in the range, shared between its ends.
    Mean {
        /// The range.
        range: [f64; 2],
    },
    /// A variance and a mean, from positions shared among ends and middle.
    Variance {
        /// The range.
        range: [f64; 2],
    },
    /// Quantiles, from patients in cells of equal width.
    Quantiles {
        /// The cells.
        division: Division,
        /// The range.
        range: [f64; 2],
        /// The shares of patients.
        quantiles: Vec<f64>,
    },
}

impl Part {
    /// A statistic of a query.
    ///
    /// # Errors
    /// [`sealfold_protocol::Error::Manifest`] naming the statistic and what it wants.
    pub(super) fn new(statistic: &Statistic, data: &DataSpecification) -> Result<Self> {
        let name = statistic.name();
        let field = |part: &str| format!("query.statistic {name:?} {part}");
        let range = |column: &str| number(&name, column, data);
        let (columns, measure) = match statistic {
            Statistic::Count {} => (Vec::new(), Measure::Count(Vec::new())),
            Statistic::Sum { column } => {
                let [low, high] = range(column)?;
                (vec![column.clone()], Measure::Sum { largest: low.abs().max(high.abs()) })
            }
            Statistic::Mean { column } => {
                (vec![column.clone()], Measure::Mean { range: range(column)? })
            }
            Statistic::Variance { column } => {
                (vec![column.clone()], Measure::Variance { range: range(column)? })
            }
            Statistic::Histogram(axis) => {
                (vec![axis.column.clone()], Measure::Count(vec![axis.division(&name, data)?]))
            }
            Statistic::Contingency { axes } => {
                let n = axes.len();
                expect(&field("axes"), (2..=MAX_AXES).contains(&n), "2 to 4 columns", n)?;
                let columns: Vec<_> = axes.iter().map(|axis| axis.column.clone()).collect();
                let twice = (1..n).any(|place| columns[..place].contains(&columns[place]));
                expect(&field("axes"), !twice, "each column once", "one twice")?;
                let divisions: Result<_> =
                    axes.iter().map(|axis| axis.division(&name, data)).collect();
                (columns, Measure::Count(divisions?))
            }
            Statistic::Quantiles { column, bins, quantiles } => {
                let within = |share: &f64| *share > 0.0 && *share < 1.0;
                expect(
                    &field("quantiles"),
                    !quantiles.is_empty() && quantiles.iter().all(within) && quantiles.len() <= 100,
                    "1 to 100 shares between 0 and 1",
                    format!("{quantiles:?}"),
                )?;
                let range = range(column)?;
                let axis = Axis { column: column.clone(), bins: Some(*bins), cuts: Vec::new() };
                let division = axis.division(&name, data)?;
                let quantiles = quantiles.clone();
                (vec![column.clone()], Measure::Quantiles { division, range, quantiles })
            }
        };
        Ok(Self { name, columns, measure })
    }

    /// The statistic's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The columns whose values a patient's contribution is made of.
    #[must_use]
    pub fn columns(&self) -> &[String] {
        &self.columns
    }

    /// What is computed.
    #[must_use]
    pub fn measure(&self) -> &Measure {
        &self.measure
    }

    /// The shape of its cells.
    #[must_use]
    pub fn shape(&self) -> Vec<u64> {
        match &self.measure {
            Measure::Count(divisions) if divisions.is_empty() => vec![1],
            Measure::Count(divisions) => {
                divisions.iter().map(|division| division.cells() as u64).collect()
            }
            Measure::Sum { .. } => vec![1],
            Measure::Mean { .. } => vec![2],
            Measure::Variance { .. } => vec![3],
            Measure::Quantiles { division, .. } => vec![division.cells() as u64],
        }
    }

    /// The number of its cells.
    #[must_use]
    pub fn cells(&self) -> u64 {
        self.shape().iter().fold(1, |product, side| product.saturating_mul(*side))
    }

    /// Fills the cells with what one patient adds to them: numbers whose
    /// Euclidean norm is at most 1, and whose sum is 1 but for a sum. All are
    /// zero if one of the values, which are those of the
    /// [columns](Self::columns) in their order, is missing.
    ///
    /// Values outside the range count as its ends.
    pub fn contribute(&self, values: &[Option<f64>], cells: &mut [f64]) {
        cells.fill(0.0);
        let present: Option<Vec<f64>> = values.iter().copied().collect();
        let Some(values) = present else { return };
        let first = values.first().copied().unwrap_or_default();
        let position = |[low, high]: [f64; 2]| ((first - low) / (high - low)).clamp(0.0, 1.0);
        match &self.measure {
            Measure::Count(divisions) => one(divisions, &values, cells),
            Measure::Quantiles { division, .. } => {
                one(std::slice::from_ref(division), &values, cells);
            }
            Measure::Sum { largest } => {
                cells.iter_mut().for_each(|cell| *cell = (first / largest).clamp(-1.0, 1.0));
            }
            Measure::Mean { range } => copy(&line(position(*range)), cells),
            Measure::Variance { range } => copy(&parabola(position(*range)), cells),
        }
    }

    /// What a cell holds, for people, by its place in row-major order; empty for
    /// the only cell.
    #[must_use]
    pub fn label(&self, cell: usize) -> String {
        let Measure::Count(divisions) = &self.measure else { return String::new() };
        let mut rest = cell;
        let mut labels: Vec<_> = divisions
            .iter()
            .zip(&self.columns)
            .rev()
            .map(|(division, column)| {
                let of_axis = rest % division.cells();
                rest /= division.cells();
                division.label(column, of_axis)
            })
            .collect();
        labels.reverse();
        labels.join(", ")
    }
}

fn copy(shares: &[f64], cells: &mut [f64]) {
    cells.iter_mut().zip(shares).for_each(|(cell, share)| *cell = *share);
}

/// Puts a one into the cell of the values, if each of them has one.
fn one(divisions: &[Division], values: &[f64], cells: &mut [f64]) {
    let place = divisions.iter().zip(values).try_fold(0, |place, (division, value)| {
        division.cell(*value).map(|cell| place * division.cells() + cell)
    });
    if let Some(cell) = place.and_then(|place| cells.get_mut(place)) {
        *cell = 1.0;
    }
}
