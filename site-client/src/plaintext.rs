//! The plaintext of an update: the model's values as they travel, and the
//! channels.

use crate::error::SiteRefusal;
use crate::metrics::{self, Metrics};
use crate::patients::Patients;
use crate::scaling::{Measured, Scaled};
use crate::{Error, Result, tensors};
use sealfold_aggregation::clipping::ClippedSum;
use sealfold_protocol::terms::{Channel, Noise, Privacy, RoundKind, Tensor, Terms};
use sealfold_study::{EVALUATION, Manifest};
use std::io::Write;
use std::path::Path;

/// An update before it is sealed: what a training command left.
pub struct Update<'a> {
    /// Its file of tensors; none where a round has none to send.
    pub tensors: Option<&'a Path>,
    /// What it says of itself.
    pub metrics: &'a Metrics,
}

/// Writes the plaintext of a site's update in a round of that kind, and says what
/// became of the model's values; nothing where they are patients' sums.
///
/// Under the privacy unit `patient` the file holds each patient's gradient, and
/// here is where they are clipped, rounded to the grid and added up; nothing
/// else of them leaves the site.
///
/// # Errors
/// A refusal by `layout`, `finite`, `format`, `evaluation` or `metric`;
/// [`Error::File`].
pub fn write(
    manifest: &Manifest,
    kind: RoundKind,
    site: &str,
    update: &Update<'_>,
    out: &mut impl Write,
) -> Result<Option<Scaled>> {
    match &manifest.terms.privacy {
        Privacy::Patient(noise) => {
            let path = update.tensors.ok_or_else(|| missing(EVALUATION))?;
            write_patients(manifest, kind, site, noise, path, out).map(|()| None)
        }
        _ => write_values(manifest, kind, site, update, out),
    }
}

/// What the numbers refuse, as a refusal of this site's.
fn refused(check: &'static str, expected: &str, error: impl ToString) -> Error {
    SiteRefusal::new(check, expected, error).into()
}

fn missing(tensor: &str) -> Error {
    SiteRefusal::new("layout", format!("a file with a tensor {tensor:?}"), "no file")
        .next("the training command writes it to the file that $SEALFOLD_UPDATE names")
        .into()
}

/// The tensors that a file may hold besides those of a round: in an evaluation
/// round the model's, which nobody sends.
fn spare(terms: &Terms, kind: RoundKind) -> &[Tensor] {
    match kind {
        RoundKind::Training => &[],
        RoundKind::Evaluation => &terms.model.tensors,
    }
}

fn write_values(
    manifest: &Manifest,
    kind: RoundKind,
    site: &str,
    update: &Update<'_>,
    out: &mut impl Write,
) -> Result<Option<Scaled>> {
    let terms = &manifest.terms;
    let (wanted, spare) = (manifest.update_tensors(kind), spare(terms, kind));
    let of_model = if kind == RoundKind::Training { terms.model.tensors.len() } else { 0 };
    let mut counts = Vec::new();
    let mut scaled = None;
    if !wanted.is_empty() {
        let path = update.tensors.ok_or_else(|| missing(&wanted[0].name))?;
        let mut measured = Measured::new(terms);
        tensors::read_update(path, &wanted, spare, |tensor, values| {
            if tensor < of_model {
                measured.add(tensor, values);
            } else {
                counts.extend_from_slice(values);
            }
            Ok(())
        })?;
        if of_model > 0 {
            let mut scaling = measured.scale(terms);
            let mut bytes = Vec::new();
            tensors::read_update(path, &wanted, spare, |tensor, values| {
                if tensor >= of_model {
                    return Ok(());
                }
                scaling.encode(terms, tensor, values, &mut bytes).map_err(|e| {
                    let expected = format!("the values of {} as measured before", path.display());
                    let next = "let nothing write to the file while it is sealed";
                    Error::from(SiteRefusal::new("format", expected, e).next(next))
                })?;
                out.write_all(&bytes).map_err(|e| Error::file(path, e))
            })?;
            scaled = Some(scaling);
        }
    }
    let channels = channels(manifest, kind, site, &counts, update.metrics)?;
    out.write_all(&channels).map_err(|e| Error::file(Path::new("the sealed update"), e))?;
    Ok(scaled)
}

