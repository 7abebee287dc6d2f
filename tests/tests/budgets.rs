//! What one party can take of a host from all others, and cannot.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use sealfold_protocol::access::Role;
use sealfold_protocol::api::MAX_PIECE;
use sealfold_protocol::offer::Offer;
use sealfold_protocol::terms::Amends;
use sealfold_protocol::{MultiSigned, SigningKey};
use sealfold_study::Manifest;
use sealfold_tests::http;
use sealfold_tests::launcher::Manner;
use sealfold_tests::lone::{self, Lone};
use sealfold_tests::site::nonce;
use sealfold_tests::space::Space;
use sealfold_tests::study::{Options, Study};
use sealfold_tests::system::{Platform, System, operator};
use std::io::{Read, Write};
use std::time::Duration;

const SLOW: [&str; 5] = ["--any-study", "--site-rate", "2", "--stranger-rate", "2"];

fn throw_away(i: u32) -> SigningKey {
    let mut seed = [200; 32];
    seed[..4].copy_from_slice(&i.to_le_bytes());
    SigningKey::from_seed(&seed).unwrap()
}

fn amendment(study: &Study, change: impl Fn(&mut Manifest)) -> Manifest {
    let mut manifest = study.manifest.statement().clone();
    let id = study.id();
    manifest.terms.amends = Some(Amends { study: id, predecessor: id });
    change(&mut manifest);
    manifest
}

/// Verifying a manifest hashes it once for each signature: a stranger's is not
/// verified, nor is one of a study that is not served. So it is refused for what it
/// is, though the last of its signatures does not hold.
#[test]
fn a_strangers_manifests_do_not_take_the_processor() {
    let folder = tempfile::tempdir().unwrap();
    let study = Study::new(&Options::default());
    let id = study.id().to_string();
    let host = Lone::start(folder.path(), "host", &["--study", &id, "--stranger-rate", "1000"]);
    assert_eq!(host.publish(&study.sites[0].key, &study.manifest).status, 200);
    let large = |manifest: &mut Manifest| manifest.agreement.study.purpose = "x".repeat(1_000_000);
    let mut unknown = study.manifest.statement().clone();
    large(&mut unknown);
    let keys: Vec<_> = (0..200).map(throw_away).collect();
    let own = amendment(&study, |manifest| {
        large(manifest);
        manifest.terms.approval.approvers = keys.iter().map(SigningKey::verifying_key).collect();
    });
    for (manifest, check) in [(unknown, "not-found"), (own, "right")] {
        let mut signed = MultiSigned::sign(manifest, &study.sites[0].key).unwrap();
        keys.iter().for_each(|key| signed.add_signature(key).unwrap());
        let mut envelope = signed.envelope().unwrap();
        *envelope.last_mut().unwrap() ^= 1;
        let brought = |key: &SigningKey| host.bring(key, envelope.clone());
        assert_eq!(brought(&keys[0]).check(), check);
        // The same from a party of the study, which is looked at to the end.
        if check == "right" {
            assert_eq!(brought(&study.sites[0].key).check(), "signature");
        }
    }
}

#[test]
fn an_amendment_that_lacks_approvals_makes_nobody_a_party() {
    let folder = tempfile::tempdir().unwrap();
    let host = Lone::start(folder.path(), "host", &SLOW);
    let study = Study::new(&Options::default());
    let key = &study.sites[1].key;
    assert_eq!(host.publish(key, &study.manifest).status, 200);
    let keys: Vec<_> = (0..40).map(throw_away).collect();
    let manifest = amendment(&study, |manifest| {
        manifest.terms.approval.approvers = keys.iter().map(SigningKey::verifying_key).collect();
        manifest.terms.approval.required = 21;
    });
    let signed = MultiSigned::sign(manifest.clone(), key).unwrap();
    assert_eq!(host.publish(key, &signed).status, 200);
    // Each of them is nobody here, and all of them have one stranger's share.
    let path = format!("/v1/studies/{}/round", study.id());
    let replies: Vec<_> = keys.iter().map(|key| host.ask(key, "GET", &path, b"")).collect();
    assert!(replies.iter().all(|reply| ["right", "rate"].contains(&&*reply.check())));
    assert!(replies.iter().filter(|reply| reply.check() == "right").count() <= 25);
    // But for signing that amendment, and no other.
    std::thread::sleep(Duration::from_secs(2));
    let other = amendment(&study, |manifest| {
        manifest.terms.approval.approvers = vec![keys[0].verifying_key()];
        manifest.terms.approval.required = 1;
    });
    let other = MultiSigned::sign(other, &keys[0]).unwrap();
    assert_eq!(host.publish(&keys[0], &other).check(), "right");
    let signed = MultiSigned::sign(manifest, &keys[0]).unwrap();
    let reply = lone::publish(&host.endpoint, &keys[0], &signed);
    assert_eq!(reply.status, 200, "{}", String::from_utf8_lossy(&reply.body));
    assert!(String::from_utf8_lossy(&reply.body).contains(&keys[0].verifying_key().to_string()));
}

