//! What a command of the site client came to.

use serde_json::Value;
use std::process::Output;

/// What a command of the site client came to.
#[derive(Debug)]
pub struct Ended {
    /// Its exit code.
    pub code: i32,
    /// What it printed.
    pub stdout: String,
    /// What it printed beside that.
    pub stderr: String,
}

impl From<Output> for Ended {
    fn from(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        }
    }
}

impl Ended {
    /// The last line of JSON.
    #[must_use]
    pub fn json(&self) -> Value {
        let line = self.stdout.lines().last().unwrap_or_default();
        serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }

    /// Expects that it ended well.
    #[must_use]
    pub fn good(self) -> Self {
        assert_eq!(self.code, 0, "{self:?}");
        self
    }

    /// The checks of a verdict that were not met.
    #[must_use]
    pub fn refused_checks(&self) -> Vec<String> {
        assert_eq!(self.code, 1, "{self:?}");
        let verdict = self.json();
        let checks = verdict["checks"].as_array().unwrap_or_else(|| panic!("{verdict}")).iter();
        checks
            .filter(|check| check["state"] == "failed")
            .map(|check| check["name"].as_str().unwrap().to_owned())
            .collect()
    }

    /// The check that it was refused by.
    #[must_use]
    pub fn check(&self) -> String {
        assert_eq!(self.code, 1, "{self:?}");
        self.json()["refusal"]["check"].as_str().unwrap_or("none").to_owned()
    }
}
