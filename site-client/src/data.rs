//! Does a site's data meet the study's data specification?
//!
//! The check runs beside the data. Violations name the rule, the column, rows
//! and counts, and no patient's value.

use crate::{Error, Result};
use sealfold_protocol::manifest::{DataSpecification, Feature, FeatureType};
use serde::Serialize;
use std::path::Path;

/// How many rows a violation names.
const ROWS_NAMED: usize = 5;

/// What a check found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DataReport {
    /// The number of rows.
    pub rows: u64,
    /// The number of rows with the outcome.
    pub with_outcome: u64,
    /// Where the data does not meet the specification.
    pub violations: Vec<Violation>,
}

/// One rule that the data breaks.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Violation {
    /// The rule: `column`, `number`, `integer`, `range`, `category`,
    /// `missing-share`, `outcome` or `minimum-rows`.
    pub rule: &'static str,
    /// The column; empty for the table as a whole.
    pub column: String,
    /// What was expected.
    pub expected: String,
    /// How many values break it.
    pub count: u64,
    /// The first rows that do, from 1 (the line after the header).
    pub rows: Vec<u64>,
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.rule)?;
        if !self.column.is_empty() {
            write!(f, " of {:?}", self.column)?;
        }
        write!(f, ": expected {}, found {}", self.expected, self.count)?;
        if !self.rows.is_empty() {
            let rows: Vec<_> = self.rows.iter().map(ToString::to_string).collect();
            write!(
                f,
                " (rows {}{})",
                rows.join(", "),
                if self.count > rows.len() as u64 { ", ..." } else { "" }
            )?;
        }
        Ok(())
    }
}

/// The values of one column as they are counted.
struct Column<'a> {
    feature: &'a Feature,
    place: usize,
    missing: u64,
    /// Number, integer or category, range.
    broken: [(u64, Vec<u64>); 3],
}

impl Column<'_> {
    fn look_at(&mut self, row: u64, text: &str) {
        let text = text.trim();
        let value = text.parse::<f64>();
        let is = |list: &[f64], value: f64| list.iter().any(|v| v.total_cmp(&value).is_eq());
        let rule = match value {
            _ if text.is_empty() => {
                self.missing += 1;
                return;
            }
            Ok(value) if is(&self.feature.missing_values, value) => {
                self.missing += 1;
                return;
            }
            Ok(value) if value.is_finite() => match (self.feature.kind, self.feature.range) {
                (FeatureType::Category, _) if !is(&self.feature.categories, value) => 1,
                (FeatureType::Integer, _) if value.fract() != 0.0 => 1,
                (_, Some([low, high])) if !(low..=high).contains(&value) => 2,
                _ => return,
            },
            _ => 0,
        };
        let (count, rows) = &mut self.broken[rule];
        *count += 1;
        if rows.len() < ROWS_NAMED {
            rows.push(row);
        }
    }

    fn violations(self, rows: u64, out: &mut Vec<Violation>) {
        let feature = self.feature;
        let [low, high] = feature.range.unwrap_or_default();
        let kind = match feature.kind {
            FeatureType::Category => ("category", format!("one of {:?}", feature.categories)),
            _ => ("integer", "whole numbers".to_owned()),
        };
        let rules = [
            ("number", "numbers or empty cells".to_owned()),
            kind,
            ("range", format!("{low} to {high} {}", feature.unit)),
        ];
        for ((rule, expected), (count, rows)) in rules.into_iter().zip(self.broken) {
            if count > 0 {
                out.push(Violation { rule, column: feature.name.clone(), expected, count, rows });
            }
        }
        #[allow(clippy::cast_precision_loss)]
        let share = self.missing as f64 / rows.max(1) as f64;
        if share > feature.missing_share {
            out.push(Violation {
                rule: "missing-share",
                column: feature.name.clone(),
                expected: format!(
                    "at most {:.1} % missing of {rows} rows",
                    feature.missing_share * 100.0
                ),
                count: self.missing,
                rows: Vec::new(),
            });
        }
    }
}

