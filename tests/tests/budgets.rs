//! What one party can take of a host from all others, and cannot.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use sealfold_protocol::manifest::{Amends, Manifest};
use sealfold_protocol::{MultiSigned, SigningKey};
use sealfold_tests::lone::{self, Lone};
use sealfold_tests::study::{Options, Study};
use std::time::Instant;

const SLOW: [&str; 5] = ["--any-study", "--site-rate", "2", "--stranger-rate", "2"];

fn throw_away(i: u32) -> SigningKey {
    let mut seed = [200; 32];
    seed[..4].copy_from_slice(&i.to_le_bytes());
    SigningKey::from_seed(&seed).unwrap()
}

fn amendment(study: &Study, change: impl Fn(&mut Manifest)) -> Manifest {
    let mut manifest = study.manifest.statement().clone();
    let id = study.id();
    manifest.amends = Some(Amends { study: id, predecessor: id });
    change(&mut manifest);
    manifest
}

/// Verifying a manifest hashes it once for each signature: a stranger's is not
/// verified, nor is one of a study that is not served.
#[test]
fn a_strangers_manifests_do_not_take_the_processor() {
    let folder = tempfile::tempdir().unwrap();
    let study = Study::new(&Options::default());
    let id = study.id().to_string();
    let host = Lone::start(folder.path(), "host", &["--study", &id, "--stranger-rate", "1000"]);
    assert_eq!(host.publish(&study.sites[0].key, &study.manifest).status, 200);
    let large = |manifest: &mut Manifest| manifest.study.purpose = "x".repeat(1_000_000);
    let mut unknown = study.manifest.statement().clone();
    large(&mut unknown);
    let keys: Vec<_> = (0..200).map(throw_away).collect();
    let own = amendment(&study, |manifest| {
        large(manifest);
        manifest.approval.approvers = keys.iter().map(SigningKey::verifying_key).collect();
    });
    for (manifest, check) in [(unknown, "not-found"), (own, "right")] {
        let mut signed = MultiSigned::sign(manifest, &study.sites[0].key).unwrap();
        keys.iter().for_each(|key| signed.add_signature(key).unwrap());
        let (before, start) = (host.server.cpu_seconds().unwrap(), Instant::now());
        for _ in 0..10 {
            let reply = host.publish(&keys[0], &signed);
            assert_eq!(reply.check(), check, "{}", String::from_utf8_lossy(&reply.body));
        }
        let taken = (host.server.cpu_seconds().unwrap() - before) / 10.0;
        println!("{check}: {taken:.4} s of the processor a request, in {:?}", start.elapsed());
        assert!(taken < 0.05, "{check}: {taken} s a request");
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
        manifest.approval.approvers = keys.iter().map(SigningKey::verifying_key).collect();
        manifest.approval.required = 21;
    });
    let signed = MultiSigned::sign(manifest.clone(), key).unwrap();
    assert_eq!(host.publish(key, &signed).status, 200);
    // Each of them is nobody here, and all of them have one stranger's share.
    let path = format!("/v1/studies/{}/round", study.id());
    let replies: Vec<_> = keys.iter().map(|key| host.ask(key, "GET", &path, b"")).collect();
    assert!(replies.iter().all(|reply| ["right", "rate"].contains(&&*reply.check())));
    assert!(replies.iter().filter(|reply| reply.check() == "right").count() <= 25);
    // But for signing that amendment, and no other.
    std::thread::sleep(std::time::Duration::from_secs(2));
    let other = amendment(&study, |manifest| {
        manifest.approval.approvers = vec![keys[0].verifying_key()];
        manifest.approval.required = 1;
    });
    let other = MultiSigned::sign(other, &keys[0]).unwrap();
    assert_eq!(host.publish(&keys[0], &other).check(), "right");
    let signed = MultiSigned::sign(manifest, &keys[0]).unwrap();
    let reply = lone::publish(&host.endpoint, &keys[0], &signed);
    assert_eq!(reply.status, 200, "{}", String::from_utf8_lossy(&reply.body));
    assert!(String::from_utf8_lossy(&reply.body).contains(&keys[0].verifying_key().to_string()));
}
