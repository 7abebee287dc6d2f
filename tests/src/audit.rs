//! An auditor at work on a log that a test has made.

use crate::process;
use crate::story::Story;
use crate::study::Options;
use serde_json::Value;
use std::path::PathBuf;
use tempfile::TempDir;

/// A log, and a folder for what the auditor brings.
pub struct Audit {
    /// Everything on disk.
    pub folder: TempDir,
    /// The log.
    pub story: Story,
}

impl Audit {
    /// An empty log.
    #[must_use]
    pub fn new(options: &Options) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let story = Story::new(&folder.path().join("log"), options);
        Self { folder, story }
    }

    /// A log with a manifest and so many rounds.
    #[must_use]
    pub fn of_rounds(rounds: u32) -> Self {
        let mut audit = Self::new(&Options { rounds: 100, ..Options::default() });
        audit.story.manifest();
        (1..=rounds).for_each(|round| audit.story.round(round));
        audit
    }

    /// Writes a file.
    pub fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    }

    /// Runs the auditor under a policy; its exit code and what it says.
    #[must_use]
    pub fn under(&self, policy: &str, command: &str, more: &[&str]) -> (i32, String) {
        let policy = self.file("policy.toml", policy);
        let log = self.story.folder.to_str().unwrap();
        let mut arguments = vec![command, log];
        arguments.extend(more);
        arguments.extend(["--policy", policy.to_str().unwrap()]);
        // The story's own time, which is ahead of ours.
        let now = i64::try_from(self.story.clock).unwrap();
        let now = jiff::Timestamp::from_millisecond(now).unwrap().to_string();
        if command != "explain" && !more.contains(&"--at") {
            arguments.extend(["--at", &now]);
        }
        let output = process::run("sealfold-audit", &arguments);
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8(said).unwrap();
        assert!(!said.contains("panicked"), "{said}");
        (output.status.code().unwrap(), said)
    }

    /// Replays under the story's own policy.
    #[must_use]
    pub fn replay(&self, more: &[&str]) -> (i32, Value) {
        self.replay_under(&self.story.policy(), more)
    }

    /// Replays under a policy; the exit code and the report.
    #[must_use]
    pub fn replay_under(&self, policy: &str, more: &[&str]) -> (i32, Value) {
        let (code, said) = self.under(policy, "replay", &[&["--json"], more].concat());
        let json = said.split("could not be told").next().unwrap();
        (code, serde_json::from_str(json).unwrap_or_else(|error| panic!("{error}: {said}")))
    }

    /// The checks of all findings, and the leaves where they are.
    #[must_use]
    pub fn found(&self, more: &[&str]) -> Vec<(String, Option<u64>)> {
        let _ = self.story.close();
        let (code, report) = self.replay(more);
        let found = findings(&report);
        assert_eq!(code, i32::from(!found.is_empty()), "{report}");
        found
    }
}

/// The checks of a report's findings, and the leaves where they are.
#[must_use]
pub fn findings(report: &Value) -> Vec<(String, Option<u64>)> {
    let findings = report["findings"].as_array().unwrap_or_else(|| panic!("{report}"));
    let check = |f: &Value| (f["check"].as_str().unwrap().to_owned(), f["leaf"].as_u64());
    findings.iter().map(check).collect()
}