/// Checks a CSV file with a header line.
///
/// # Errors
/// [`Error::File`] if it cannot be read as CSV.
pub fn check(path: &Path, specification: &DataSpecification) -> Result<DataReport> {
    let mut reader = csv::ReaderBuilder::new()
        .flexible(false)
        .from_path(path)
        .map_err(|e| Error::file(path, e))?;
    let headers = reader.headers().map_err(|e| Error::file(path, e))?.clone();
    let place = |name: &str| headers.iter().position(|header| header.trim() == name);
    let mut violations = Vec::new();
    let missing = |column: &str| Violation {
        rule: "column",
        column: column.to_owned(),
        expected: "a column of this name".to_owned(),
        count: 0,
        rows: Vec::new(),
    };
    let mut columns = Vec::new();
    for feature in &specification.features {
        match place(&feature.name) {
            Some(place) => {
                columns.push(Column { feature, place, missing: 0, broken: Default::default() });
            }
            None => violations.push(missing(&feature.name)),
        }
    }
    let outcome = &specification.outcome;
    let outcome_place = place(&outcome.column);
    if outcome_place.is_none() {
        violations.push(missing(&outcome.column));
    }
    let (mut rows, mut with_outcome) = (0, 0);
    let mut unknown: (u64, Vec<u64>) = Default::default();
    for record in reader.records() {
        let record = record.map_err(|e| Error::file(path, e))?;
        rows += 1;
        for column in &mut columns {
            column.look_at(rows, record.get(column.place).unwrap_or_default());
        }
        let Some(place) = outcome_place else { continue };
        match record.get(place).unwrap_or_default().trim().parse::<f64>() {
            Ok(value) if value.is_finite() => with_outcome += u64::from(outcome.holds(value)),
            _ => {
                unknown.0 += 1;
                if unknown.1.len() < ROWS_NAMED {
                    unknown.1.push(rows);
                }
            }
        }
    }
    columns.into_iter().for_each(|column| column.violations(rows, &mut violations));
    if unknown.0 > 0 {
        violations.push(Violation {
            rule: "outcome",
            column: outcome.column.clone(),
            expected: "a number in every row".to_owned(),
            count: unknown.0,
            rows: unknown.1,
        });
    }
    if rows < specification.minimum_rows {
        violations.push(Violation {
            rule: "minimum-rows",
            column: String::new(),
            expected: format!("at least {} rows", specification.minimum_rows),
            count: rows,
            rows: Vec::new(),
        });
    }
    Ok(DataReport { rows, with_outcome, violations })
}

#[cfg(test)]
mod tests {
    use super::*;
    use sealfold_protocol::manifest::{Comparison, Outcome};

    fn specification() -> DataSpecification {
        let feature = |name: &str, kind, range, categories: &[f64]| Feature {
            name: name.to_owned(),
            unit: "years".to_owned(),
            kind,
            range,
            categories: categories.to_vec(),
            missing_values: vec![-9.0],
            missing_share: 0.25,
        };
        DataSpecification {
            outcome: Outcome { column: "num".to_owned(), rule: Comparison::Greater, value: 0.0 },
            cohort: "all".to_owned(),
            minimum_rows: 4,
            features: vec![
                feature("age", FeatureType::Integer, Some([0.0, 120.0]), &[]),
                feature("cp", FeatureType::Category, None, &[1.0, 2.0]),
            ],
        }
    }

    fn check_text(text: &str) -> DataReport {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data.csv");
        std::fs::write(&path, text).unwrap();
        check(&path, &specification()).unwrap()
    }

    #[test]
    fn good_data_has_no_violation() {
        let report = check_text("age,cp,num\n50,1,0\n60,2,1\n-9,1,2\n70,,0\n");
        assert_eq!(report, DataReport { rows: 4, with_outcome: 2, violations: vec![] });
    }

    #[test]
    fn each_rule_names_its_column_and_rows() {
        let report = check_text("age,cp,num\n50.5,1,0\n160,3,x\nold,,1\n");
        let text: Vec<_> = report.violations.iter().map(ToString::to_string).collect();
        assert_eq!(
            text,
            [
                "number of \"age\": expected numbers or empty cells, found 1 (rows 3)",
                "integer of \"age\": expected whole numbers, found 1 (rows 1)",
                "range of \"age\": expected 0 to 120 years, found 1 (rows 2)",
                "category of \"cp\": expected one of [1.0, 2.0], found 1 (rows 2)",
                "missing-share of \"cp\": expected at most 25.0 % missing of 3 rows, found 1",
                "outcome of \"num\": expected a number in every row, found 1 (rows 2)",
                "minimum-rows: expected at least 4 rows, found 3",
            ]
        );
        let report = check_text("cp\n1\n");
        assert!(report.violations.iter().any(|v| v.rule == "column" && v.column == "age"));
        assert!(report.violations.iter().any(|v| v.rule == "column" && v.column == "num"));
    }
}
