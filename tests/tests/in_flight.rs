//! Processes that die, clients that hang up and disks that rot while a pass
//! over records is under way: held in the middle, so that it surely is.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use sealfold_protocol::access::Role;
use sealfold_protocol::api::{Phase, UPLOAD_OFFSET, UploadState, UploadStatus};
use sealfold_protocol::offer::Offer;
use sealfold_protocol::roster::Roster;
use sealfold_protocol::{Signed, seal};
use sealfold_tests::http;
use sealfold_tests::middle::Middle;
use sealfold_tests::process::Server;
use sealfold_tests::study::Options;
use sealfold_tests::system::System;
use std::io::{Read, Seek, SeekFrom, Write};
use std::time::Duration;

const SITES: [&str; 4] = ["site-000", "site-001", "site-002", "site-003"];
const VALUES: [f32; 4] = [1.0, 2.0, 4.0, 8.0];
const PATIENCE: Duration = Duration::from_mins(1);
/// Eight records an update.
const PARAMETERS: usize = 500_000;

fn start() -> (System, Middle) {
    let system = System::start(&Options { parameters: PARAMETERS, ..Options::default() });
    let middle = Middle::before(&system.folder.path().join("door.sock"));
    (system, middle)
}

fn agents(system: &System) -> Vec<Server> {
    SITES.iter().zip(VALUES).map(|(site, value)| system.agent(site, value, 1)).collect()
}

fn expect_mean_of_all(system: &System) {
    for site in SITES {
        assert!((system.model(site, 1) - 3.75).abs() < 1e-6, "{site}");
    }
}

/// Lets all updates be admitted, and holds the fold in its middle.
fn hold_a_fold(system: &System, middle: &Middle) -> Vec<Server> {
    for (site, value) in SITES.iter().zip(VALUES) {
        assert_eq!(system.submit(site, value).good().json()["state"], "admitted");
    }
    let _ = system.wait_for(1, "a roster", |round| round.roster.is_some());
    middle.hold_after(3 << 20);
    let agents = agents(system);
    middle.wait_until_held();
    let round = system.round(1);
    assert_eq!((round.phase, round.commits.len()), (Phase::Rostered, 4), "{round:?}");
    agents
}

#[test]
fn an_enclave_that_is_killed_while_it_admits() {
    let (mut system, middle) = start();
    middle.hold_after(1 << 20);
    let agents = agents(&system);
    middle.wait_until_held();
    let round = system.wait_for(1, "a complete upload", |round| {
        round.uploads.iter().any(|upload| upload.state == UploadState::Stored)
    });
    assert!(round.uploads.iter().all(|u| !matches!(u.state, UploadState::Admitted(_))));
    system.restart_enclave();
    middle.let_through();
    system.finish(agents, PATIENCE);
    assert_ne!(system.round(1).offer, round.offer);
    expect_mean_of_all(&system);
}

#[test]
fn a_host_that_is_killed_while_its_enclave_admits() {
    let (mut system, middle) = start();
    middle.hold_after(1 << 20);
    let agents = agents(&system);
    middle.wait_until_held();
    let offer = system.round(1).offer;
    middle.step_aside();
    system.restart_host();
    middle.let_through();
    system.finish(agents, PATIENCE);
    // The enclave lived on, and so did its offer.
    assert_eq!(system.round(1).offer, offer);
    expect_mean_of_all(&system);
}

#[test]
fn a_host_that_is_killed_while_its_enclave_folds() {
    let (mut system, middle) = start();
    let agents = hold_a_fold(&system, &middle);
    let (offer, roster) = (system.round(1).offer, system.round(1).roster);
    middle.step_aside();
    system.restart_host();
    middle.let_through();
    system.finish(agents, PATIENCE);
    let round = system.wait_for(1, "the release", |round| round.release.is_some());
    assert_eq!((round.offer, round.roster), (offer, roster));
    expect_mean_of_all(&system);
}

