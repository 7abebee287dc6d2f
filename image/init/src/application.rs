//! The application: its command, its process, and every orphan.

use crate::InitError;
use rustix::process::{WaitOptions, WaitStatus};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

/// The user and group of the enclave: `nobody`.
const USER: u32 = 65_534;
/// The longest command file.
const MAX_COMMAND: u64 = 4096;

/// What is to be run.
#[derive(Debug, PartialEq, Eq)]
pub struct Application {
    program: String,
    arguments: Vec<String>,
}

impl Application {
    /// Reads a command: the program and its arguments, a line each.
    pub fn read(path: &Path) -> Result<Self, InitError> {
        let wrong = |found: String| {
            InitError::new(
                "application",
                "/app/command: a program and its arguments, a line each",
                found,
            )
        };
        let length = std::fs::metadata(path).map_err(|e| wrong(e.to_string()))?.len();
        if length > MAX_COMMAND {
            return Err(wrong(format!("{length} bytes")));
        }
        let text = std::fs::read_to_string(path).map_err(|e| wrong(e.to_string()))?;
        let mut lines = text.lines().map(str::to_owned);
        let program = lines
            .next()
            .filter(|program| program.starts_with('/'))
            .ok_or_else(|| wrong("no absolute path in the first line".to_owned()))?;
        Ok(Self { program, arguments: lines.collect() })
    }

    /// The program's path.
    pub fn program(&self) -> &str {
        &self.program
    }

    /// Runs it as an ordinary user without an environment, reaps every process
    /// that ends, and returns how the application ended.
    pub fn run(&self) -> Result<String, InitError> {
        let wrong =
            |e: std::io::Error| InitError::new("application", "a program that can be run", e);
        let child = Command::new(&self.program)
            .args(&self.arguments)
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::null())
            .uid(USER)
            .gid(USER)
            .spawn()
            .map_err(wrong)?;
        loop {
            match rustix::process::wait(WaitOptions::empty()) {
                Ok(Some((pid, status)))
                    if pid.as_raw_nonzero().get() == child.id().cast_signed() =>
                {
                    return Ok(outcome(status));
                }
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(wrong(error.into())),
            }
        }
    }
}

fn outcome(status: WaitStatus) -> String {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "unknown".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Application, InitError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("command");
        std::fs::write(&path, text).unwrap();
        Application::read(&path)
    }

    #[test]
    fn a_command_is_a_line_an_argument() {
        let application = read("/app/sealfold-enclave\n--listen\nvsock://1:2 3\n").unwrap();
        assert_eq!(application.program(), "/app/sealfold-enclave");
        assert_eq!(application.arguments, ["--listen", "vsock://1:2 3"]);
    }

    #[test]
    fn what_is_no_command_is_named() {
        for text in ["", "sealfold-enclave\n", &"/".repeat(5000)] {
            let error = read(text).unwrap_err().to_string();
            assert!(error.contains("expected /app/command"), "{error}");
        }
        let error = Application::read("/proc/nonexistent".as_ref()).unwrap_err().to_string();
        assert!(error.contains("No such file"), "{error}");
    }
}
