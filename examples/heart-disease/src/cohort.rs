//! A hospital's table, and how a patient becomes numbers.
//!
//! All constants are agreed before the study and public: plausible clinical
//! centres and spreads, not values computed from anybody's patients. A missing
//! value stands at the centre, and an indicator says that it was missing.

use crate::refusal::refused;
use anyhow::Context;
use std::path::Path;

/// The columns of the tables, in the order in which they are read.
const COLUMNS: [&str; 14] = [
    "age", "sex", "cp", "trestbps", "chol", "fbs", "restecg", "thalach", "exang", "oldpeak",
    "slope", "ca", "thal", "num",
];

/// How a column is turned into inputs of the model.
enum Coding {
    /// (value - centre) / spread, and an indicator of a missing value.
    Number { centre: f64, spread: f64 },
    /// One input for each category, and an indicator of a missing value.
    Category(&'static [f64]),
}

/// The coding of the thirteen features.
const CODINGS: [(&str, Coding); 13] = [
    ("age", Coding::Number { centre: 55.0, spread: 10.0 }),
    ("sex", Coding::Number { centre: 0.5, spread: 0.5 }),
    ("cp", Coding::Category(&[1.0, 2.0, 3.0, 4.0])),
    ("trestbps", Coding::Number { centre: 130.0, spread: 20.0 }),
    ("chol", Coding::Number { centre: 240.0, spread: 60.0 }),
    ("fbs", Coding::Number { centre: 0.0, spread: 1.0 }),
    ("restecg", Coding::Category(&[0.0, 1.0, 2.0])),
    ("thalach", Coding::Number { centre: 140.0, spread: 25.0 }),
    ("exang", Coding::Number { centre: 0.0, spread: 1.0 }),
    ("oldpeak", Coding::Number { centre: 1.0, spread: 1.0 }),
    ("slope", Coding::Category(&[1.0, 2.0, 3.0])),
    ("ca", Coding::Number { centre: 0.0, spread: 1.0 }),
    ("thal", Coding::Category(&[3.0, 6.0, 7.0])),
];

/// The number of inputs of the model.
pub const INPUTS: usize = 9 * 2 + (4 + 1) + (3 + 1) + (3 + 1) + (3 + 1);

/// A patient: inputs, and whether the disease was found.
#[derive(Debug, Clone, PartialEq)]
pub struct Patient {
    /// [`INPUTS`] numbers.
    pub inputs: Vec<f64>,
    /// More than 50 % narrowing in a major vessel: `num > 0`.
    pub disease: bool,
}

/// A hospital's patients.
#[derive(Debug, Clone)]
pub struct Cohort {
    /// The hospital.
    pub name: String,
    /// Its patients, in the table's order.
    pub patients: Vec<Patient>,
}

impl Cohort {
    /// Reads a table.
    ///
    /// # Errors
    /// If it is no such table; the row and column are named.
    pub fn read(name: &str, path: &Path) -> anyhow::Result<Self> {
        let mut reader = csv::Reader::from_path(path)
            .with_context(|| format!("cannot read {}", path.display()))?;
        let headers: Vec<String> = reader.headers()?.iter().map(str::to_owned).collect();
        if headers != COLUMNS {
            let path = path.display();
            let message = format!("{path}: expected the columns {COLUMNS:?}, found {headers:?}");
            return Err(refused(message));
        }
        let mut patients = Vec::new();
        for (row, record) in reader.records().enumerate() {
            let values: Vec<Option<f64>> = record?
                .iter()
                .zip(COLUMNS)
                .map(|(text, column)| {
                    if text.is_empty() {
                        return Ok(None);
                    }
                    let wrong = |_| {
                        let (path, row) = (path.display(), row + 1);
                        refused(format!("{path} row {row}: {column} is no number"))
                    };
                    text.parse().map(Some).map_err(wrong)
                })
                .collect::<anyhow::Result<_>>()?;
            patients.push(patient(&values).ok_or_else(|| {
                refused(format!("{} row {}: num is missing", path.display(), row + 1))
            })?);
        }
        Ok(Self { name: name.to_owned(), patients })
    }
}

fn patient(values: &[Option<f64>]) -> Option<Patient> {
    let disease = (*values.get(COLUMNS.len() - 1)?)? > 0.0;
    let mut inputs = Vec::with_capacity(INPUTS);
    for ((name, coding), value) in CODINGS.iter().zip(values) {
        // Zero stands for a missing cholesterol or blood pressure.
        let measured = value.filter(|v| !(["chol", "trestbps"].contains(name) && *v == 0.0));
        match coding {
            Coding::Number { centre, spread } => {
                inputs.push(measured.map_or(0.0, |v| ((v - centre) / spread).clamp(-4.0, 4.0)));
            }
            Coding::Category(categories) => inputs.extend(
                categories
                    .iter()
                    .map(|c| f64::from(u8::from(measured.is_some_and(|v| v.total_cmp(c).is_eq())))),
            ),
        }
        inputs.push(f64::from(u8::from(measured.is_none())));
    }
    Some(Patient { inputs, disease })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(name: &str) -> Cohort {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("data");
        Cohort::read(name, &folder.join(format!("{name}.csv"))).unwrap()
    }

    #[test]
    fn the_four_tables_are_as_published() {
        let counts: Vec<_> = crate::HOSPITALS
            .iter()
            .map(|name| {
                let cohort = read(name);
                let ill = cohort.patients.iter().filter(|p| p.disease).count();
                (cohort.patients.len(), ill)
            })
            .collect();
        assert_eq!(counts, [(303, 139), (294, 106), (123, 115), (200, 149)]);
    }

    #[test]
    fn switzerlands_cholesterol_counts_as_missing() {
        let cohort = read("switzerland");
        // age 2, sex 2, cp 5, trestbps 2, then chol and its indicator.
        assert!(cohort.patients.iter().all(|p| p.inputs[11] == 0.0 && p.inputs[12] == 1.0));
        assert!(cohort.patients.iter().all(|p| p.inputs.len() == INPUTS));
    }
}