/// The channels' values of all sites, of which only this site's are not 0.
fn channels(
    manifest: &Manifest,
    kind: RoundKind,
    site: &str,
    counts: &[f32],
    metrics: &Metrics,
) -> Result<Vec<u8>> {
    let terms = &manifest.terms;
    let width = terms.aggregation.update_type.channel_format().width();
    // A checked manifest has these channels, in this order.
    let mut own = Vec::new();
    if manifest.agreement.evaluation.is_some()
        && let Some(channel) = terms.channels.first()
    {
        own.push(counted(channel, counts)?);
    }
    let behind = terms.channels.get(own.len()..).unwrap_or_default();
    for channel in behind.iter().step_by(2) {
        let value = metrics.in_steps(channel)?;
        own.extend([vec![value.unwrap_or(0)], vec![i64::from(value.is_some())]]);
    }
    let mut bytes = Vec::new();
    for ((channel, all), values) in terms.channel_places(kind).zip(own) {
        let mine = terms.own_places(channel, &all, site);
        let zeros = |places: u64| {
            let places = usize::try_from(places).unwrap_or(usize::MAX);
            std::iter::repeat_n(0i64, places)
        };
        let whole = zeros(mine.start - all.start).chain(values).chain(zeros(all.end - mine.end));
        whole.for_each(|value| bytes.extend_from_slice(&value.to_le_bytes()[..width]));
    }
    Ok(bytes)
}

/// Counts of patients in steps of a channel.
fn counted(channel: &Channel, counts: &[f32]) -> Result<Vec<i64>> {
    let of = |(place, count): (usize, &f32)| {
        metrics::in_steps(channel, f64::from(*count)).ok_or_else(|| {
            let [_, most] = metrics::range(channel);
            let expected = format!("counts from 0 to {most} patients in a bin");
            let found = format!("{count} in bin {}, outcome {}", place / 2, place % 2);
            Error::from(SiteRefusal::new("evaluation", expected, found).next(
                "correct the tensor \"evaluation\" that the training command writes, or ask for a \
                 manifest with a larger evaluation.most",
            ))
        })
    };
    counts.iter().enumerate().map(of).collect()
}

/// Clips each patient's gradient, and writes their sum as grid integers.
///
/// A patient of the evaluation, whose count lies in one bin, contributes as
/// much as the clip allows, so that counts stand above the noise; one who is in
/// training and in the evaluation is clipped as a whole.
fn write_patients(
    manifest: &Manifest,
    kind: RoundKind,
    site: &str,
    noise: &Noise,
    update: &Path,
    out: &mut impl Write,
) -> Result<()> {
    let terms = &manifest.terms;
    let size = |values: u64| {
        usize::try_from(values).map_err(|_| Error::file(update, "a model beyond this memory"))
    };
    let (dimension, of_model) = (size(terms.values(kind))?, size(terms.model_values(kind))?);
    let channel = terms.channel_places(kind).next();
    let own = channel
        .map_or(dimension as u64, |(channel, all)| terms.own_places(channel, &all, site).start);
    let own = size(own)?;
    let mut sum = ClippedSum::new(noise.clip, noise.step, dimension)
        .map_err(|e| refused("clip", "a clip and a step that fit", e))?;
    let wanted = manifest.update_tensors(kind);
    let mut patients = Patients::open(update, &wanted, spare(terms, kind))?;
    let mut gradient = vec![0.0; dimension];
    while let Some(values) = patients.read_next()? {
        let (trained, counts) = values.split_at(of_model);
        gradient[..of_model].copy_from_slice(trained);
        #[allow(clippy::cast_possible_truncation)] // clipped afterwards, whatever it is
        let counts = counts.iter().map(|count| (f64::from(*count) * noise.clip) as f32);
        gradient[own..].iter_mut().zip(counts).for_each(|(place, count)| *place = count);
        sum.add(&gradient)
            .map_err(|e| refused("finite", "a gradient of finite values for each patient", e))?;
    }
    let sums = sum.finish().map_err(|e| refused("grid", "a sum that fits the grid", e))?;
    for piece in sums.chunks(1 << 18) {
        let bytes: Vec<u8> = piece.iter().flat_map(|value| value.to_le_bytes()).collect();
        out.write_all(&bytes).map_err(|e| Error::file(update, e))?;
    }
    Ok(())
}
