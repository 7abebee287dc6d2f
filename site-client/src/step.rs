//! The step from a base model and an aggregate to the next model, with the
//! manifest's server optimiser: the same bytes at every site.
//!
//! A step that would leave a value of the model or of the optimiser's state not
//! finite, or beyond its integer type, ends the study: every site finds that alike,
//! from the same release, so none needs to remember it. An evaluation round has no
//! step; the next model is the base.

use crate::error::SiteRefusal;
use crate::{Error, Result, tensors};
use sealfold_aggregation::Error as Numbers;
use sealfold_aggregation::integer::Words;
use sealfold_aggregation::optimiser::TensorStep;
use sealfold_aggregation::quantise::{read_integers, read_sums};
use sealfold_protocol::Digest;
use sealfold_protocol::content::ContentHasher;
use sealfold_protocol::terms::{Model, RoundKind, Tensor, TensorRole};
use sealfold_study::Manifest;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

/// The values that are stepped at a time.
const PIECE: usize = 1 << 17;

/// Where the parts of a step are.
pub struct Files<'a> {
    /// The base model.
    pub base: &'a Path,
    /// The next one; it gets its name last.
    pub next: &'a Path,
}

impl Files<'_> {
    /// The optimiser's state beside a model.
    fn state(model: &Path) -> PathBuf {
        model.with_extension("state")
    }
}

/// What a step came to; not in place yet.
pub struct Stepped {
    /// The content digest of the aggregate.
    pub aggregate: Digest,
    /// The content digest of the next model.
    pub model: Digest,
    /// The channels' sums, in steps.
    pub channels: Vec<i64>,
    /// Why there is no next model: a value that is not finite, and its tensor.
    pub not_finite: Option<String>,
    candidate: PathBuf,
    state: Option<PathBuf>,
}

impl Stepped {
    /// Gives the next model, and the optimiser's state, their names.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn keep(&self, files: &Files<'_>) -> Result<()> {
        let rename =
            |from: &Path, to: &Path| std::fs::rename(from, to).map_err(|e| Error::file(to, e));
        // The state first: a model is there only with its state.
        if let Some(state) = &self.state {
            rename(state, &Files::state(files.next))?;
        }
        rename(&self.candidate, files.next)?;
        crate::home::sync_folder(files.next)
    }

    /// Removes what was made.
    pub fn discard(&self) {
        let _ = std::fs::remove_file(&self.candidate);
        if let Some(state) = &self.state {
            let _ = std::fs::remove_file(state);
        }
    }
}

/// What a step starts from, besides files.
pub struct Round<'a> {
    /// The manifest of the round's offer.
    pub manifest: &'a Manifest,
    /// What the round is for.
    pub kind: RoundKind,
    /// The base model's content digest.
    pub base: Digest,
    /// The names of the roster's sites.
    pub roster: Vec<&'a str>,
}

/// Steps from a base to the next model, reading the aggregate.
///
/// # Errors
/// A refusal by `optimiser-state` if the state beside the base is not of its
/// length; [`Error::File`]; what the aggregate's reader gives, as `wrong` has
/// it.
pub fn step(
    round: &Round<'_>,
    files: &Files<'_>,
    mut aggregate: impl Read,
    wrong: impl Fn(io::Error) -> Error,
) -> Result<Stepped> {
    let (manifest, terms) = (round.manifest, &round.manifest.terms);
    let words = terms.words(round.kind);
    let channels = terms.values(round.kind) - terms.model_values(round.kind);
    if round.kind == RoundKind::Evaluation {
        let mut content = ContentHasher::new();
        let read = read_channels(&mut aggregate, words, channels, &mut content);
        let channels = read.map_err(wrong)?;
        let candidate = files.next.with_extension("candidate");
        same(files.base, &candidate)?;
        let old = Files::state(files.base);
        let state = Files::state(files.next).with_added_extension("candidate");
        let state = if old.exists() { same(&old, &state).map(|()| Some(state))? } else { None };
        let (aggregate, model) = (content.finish(), round.base);
        return Ok(Stepped { aggregate, model, channels, not_finite: None, candidate, state });
    }
    let steps = steps(manifest, round.roster.len())?;
    let model = &terms.model;
    let plain = files.base.with_extension("content");
    let unpacked = unpack(files.base, &plain, model)?;
    let divisor = terms.divisor(round.roster.iter().copied());
    let scale = |tensor: &Tensor| {
        let step = terms.step(tensor).filter(|_| terms.aggregation.rule.is_exact());
        step.map(|step| step / divisor)
    };
    let scales = model.tensors.iter().map(scale);
    let counts = model.tensors.iter().map(|tensor| tensor.elements().unwrap_or(0));
    let mut step = Step {
        tensors: steps.into_iter().zip(scales).zip(counts).map(|((s, x), n)| (s, x, n)).collect(),
        words,
        current: 0,
        done: 0,
        base: unpacked,
        aggregate,
        state: State::open(manifest, files)?,
        content: ContentHasher::new(),
        model: ContentHasher::new(),
        overflow: None,
        failed: None,
    };
    let candidate = files.next.with_extension("candidate");
    let written = tensors::write_content(&candidate, model, &mut step);
    let _ = std::fs::remove_file(&plain);
    if let Some(error) = step.failed.take() {
        let _ = std::fs::remove_file(&candidate);
        return Err(wrong(error));
    }
    let not_finite = step.overflow.take().map(|(tensor, error)| {
        let name = model.tensors.get(tensor).map_or("", |tensor| tensor.name.as_str());
        format!("tensor {name:?}: {error}")
    });
    // A model that is not finite is not written either.
    if not_finite.is_none() {
        written?;
    }
    let read = read_channels(&mut step.aggregate, words, channels, &mut step.content);
    let channels = read.map_err(wrong)?;
    let state = step.state.map(State::finish).transpose()?;
    let (aggregate, model) = (step.content.finish(), step.model.finish());
    Ok(Stepped { aggregate, model, channels, not_finite, candidate, state })
}

