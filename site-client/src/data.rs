//! Does a site's data meet the study's data specification?
//!
//! The check runs beside the data. Violations name the rule, the column, rows
//! and counts, and no patient's value.

use crate::{Error, Result};
use sealfold_study::{DataSpecification, Feature, FeatureType};
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
    /// The rule: `column`, `duplicate-column`, `fields`, `number`, `integer`,
    /// `range`, `category`, `missing-share`, `outcome` or `minimum-rows`.
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
        write!(f, ": expected {}, found ", self.expected)?;
        if self.rows.is_empty() {
            return write!(f, "{}", self.count);
        }
        let rows: Vec<_> = self.rows.iter().map(ToString::to_string).collect();
        let more = if self.count > rows.len() as u64 { ", ..." } else { "" };
        let word = if self.count == 1 { "row" } else { "rows" };
        write!(f, "otherwise in {} {word}: {}{more}", self.count, rows.join(", "))
    }
}

/// How many values or rows break a rule, and the first rows that do.
#[derive(Default)]
struct Broken {
    count: u64,
    rows: Vec<u64>,
}

impl Broken {
    fn note(&mut self, row: u64) {
        self.count += 1;
        if self.rows.len() < ROWS_NAMED {
            self.rows.push(row);
        }
    }

    /// The violation, if there is one.
    fn violation(self, rule: &'static str, column: &str, expected: String) -> Option<Violation> {
        let Self { count, rows } = self;
        let column = column.to_owned();
        (count > 0).then_some(Violation { rule, column, expected, count, rows })
    }
}

/// The values of one column as they are counted.
struct Column<'a> {
    feature: &'a Feature,
    place: usize,
    missing: u64,
    /// Number, integer or category, range.
    broken: [Broken; 3],
}

/// The value in a cell of a column; none if it is missing. A column that is no
/// feature has no values that stand for missing ones.
#[must_use]
pub fn value(feature: Option<&Feature>, text: &str) -> Option<f64> {
    let value = text.trim().parse().ok()?;
    let missing = feature.map_or(&[][..], |feature| &feature.missing_values);
    (!contains(missing, value)).then_some(value)
}

/// Whether a list has a value, bit by bit.
fn contains(list: &[f64], value: f64) -> bool {
    list.iter().any(|listed| listed.total_cmp(&value).is_eq())
}

impl Column<'_> {
    fn look_at(&mut self, row: u64, text: &str) {
        let text = text.trim();
        let value = text.parse::<f64>();
        let rule = match value {
            _ if text.is_empty() => {
                self.missing += 1;
                return;
            }
            Ok(value) if contains(&self.feature.missing_values, value) => {
                self.missing += 1;
                return;
            }
            Ok(value) if value.is_finite() => match (self.feature.kind, self.feature.range) {
                (FeatureType::Category, _) if !contains(&self.feature.categories, value) => 1,
                (FeatureType::Integer, _) if value.fract() != 0.0 => 1,
                (_, Some([low, high])) if !(low..=high).contains(&value) => 2,
                _ => return,
            },
            _ => 0,
        };
        self.broken[rule].note(row);
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
        for ((rule, expected), broken) in rules.into_iter().zip(self.broken) {
            out.extend(broken.violation(rule, &feature.name, expected));
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

/// The place of a column in the header. None, and a violation, if it is not
/// there once.
fn place(headers: &csv::StringRecord, name: &str, out: &mut Vec<Violation>) -> Option<usize> {
    let mut places = headers.iter().enumerate().filter(|(_, header)| header.trim() == name);
    let (first, more) = (places.next(), places.count());
    let (rule, count) = match (first, more) {
        (Some((place, _)), 0) => return Some(place),
        (None, _) => ("column", 0),
        (Some(_), more) => ("duplicate-column", more as u64 + 1),
    };
    let expected = "one column of this name".to_owned();
    out.push(Violation { rule, column: name.to_owned(), expected, count, rows: Vec::new() });
    None
}

/// Checks a CSV file with a header line.
///
/// # Errors
/// [`Error::File`] if it cannot be read as CSV.
pub fn check(path: &Path, specification: &DataSpecification) -> Result<DataReport> {
    let mut reader = csv::ReaderBuilder::new()
        .flexible(true)
        .from_path(path)
        .map_err(|e| Error::file(path, e))?;
    let headers = reader.headers().map_err(|e| Error::file(path, e))?.clone();
    let mut violations = Vec::new();
    let mut columns = Vec::new();
    for feature in &specification.features {
        if let Some(place) = place(&headers, &feature.name, &mut violations) {
            columns.push(Column { feature, place, missing: 0, broken: Default::default() });
        }
    }
    let outcome = &specification.outcome;
    let outcome_place = place(&headers, &outcome.column, &mut violations);
    let (mut rows, mut with_outcome) = (0, 0);
    let (mut ragged, mut unknown) = (Broken::default(), Broken::default());
    for record in reader.records() {
        let record = record.map_err(|e| Error::file(path, e))?;
        rows += 1;
        if record.len() != headers.len() {
            // Its values may stand in other columns than they seem to.
            ragged.note(rows);
            continue;
        }
        for column in &mut columns {
            column.look_at(rows, record.get(column.place).unwrap_or_default());
        }
        let Some(place) = outcome_place else { continue };
        match record.get(place).unwrap_or_default().trim().parse::<f64>() {
            Ok(value) if value.is_finite() => with_outcome += u64::from(outcome.holds(value)),
            _ => unknown.note(rows),
        }
    }
    let fields = format!("{} fields in every row, as in the header", headers.len());
    violations.extend(ragged.violation("fields", "", fields));
    columns.into_iter().for_each(|column| column.violations(rows, &mut violations));
    let numbers = "a number in every row".to_owned();
    violations.extend(unknown.violation("outcome", &outcome.column, numbers));
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
    use sealfold_study::{Comparison, Outcome};

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
                "number of \"age\": expected numbers or empty cells, found otherwise in 1 row: 3",
                "integer of \"age\": expected whole numbers, found otherwise in 1 row: 1",
                "range of \"age\": expected 0 to 120 years, found otherwise in 1 row: 2",
                "category of \"cp\": expected one of [1.0, 2.0], found otherwise in 1 row: 2",
                "missing-share of \"cp\": expected at most 25.0 % missing of 3 rows, found 1",
                "outcome of \"num\": expected a number in every row, found otherwise in 1 row: 2",
                "minimum-rows: expected at least 4 rows, found 3",
            ]
        );
        let report = check_text("cp\n1\n");
        assert!(report.violations.iter().any(|v| v.rule == "column" && v.column == "age"));
        assert!(report.violations.iter().any(|v| v.rule == "column" && v.column == "num"));
    }

    #[test]
    fn columns_that_stand_twice_and_ragged_rows_are_named() {
        let report = check_text("age,age,cp,num\n50,51,1,0\n50,51,1\n1,2,3,4,5\n60,61,1,1\n");
        let text: Vec<_> = report.violations.iter().map(ToString::to_string).collect();
        assert_eq!(
            text,
            [
                "duplicate-column of \"age\": expected one column of this name, found 2",
                "fields: expected 4 fields in every row, as in the header, found otherwise in 2 rows: 2, 3",
            ]
        );
        assert_eq!((report.rows, report.with_outcome), (4, 1));
    }
}
