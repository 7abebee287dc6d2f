//! The same fold through the real processes: the enclave reads from the host's
//! record door over a Unix socket and writes the aggregate to its disk.

use sealfold_protocol::api::UploadState;
use sealfold_protocol::offer::Offer;
use sealfold_protocol::{Digest, Signed};
use sealfold_tests::site::Site;
use sealfold_tests::study::Options;
use sealfold_tests::system::System;
use std::time::{Duration, Instant};

fn post(system: &System, site: &Site, place: &str, envelope: &[u8]) {
    let reply = system.post_as(site, place, envelope);
    assert_eq!(reply.status, 200, "{}", String::from_utf8_lossy(&reply.body));
}

/// Seconds from the last commit to the release on the host's disk.
#[must_use]
pub fn seconds(sites: usize, parameters: usize) -> f64 {
    let system = System::start(&Options {
        sites,
        smallest_roster: sites / 2 + 1,
        parameters,
        deadlines: [600, 600, 3000],
        ..Options::default()
    });
    let offer = Offer::open(&system.round(1).offer.unwrap().0).unwrap();
    let terms = system.study.terms().clone();
    let values = vec![0.5; parameters];
    let mut headers: Vec<Digest> = Vec::new();
    for site in &system.study.sites {
        let update = site.seal(&offer, &terms, &values);
        post(&system, site, "updates", update.header.envelope());
        for (index, piece) in update.bytes.chunks(8 << 20).enumerate() {
            let header = update.header.digest();
            let reply = system.append_as(site, &header, index * (8 << 20), piece);
            assert_eq!(reply.status, 200);
        }
        headers.push(update.header.digest());
    }
    let admitted = |state: &UploadState| matches!(state, UploadState::Admitted(_));
    let round = system.wait_for(1, "a roster", |round| {
        round.roster_leaf.is_some() && round.uploads.iter().all(|upload| admitted(&upload.state))
    });
    let checkpoint = system.roster_checkpoint(&round);
    let roster = Signed::open(&round.roster.unwrap().0, &offer.statement().instance_key).unwrap();
    for (site, header) in system.study.sites.iter().zip(headers) {
        post(&system, site, "commits", site.commit_at(&roster, header, checkpoint).envelope());
    }
    let start = Instant::now();
    // The aggregate is on the host's disk before the enclave releases it, and
    // the release when the host gives it out.
    while system.round(1).release.is_none() {
        std::thread::sleep(Duration::from_millis(2));
    }
    start.elapsed().as_secs_f64()
}
