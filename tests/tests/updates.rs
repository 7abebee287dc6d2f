//! Updates that are refused make room for better ones; those that others find
//! good are found good whatever their file is called.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use sealfold_protocol::api::UploadState;
use sealfold_tests::participation::gives;
use sealfold_tests::process::Server;
use sealfold_tests::study::Options;
use sealfold_tests::system::{System, write_tensors};
use std::path::{Path, PathBuf};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(40);

/// A study whose updates have a norm of 100 at most: 1000 values of 1 pass,
/// 1000 values of 50 do not.
fn bounded() -> System {
    let aggregation = "rule = \"weighted-mean\"\nnorm_limit = 100.0";
    System::start(&Options { aggregation: aggregation.to_owned(), ..Options::default() })
}

fn admitted(system: &System, number: usize) -> bool {
    let is = |state: &UploadState| matches!(state, UploadState::Admitted(_));
    let uploads = system.round(1).uploads;
    uploads.len() == number && uploads.iter().all(|upload| is(&upload.state))
}

fn wait_for_admission(system: &System, agent: &Server) {
    let start = std::time::Instant::now();
    while !admitted(system, 1) {
        assert!(start.elapsed() < PATIENCE, "{}", agent.log());
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A training command that notes each of its calls.
fn counted(system: &System, train: &str) -> (String, PathBuf) {
    let calls = system.folder.path().join("calls");
    (format!("echo >> {}; {train}", calls.display()), calls)
}

fn lines(path: &Path) -> usize {
    std::fs::read_to_string(path).unwrap().lines().count()
}

#[test]
fn a_refused_update_gives_way_to_a_corrected_one() {
    let system = bounded();
    for _ in 0..2 {
        let refused = system.submit("site-000", 50.0);
        assert_eq!(refused.check(), "norm-limit");
        // What the enclave found is told to the site, and is in its answer.
        let found = refused.json()["finding"].as_str().unwrap().parse::<f64>().unwrap();
        assert!((found - 1581.138).abs() < 0.01, "{refused:?}");
    }
    assert_eq!(system.submit("site-000", 1.0).good().json()["state"], "admitted");
    assert!(admitted(&system, 1));
    // From now on it stands.
    assert_eq!(system.submit("site-000", 50.0).check(), "one-update");
    assert!(admitted(&system, 1));
}

#[test]
fn an_update_that_comes_too_late_is_not_waited_for() {
    let system = System::start(&Options { deadlines: [2, 60, 600], ..Options::default() });
    for site in ["site-000", "site-001", "site-002"] {
        let _ = system.submit(site, 1.0).good();
    }
    let _ = system.wait_for(1, "a roster", |round| round.roster.is_some());
    assert_eq!(system.submit("site-003", 1.0).check(), "phase");
}

#[test]
fn an_agent_whose_trainer_gives_the_same_bytes_ends_and_its_successor_trains() {
    let system = bounded();
    let (train, calls) = counted(&system, &gives(&system.update(50.0)));
    let mut agent = system.agent_with("site-000", &train, 1);
    assert_eq!(agent.wait(PATIENCE), 1, "{}", agent.log());
    let last = agent.log().lines().last().unwrap().to_owned();
    let last: serde_json::Value = serde_json::from_str(&last).unwrap();
    assert_eq!(last["refusal"]["check"], "norm-limit");
    assert!(last["finding"].as_str().unwrap().starts_with("1581.1"), "{last}");
    assert_eq!(lines(&calls), 2);
    let agent = system.agent("site-000", 1.0, 1);
    wait_for_admission(&system, &agent);
}

#[test]
fn an_agent_whose_update_is_refused_trains_again() {
    let system = bounded();
    let (big, good) = (gives(&system.update(50.0)), gives(&system.update(1.0)));
    let calls = system.folder.path().join("calls");
    let (train, calls) = counted(
        &system,
        &format!("if [ $(wc -l < {}) = 1 ]; then {big}; else {good}; fi", calls.display()),
    );
    let agent = system.agent_with("site-000", &train, 1);
    wait_for_admission(&system, &agent);
    assert!(agent.log().contains("norm-limit"), "{}", agent.log());
    assert_eq!(lines(&calls), 2);
}

#[test]
fn a_format_is_known_by_content_and_not_by_name() {
    let system = System::start(&Options::default());
    let path = system.folder.path().join("update");
    let mut archive = ndarray_npy::NpzWriter::new_compressed(std::fs::File::create(&path).unwrap());
    archive.add_array("weights", &ndarray::Array1::<f32>::ones(1000)).unwrap();
    archive.finish().unwrap();
    assert_eq!(
        system.submit_file("site-000", &path, &system.url).good().json()["state"],
        "admitted"
    );
    let named = system.folder.path().join("odd.npz");
    write_tensors(&named, 1000, 1.0);
    assert_eq!(
        system.submit_file("site-001", &named, &system.url).good().json()["state"],
        "admitted"
    );
    // Trainers write it under the name that they are given, or as NumPy does.
    let agents = [
        system.agent_with("site-002", &gives(&path), 1),
        system.agent_with("site-003", &gives(&path).replace("_UPDATE", "_UPDATE.npz"), 1),
    ];
    let _ = system.wait_for(1, "a roster", |round| round.roster.is_some());
    for site in ["site-000", "site-001"] {
        let _ = system.on_study(site, &["commit"], &[]).good();
    }
    for mut agent in agents {
        assert_eq!(agent.wait(PATIENCE), 0, "{}", agent.log());
    }
}
