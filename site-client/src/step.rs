//! The step from a base model and an aggregate to the next model, with the
//! manifest's server optimiser: the same bytes at every site.
//!
//! A step that would leave a value of the model or of the optimiser's state not
//! finite, or beyond its integer type, is not taken at all: the next model is
//! the base, and the state stays. Every site finds that alike, so the study goes
//! on from a model that all have.

use crate::error::SiteRefusal;
use crate::{Error, Result, tensors};
use sealfold_aggregation::Error as Numbers;
use sealfold_aggregation::optimiser::TensorStep;
use sealfold_protocol::Digest;
use sealfold_protocol::content::ContentHasher;
use sealfold_protocol::terms::{Model, TensorRole};
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
    /// The content digest of the aggregate, its preamble included.
    pub aggregate: Digest,
    /// The content digest of the next model.
    pub model: Digest,
    /// The evaluation's values.
    pub evaluation: Vec<f32>,
    /// Why the step was not taken, and the next model is the base.
    pub not_taken: Option<String>,
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

/// Steps from a base to the next model, reading the aggregate behind its
/// preamble.
///
/// # Errors
/// A refusal by `optimiser-state` if the state beside the base is not of its
/// length; [`Error::File`]; what the aggregate's reader gives, as `wrong` has
/// it.
pub fn step(
    manifest: &Manifest,
    roster: usize,
    files: &Files<'_>,
    preamble: &[u8],
    aggregate: impl Read,
    wrong: impl Fn(io::Error) -> Error,
) -> Result<Stepped> {
    let steps = steps(manifest, roster)?;
    let model = &manifest.terms.model;
    let plain = files.base.with_extension("content");
    let unpacked = unpack(files.base, &plain, model)?;
    let mut content = ContentHasher::new();
    content.update(preamble);
    let mut step = Step {
        tensors: steps
            .into_iter()
            .zip(model.tensors.iter().map(|t| t.elements().unwrap_or(0)))
            .collect(),
        current: 0,
        done: 0,
        base: unpacked,
        aggregate,
        state: State::open(manifest, files)?,
        content,
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
    written?;
    let evaluation = step.evaluation(manifest.values() - model.parameters()).map_err(wrong)?;
    let mut state = step.state.map(State::finish).transpose()?;
    let mut digest = step.model.finish();
    let not_taken = step.overflow.map(|(tensor, error)| {
        let name = model.tensors.get(tensor).map_or("", |tensor| tensor.name.as_str());
        format!("tensor {name:?}: {error}")
    });
    if not_taken.is_some() {
        digest = copy(files.base, &candidate).and_then(|()| tensors::digest(&candidate, model))?;
        // None yet where no step was ever taken: it begins anew.
        let old = Files::state(files.base);
        state = match state {
            Some(state) if old.exists() => copy(&old, &state).map(|()| Some(state))?,
            Some(state) => {
                std::fs::remove_file(&state).map(|()| None).map_err(|e| Error::file(&state, e))?
            }
            None => None,
        };
    }
    let aggregate = step.content.finish();
    Ok(Stepped { aggregate, model: digest, evaluation, not_taken, candidate, state })
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
    let optimiser = manifest.terms.model.server_optimiser();
    let of = |tensor: &sealfold_protocol::terms::Tensor| {
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
    tensors: Vec<(TensorStep, u64)>,
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
        while self.tensors.get(self.current).is_some_and(|(_, count)| self.done == *count) {
            self.current += 1;
            self.done = 0;
        }
        let Some((step, count)) = self.tensors.get(self.current) else { return Ok(0) };
        let width = step.dtype().width();
        let left = usize::try_from(count - self.done).unwrap_or(usize::MAX);
        let values = left.min(out.len() / width).min(PIECE);
        let out = &mut out[..values * width];
        self.base.read_exact(out)?;
        let mut aggregate = vec![0; values * 4];
        self.aggregate.read_exact(&mut aggregate)?;
        let mut slots = vec![0; values * step.state_width()];
        let invalid = |error| io::Error::new(io::ErrorKind::InvalidData, error);
        match self.state.as_mut().and_then(|state| state.old.as_mut()) {
            Some(old) => old.read_exact(&mut slots)?,
            None => step.begin(&mut slots).map_err(invalid)?,
        }
        let first = usize::try_from(self.done).unwrap_or(usize::MAX);
        match step.apply(first, out, &aggregate, &mut slots) {
            // What is written from here on is not kept, but the aggregate is
            // read to its end: only then is it known to be the release's.
            Err(error @ (Numbers::NotFinite { .. } | Numbers::IntegerOverflow { .. })) => {
                self.overflow.get_or_insert((self.current, error));
            }
            other => other.map_err(invalid)?,
        }
        if let Some(state) = &mut self.state {
            state.new.write_all(&slots)?;
        }
        self.content.update(&aggregate);
        self.model.update(out);
        self.done += values as u64;
        Ok(out.len())
    }

    /// Reads the values behind the model's.
    fn evaluation(&mut self, values: u64) -> io::Result<Vec<f32>> {
        let mut bytes = vec![0; usize::try_from(values * 4).map_err(io::Error::other)?];
        self.aggregate.read_exact(&mut bytes)?;
        self.content.update(&bytes);
        // The end of the aggregate, or it is not complete.
        if self.aggregate.read(&mut [0])? != 0 {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "an aggregate that goes on"));
        }
        Ok(bytes.as_chunks::<4>().0.iter().map(|four| f32::from_le_bytes(*four)).collect())
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
