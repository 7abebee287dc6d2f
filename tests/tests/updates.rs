//! Updates that are refused make room for better ones; those that others find
//! good are found good whatever their file is called.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use sealfold_protocol::api::UploadState;
use sealfold_protocol::offer::Offer;
use sealfold_tests::participation::gives;
use sealfold_tests::study::{BEYOND, Options};
use sealfold_tests::system::{System, write_tensors};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(40);

fn admitted(system: &System, number: usize) -> bool {
    let is = |state: &UploadState| matches!(state, UploadState::Admitted(_));
    let uploads = system.round(1).uploads;
    uploads.len() == number && uploads.iter().all(|upload| is(&upload.state))
}

/// A client that does not scale its update is refused; the site's own client takes
/// the place.
#[test]
fn a_refused_update_gives_way_to_a_corrected_one() {
    let system = System::start(&Options::default());
    let offer = Offer::open(&system.round(1).offer.unwrap().0).unwrap();
    let (terms, site) = (system.study.terms().clone(), &system.study.sites[0]);
    for _ in 0..2 {
        let update = site.seal(&offer, &terms, &[BEYOND; 1000]);
        let _ = system.begin_upload(&update.header);
        let reply = system.append_as(site, &update.header.digest(), 0, &update.bytes);
        assert_eq!(reply.status, 200);
        let _ = system.wait_for(1, "the refusal", |round| {
            round.uploads.iter().any(|upload| matches!(upload.state, UploadState::Refused(_)))
        });
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