/// What was damaged on its way is sealed and sent again.
#[test]
fn a_record_that_rots_while_the_enclave_admits_is_brought_again() {
    let (system, middle) = start();
    middle.hold_after(1 << 18);
    let victim = system.agent(SITES[0], VALUES[0], 1);
    middle.wait_until_held();
    let round = system.wait_for(1, "a complete upload", |round| {
        round.uploads.iter().any(|upload| upload.state == UploadState::Stored)
    });
    rot(&system, &round.uploads[0], 6);
    middle.let_through();
    let mut all = vec![victim];
    all.extend(SITES.iter().zip(VALUES).skip(1).map(|(site, v)| system.agent(site, v, 1)));
    let logs = system.folder.path().join("site-000.log");
    system.finish(all, PATIENCE);
    expect_mean_of_all(&system);
    let log = std::fs::read_to_string(logs).unwrap();
    assert!(log.contains("\"failed\"") && log.contains("record 6"), "{log}");
}

/// Changes a bit of one record of what a host has of an upload.
fn rot(system: &System, upload: &UploadStatus, record: u64) {
    let staged = system.folder.path().join("host/staging/updates").join(upload.header.to_string());
    let mut file = std::fs::OpenOptions::new().read(true).write(true).open(&staged).unwrap();
    let place = seal::record_range(4 * PARAMETERS as u64, record).start + 1000;
    let mut byte = [0];
    file.seek(SeekFrom::Start(place)).unwrap();
    file.read_exact(&mut byte).unwrap();
    file.seek(SeekFrom::Start(place)).unwrap();
    file.write_all(&[byte[0] ^ 1]).unwrap();
}

#[test]
fn a_record_that_rots_between_admission_and_fold_drops_its_site_alone() {
    let (system, middle) = start();
    for (site, value) in SITES.iter().zip(VALUES) {
        let _ = system.submit(site, value).good();
    }
    let round = system.wait_for(1, "a roster", |round| round.roster.is_some());
    let victim = round.uploads.iter().find(|upload| upload.site == SITES[1]).unwrap();
    rot(&system, victim, 4);
    middle.let_through();
    let mut agents = agents(&system);
    let dropped = agents.remove(1);
    system.finish(agents, PATIENCE);
    let round = system.wait_for(1, "the release", |round| round.release.is_some());
    let offer = Offer::open(&round.offer.unwrap().0).unwrap();
    let key = offer.statement().instance_key;
    let roster = Signed::<Roster>::open(&round.roster.unwrap().0, &key).unwrap();
    assert_eq!(roster.statement().sites(), ["site-000", "site-002", "site-003"].into());
    assert!(roster.statement().attempt >= 2);
    let log = system.host.log();
    assert!(log.contains("record 4 of site-001 opens"), "{log}");
    for site in ["site-000", "site-002", "site-003"] {
        assert!((system.model(site, 1) - 13.0 / 3.0).abs() < 1e-6, "{site}");
    }
    drop(dropped);
}

#[test]
fn a_piece_of_an_upload_that_its_client_cuts_is_not_there() {
    let (system, _middle) = start();
    let offer = Offer::open(&system.round(1).offer.unwrap().0).unwrap();
    let terms = system.study.terms().clone();
    let update = system.study.sites[0].seal(&offer, &terms, &vec![1.0; PARAMETERS]);
    let status = || system.begin_upload(&update.header);
    assert_eq!(status().received, 0);
    let path = format!("/v1/uploads/{}", update.header.digest());
    let staged = system.folder.path().join("host/staging/updates");
    let staged = staged.join(update.header.digest().to_string());
    for sent in [0, 1, 300_000, update.bytes.len() - 1] {
        let mut stream = system.endpoint().connect().unwrap();
        let length = update.bytes.len();
        let mut head = format!(
            "PATCH {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {length}\r\n\
             {UPLOAD_OFFSET}: 0\r\n"
        );
        let signer = (&system.study.sites[0].key, Role::Party);
        let offset = [(UPLOAD_OFFSET, "0")];
        for (name, value) in http::signature(signer, "PATCH", &path, &offset, &update.bytes) {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str("\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(&update.bytes[..sent]).unwrap();
        drop(stream);
        std::thread::sleep(Duration::from_millis(50));
        assert_eq!(status().received, 0, "cut after {sent} bytes");
        assert!(!std::fs::metadata(&staged).is_ok_and(|file| file.len() > 0));
    }
    // The whole piece is taken and admitted.
    let site = &system.study.sites[0];
    let reply = system.append_as(site, &update.header.digest(), 0, &update.bytes);
    assert_eq!(reply.status, 200);
    let _ = system.wait_for(1, "admission", |round| {
        round.uploads.iter().any(|upload| matches!(upload.state, UploadState::Admitted(_)))
    });
}
