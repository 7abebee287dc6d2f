//! The site's own training command.
//!
//! It reads the global model and writes an update (trained minus global) and
//! metrics as files, named to it in the environment; any language will do.
//!
//! One training command runs at a time, also when its agent was killed and
//! another one started: a lock on a file says so, and the command itself holds
//! it, because that file is its standard input. The lock ends with the command.

use crate::error::SiteRefusal;
use crate::metrics::Metrics;
use crate::{Error, Result};
use sealfold_protocol::terms::RoundKind;
use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// What a training command is told.
pub struct Task<'a> {
    /// The command, for `sh -c`.
    pub command: &'a str,
    /// The global model, safetensors.
    pub model: &'a Path,
    /// Where the update goes, safetensors or npz.
    pub update: &'a Path,
    /// Where the metrics go, JSON.
    pub metrics: &'a Path,
    /// The round.
    pub round: u32,
    /// What the round is for.
    pub kind: RoundKind,
    /// Whether the command has to write tensors.
    pub writes_tensors: bool,
    /// The site.
    pub site: &'a str,
    /// The study.
    pub study: String,
    /// The manifest of the round's offer.
    pub manifest: String,
    /// The rows of the site's data that may be used, where a sample is drawn.
    pub sample: Option<&'a Path>,
    /// The empty file that is locked while the command runs.
    pub lock: &'a Path,
}

/// Takes hold of the lock of the training command.
fn take(path: &Path) -> Result<File> {
    let mut options = OpenOptions::new();
    let lock = options.read(true).append(true).create(true).open(path);
    let lock = lock.map_err(|e| Error::file(path, e))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::Error(error)) => Err(Error::file(path, error)),
        Err(TryLockError::WouldBlock) => {
            let found =
                format!("one of an earlier agent that still runs and holds {}", path.display());
            Err(SiteRefusal::new("second-trainer", "one training command at a time", found)
                .next("it is waited for; end it to go on at once")
                .into())
        }
    }
}

/// Runs the command. Told to stop, it ends the command and all it started.
///
/// # Errors
/// [`Error::Training`] if it fails or writes nothing; a refusal by
/// `second-trainer`; [`Error::Stopped`].
pub fn run(task: &Task<'_>, stop: &Arc<AtomicBool>) -> Result<Metrics> {
    let lock = take(task.lock)?;
    // NumPy appends this to a name that ends otherwise.
    let npz = task.update.with_added_extension("npz");
    for path in [task.update, &npz, task.metrics] {
        // What an earlier attempt left is not this one's.
        let _ = std::fs::remove_file(path);
    }
    let ended = run_alone(task, &lock, stop);
    // What a command that has ended left running does not stand in the way.
    let _ = lock.unlock();
    ended?;
    if !task.update.exists() && npz.exists() {
        std::fs::rename(&npz, task.update).map_err(|e| Error::file(task.update, e))?;
    }
    if task.writes_tensors && !task.update.exists() {
        return Err(Error::Training(format!(
            "{:?} ended well but wrote no file at $SEALFOLD_UPDATE",
            task.command
        )));
    }
    Metrics::read(task.metrics)
}

fn run_alone(task: &Task<'_>, lock: &File, stop: &Arc<AtomicBool>) -> Result<()> {
    let input = lock.try_clone().map_err(|e| Error::file(task.lock, e))?;
    let mut child = Command::new("sh")
        .arg("-c")
        .arg(task.command)
        .env("SEALFOLD_MODEL", task.model)
        .env("SEALFOLD_UPDATE", task.update)
        .env("SEALFOLD_METRICS", task.metrics)
        .env("SEALFOLD_ROUND", task.round.to_string())
        .env("SEALFOLD_TASK", if task.kind == RoundKind::Training { "train" } else { "evaluate" })
        .env("SEALFOLD_SITE", task.site)
        .env("SEALFOLD_STUDY", &task.study)
        .env("SEALFOLD_MANIFEST", &task.manifest)
        .envs(task.sample.map(|sample| ("SEALFOLD_SAMPLE", sample)))
        .stdin(Stdio::from(input))
        .stdout(Stdio::from(std::io::stderr()))
        .process_group(0)
        .spawn()
        .map_err(|error| Error::Training(format!("sh does not start: {error}")))?;
    let status = loop {
        if let Some(status) =
            child.try_wait().map_err(|error| Error::Training(error.to_string()))?
        {
            break status;
        }
        if stop.load(Ordering::Relaxed) {
            if let Ok(Some(group)) = i32::try_from(child.id()).map(rustix::process::Pid::from_raw) {
                let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
            }
            let _ = child.wait();
            return Err(Error::Stopped);
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    if !status.success() {
        return Err(Error::Training(format!("{:?} ended with {status}", task.command)));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn train(command: &str, stop: &Arc<AtomicBool>) -> Result<Metrics> {
        let folder = tempfile::tempdir().unwrap();
        let task = Task {
            command,
            model: Path::new("/dev/null"),
            update: &folder.path().join("update.safetensors"),
            metrics: &folder.path().join("metrics.json"),
            round: 3,
            kind: RoundKind::Training,
            writes_tensors: true,
            site: "site-a",
            study: "s".to_owned(),
            manifest: "m".to_owned(),
            sample: None,
            lock: &folder.path().join("training.lock"),
        };
        run(&task, stop)
    }

    #[test]
    fn a_command_writes_files() {
        let stop = Arc::default();
        let command =
            "echo x > $SEALFOLD_UPDATE; echo '{\"round\": '$SEALFOLD_ROUND'}' > $SEALFOLD_METRICS";
        let metrics = train(command, &stop).unwrap();
        assert_eq!(metrics.undeclared(&[]).collect::<Vec<_>>(), ["round"]);
        assert_eq!(train("echo x > $SEALFOLD_UPDATE", &stop).unwrap(), Metrics::default());
        let told = "test $SEALFOLD_TASK = train && echo x > $SEALFOLD_UPDATE";
        assert!(train(told, &stop).is_ok());
        assert!(train("exit 3", &stop).unwrap_err().to_string().contains("exit status: 3"));
        assert!(train("true", &stop).unwrap_err().to_string().contains("SEALFOLD_UPDATE"));
    }

    #[test]
    fn numpy_appends_to_the_name() {
        assert!(train("echo x > $SEALFOLD_UPDATE.npz", &Arc::default()).is_ok());
    }

    #[test]
    fn a_command_that_is_stopped_ends_with_all_it_started() {
        let stop = Arc::new(AtomicBool::new(true));
        let start = std::time::Instant::now();
        assert!(matches!(train("sleep 60 & sleep 60", &stop), Err(Error::Stopped)));
        assert!(start.elapsed() < Duration::from_secs(30));
    }
}
