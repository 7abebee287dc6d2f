//! How a column is divided into cells.

use crate::data::{DataSpecification, FeatureType, Outcome};
use sealfold_protocol::Result;
use sealfold_protocol::terms::expect;
use serde::{Deserialize, Serialize};

/// The most cells of one axis.
const MAX_CELLS: usize = 10_000;

/// A column whose values are sorted into cells. A category has a cell for each
/// of its values and the outcome one without and one with it; a number is
/// divided by `bins` or by `cuts`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Axis {
    /// A feature's name, or the outcome's column.
    pub column: String,
    /// For numbers: the number of cells of equal width over the range.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bins: Option<u32>,
    /// For numbers: the values at which one cell ends and the next begins,
    /// rising, inside the range.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cuts: Vec<f64>,
}

/// The cells of a column.
#[derive(Debug, Clone, PartialEq)]
pub enum Division {
    /// One for each value.
    Categories(Vec<f64>),
    /// Without the outcome, with it.
    Outcome(Outcome),
    /// From each bound up to the next, which is not in it; the last cell has
    /// both. One more bound than cells.
    Intervals(Vec<f64>),
}

impl Axis {
    /// The cells of the column.
    ///
    /// # Errors
    /// [`sealfold_protocol::Error::Manifest`] for a column that the specification does not
    /// have, or cells that do not suit its type.
    pub fn division(&self, statistic: &str, data: &DataSpecification) -> Result<Division> {
        let field = |part: &str| format!("query.statistic {statistic:?} {part}");
        let divided = (self.bins, self.cuts.as_slice());
        let undivided = |what: &str| {
            let found = match self.bins {
                Some(bins) => format!("bins = {bins}"),
                None => format!("cuts = {:?}", self.cuts),
            };
            expect(&field("bins"), divided == (None, &[]), format!("none for {what}"), found)
        };
        if self.column == data.outcome.column {
            undivided("the outcome")?;
            return Ok(Division::Outcome(data.outcome.clone()));
        }
        let feature = data.features.iter().find(|feature| feature.name == self.column);
        if let Some(feature) = feature.filter(|feature| feature.kind == FeatureType::Category) {
            undivided("a category")?;
            return Ok(Division::Categories(feature.categories.clone()));
        }
        let [low, high] = number(statistic, &self.column, data)?;
        match divided {
            (Some(bins), []) => {
                expect(
                    &field("bins"),
                    (1..=MAX_CELLS).contains(&(bins as usize)),
                    format!("1 to {MAX_CELLS}"),
                    bins,
                )?;
                let bound = |place: u32| {
                    let share = f64::from(place) / f64::from(bins);
                    low * (1.0 - share) + high * share
                };
                Ok(Division::Intervals((0..=bins).map(bound).collect()))
            }
            (None, [_, ..]) => {
                let bounds = [&[low], divided.1, &[high]].concat();
                expect(
                    &field("cuts"),
                    bounds.windows(2).all(|pair| pair[0] < pair[1]) && bounds.len() <= MAX_CELLS,
                    format!("rising numbers between {low} and {high}, below {MAX_CELLS} of them"),
                    format!("{:?}", self.cuts),
                )?;
                Ok(Division::Intervals(bounds))
            }
            _ => expect(
                &field("bins"),
                false,
                "either bins or cuts for a number",
                if self.bins.is_some() { "both" } else { "neither" },
            )
            .map(|()| Division::Intervals(Vec::new())),
        }
    }
}

/// The most columns that a refusal lists.
const LISTED: usize = 30;

/// Refuses a column that the specification does not have, and says which it has.
fn no_column(statistic: &str, column: &str, data: &DataSpecification) -> Result<()> {
    let names = data.features.iter().map(|feature| feature.name.as_str());
    let names: Vec<_> = names.chain([data.outcome.column.as_str()]).collect();
    let more = names.len().saturating_sub(LISTED);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    expect(
        &format!("query.statistic {statistic:?} column"),
        false,
        format!("a column of [data]: {}{more}", names[..names.len().min(LISTED)].join(", ")),
        format!("{column:?}, which is none"),
    )
}

/// The range of a column of numbers.
pub(super) fn number(statistic: &str, column: &str, data: &DataSpecification) -> Result<[f64; 2]> {
    let feature = data.features.iter().find(|feature| feature.name == column);
    if feature.is_none() && column != data.outcome.column {
        return no_column(statistic, column, data).map(|()| [0.0, 0.0]);
    }
    let range = feature.and_then(|feature| feature.range).filter(|[low, high]| low < high);
    expect(
        &format!("query.statistic {statistic:?} column"),
        range.is_some(),
        "a feature with a range of more than one number",
        format!("{column:?}"),
    )?;
    Ok(range.unwrap_or_default())
}

impl Division {
    /// The number of cells.
    #[must_use]
    pub fn cells(&self) -> usize {
        match self {
            Self::Categories(values) => values.len(),
            Self::Outcome(_) => 2,
            Self::Intervals(bounds) => bounds.len().saturating_sub(1),
        }
    }

    /// The cell of a value; none for a category that is not listed.
    #[must_use]
    pub fn cell(&self, value: f64) -> Option<usize> {
        match self {
            Self::Categories(values) => values.iter().position(|v| v.total_cmp(&value).is_eq()),
            Self::Outcome(outcome) => Some(usize::from(outcome.holds(value))),
            Self::Intervals(bounds) => {
                let inner = bounds.get(1..bounds.len().saturating_sub(1))?;
                Some(inner.partition_point(|bound| *bound <= value))
            }
        }
    }

    /// What a cell holds, for people.
    #[must_use]
    pub fn label(&self, column: &str, cell: usize) -> String {
        match self {
            Self::Categories(values) => {
                values.get(cell).map_or(String::new(), |value| format!("{column} {value}"))
            }
            Self::Outcome(_) if cell == 0 => format!("{column} without outcome"),
            Self::Outcome(_) => format!("{column} with outcome"),
            Self::Intervals(bounds) => match bounds.get(cell..cell + 2) {
                Some([from, to]) => format!("{column} {from} to {to}"),
                _ => String::new(),
            },
        }
    }
}
