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
    // Another rate, and values in the aggregate that were not there.
    let amendment = system.amend(&SITES, |text| {
        text.replace("learning_rate = 1\n", "learning_rate = 2\n")
            .replace("[quorum]", "[evaluation]\nbins = 4\n[quorum]")
    });
    let after = [fetch(&system, SITES[2]), fetch(&system, SITES[3])];
    assert_eq!(before, after);
    assert_eq!(SITES.map(|site| system.model(site, 1).to_bits()), [3.75f32.to_bits(); 4]);
    // All report one model, so the study goes on, under the amendment.
    let offer = system.wait_for(2, "an offer", |round| round.offer.is_some()).offer.unwrap();
    assert_eq!(Offer::open(&offer.0).unwrap().statement().manifest.to_string(), amendment);
}

/// Agents train while the study is amended to another type of updates, as wide as
/// the first or half as wide.
#[test]
fn a_round_that_runs_keeps_the_layout_that_it_began_with() {
    for (before, after) in [("float16", "bfloat16"), ("float32", "float16")] {
        let rule = "rule = \"weighted-mean\"\nlargest_weight_share = 0.5";
        let aggregation = format!("{rule}\nupdate_type = \"{before}\"");
        let system = System::start(&Options { aggregation, ..ten_parameters() });
        let file = |name: &str| system.folder.path().join(name);
        let (go, begun) = (file("go"), |site: &str| file(&format!("begun-{site}")));
        let train = format!(
            "touch {}$SEALFOLD_SITE; until test -e {}; do sleep 0.02; done; {}",
            begun("").display(),
            go.display(),
            gives(&system.update(1.0))
        );
        let agents: Vec<_> = SITES.iter().map(|site| system.agent_with(site, &train, 1)).collect();
        let start = Instant::now();
        while SITES.iter().any(|site| !begun(site).exists()) {
            assert!(start.elapsed() < PATIENCE, "{}", agents[0].log());
            std::thread::sleep(Duration::from_millis(20));
        }
        let of = |name: &str| format!("update_type = \"{name}\"");
        let _ = system.amend(&SITES, |text| text.replace(&of(before), &of(after)));
        std::fs::write(go, "").unwrap();
        system.finish(agents, PATIENCE);
        assert_eq!(SITES.map(|site| system.model(site, 1).to_bits()), [1f32.to_bits(); 4]);
    }
}
