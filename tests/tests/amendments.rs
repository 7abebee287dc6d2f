//! An amendment takes effect after a release: a round that runs, and a release
//! that not all have fetched yet, stay under the manifest of their offer, at
//! every site alike.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use sealfold_protocol::offer::Offer;
use sealfold_tests::participation::gives;
use sealfold_tests::study::Options;
use sealfold_tests::system::System;
use std::time::{Duration, Instant};

const SITES: [&str; 4] = ["site-000", "site-001", "site-002", "site-003"];
const PATIENCE: Duration = Duration::from_secs(40);

fn ten_parameters() -> Options {
    Options { parameters: 10, ..Options::default() }
}

/// What `sealfold fetch` says of the newest model.
fn fetch(system: &System, site: &str) -> serde_json::Value {
    let out = system.folder.path().join("out.safetensors");
    let mut said =
        system.on_study(site, &["fetch"], &["--out", out.to_str().unwrap()]).good().json();
    said["model"].take()
}

#[test]
fn a_release_is_stepped_under_its_own_manifest() {
    let system = System::start(&ten_parameters());
    system.submit_all();
    let _ = system.wait_for(1, "the roster's leaf", |round| round.roster_leaf.is_some());
    system.commit(&SITES);
    let _ = system.wait_for(1, "a release", |round| round.release.is_some());
    let before = [fetch(&system, SITES[0]), fetch(&system, SITES[1])];
    let faster = |text: &str| text.replace("learning_rate = 1\n", "learning_rate = 2\n");
    let amendment = system.amend(&SITES, faster);
    let after = [fetch(&system, SITES[2]), fetch(&system, SITES[3])];
    assert_eq!(before, after);
    assert_eq!(SITES.map(|site| system.model(site, 1).to_bits()), [3.75f32.to_bits(); 4]);
    // All report one model, so the study goes on, under the amendment.
    let offer = system.wait_for(2, "an offer", |round| round.offer.is_some()).offer.unwrap();
    assert_eq!(Offer::open(&offer.0).unwrap().statement().manifest.to_string(), amendment);
}

/// Agents train while the study is amended to another norm limit, or other weights.
#[test]
fn a_round_that_runs_keeps_the_limit_and_the_weights_that_it_began_with() {
    let limit = |limit: u32| {
        format!("rule = \"weighted-mean\"\nnorm_limit = {limit}.0\nstep = 0.0009765625\n")
    };
    let first = |weight: &str| format!("name = \"site-000\"\n{weight}");
    // The mean of 1, 2, 4 and 8, and then with the last cut, or the first twice.
    for (before, after, second) in [
        (limit(64), limit(16), (7.0 + 16.0 / 10f32.sqrt()) / 4.0),
        (first(""), first("weight = 2\n"), 16.0 / 5.0),
    ] {
        let system = System::start(&Options {
            aggregation: limit(64),
            accepts: vec!["changing-attendance"],
            ..ten_parameters()
        });
        let file = |name: &str| system.folder.path().join(name);
        let (go, begun) = (file("go"), |site: &str| file(&format!("begun-{site}")));
        let agents: Vec<_> = SITES
            .iter()
            .zip([1.0, 2.0, 4.0, 8.0])
            .map(|(site, value)| {
                let train = format!(
                    "touch {}; until test -e {}; do sleep 0.02; done; {}",
                    begun(site).display(),
                    go.display(),
                    gives(&system.update(value))
                );
                system.agent_with(site, &train, 2)
            })
            .collect();
        let start = Instant::now();
        while SITES.iter().any(|site| !begun(site).exists()) {
            assert!(start.elapsed() < PATIENCE, "{}", agents[0].log());
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = system.amend(&SITES, |text| text.replacen(&before, &after, 1));
        std::fs::write(go, "").unwrap();
        system.finish(agents, PATIENCE);
        for (round, model) in [(1, 3.75), (2, 3.75 + second)] {
            for site in SITES {
                let found = system.model(site, round);
                assert!((found - model).abs() < 0.01, "{after}: round {round}, {found}, {model}");
            }
        }
    }
}
