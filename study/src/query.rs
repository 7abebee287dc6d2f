//! A query: statistics over the sites' patients in place of a model.
//!
//! A study with a `[query]` is one round over a model of zeros. Each patient
//! contributes one vector to each statistic; the vectors of all statistics
//! together are as long as the clip of the privacy unit `patient` allows, so
//! that nobody is ever scaled down. The sum over all patients, with the study's
//! noise, is the next model, and the statistics are read from it.

use crate::data::DataSpecification;
use crate::manifest::Manifest;
use crate::misread;
use sealfold_protocol::content::ContentHasher;
use sealfold_protocol::terms::{Dtype, Noise, Privacy, Tensor, TensorRole, expect};
use sealfold_protocol::{Digest, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

mod axis;
mod part;
pub use axis::{Axis, Division};
pub use part::{Measure, Part};

/// The most statistics of a query.
const MAX_STATISTICS: usize = 100;
/// The most cells of a query.
const MAX_CELLS: u64 = 100_000;
/// The fewest grid steps of a contribution, so that rounding to the grid is far
/// below what any noise does.
const MIN_STEPS: f64 = 256.0;
/// How much shorter than the clip contributions are, for what binary32 and
/// binary64 round on the way.
const MARGIN: f64 = 1.0 - 1.0 / (1 << 20) as f64;

/// Statistics over the columns of the data specification.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Query {
    /// The statistics, in the order of the model's tensors.
    #[serde(rename = "statistic")]
    pub statistics: Vec<Statistic>,
}

/// One statistic. A patient whose value is missing is not counted in it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Statistic {
    /// The number of patients.
    Count {},
    /// The sum of a number.
    Sum {
        /// The column.
        column: String,
    },
    /// The mean of a number.
    Mean {
        /// The column.
        column: String,
    },
    /// The variance of a number, and its mean.
    Variance {
        /// The column.
        column: String,
    },
    /// The number of patients in each cell of a column.
    Histogram(Axis),
    /// The number of patients in each combination of cells.
    Contingency {
        /// Two to four columns.
        axes: Vec<Axis>,
    },
    /// Quantiles of a number, interpolated in a histogram over its range.
    Quantiles {
        /// The column.
        column: String,
        /// The number of cells of equal width.
        bins: u32,
        /// The shares of patients, between 0 and 1.
        quantiles: Vec<f64>,
    },
}

impl Statistic {
    /// The statistic's name, which is also that of its tensor.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Self::Count {} => "count".to_owned(),
            Self::Sum { column } => format!("sum of {column}"),
            Self::Mean { column } => format!("mean of {column}"),
            Self::Variance { column } => format!("variance of {column}"),
            Self::Histogram(axis) => format!("histogram of {}", axis.column),
            Self::Contingency { axes } => {
                let columns: Vec<_> = axes.iter().map(|axis| axis.column.as_str()).collect();
                format!("contingency of {}", columns.join(" and "))
            }
            Self::Quantiles { column, .. } => format!("quantiles of {column}"),
        }
    }
}

impl Query {
    /// The statistics over these columns, in their order.
    ///
    /// # Errors
    /// [`sealfold_protocol::Error::Manifest`] naming the statistic and what it wants.
    pub fn parts(&self, data: &DataSpecification) -> Result<Vec<Part>> {
        let n = self.statistics.len();
        let expected = format!("1 to {MAX_STATISTICS} statistics");
        expect("query.statistic", (1..=MAX_STATISTICS).contains(&n), expected, n)?;
        let names: BTreeSet<_> = self.statistics.iter().map(Statistic::name).collect();
        expect("query.statistic", names.len() == n, "each kind once for its columns", "one twice")?;
        let parts: Result<Vec<_>> =
            self.statistics.iter().map(|statistic| Part::new(statistic, data)).collect();
        let parts = parts?;
        let cells = parts.iter().fold(0u64, |sum, part| sum.saturating_add(part.cells()));
        let expected = format!("at most {MAX_CELLS} cells in all");
        expect("query.statistic", cells <= MAX_CELLS, expected, cells)?;
        Ok(parts)
    }

    /// The model's tensors: one for each statistic, with its name and its cells.
    ///
    /// # Errors
    /// As [`Query::parts`].
    pub fn tensors(&self, data: &DataSpecification) -> Result<Vec<Tensor>> {
        let tensor = |part: &Part| Tensor {
            name: part.name().to_owned(),
            shape: part.shape(),
            dtype: Dtype::Float32,
            step: None,
            role: TensorRole::default(),
        };
        Ok(self.parts(data)?.iter().map(tensor).collect())
    }

