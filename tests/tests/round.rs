//! Rounds that go well, through a real enclave: the numbers are exactly right.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use sealfold_protocol::api::Phase;
use sealfold_protocol::offer::Offer;
use sealfold_protocol::refusal::Check;
use sealfold_protocol::release::Release;
use sealfold_protocol::{Digest, Signed};
use sealfold_tests::hostile_host::{Enclave, HostileHost};
use sealfold_tests::process::{self, Server};
use sealfold_tests::site::{self, Sealed, Site};
use sealfold_tests::study::{Options, Study};

/// Every site's update is another power of two, so that a lost or doubled one
/// shows as a wrong sum.
fn power(site: usize) -> f32 {
    2f32.powi(i32::try_from(site).unwrap())
}

fn submit(
    host: &HostileHost,
    enclave: &Enclave,
    study: &Study,
    offer: &Signed<Offer>,
    order: &[usize],
) -> Vec<Sealed> {
    let mut sealed: Vec<_> = order
        .iter()
        .map(|i| {
            let values: Vec<f32> = (0..study.parameters())
                .map(|p| power(*i) * if p % 2 == 0 { 1.0 } else { -0.5 })
                .collect();
            let update = study.sites[*i].seal(offer, study.terms(), &values);
            enclave.admit(&host.door, offer, &update).unwrap();
            (*i, update)
        })
        .collect();
    sealed.sort_by_key(|(i, _)| *i);
    sealed.into_iter().map(|(_, update)| update).collect()
}

fn commit_all(enclave: &Enclave, study: &Study, offer: &Signed<Offer>, sealed: &[Sealed]) {
    let roster = enclave.roster(offer).unwrap();
    for (site, update) in study.sites.iter().zip(sealed) {
        enclave.commit(&site.commit(&roster, update.header.digest())).unwrap();
    }
}

fn opened(host: &HostileHost, release: &Signed<Release>, site: &Site) -> Vec<u8> {
    site.open(release, &host.door.object(&release.statement().object))
}

/// The mean of the first few sites, as one of all reads it.
fn values(
    host: &HostileHost,
    study: &Study,
    sites: usize,
    release: &Signed<Release>,
    site: &Site,
) -> Vec<f32> {
    let roster = study.sites[..sites].iter().map(|site| site.name.as_str());
    site::mean(study.terms(), roster, &opened(host, release, site))
}

#[test]
fn the_aggregate_is_exactly_the_mean_and_the_next_round_follows() {
    for readers in ["everyone", "sites"] {
        let host = HostileHost::new();
        let enclave = host.enclave("enclave");
        // More than two records, and a last one that is short.
        let options = Options { parameters: 150_001, readers, ..Options::default() };
        let study = Study::new(&options);
        let offer = enclave.offer(&study.first_offer()).unwrap();
        let sealed = submit(&host, &enclave, &study, &offer, &[0, 1, 2, 3]);
        commit_all(&enclave, &study, &offer, &sealed);
        let release = enclave.release(&offer).unwrap();
        let mean = (1.0 + 2.0 + 4.0 + 8.0) / 4.0;
        for site in &study.sites {
            let values = values(&host, &study, 4, &release, site);
            assert_eq!(values.len(), 150_001);
            assert!(values.chunks(2).all(|pair| pair[0].to_bits() == f32::to_bits(mean)));
            assert!(
                values.iter().skip(1).step_by(2).all(|v| v.to_bits() == (-mean / 2.0).to_bits())
            );
        }
        // Asking again repeats the same release; the round is over.
        assert_eq!(enclave.release(&offer).unwrap().digest(), release.digest());
        assert_eq!(enclave.status().phase, Phase::Released);
        let mut next = study.first_offer();
        next.round = 2;
        next.base = Digest::new([9; 32]);
        next.previous = Some(release.digest());
        let second = enclave.offer(&next).unwrap();
        assert_ne!(second.statement().update_key, offer.statement().update_key);
    }
}

