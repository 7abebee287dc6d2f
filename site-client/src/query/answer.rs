//! A site's part of a query: what each of its patients contributes.
//!
//! The file has the form of per-patient gradients, which the client clips,
//! rounds to the grid and adds up before anything leaves the site. A
//! contribution is shorter than the clip by construction
//! ([`Query::weight`](sealfold_study::query::Query::weight)), so each of
//! them enters the sum as it is.

use crate::error::SiteRefusal;
use crate::patients::PatientsWriter;
use crate::{Error, Result, data};
use sealfold_protocol::terms::RoundKind;
use sealfold_study::{DataSpecification, Feature, Manifest};
use std::path::Path;

/// The columns of a file that a query asks for: name, place, and the rule for
/// missing values. The outcome has none, since it never is missing.
struct Columns<'a>(Vec<(&'a str, usize, Option<&'a Feature>)>);

impl<'a> Columns<'a> {
    fn find(
        path: &Path,
        headers: &csv::StringRecord,
        names: impl Iterator<Item = &'a str>,
        data: &'a DataSpecification,
    ) -> Result<Self> {
        let find = |name: &'a str| {
            let place = headers.iter().position(|header| header.trim() == name);
            let place = place.ok_or_else(|| Error::file(path, format!("no column {name:?}")))?;
            Ok((name, place, data.features.iter().find(|feature| feature.name == name)))
        };
        names.map(find).collect::<Result<_>>().map(Self)
    }

    /// The values of one patient; none where they are missing.
    fn values(&self, record: &csv::StringRecord) -> Vec<Option<f64>> {
        let value = |(_, place, feature): &(&str, usize, Option<&Feature>)| {
            data::value(*feature, record.get(*place).unwrap_or_default())
        };
        self.0.iter().map(value).collect()
    }
}

/// Writes what each patient contributes, a row each, into a safetensors file;
/// says how many patients there are.
///
/// # Errors
/// A refusal by `query` for another study; by `data` if the site's data does not
/// meet the specification; [`Error::File`].
pub fn answer(manifest: &Manifest, patients: &Path, out: &Path) -> Result<u64> {
    let (query, noise) = super::of(manifest)?;
    let report = data::check(patients, &manifest.agreement.data)?;
    if let Some(violation) = report.violations.first() {
        let expected = "data that meets the study's specification";
        return Err(SiteRefusal::new("data", expected, violation)
            .next("sealfold check lists every violation")
            .into());
    }
    let weight = query.weight(noise);
    let parts = query.parts(&manifest.agreement.data)?;
    let wrong = |error: csv::Error| Error::file(patients, error);
    let mut reader = csv::Reader::from_path(patients).map_err(wrong)?;
    let headers = reader.headers().map_err(wrong)?.clone();
    let mut sources = Vec::new();
    for part in &parts {
        let names = part.columns().iter().map(String::as_str);
        let columns = Columns::find(patients, &headers, names, &manifest.agreement.data)?;
        let cells = usize::try_from(part.cells()).map_err(|e| Error::file(out, e))?;
        sources.push((part, columns, vec![0.0; cells]));
    }
    let mut writer =
        PatientsWriter::create(out, &manifest.update_tensors(RoundKind::Training), report.rows)?;
    for record in reader.records() {
        let record = record.map_err(wrong)?;
        for (tensor, (part, columns, cells)) in sources.iter_mut().enumerate() {
            part.contribute(&columns.values(&record), cells);
            #[allow(clippy::cast_possible_truncation)] // the weight has room for the rounding
            writer.add(tensor, cells.iter().map(|cell| (cell * weight) as f32));
        }
        writer.end_patient()?;
    }
    writer.finish()?;
    Ok(report.rows)
}
