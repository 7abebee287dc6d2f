//! Bad input for an auditor: every file of a log, cut at every byte.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use jiff::Timestamp;
use sealfold_attestation::Policy;
use sealfold_audit::copy::LogCopy;
use sealfold_audit::replay::Replay;
use sealfold_tests::story::Story;
use sealfold_tests::study::Options;
use std::path::{Path, PathBuf};

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files(&path, found) } else { found.push(path) }
    }
}

/// How many findings there are; none at all if nothing could be told, by name.
fn findings(log: &Path, policy: &Policy) -> Option<u64> {
    let copy = LogCopy::new(log);
    match Replay::new(&copy, policy, 10).run(&[], Timestamp::now(), &mut |_, _| {}) {
        Ok(report) => Some(report.safety + report.liveness),
        Err(cannot_tell) => {
            assert!(!cannot_tell.expected.is_empty() && !cannot_tell.found.is_empty());
            None
        }
    }
}

#[test]
fn a_log_file_cut_at_any_byte_gives_a_finding_or_an_error_that_names_it() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let mut story = Story::new(&log, &Options::default());
    story.manifest();
    story.round(1);
    let _ = story.close();
    let policy = Policy::from_toml(&story.policy()).unwrap();
    assert_eq!(findings(&log, &policy), Some(0));
    let mut all = Vec::new();
    files(&log, &mut all);
    assert!(all.len() >= 5, "{all:?}");
    let mut cuts = 0u32;
    for path in all {
        let whole = std::fs::read(&path).unwrap();
        for length in 0..whole.len() {
            std::fs::write(&path, &whole[..length]).unwrap();
            let found = findings(&log, &policy);
            assert_ne!(found, Some(0), "{} cut at {length}", path.display());
            cuts += 1;
        }
        std::fs::write(&path, &whole).unwrap();
    }
    assert!(cuts > 5000, "{cuts}");
    assert_eq!(findings(&log, &policy), Some(0));
}