/// Reads the sums of the channels, which stand behind the model's values, and the
/// end of the aggregate.
fn read_channels(
    aggregate: &mut impl Read,
    words: Words,
    values: u64,
    content: &mut ContentHasher,
) -> io::Result<Vec<i64>> {
    let values = usize::try_from(values).map_err(io::Error::other)?;
    let mut bytes = vec![0; values * words.width()];
    aggregate.read_exact(&mut bytes)?;
    content.update(&bytes);
    // The end of the aggregate, or it is not complete.
    if aggregate.read(&mut [0])? != 0 {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "an aggregate that goes on"));
    }
    let mut sums = vec![0; values];
    read_integers(words, &bytes, &mut sums).map_err(io::Error::other)?;
    Ok(sums)
}

/// Makes a second name of a file, or a copy where the file system has none. Models
/// and states are replaced whole, never written to.
fn same(from: &Path, to: &Path) -> Result<()> {
    match std::fs::remove_file(to) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(Error::file(to, error));
        }
        _ => {}
    }
    std::fs::hard_link(from, to)
        .or_else(|_| copy(from, to).map_err(io::Error::other))
        .map_err(|e| Error::file(from, e))
}

/// Copies a file, and syncs the copy.
fn copy(from: &Path, to: &Path) -> Result<()> {
    std::fs::copy(from, to).map_err(|e| Error::file(from, e))?;
    File::open(to).and_then(|file| file.sync_all()).map_err(|e| Error::file(to, e))
}

/// The content of a model, as a file that is read in order.
fn unpack(base: &Path, plain: &Path, model: &Model) -> Result<BufReader<File>> {
    let wrong = |e: io::Error| Error::file(plain, e);
    let mut unpacked = BufWriter::with_capacity(1 << 20, File::create(plain).map_err(wrong)?);
    tensors::copy_content(base, &model.tensors, &mut unpacked)?;
    unpacked.flush().map_err(wrong)?;
    Ok(BufReader::with_capacity(1 << 20, File::open(plain).map_err(wrong)?))
}

/// The step of each tensor.
fn steps(manifest: &Manifest, roster: usize) -> Result<Vec<TensorStep>> {
    let refused =
        |error| Error::from(SiteRefusal::new("optimiser", "an optimiser that can step", error));
    let count = |sites: usize| u32::try_from(sites).unwrap_or(u32::MAX);
    let (roster, sites) = (count(roster), count(manifest.terms.sites.len()));
    let optimiser = manifest.agreement.server.optimiser();
    let of = |tensor: &Tensor| {
        let dtype = tensor.dtype.into();
        match tensor.role {
            TensorRole::Parameter => TensorStep::new(optimiser, dtype),
            TensorRole::Buffer => Ok(TensorStep::buffer(dtype)),
            TensorRole::Control => TensorStep::control(dtype, roster, sites),
        }
    };
    manifest.terms.model.tensors.iter().map(|tensor| of(tensor).map_err(refused)).collect()
}