#[test]
fn requests_that_are_refused_by_rate_leave_no_nonce() {
    let folder = tempfile::tempdir().unwrap();
    let host = Lone::start(folder.path(), "host", &SLOW);
    let study = Study::new(&Options::default());
    let key = &study.sites[1].key;
    assert_eq!(host.publish(key, &study.manifest).status, 200);
    let path = format!("/v1/studies/{}/round", study.id());
    let (mut served, mut busy) = (0, 0);
    while busy < 200 {
        match host.ask(key, "GET", &path, b"").status {
            200 => served += 1,
            429 => busy += 1,
            other => panic!("{other}"),
        }
    }
    let kept = std::fs::metadata(folder.path().join("host/nonces")).unwrap().len() / 56;
    // The publication was a stranger's request: nobody knew the key.
    assert_eq!(kept, served);
}

#[test]
fn pieces_of_an_upload_that_gave_way_leave_nothing_on_the_disk() {
    let mut system = System::start(&Options { parameters: 5_000_000, ..Options::default() });
    let offer = Offer::open(&system.round(1).offer.unwrap().0).unwrap();
    let length = 5_000_000 * 4;
    let piece = vec![7; MAX_PIECE];
    let folder = system.folder.path().join("host/staging/updates");
    let files = || std::fs::read_dir(&folder).unwrap().count();
    let site = &system.study.sites[3];
    for late in [5, 20, 45, 90] {
        let [(first, _), (second, _)] = [(); 2].map(|()| site.header(&offer, length));
        let _ = system.begin_upload(&first);
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| system.append_as(site, &first.digest(), 0, &piece).status);
            }
            std::thread::sleep(Duration::from_millis(late));
            let reply = system.post_as(site, "updates", second.envelope());
            assert_eq!(reply.status, 200, "{}", String::from_utf8_lossy(&reply.body));
        });
        assert_eq!(files(), 0, "{late} ms");
    }
    // What an older host left there belongs to no upload.
    std::fs::write(folder.join("ab".repeat(32)), b"left").unwrap();
    system.restart_host();
    assert_eq!(files(), 0);
}

#[test]
fn one_key_has_one_copy_of_an_initial_model_on_the_disk() {
    const LENGTH: usize = 10_000_000;
    let folder = tempfile::tempdir().unwrap();
    let host = Lone::start(folder.path(), "host", &["--any-study"]);
    let study = Study::new(&Options { parameters: LENGTH / 4, ..Options::default() });
    assert_eq!(host.publish(&study.sites[0].key, &study.manifest).status, 200);
    let path = format!("/v1/studies/{}/model", study.id());
    let begin = |site: usize| {
        let mut head =
            format!("PUT {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {LENGTH}\r\n");
        let signer = (&study.sites[site].key, Role::Party);
        for (name, value) in http::signature(signer, "PUT", &path, &[], b"") {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        let mut stream = host.endpoint.connect().unwrap();
        let _ = stream.write_all(format!("{head}\r\n").as_bytes());
        let _ = stream.write_all(&vec![0; LENGTH - 1]);
        stream
    };
    let _others: Vec<_> = (0..10).map(|_| begin(3)).collect();
    let mut last = begin(2);
    // Another party is not kept waiting by the one that does not end.
    last.write_all(&[0]).unwrap();
    let mut status = [0; 12];
    last.read_exact(&mut status).unwrap();
    assert_eq!(&status, b"HTTP/1.1 204");
    let files = std::fs::read_dir(folder.path().join("host/staging/temporary")).unwrap();
    let held: u64 = files.map(|file| file.unwrap().metadata().unwrap().len()).sum();
    assert!(held <= LENGTH as u64, "{held} bytes");
}

/// A launcher that signs ten tokens a minute, and a site that would have all.
#[test]
fn one_site_does_not_take_every_token_of_the_platform() {
    let mut system = System::start_on(Platform::Space(Space::of("PKI")), &Options::default());
    let limited = ["--any-study", "--site-rate", "1000", "--operator"].map(str::to_owned);
    let operator = operator().verifying_key().to_string();
    system.restart_host_with(&[&limited[..], &[operator]].concat());
    let _ = system.wait_for(1, "an offer", |round| round.offer.is_some());
    system.launcher().behave(Manner::Limited(10));
    let path = format!("/v1/studies/{}/rounds/1/evidence", system.id());
    let headers = [("content-type", "application/json")];
    let mut given = 0;
    for _ in 0..30 {
        let body = serde_json::json!({ "nonce": nonce() }).to_string();
        let site = &system.study.sites[3];
        let reply = system.send_as(site, "POST", &path, &headers, body.as_bytes());
        match reply.status {
            200 => given += 1,
            _ => assert_eq!(reply.check(), "rate"),
        }
    }
    assert_eq!(given, 4);
    // There is evidence left for another site.
    let _ = system.on_study("site-000", &["verify"], &[]).good();
}
