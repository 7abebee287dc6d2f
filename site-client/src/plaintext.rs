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
    let path = update.tensors.unwrap_or(Path::new("update"));
    out.write_all(&channels).map_err(|e| Error::file(path, e))?;
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
        // A share is no count: rounded, it would be 0 or 1.
        let whole = Some(f64::from(*count)).filter(|count| count.fract().abs() < f64::EPSILON);
        whole.and_then(|count| metrics::in_steps(channel, count)).ok_or_else(|| {
            let [_, most] = metrics::range(channel);
            let expected = format!("whole numbers from 0 to {most} of patients in a bin");
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

#[cfg(test)]
mod tests {
    use super::*;
    use sealfold_aggregation::quantise::widen;
    use sealfold_protocol::terms::{Dtype, Section};

    /// The example with sections before its quorum, and something else in place of
    /// its norm limit and of `unit = "none"`.
    fn manifest(limit: &str, unit: &str, more: &str) -> Manifest {
        let text = include_str!("../../study/example.toml");
        let text = text
            .replace("[quorum]", &format!("{more}\n[quorum]"))
            .replace("norm_limit = 5.0", limit)
            .replace("unit = \"none\"", unit);
        Manifest::from_toml(&text).unwrap()
    }

    /// A file of float32 tensors.
    fn file(folder: &Path, tensors: &[(&str, Vec<u64>, Vec<f32>)]) -> std::path::PathBuf {
        let path = folder.join("update.safetensors");
        let of = |(name, shape, _): &(&str, Vec<u64>, Vec<f32>)| Tensor {
            name: (*name).to_owned(),
            shape: shape.clone(),
            dtype: Dtype::Float32,
            step: None,
            role: sealfold_protocol::terms::TensorRole::default(),
        };
        let all: Vec<Tensor> = tensors.iter().map(of).collect();
        let mut bytes = tensors::header(&all).unwrap();
        let values = tensors.iter().flat_map(|(.., values)| values);
        bytes.extend(values.flat_map(|value| value.to_le_bytes()));
        std::fs::write(&path, bytes).unwrap();
        path
    }

    fn metrics(folder: &Path, text: &str) -> Metrics {
        let path = folder.join("metrics.json");
        std::fs::write(&path, text).unwrap();
        Metrics::read(&path).unwrap()
    }

    /// The integers of a site's plaintext, and what became of the model.
    fn plaintext(
        manifest: &Manifest,
        kind: RoundKind,
        tensors: Option<&Path>,
        metrics: &Metrics,
    ) -> Result<(Vec<i32>, Option<Scaled>)> {
        let mut bytes = Vec::new();
        let scaled = write(manifest, kind, "site-1", &Update { tensors, metrics }, &mut bytes)?;
        assert_eq!(bytes.len() as u64, manifest.terms.update_length(kind));
        let format = manifest.terms.aggregation.update_type.channel_format();
        let mut values = vec![0; bytes.len() / format.width()];
        widen(format, &bytes, &mut values).unwrap();
        Ok((values, scaled))
    }

    fn check(result: Result<(Vec<i32>, Option<Scaled>)>) -> &'static str {
        match result {
            Err(Error::Refused(refusal)) => refusal.check,
            other => panic!("{:?}", other.map(|(values, _)| values).map_err(|e| e.to_string())),
        }
    }

    const MEASURED: &str = "[evaluation]\nbins = 2\nmost = 50\nper_site = true\n\
                            [[metric]]\nname = \"loss\"\nrange = [0, 4]\nstep = 0.5";

    fn apart(limit: &str) -> Manifest {
        let text = include_str!("../../study/example.toml");
        let text = text
            .replace("format = 2", "format = 2\naccepts = [\"per-site-metrics\"]")
            .replace("norm_limit = 5.0", limit)
            .replace("[quorum]", &format!("{MEASURED}\n[quorum]"));
        Manifest::from_toml(&text).unwrap()
    }

    #[test]
    fn values_counts_and_metrics_lie_where_the_terms_say() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        let manifest = apart("norm_limit = 5.0\nupdate_type = \"int16\"\nstep = 0.01");
        let counts = ("evaluation", vec![2, 2], vec![7.0, 0.0, 3.0, 50.0]);
        let model = ("weights", vec![3, 4], vec![0.25; 12]);
        let path = file(folder, &[counts.clone(), model.clone()]);
        let metrics = metrics(folder, "{\"loss\": 1.5, \"loss-present\": 9, \"own\": 3}");
        let kind = RoundKind::Training;
        let (values, scaled) = plaintext(&manifest, kind, Some(&path), &metrics).unwrap();
        let scaled = scaled.unwrap();
        assert_eq!((values[..12].to_vec(), scaled.factor), (vec![25; 12], 1.0));
        assert!(scaled.relative_error() < 1e-6);
        // The second of four sites; the metrics are of all sites together.
        let expected = [[0; 4], [7, 0, 3, 50], [0; 4], [0; 4]].concat();
        assert_eq!((&values[12..28], &values[28..]), (&expected[..], &[3, 1][..]));
        for (places, section) in manifest.terms.sections(kind, "site-1") {
            let places =
                usize::try_from(places.start).unwrap()..usize::try_from(places.end).unwrap();
            let mine = &values[places];
            match section {
                Section::Model(step) => assert_eq!(step, Some(0.01)),
                Section::OfOthers => assert!(mine.iter().all(|value| *value == 0)),
                Section::Channel(least, most) => {
                    assert!(mine.iter().all(|value| (least..=most).contains(&i64::from(*value))));
                }
            }
        }
        // The last round has the channels alone, and passes the model over.
        let kind = RoundKind::Evaluation;
        for tensors in [vec![counts.clone()], vec![model.clone(), counts.clone()]] {
            let path = file(folder, &tensors);
            let (measured, scaled) = plaintext(&manifest, kind, Some(&path), &metrics).unwrap();
            assert_eq!((&measured[..], scaled.is_none()), (&values[12..], true));
        }
        // A metric that is not there is not 0.
        let path = file(folder, &[counts]);
        let (measured, _) = plaintext(&manifest, kind, Some(&path), &Metrics::default()).unwrap();
        assert_eq!(measured[16..], [0, 0]);
        assert_eq!(check(plaintext(&manifest, kind, None, &metrics)), "layout");
        assert_eq!(
            check(plaintext(&manifest, kind, Some(&file(folder, &[model])), &metrics)),
            "layout"
        );
    }

    #[test]
    fn a_round_of_metrics_needs_no_file() {
        let folder = tempfile::tempdir().unwrap();
        let metric = "[[metric]]\nname = \"loss\"\nrange = [0, 4]\nstep = 0.5";
        let manifest = manifest("norm_limit = 5.0", "unit = \"none\"", metric);
        let metrics = metrics(folder.path(), "{\"metrics\": {\"loss\": 4}}");
        let (values, scaled) = plaintext(&manifest, RoundKind::Evaluation, None, &metrics).unwrap();
        assert_eq!((values, scaled), (vec![8, 1], None));
    }

    #[test]
    fn counts_out_of_range_are_refused_with_their_place() {
        let folder = tempfile::tempdir().unwrap();
        let manifest = apart("norm_limit = 5.0");
        for (counts, found) in [
            ([0.0, 51.0, 0.0, 0.0], "51 in bin 0, outcome 1"),
            ([0.0, 0.0, -1.0, 0.0], "-1 in bin 1, outcome 0"),
            ([0.0, 0.0, 0.0, 0.4], "0.4 in bin 1, outcome 1"),
        ] {
            let path = file(folder.path(), &[("evaluation", vec![2, 2], counts.to_vec())]);
            let kind = RoundKind::Evaluation;
            let refused = plaintext(&manifest, kind, Some(&path), &Metrics::default());
            let said = refused.as_ref().err().unwrap().to_string();
            assert!(said.contains(found) && said.contains("from 0 to 50"), "{said}");
            assert_eq!(check(refused), "evaluation");
        }
        let bad = vec![0.0, f32::NAN, 0.0, 0.0];
        let path = file(folder.path(), &[("evaluation", vec![2, 2], bad)]);
        let kind = RoundKind::Evaluation;
        assert_eq!(check(plaintext(&manifest, kind, Some(&path), &Metrics::default())), "finite");
    }

    /// Whatever a site's update is like, its plaintext is one that is admitted.
    #[test]
    fn an_update_too_long_is_scaled_as_a_whole() {
        let folder = tempfile::tempdir().unwrap();
        let limit = "norm_limit = 5.0\nupdate_type = \"int16\"";
        let manifest = manifest(limit, "unit = \"none\"", "");
        let values: Vec<f32> = (0..12u8).map(|place| f32::from(place) * 1e20).collect();
        let path = file(folder.path(), &[("weights", vec![3, 4], values)]);
        let none = Metrics::default();
        let (sent, scaled) = plaintext(&manifest, RoundKind::Training, Some(&path), &none).unwrap();
        let step = manifest.terms.smallest_step().unwrap();
        let squares: f64 = sent.iter().map(|value| (f64::from(*value) * step).powi(2)).sum();
        assert!(squares.sqrt() <= 5.0 && squares.sqrt() > 4.8, "{squares}");
        assert!(scaled.unwrap().reason.unwrap().contains("norm limit 5"));
    }

    /// Each patient is clipped here, counts and gradient as one vector.
    #[test]
    fn patients_are_summed_on_the_grid() {
        let folder = tempfile::tempdir().unwrap();
        let unit = "unit = \"patient\"\nclip = 1.0\nstep = 0.0009765625\n\
                    noise_multiplier = 30\nepsilon = 20\ndelta = 1e-5";
        let evaluation = "[evaluation]\nbins = 2\nper_site = true";
        let text = include_str!("../../study/example.toml");
        let text = text
            .replace("[quorum]", &format!("{evaluation}\n[quorum]"))
            .replace("rule = \"weighted-mean\"\nnorm_limit = 5.0", "rule = \"sum\"\ndivisor = 8")
            .replace("unit = \"none\"", unit);
        let manifest = Manifest::from_toml(&text).unwrap();
        // One patient is trained on, and two of the second bin are held out.
        let (mut gradients, mut counts) = (vec![0.0; 36], vec![0.0; 12]);
        gradients[5] = 0.5;
        (counts[6], counts[10]) = (1.0, 1.0);
        let counts = ("evaluation", vec![3, 2, 2], counts);
        let path = file(folder.path(), &[("weights", vec![3, 3, 4], gradients), counts.clone()]);
        let none = Metrics::default();
        let kind = RoundKind::Training;
        let (values, scaled) = plaintext(&manifest, kind, Some(&path), &none).unwrap();
        let mut expected = vec![0; 12 + 16];
        (expected[5], expected[12 + 4 + 2]) = (512, 2 * 1024);
        assert_eq!((&values, scaled), (&expected, None));
        // What the release is read with gives the patients back.
        let channel = &manifest.terms.channels[0];
        assert_eq!((f64::from(values[18]) * channel.step).to_bits(), 2f64.to_bits());
        let path = file(folder.path(), &[counts]);
        let (measured, _) =
            plaintext(&manifest, RoundKind::Evaluation, Some(&path), &none).unwrap();
        assert_eq!(measured, expected[12..]);
    }
}
