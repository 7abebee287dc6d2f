//! The data specification: what a site's data must look like before it may
//! take part. The check itself runs at the site, beside the data.

use sealfold_protocol::Result;
use sealfold_protocol::terms::expect;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// What every site's data is checked against.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataSpecification {
    /// Which patients have the outcome.
    pub outcome: Outcome,
    /// Who belongs to the cohort, in words.
    pub cohort: String,
    /// The fewest rows that a site must have.
    pub minimum_rows: u64,
    /// The columns.
    #[serde(rename = "feature")]
    pub features: Vec<Feature>,
}

/// The outcome: a patient has it if the column's value satisfies the rule.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Outcome {
    /// The column.
    pub column: String,
    /// The comparison.
    pub rule: Comparison,
    /// The number that is compared with.
    pub value: f64,
}

/// How a value is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Comparison {
    /// Greater than.
    #[serde(rename = ">")]
    Greater,
    /// Greater than or equal.
    #[serde(rename = ">=")]
    GreaterOrEqual,
    /// Equal.
    #[serde(rename = "==")]
    Equal,
}

/// One column of a site's data.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Feature {
    /// The column's name.
    pub name: String,
    /// The unit, for people; `none` if it has none.
    pub unit: String,
    /// Which values it may have.
    #[serde(rename = "type")]
    pub kind: FeatureType,
    /// For numbers: the smallest and largest value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub range: Option<[f64; 2]>,
    /// For categories: the values.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub categories: Vec<f64>,
    /// Values that stand for a missing one, besides the empty cell.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing_values: Vec<f64>,
    /// The largest share of missing values, from 0 to 1.
    pub missing_share: f64,
}

/// Which values a column may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FeatureType {
    /// Any number in the range.
    Real,
    /// A whole number in the range.
    Integer,
    /// One of the categories.
    Category,
}

impl Outcome {
    /// Whether a patient with that value has the outcome.
    #[must_use]
    pub fn holds(&self, value: f64) -> bool {
        match self.rule {
            Comparison::Greater => value > self.value,
            Comparison::GreaterOrEqual => value >= self.value,
            Comparison::Equal => value.total_cmp(&self.value).is_eq(),
        }
    }
}

impl DataSpecification {
    pub(crate) fn check(&self) -> Result<()> {
        expect("data.cohort", !self.cohort.trim().is_empty(), "a text", "an empty one")?;
        expect("data.minimum_rows", self.minimum_rows > 0, "at least 1", self.minimum_rows)?;
        expect(
            "data.outcome.value",
            self.outcome.value.is_finite(),
            "a number",
            self.outcome.value,
        )?;
        let n = self.features.len();
        expect("data.feature", (1..=4096).contains(&n), "1 to 4096 features", n)?;
        let names: BTreeSet<_> = self.features.iter().map(|f| &f.name).collect();
        expect("data.feature.name", names.len() == n, "each name once", "a name twice")?;
        expect(
            "data.outcome.column",
            !names.contains(&self.outcome.column),
            "a column that is no feature",
            &self.outcome.column,
        )?;
        self.features.iter().try_for_each(Feature::check)
    }
}

impl Feature {
    fn check(&self) -> Result<()> {
        let field = |part: &str| format!("data.feature {:?} {part}", self.name);
        expect(&field("name"), !self.name.is_empty(), "a name", "none")?;
        let share = self.missing_share;
        expect(&field("missing_share"), (0.0..=1.0).contains(&share), "0 to 1", share)?;
        let is_category = self.kind == FeatureType::Category;
        expect(
            &field("categories"),
            self.categories.is_empty() != is_category,
            "values for a category, none for a number",
            self.categories.len(),
        )?;
        match self.range {
            Some([low, high]) => expect(
                &field("range"),
                !is_category && low <= high && (high - low).is_finite(),
                "[lowest, highest] of a number, no farther apart than a number can be",
                format!("[{low}, {high}]"),
            ),
            None => expect(&field("range"), is_category, "[lowest, highest]", "none"),
        }
    }
}
