//! The plaintext of an update: preamble and values, in the form in which the
//! study's updates travel.

use crate::error::SiteRefusal;
use crate::patients::Patients;
use crate::training::Metrics;
use crate::{Error, Result, tensors};
use sealfold_aggregation::clipping::ClippedSum;
use sealfold_aggregation::format::Codec;
use sealfold_protocol::terms::{Noise, Privacy};
use sealfold_study::Manifest;
use sealfold_protocol::update::Preamble;
use std::io::Write;
use std::path::Path;

/// Writes the plaintext of a site's update.
///
/// Under the privacy unit `patient` the file holds each patient's gradient, and
/// here is where they are clipped, rounded to the grid and added up; nothing
/// else of them leaves the site.
///
/// # Errors
/// A refusal by `layout`, `finite`, `format` or `evaluation`; [`Error::File`].
pub fn write(
    manifest: &Manifest,
    site: &str,
    update: &Path,
    metrics: &Metrics,
    out: &mut impl Write,
) -> Result<()> {
    // Under noise every site weighs the same, so the number of examples says
    // nothing, not even to the enclave.
    let examples = if manifest.terms.privacy.noise().is_some() { 1 } else { metrics.examples };
    let preamble =
        Preamble { examples, layout: manifest.layout_digest()?, metrics: metrics.metrics.clone() };
    let preamble = preamble.encode(manifest.preamble_length())?;
    out.write_all(&preamble).map_err(|e| Error::file(update, e))?;
    match &manifest.terms.privacy {
        Privacy::Patient(noise) => write_patients(manifest, site, noise, update, out),
        _ => write_floats(manifest, update, out),
    }
}

/// What the numbers refuse, as a refusal of this site's.
fn refused(check: &'static str, expected: &str, error: sealfold_aggregation::Error) -> Error {
    SiteRefusal::new(check, expected, error).into()
}

fn write_floats(manifest: &Manifest, update: &Path, out: &mut impl Write) -> Result<()> {
    let format = manifest.terms.aggregation.update_type.format();
    let codec = Codec::new(format, &manifest.scales())
        .map_err(|e| refused("format", "a format of floating-point values", e))?;
    let mut encoding = Encoding {
        codec,
        next: 0,
        counts_from: manifest.terms.model.parameters(),
        counts: Vec::new(),
        values: Vec::new(),
        bytes: Vec::new(),
        refused: None,
        out,
    };
    let copied = tensors::copy_content(update, &manifest.update_tensors(), &mut encoding);
    if let Some(error) = encoding.refused.take() {
        let next = "the update does not fit the manifest's update_type: scale the training down";
        let expected = format!("values that {} can hold", format.name());
        return Err(SiteRefusal::new("format", expected, error).next(next).into());
    }
    copied?;
    encoding.finish(update)
}

/// Takes float32 values and passes them on in the study's format; holds the
/// evaluation's counts back until their total is known.
struct Encoding<'a, W> {
    codec: Codec,
    next: u64,
    counts_from: u64,
    counts: Vec<f32>,
    values: Vec<f32>,
    bytes: Vec<u8>,
    refused: Option<sealfold_aggregation::Error>,
    out: &'a mut W,
}

impl<W: Write> Encoding<'_, W> {
    fn encode(&mut self) -> std::io::Result<()> {
        self.bytes.resize(self.values.len() * self.codec.format().width(), 0);
        if let Err(error) = self.codec.encode(self.next, &self.values, &mut self.bytes) {
            self.refused = Some(error);
            return Err(std::io::ErrorKind::InvalidData.into());
        }
        self.next += self.values.len() as u64;
        self.out.write_all(&self.bytes)
    }

    /// Writes the evaluation's counts as shares of their total, so that the
    /// weights of the round are those of the counts as well.
    fn finish(mut self, update: &Path) -> Result<()> {
        if self.counts.is_empty() {
            return Ok(());
        }
        let total: f64 = self.counts.iter().map(|count| f64::from(*count)).sum();
        if self.counts.iter().any(|count| *count < 0.0) || total <= 0.0 {
            let expected = "counts of held-out patients, at least one of them";
            let found = format!("{total} patients in all, or fewer than none in a bin");
            return Err(SiteRefusal::new("evaluation", expected, found).into());
        }
        #[allow(clippy::cast_possible_truncation)] // a share is rounded to float32
        let shares = self.counts.iter().map(|count| (f64::from(*count) / total) as f32);
        self.values = shares.collect();
        self.encode().map_err(|e| Error::file(update, e))
    }
}

impl<W: Write> Write for Encoding<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        // Tensors come in pieces of whole values.
        let (fours, rest) = bytes.as_chunks::<4>();
        if fours.is_empty() && !rest.is_empty() {
            return Err(std::io::ErrorKind::InvalidInput.into());
        }
        let left = usize::try_from(self.counts_from - self.next).unwrap_or(usize::MAX);
        let (values, counts) = fours.split_at(left.min(fours.len()));
        self.counts.extend(counts.iter().map(|four| f32::from_le_bytes(*four)));
        self.values.clear();
        self.values.extend(values.iter().map(|four| f32::from_le_bytes(*four)));
        self.encode()?;
        Ok(fours.len() * 4)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.out.flush()
    }
}

/// Clips each patient's gradient, and writes their sum as grid integers.
///
/// A patient of the evaluation, whose count lies in one bin, contributes as
/// much as the clip allows, so that counts stand above the noise; one who is in
/// training and in the evaluation is clipped as a whole.
fn write_patients(
    manifest: &Manifest,
    site: &str,
    noise: &Noise,
    update: &Path,
    out: &mut impl Write,
) -> Result<()> {
    let too_large = |_| Error::file(update, "a model beyond this machine's memory");
    let dimension = usize::try_from(manifest.values()).map_err(too_large)?;
    let parameters = usize::try_from(manifest.terms.model.parameters()).map_err(too_large)?;
    let evaluation = usize::try_from(manifest.evaluation_place(site)).map_err(too_large)?;
    let mut sum = ClippedSum::new(noise.clip, noise.step, dimension)
        .map_err(|e| refused("clip", "a clip and a step that fit", e))?;
    let mut patients = Patients::open(update, &manifest.update_tensors())?;
    let mut gradient = vec![0.0; dimension];
    while let Some(values) = patients.read_next()? {
        let (trained, counts) = values.split_at(parameters);
        gradient[..parameters].copy_from_slice(trained);
        #[allow(clippy::cast_possible_truncation)] // clipped afterwards, whatever it is
        let counts = counts.iter().map(|count| (f64::from(*count) * noise.clip) as f32);
        gradient[evaluation..].iter_mut().zip(counts).for_each(|(place, count)| *place = count);
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