#[test]
fn order_of_arrival_and_number_of_threads_do_not_change_a_byte() {
    let mut aggregates = Vec::new();
    for (threads, order) in [("1", [0, 1, 2, 3]), ("2", [3, 1, 0, 2]), ("5", [2, 3, 1, 0])] {
        let host = HostileHost::new();
        let endpoint = format!("unix://{}", host.folder.path().join("enclave.sock").display());
        let mut command = process::command("sealfold-enclave");
        command.args(["--listen", &endpoint, "--door", &host.door.endpoint.to_string()]);
        command.args(["--threads", threads, "--simulation-root"]);
        command.arg(host.folder.path().join("root.pem"));
        let server = Server::start(command, &host.folder.path().join("log"));
        let enclave = Enclave { server, endpoint: endpoint.parse().unwrap() };
        let study = Study::new(&Options {
            parameters: 300_000,
            aggregation: "rule = \"norm-clipped-mean\"\nclip = 900.0".into(),
            weights: vec![2, 3, 3, 2],
            ..Options::default()
        });
        let offer = enclave.offer(&study.first_offer()).unwrap();
        let mut sealed: Vec<_> = order
            .iter()
            .map(|i| {
                let values: Vec<f32> = (0..300_000_u64)
                    .map(|p| {
                        f32::from(
                            u16::try_from((p * 31 + u64::try_from(*i).unwrap() * 17) % 1009)
                                .unwrap(),
                        ) / 97.0
                            - 5.0
                    })
                    .collect();
                let update = study.sites[*i].seal(&offer, study.terms(), &values);
                enclave.admit(&host.door, &offer, &update).unwrap();
                (*i, update)
            })
            .collect();
        sealed.sort_by_key(|(i, _)| *i);
        let sealed: Vec<_> = sealed.into_iter().map(|(_, update)| update).collect();
        commit_all(&enclave, &study, &offer, &sealed);
        let release = enclave.release(&offer).unwrap();
        aggregates.push(opened(&host, &release, &study.sites[0]));
    }
    assert!(aggregates.iter().all(|aggregate| *aggregate == aggregates[0]));
}

#[test]
fn long_updates_are_clipped_where_the_rule_says_so() {
    let host = HostileHost::new();
    let enclave = host.enclave("enclave");
    let study = Study::new(&Options {
        parameters: 4,
        aggregation: format!("rule = \"norm-clipped-mean\"\nclip = 2.0\nstep = {}", 2f64.powi(-13)),
        ..Options::default()
    });
    let offer = enclave.offer(&study.first_offer()).unwrap();
    let sealed: Vec<_> = study
        .sites
        .iter()
        .enumerate()
        .map(|(i, site)| {
            // Norm 200 for the first, 0 for the others.
            let value = if i == 0 { 100.0 } else { 0.0 };
            let update = site.seal(&offer, study.terms(), &[value; 4]);
            enclave.admit(&host.door, &offer, &update).unwrap();
            update
        })
        .collect();
    commit_all(&enclave, &study, &offer, &sealed);
    let release = enclave.release(&offer).unwrap();
    let values = values(&host, &study, 4, &release, &study.sites[0]);
    assert!(values.iter().all(|v| v.to_bits() == 0.25f32.to_bits()), "{values:?}");
}

#[test]
fn a_round_closes_with_those_who_are_there_and_goes_on_with_those_who_commit() {
    let host = HostileHost::new();
    let enclave = host.enclave("enclave");
    let study = Study::new(&Options {
        sites: 5,
        deadlines: [2, 2, 60],
        smallest_roster: 3,
        ..Options::default()
    });
    let offer = enclave.offer(&study.first_offer()).unwrap();
    let sealed = submit(&host, &enclave, &study, &offer, &[0, 1, 2, 3]);
    assert_eq!(enclave.roster(&offer).unwrap_err().check, Check::Phase);
    std::thread::sleep(std::time::Duration::from_secs(2));
    let roster = enclave.roster(&offer).unwrap();
    assert_eq!(roster.statement().members.len(), 4);
    for (site, update) in study.sites.iter().zip(&sealed).take(3) {
        enclave.commit(&site.commit(&roster, update.header.digest())).unwrap();
    }
    assert_eq!(enclave.release(&offer).unwrap_err().check, Check::Commits);
    std::thread::sleep(std::time::Duration::from_secs(2));
    let smaller = enclave.roster(&offer).unwrap();
    assert_eq!((smaller.statement().members.len(), smaller.statement().attempt), (3, 2));
    // The commits to the first roster are no commits to the second.
    assert_eq!(enclave.release(&offer).unwrap_err().check, Check::Commits);
    let replayed = study.sites[0].commit(&roster, sealed[0].header.digest());
    assert_eq!(enclave.commit(&replayed).unwrap_err().check, Check::Roster);
    for (site, update) in study.sites.iter().zip(&sealed).take(3) {
        enclave.commit(&site.commit(&smaller, update.header.digest())).unwrap();
    }
    let release = enclave.release(&offer).unwrap();
    let values = values(&host, &study, 3, &release, &study.sites[4]);
    assert!((values[0] - 7.0 / 3.0).abs() < 1e-6);
}
