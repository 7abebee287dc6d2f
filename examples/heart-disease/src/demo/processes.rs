//! The processes of the demo: each in a group of its own, ended with it.

use crate::refusal::of_program;
use anyhow::{Context, bail};
use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// How long a process may take until it listens.
const START: Duration = Duration::from_secs(30);

/// Where the binaries are.
pub struct Binaries {
    folder: PathBuf,
}

impl Binaries {
    /// Those beside the running binary, or in a folder that was given.
    ///
    /// # Errors
    /// If one is missing.
    pub fn find(folder: Option<PathBuf>) -> anyhow::Result<Self> {
        let own = std::env::current_exe()?;
        let folder = folder.unwrap_or_else(|| own.parent().unwrap_or(Path::new(".")).to_owned());
        for name in ["sealfold", "sealfold-host", "sealfold-enclave"] {
            if !folder.join(name).is_file() {
                bail!("{} is not built; run make build", folder.join(name).display());
            }
        }
        Ok(Self { folder })
    }

    /// A command of one of them.
    #[must_use]
    pub fn command(&self, name: &str) -> Command {
        let mut command = Command::new(self.folder.join(name));
        command.stdin(Stdio::null());
        command
    }

    /// Runs one of them to its end; what it printed.
    ///
    /// # Errors
    /// If it fails; its error output is in the message.
    pub fn run(&self, name: &str, arguments: &[&str]) -> anyhow::Result<String> {
        let Output { status, stdout, stderr } = self
            .command(name)
            .args(arguments)
            .output()
            .with_context(|| format!("{name} does not start"))?;
        if !status.success() {
            // With --json an error is on the standard output.
            let said = String::from_utf8_lossy(if stderr.is_empty() { &stdout } else { &stderr });
            let arguments = arguments.join(" ");
            let message = format!("{name} {arguments} ended with {status}: {}", said.trim());
            return Err(of_program(status.code(), message));
        }
        Ok(String::from_utf8(stdout)?)
    }
}

/// A process of the demo.
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts it with its output in a log file.
    ///
    /// # Errors
    /// If it does not start.
    pub fn start(name: &str, mut command: Command, log: &Path) -> anyhow::Result<Self> {
        let file = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
        let child = command
            .stdout(file.try_clone()?)
            .stderr(file)
            .process_group(0)
            .spawn()
            .with_context(|| format!("{name} does not start"))?;
        Ok(Self { name: name.to_owned(), child, log: log.to_owned() })
    }

    /// Waits until it says where it listens.
    ///
    /// # Errors
    /// If it ends or takes too long.
    pub fn listening(&mut self) -> anyhow::Result<String> {
        let start = Instant::now();
        loop {
            let log = self.log();
            if let Some((_, rest)) = log.split_once("listening on ")
                && let Some((place, _)) = rest.split_once('\n')
            {
                return Ok(place.trim().to_owned());
            }
            self.expect_running()?;
            if start.elapsed() > START {
                bail!("{} does not listen after {START:?}: {log}", self.name);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Whether it has ended well.
    ///
    /// # Errors
    /// If it has ended otherwise; the end of its log is in the message.
    pub fn is_done(&mut self) -> anyhow::Result<bool> {
        match self.child.try_wait()? {
            None => Ok(false),
            Some(status) if status.success() => Ok(true),
            Some(status) => {
                let log = self.log();
                let tail: Vec<_> = log.lines().rev().take(5).collect();
                let tail = tail.into_iter().rev().collect::<Vec<_>>().join("\n  ");
                let (name, log) = (&self.name, self.log.display());
                let message = format!("{name} ended with {status}; the end of {log}:\n  {tail}");
                Err(of_program(status.code(), message))
            }
        }
    }

    /// Whether it still runs.
    ///
    /// # Errors
    /// If it has ended.
    pub fn expect_running(&mut self) -> anyhow::Result<()> {
        if self.is_done()? {
            bail!("{} has ended; its log is {}", self.name, self.log.display());
        }
        Ok(())
    }

    fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Ok(Some(group)) = i32::try_from(self.child.id()).map(rustix::process::Pid::from_raw)
        {
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        }
        let _ = self.child.wait();
    }
}