    /// The digest of the model of zeros that a query starts from.
    ///
    /// # Errors
    /// As [`Query::parts`].
    pub fn initial(&self, data: &DataSpecification) -> Result<Digest> {
        let mut zeros = ContentHasher::new();
        for part in self.parts(data)? {
            (0..part.cells()).for_each(|_| zeros.update(&0f32.to_le_bytes()));
        }
        Ok(zeros.finish())
    }

    /// What a contribution of 1 to a statistic is worth, in the model's units.
    ///
    /// A patient contributes to every statistic a vector of norm 1 at most, so
    /// with S statistics `clip / sqrt(S)` each would be as long as the clip
    /// allows. It is a little less: of each statistic at most three cells are
    /// not 0, and rounding them to the grid adds `sqrt(3 S) / 2` steps to the
    /// norm at most. So clipping changes no contribution.
    #[must_use]
    #[allow(clippy::cast_precision_loss)] // a bound below 2^31
    pub fn weight(&self, noise: &Noise) -> f64 {
        let statistics = self.statistics.len() as f64;
        let steps = noise.patient_steps() as f64 - (3.0 * statistics).sqrt() / 2.0;
        (steps * MARGIN / statistics.sqrt() * noise.step).max(0.0)
    }

    /// The standard deviation of a cell's noise, in patients.
    #[must_use]
    #[allow(clippy::cast_precision_loss)] // a bound below 2^31
    pub fn deviation(&self, noise: &Noise) -> f64 {
        noise.sigma(noise.patient_steps() as f64) * noise.step / self.weight(noise)
    }
}

/// What a query can be planned from: a manifest whose other sections may be
/// missing yet.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Draft {
    /// The columns.
    pub data: DataSpecification,
    /// The statistics.
    pub query: Query,
}

impl Draft {
    /// Reads and checks the two sections of a TOML file, and passes over others.
    ///
    /// # Errors
    /// [`sealfold_protocol::Error::Manifest`] naming what is missing or wrong.
    pub fn from_toml(text: &str) -> Result<Self> {
        let draft: Self = toml::from_str(text).map_err(|e| misread::error(text, &e))?;
        draft.data.check()?;
        draft.query.parts(&draft.data)?;
        Ok(draft)
    }
}

/// Checks what a manifest with a query has beside it.
///
/// # Errors
/// [`sealfold_protocol::Error::Manifest`] naming the field.
pub(crate) fn check(manifest: &Manifest) -> Result<()> {
    let (terms, agreement) = (&manifest.terms, &manifest.agreement);
    let Some(query) = &agreement.query else { return Ok(()) };
    let Privacy::Patient(noise) = &terms.privacy else {
        return expect("privacy.unit", false, "patient for a query", terms.privacy.unit());
    };
    let tensors = query.tensors(&agreement.data)?;
    expect_tensors(&tensors, &terms.model.tensors)?;
    let (initial, zeros) = (&terms.model.initial, query.initial(&agreement.data)?);
    expect("model.initial", *initial == zeros, format!("{zeros}, the query's zeros"), initial)?;
    let (rate, optimiser) = (agreement.server.learning_rate, agreement.server.optimiser);
    let plain = rate.total_cmp(&1.0).is_eq() && optimiser.is_none();
    let found = format!("{rate} with {}", if optimiser.is_some() { "one" } else { "none" });
    expect("model.learning_rate", plain, "1 without an optimiser for a query", found)?;
    // A second round would answer the same again, at twice the cost.
    expect("study.rounds", terms.rounds == 1, "1 for a query", terms.rounds)?;
    expect(
        "privacy.sampling_rate",
        agreement.claim.is_none_or(|claim| claim.sampling_rate.is_none()),
        "none for a query: it counts all patients",
        "one",
    )?;
    expect("evaluation", terms.channels.is_empty(), "none for a query", "one")?;
    let steps = query.weight(noise) / noise.step;
    expect(
        "privacy.step",
        steps >= MIN_STEPS,
        format!("at least {MIN_STEPS} steps of the clip for each statistic's share"),
        format!("{steps}"),
    )
}

/// Whether the model's tensors are the query's, naming the first that is not.
fn expect_tensors(expected: &[Tensor], found: &[Tensor]) -> Result<()> {
    let shown = |tensor: Option<&Tensor>| {
        tensor.map_or("none".to_owned(), |tensor| {
            format!("{:?} {:?} {}", tensor.name, tensor.shape, tensor.dtype.name())
        })
    };
    let most = expected.len().max(found.len());
    let differs = (0..most).find(|place| expected.get(*place) != found.get(*place));
    let place = differs.unwrap_or(most);
    expect(
        "model.tensor",
        differs.is_none(),
        format!("the query's tensors; number {} is {}", place + 1, shown(expected.get(place))),
        shown(found.get(place)),
    )
}

#[cfg(test)]
mod tests;