/// The optimiser's state: read beside the base, written beside the next model.
struct State {
    old: Option<BufReader<File>>,
    new: BufWriter<File>,
    path: PathBuf,
}

impl State {
    /// None for an optimiser without a state.
    fn open(manifest: &Manifest, files: &Files<'_>) -> Result<Option<Self>> {
        let mut length = 0;
        // The number of sites on the roster does not matter for lengths.
        for (step, tensor) in steps(manifest, 1)?.iter().zip(&manifest.terms.model.tensors) {
            length += step.state_width() as u64 * tensor.elements().unwrap_or(0);
        }
        if length == 0 {
            return Ok(None);
        }
        let before = Files::state(files.base);
        let old = match File::open(&before) {
            Ok(file) => Some(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(Error::file(&before, error)),
        };
        if let Some(file) = &old {
            let found = file.metadata().map_err(|e| Error::file(&before, e))?.len();
            if found != length {
                return Err(SiteRefusal::new("optimiser-state", length, found).into());
            }
        }
        let path = Files::state(files.next).with_added_extension("candidate");
        let file = File::create(&path).map_err(|e| Error::file(&path, e))?;
        let new = BufWriter::with_capacity(1 << 20, file);
        Ok(Some(Self { old: old.map(BufReader::new), new, path }))
    }

    fn finish(self) -> Result<PathBuf> {
        let wrong = |e: io::Error| Error::file(&self.path, e);
        let file = self.new.into_inner().map_err(|e| wrong(e.into_error()))?;
        file.sync_all().map_err(wrong)?;
        Ok(self.path)
    }
}

/// The next model as a reader, hashing aggregate and model on the way.
struct Step<A> {
    /// For each tensor its step, what a sum is multiplied by (none for values that
    /// are floating-point numbers already), and its number of values.
    tensors: Vec<(TensorStep, Option<f64>, u64)>,
    words: Words,
    current: usize,
    /// Values of the current tensor that are done.
    done: u64,
    base: BufReader<File>,
    aggregate: A,
    state: Option<State>,
    content: ContentHasher,
    model: ContentHasher,
    /// The first value that the step would leave not finite, and its tensor.
    overflow: Option<(usize, Numbers)>,
    /// Why the aggregate could not be read, or does not lead to a model.
    failed: Option<io::Error>,
}

impl<A: Read> Step<A> {
    fn piece(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.tensors.get(self.current).is_some_and(|(.., count)| self.done == *count) {
            self.current += 1;
            self.done = 0;
        }
        let Some((step, scale, count)) = self.tensors.get(self.current) else { return Ok(0) };
        let width = step.dtype().width();
        let left = usize::try_from(count - self.done).unwrap_or(usize::MAX);
        let values = left.min(out.len() / width).min(PIECE);
        let out = &mut out[..values * width];
        self.base.read_exact(out)?;
        let mut sums = vec![0; values * self.words.width()];
        self.aggregate.read_exact(&mut sums)?;
        let mut aggregate = Vec::new();
        if let Some(scale) = scale {
            let mut floats = vec![0.0; values];
            read_sums(self.words, &sums, *scale, &mut floats).map_err(io::Error::other)?;
            aggregate.extend(floats.iter().flat_map(|value| value.to_le_bytes()));
        }
        let floats = if scale.is_some() { &aggregate } else { &sums };
        let mut slots = vec![0; values * step.state_width()];
        let invalid = |error| io::Error::new(io::ErrorKind::InvalidData, error);
        match self.state.as_mut().and_then(|state| state.old.as_mut()) {
            Some(old) => old.read_exact(&mut slots)?,
            None => step.begin(&mut slots).map_err(invalid)?,
        }
        let first = usize::try_from(self.done).unwrap_or(usize::MAX);
        match step.apply(first, out, floats, &mut slots) {
            // What is written from here on is not kept, but the aggregate is
            // read to its end: only then is it known to be the release's.
            Err(error @ (Numbers::NotFinite { .. } | Numbers::IntegerOverflow { .. })) => {
                self.overflow.get_or_insert((self.current, error));
                out.fill(0);
            }
            other => other.map_err(invalid)?,
        }
        if let Some(state) = &mut self.state {
            state.new.write_all(&slots)?;
        }
        self.content.update(&sums);
        self.model.update(out);
        self.done += values as u64;
        Ok(out.len())
    }
}

impl<A: Read> Read for Step<A> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        self.piece(out).map_err(|error| {
            let kind = error.kind();
            self.failed = Some(error);
            kind.into()
        })
    }
}

#[cfg(test)]
mod tests;
