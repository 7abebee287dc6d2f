//! A site's own memory, doubled or taken away.

use sealfold_tests::study::Options;
use sealfold_tests::system::System;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

const SITES: [&str; 4] = ["site-000", "site-001", "site-002", "site-003"];

#[test]
fn a_second_agent_on_one_key() {
    let system = System::start(&Options::default());
    let agent = system.agent("site-000", 1.0, 1);
    agent.hear("\"uploaded\"");
    let second = system.on_study("site-000", &["run"], &["--train", "true"]);
    assert_eq!(second.check(), "second-agent");
    assert!(system.round(1).commits.is_empty() && system.round(1).release.is_none());
}

#[test]
fn a_restored_site_disk() {
    let system = System::start(&Options::default());
    let mut agent = system.agent("site-000", 1.0, 1);
    agent.hear("\"uploaded\"");
    agent.kill();
    // A copy of the folder from before the commit.
    let (home, copy) = (system.home("site-000"), system.folder.path().join("copy"));
    let cp = |from: &Path, to: &Path| {
        assert!(Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap().success());
    };
    cp(&home, &copy);
    for site in &SITES[1..] {
        let _ = system.submit(site, 1.0).good();
    }
    let _ = system.wait_for(1, "a roster", |round| round.roster.is_some());
    let _ = system.on_study("site-000", &["commit"], &[]).good();
    std::fs::remove_dir_all(&home).unwrap();
    cp(&copy, &home);
    let mut agent = system.agent("site-000", 1.0, 1);
    assert_eq!(agent.wait(Duration::from_mins(1)), 1, "{}", agent.log());
    assert!(agent.log().contains("state-restored"), "{}", agent.log());
    // By hand no less.
    for command in ["commit", "submit"] {
        std::fs::remove_dir_all(&home).unwrap();
        cp(&copy, &home);
        let ended = match command {
            "commit" => system.on_study("site-000", &["commit"], &[]),
            _ => system.submit("site-000", 1.0),
        };
        assert_eq!(ended.check(), "state-restored", "{command}");
    }
    // Its one commit is the one from before; nothing is released of it.
    let round = system.round(1);
    assert!(round.commits.len() == 1 && round.release.is_none(), "{round:?}");
}
