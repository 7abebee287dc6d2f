//! A copy of a log that is cut at any byte: an error or a finding, never a panic,
//! never a clean report.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use sealfold_attestation::Policy;
use sealfold_audit::copy::LogCopy;
use sealfold_audit::replay::{ROUNDS_KEPT, Replay};
use sealfold_tests::audit::Audit;
use sealfold_tests::study::Options;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What a replay of the copy comes to: the checks that fail, or why nothing can be
/// told.
fn outcome(audit: &Audit, policy: &Policy) -> Result<Vec<String>, String> {
    let copy = LogCopy::new(&audit.story.folder);
    let now = i64::try_from(audit.story.clock).unwrap();
    let now = jiff::Timestamp::from_millisecond(now).unwrap();
    let report = Replay::new(&copy, policy, ROUNDS_KEPT).run(&[], now, &mut |_, _| ());
    let report = report.map_err(|error| error.to_string())?;
    // The page is made of whatever there is.
    let page = sealfold_audit::html::html(&report);
    assert!(page.ends_with("</html>\n") && !page.contains("NaN"));
    Ok(report.findings.iter().map(|finding| finding.check.to_string()).collect())
}

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files(&path, found) } else { found.push(path) }
    }
}

#[test]
fn a_log_that_is_cut_at_any_byte_is_never_clean() {
    let audit = Audit::of_rounds(1);
    let _ = audit.story.close();
    let policy = Policy::from_toml(&audit.story.policy()).unwrap();
    assert_eq!(outcome(&audit, &policy), Ok(Vec::new()));
    let mut paths = Vec::new();
    files(&audit.story.folder, &mut paths);
    let mut cuts = 0;
    for path in paths {
        let bytes = std::fs::read(&path).unwrap();
        let name = path.strip_prefix(&audit.story.folder).unwrap().display().to_string();
        // Objects are compared with their digest: some cuts stand for all.
        let step = if name.starts_with("objects") { 61 } else { 1 };
        let expected: &[&str] = match &name {
            name if name.starts_with("objects") => &["object"],
            name if name.starts_with("tile/entries") => &["entries"],
            name if name.starts_with("tile/0") => &["tile"],
            _ => &[],
        };
        for end in (0..bytes.len()).step_by(step) {
            std::fs::write(&path, &bytes[..end]).unwrap();
            match outcome(&audit, &policy) {
                Ok(found) => {
                    let named = expected.iter().all(|check| found.iter().any(|f| f == check));
                    assert!(!found.is_empty() && named, "{name} cut at {end}: {found:?}");
                }
                Err(reason) => assert!(
                    name == "checkpoint" && reason.contains("checkpoint"),
                    "{name} cut at {end}: {reason}"
                ),
            }
            cuts += 1;
        }
        std::fs::write(&path, &bytes).unwrap();
    }
    assert!(cuts > 3000, "{cuts}");
    assert_eq!(outcome(&audit, &policy), Ok(Vec::new()));
}

#[test]
fn what_cannot_be_judged_stands_before_what_may_follow_from_it() {
    let audit = Audit::of_rounds(2);
    assert_eq!(audit.found(&[]), []);
    let object = std::fs::read_dir(audit.story.folder.join("objects")).unwrap();
    let of_manifest = |path: &PathBuf| std::fs::read(path).unwrap().len() > 4000;
    let mut objects = object.map(|entry| entry.unwrap().path()).filter(of_manifest);
    std::fs::remove_file(objects.next().unwrap()).unwrap();
    let (code, report) = audit.replay(&[]);
    let findings = report["findings"].as_array().unwrap();
    assert_eq!((code, findings[0]["check"].as_str()), (1, Some("object-missing")));
    let leaf = findings[0]["leaf"].clone();
    assert!(findings.len() > 5 && findings[0].get("follows").is_none());
    assert!(findings[1..].iter().all(|finding| finding["follows"] == leaf), "{findings:#?}");
    let (_, text) = audit.under(&audit.story.policy(), "replay", &[]);
    assert!(text.contains(&format!("perhaps from leaf {leaf} alone")), "{text}");
}

#[test]
fn a_manifest_that_many_leaves_name_is_read_once() {
    let mut audit = Audit::new(&Options::default());
    (0..3).for_each(|_| audit.story.manifest());
    let twice = |leaf| ("leaf-twice".to_owned(), Some(leaf));
    assert_eq!(audit.found(&[]), [twice(1), twice(2)]);
}

#[test]
fn a_pipe_in_a_copy_is_not_waited_for() {
    let audit = Audit::of_rounds(1);
    let _ = audit.story.close();
    let policy = Policy::from_toml(&audit.story.policy()).unwrap();
    let mut paths = Vec::new();
    files(&audit.story.folder, &mut paths);
    for path in paths {
        let whole = std::fs::read(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
        let found = format!("{:?}", outcome(&audit, &policy));
        let names = ["not a regular file", "entries", "tile-missing", "object-missing"];
        assert!(names.iter().any(|name| found.contains(name)), "{}: {found}", path.display());
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, whole).unwrap();
    }
}
