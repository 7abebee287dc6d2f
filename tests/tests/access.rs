//! Who may ask a host for what: signed requests through the real binaries.
//! Nobody's safety rests on any of it (the enclave never hears of it); it keeps a
//! host available to each of its sites, and what is a site's own from the others.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use jiff::{SignedDuration, Timestamp};
use sealfold_protocol::access::{CONTENT_DIGEST, Role};
use sealfold_protocol::api::{MAX_PIECE, RoundStatus, UploadState};
use sealfold_protocol::bytes::Envelope;
use sealfold_protocol::endpoint::Endpoint;
use sealfold_protocol::offer::Offer;
use sealfold_protocol::{Signed, SigningKey};
use sealfold_tests::http::{self, Reply};
use sealfold_tests::lone::Lone;
use sealfold_tests::process;
use sealfold_tests::site::{Sealed, Site};
use sealfold_tests::study::Options;
use sealfold_tests::system::{System, operator};
use serde_json::json;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::time::Instant;

fn sealed(system: &System, site: usize, value: f32) -> Sealed {
    let offer = Offer::open(&system.round(1).offer.unwrap().0).unwrap();
    let terms = system.study.terms().clone();
    system.study.sites[site].seal(&offer, &terms, &[value; 1000])
}

fn refused(reply: &Reply, status: u16, check: &str) {
    let text = String::from_utf8_lossy(&reply.body).into_owned();
    assert_eq!((reply.status, reply.check().as_str()), (status, check), "{text}");
}

#[test]
fn one_site_neither_sees_nor_replaces_nor_blocks_anothers_upload() {
    let system = System::start(&Options::default());
    let [first, second] = [&system.study.sites[0], &system.study.sites[1]];
    let update = sealed(&system, 0, 1.0);
    let header = update.header.digest();
    let (own, half) = (format!("/v1/uploads/{header}"), update.bytes.len() / 2);
    assert_eq!(system.begin_upload(&update.header).received, 0);
    assert_eq!(system.append_as(first, &header, 0, &update.bytes[..half]).status, 200);

    // Not seen: to another site there is no such upload, in no list either.
    let unknown = format!("/v1/uploads/{}", "00".repeat(32));
    let [theirs, none] = [&own, &unknown].map(|path| system.send_as(second, "GET", path, &[], b""));
    refused(&theirs, 404, "not-found");
    let [theirs, none] = [theirs, none].map(|reply| String::from_utf8(reply.body).unwrap());
    assert_eq!(theirs.replace(&header.to_string(), ""), none.replace(&"00".repeat(32), ""));
    let path = format!("/v1/studies/{}/rounds/1", system.id());
    let seen = |site: &Site| -> RoundStatus {
        serde_json::from_slice(&system.send_as(site, "GET", &path, &[], b"").body).unwrap()
    };
    assert_eq!(seen(first).uploads.len(), 1);
    assert!(seen(second).uploads.is_empty() && seen(second).uploaded.is_empty());
    for path in [&own, &path] {
        refused(&http::send(&system.endpoint(), "GET", path, &[], b"").unwrap(), 401, "access");
    }
    // Not replaced: neither continued, nor begun again, nor begun in its name.
    refused(&system.append_as(second, &header, half, &update.bytes[half..]), 404, "not-found");
    refused(&system.post_as(second, "updates", update.header.envelope()), 403, "right");
    let mut statement = update.header.statement().clone();
    statement.plain_length += 1;
    let forged = Signed::sign(statement, &second.key).unwrap();
    refused(&system.post_as(second, "updates", forged.envelope()), 403, "signature");
    refused(&system.post_as(first, "updates", forged.envelope()), 403, "signature");
    // Not blocked: its own is begun and thrown away as often as it likes.
    for value in [2.0, 3.0, 4.0] {
        let _ = system.begin_upload(&sealed(&system, 1, value).header);
    }
    let status = system.send_as(first, "GET", &own, &[], b"");
    assert!(String::from_utf8_lossy(&status.body).contains(&format!("\"received\":{half}")));
    assert_eq!(system.append_as(first, &header, half, &update.bytes[half..]).status, 200);
    let round = system.wait_for(1, "admission", |round| {
        round
            .uploads
            .iter()
            .any(|u| u.header == header && matches!(u.state, UploadState::Admitted(_)))
    });
    assert_eq!(round.uploaded, std::slice::from_ref(&first.name));
    // The receipt is its own site's; that there is one is everybody's.
    assert!(matches!(seen(first).uploads[0].state, UploadState::Admitted(_)));
    assert!(seen(second).uploads.iter().all(|upload| upload.site == second.name));
    assert_eq!(seen(second).uploaded, std::slice::from_ref(&first.name));
}

#[test]
fn a_request_is_taken_once_and_only_as_it_was_signed() {
    let mut system = System::start(&Options::default());
    let update = sealed(&system, 0, 1.0);
    let path = format!("/v1/studies/{}/rounds/1/updates", system.id());
    let body = json!({ "envelope": Envelope(update.header.envelope().to_vec()) }).to_string();
    let json = ("content-type", "application/json");
    let send = |system: &System, fields: &[(&str, String)], body: &str| {
        let fields = fields.iter().map(|(name, value)| (*name, value.as_str()));
        let headers: Vec<_> = fields.chain([json]).collect();
        http::send(&system.endpoint(), "POST", &path, &headers, body.as_bytes()).unwrap()
    };
    let site = Site::numbered(0);
    let sign = |key: &SigningKey, role, late: i64| {
        let at = Timestamp::now() + SignedDuration::from_secs(late);
        http::signature_at((key, role), at, "POST", &path, &[], body.as_bytes())
    };
    let fields = sign(&site.key, Role::Party, 0);
    // Another body, with the digest that was signed and with its own.
    let other = body.replace("envelope", "Envelope");
    refused(&send(&system, &fields, &other), 401, "access");
    let mut swapped = fields.clone();
    for (name, value) in &mut swapped {
        if *name == CONTENT_DIGEST {
            *value = sealfold_protocol::access::content_digest(other.as_bytes());
        }
    }
    refused(&send(&system, &swapped, &other), 401, "access");
    // Another path or method under the same signature.
    let all: Vec<_> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let elsewhere = path.replace("updates", "commits");
    let reply = http::send(&system.endpoint(), "POST", &elsewhere, &all, body.as_bytes()).unwrap();
    refused(&reply, 401, "access");
    // Forged: another's signature under this site's key id, or none at all.
    let stranger = SigningKey::from_seed(&[77; 32]).unwrap();
    let mut forged = sign(&stranger, Role::Party, 0);
    for (_, value) in &mut forged {
        *value = value
            .replace(&stranger.verifying_key().to_string(), &site.key.verifying_key().to_string());
    }
    refused(&send(&system, &forged, &body), 401, "access");
    refused(&send(&system, &forged[1..], &body), 401, "access");
    refused(&send(&system, &[], &body), 401, "access");
    // Another tag; a key that is nobody's; a site's key in the operator's place.
    let mut tagged = sign(&site.key, Role::Party, 0);
    tagged[0].1 = tagged[0].1.replace("sealfold/v1/party", "sealfold/v1/commit");
    refused(&send(&system, &tagged, &body), 401, "access");
    refused(&send(&system, &sign(&stranger, Role::Party, 0), &body), 403, "right");
    refused(&send(&system, &sign(&site.key, Role::Operator, 0), &body), 403, "right");
    // The operator reads, and writes nothing in a site's place.
    refused(&send(&system, &sign(&operator(), Role::Operator, 0), &body), 403, "right");
    refused(&send(&system, &sign(&operator(), Role::Party, 0), &body), 403, "right");
    // A clock that is wrong is told both times.
    for late in [-7200, 7200] {
        let reply = send(&system, &sign(&site.key, Role::Party, late), &body);
        refused(&reply, 401, "clock");
        let text = String::from_utf8(reply.body).unwrap();
        assert!(text.contains("this host's clock, 20") && text.contains("signed at 20"), "{text}");
        assert!(text.contains("NTP"), "{text}");
    }
    // As it was signed it is taken, once, also if the host died in between.
    let fresh = sign(&site.key, Role::Party, 120);
    let reply = send(&system, &fresh, &body);
    assert_eq!(reply.status, 200, "{}", String::from_utf8_lossy(&reply.body));
    refused(&send(&system, &fresh, &body), 401, "replay");
    system.restart_host();
    refused(&send(&system, &fresh, &body), 401, "replay");
    let again = sign(&site.key, Role::Party, 0);
    assert_eq!(send(&system, &again, &body).status, 200);
}

#[test]
fn a_site_does_nothing_in_anothers_name_nor_an_operators_work() {
    let system = System::start(&Options::default());
    let [first, second] = [&system.study.sites[0], &system.study.sites[1]];
    system.submit_all();
    let round = system.wait_for(1, "the roster's leaf", |round| round.roster_leaf.is_some());
    let checkpoint = system.roster_checkpoint(&round);
    let offer = Offer::open(&round.offer.clone().unwrap().0).unwrap();
    let key = offer.statement().instance_key;
    let roster = Signed::open(&round.roster.clone().unwrap().0, &key).unwrap();
    let member: &Signed<sealfold_protocol::roster::Roster> = &roster;
    let header = member.statement().header_of(&first.name).unwrap();
    let commit = first.commit_at(&roster, header, checkpoint);
    refused(&system.post_as(second, "commits", commit.envelope()), 403, "right");
    assert!(system.round(1).commits.is_empty());
    assert_eq!(system.post_as(first, "commits", commit.envelope()).status, 200);
    // The operator's work with a site's key, and with a key that says it is one.
    let body = json!({ "study": system.id() }).to_string();
    let json = [("content-type", "application/json")];
    let place = "/v1/operator/studies";
    refused(&system.send_as(first, "POST", place, &json, body.as_bytes()), 403, "right");
    let endpoint = system.endpoint();
    let as_role = |key: &SigningKey, role| {
        http::send_as((key, role), &endpoint, "POST", place, &json, body.as_bytes()).unwrap()
    };
    refused(&as_role(&first.key, Role::Operator), 403, "right");
    refused(&as_role(&operator(), Role::Party), 403, "right");
    assert_eq!(as_role(&operator(), Role::Operator).status, 200);
    // Who did what, when and with which outcome; nothing of what was in it.
    let log = system.host.log();
    let line = |who: &str, place: &str, outcome: &str| {
        let mut lines = log.lines();
        let found = lines.any(|line| {
            line.contains(&format!("who={who}")) && line.contains(place) && line.contains(outcome)
        });
        assert!(found, "{who} {place} {outcome}: {log}");
    };
    let known = format!("site-000@{}", system.study.id().short());
    line(&known, "path=/v1/studies/", "outcome=done");
    line(&known, "path=/v1/operator/studies", "outcome=right");
    line(&known, "method=PATCH", "status=200");
    line("operator", "path=/v1/operator/studies", "outcome=done");
    let envelope = serde_json::to_string(&Envelope(commit.envelope().to_vec())).unwrap();
    for content in [envelope.trim_matches('"'), "sealfold=:", "keyid"] {
        assert!(!log.contains(content), "{content}");
    }
}

#[test]
fn what_one_site_takes_is_bounded_and_its_client_waits() {
    let system = System::start(&Options::default());
    let folder = system.folder.path();
    let options = ["--any-study", "--site-rate", "2", "--stranger-rate", "2"];
    let Lone { url, endpoint, server: _server } = Lone::start(folder, "slow", &options);
    let manifest = folder.join("study.toml");
    let approve = |site: &str| {
        let fixed = ["study", "approve", manifest.to_str().unwrap(), "--host", &url, "--yes"];
        system.sealfold(site, &fixed)
    };
    let _ = approve("site-000").good();
    let path = format!("/v1/studies/{}", system.id());
    let ask = |site: usize| {
        let signer = (&system.study.sites[site].key, Role::Party);
        http::send_as(signer, &endpoint, "GET", &path, &[], b"").unwrap()
    };
    let busy = (0..60).map(|_| ask(0)).find(|reply| reply.status == 429).unwrap();
    refused(&busy, 429, "rate");
    assert_eq!(busy.field("retry-after"), Some("1"), "{}", busy.head);
    // Another site is served at once; so is whoever has no key, until it is too much.
    assert_eq!(ask(1).status, 200);
    let open = || http::send(&endpoint, "GET", &path, &[], b"").unwrap();
    assert_eq!(open().status, 200);
    let busy = (0..60).map(|_| open()).find(|reply| reply.status == 429).unwrap();
    refused(&busy, 429, "rate");
    assert_eq!(ask(1).status, 200);
    // The client waits as it is told, and then its request goes through.
    while ask(0).status != 429 {}
    let start = Instant::now();
    let _ = approve("site-000").good();
    assert!(start.elapsed().as_millis() >= 500, "{:?}", start.elapsed());
}

#[test]
fn what_strangers_send_that_is_refused_takes_no_memory() {
    let folder = tempfile::tempdir().unwrap();
    let options = ["--stranger-rate", "1"];
    let Lone { server, endpoint, .. } = Lone::start(folder.path(), "flooded", &options);
    let before = server.peak_memory();
    // Each sends all of a piece but its last byte, and waits.
    let body = vec![7; MAX_PIECE - 1];
    let length = MAX_PIECE.to_string();
    let path = format!("/v1/uploads/{}", "00".repeat(32));
    let open: Vec<_> = (0..60)
        .map(|_| {
            let mut stream = endpoint.connect().unwrap();
            let head =
                format!("PATCH {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n\r\n");
            stream.write_all(head.as_bytes()).unwrap();
            stream.write_all(&body).unwrap();
            stream
        })
        .collect();
    // All but what still is on its way has been taken in by now.
    let taken = server.peak_memory().saturating_sub(before);
    assert!(taken < 64 << 20, "{} MiB for {} requests", taken >> 20, open.len());
    // Once whole, each reads why it is refused.
    for mut stream in open {
        stream.write_all(&[7]).unwrap();
        let mut status = [0; 12];
        stream.read_exact(&mut status).unwrap();
        assert!([b"HTTP/1.1 401", b"HTTP/1.1 429"].contains(&&status));
    }
}

#[test]
fn studies_are_let_in_by_the_operator_alone() {
    let system = System::start(&Options::default());
    let folder = system.folder.path();
    let home = folder.join("operator");
    let run = |arguments: &[&str]| {
        let mut command = process::command("sealfold");
        command.arg("--home").arg(&home).arg("--json").args(arguments);
        sealfold_tests::system::Ended::from(command.output().unwrap())
    };
    let made = run(&["operator", "key"]).good().json();
    let key = made["operator"].as_str().unwrap();
    assert_eq!(run(&["operator", "key"]).good().json()["operator"], key);
    let file = home.join("keys/operator.json");
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let options = ["--operator", key, "--name", "localhost:1", "--name", "localhost"];
    let Lone { server, url, endpoint } = Lone::start(folder, "closed", &options);
    let manifest = folder.join("study.toml");
    // The client signs for the name that it was given, and the host knows its own.
    let ended = run(&["operator", "introduce", "--host", &url, &system.id()]);
    assert_eq!(ended.check(), "access", "{ended:?}");
    drop(server);
    let Lone { server, url, .. } = Lone::start(folder, "closed", &["--operator", key]);
    let approve = |url: &str| {
        let fixed = ["study", "approve", manifest.to_str().unwrap(), "--host", url, "--yes"];
        system.sealfold("site-000", &fixed)
    };
    let ended = approve(&url);
    assert_eq!(ended.check(), "not-found");
    assert!(ended.stdout.contains("sealfold operator introduce"), "{ended:?}");
    let _ = run(&["operator", "introduce", "--host", &url, &system.id()]).good();
    let _ = approve(&url).good();
    // A stranger brings nothing in, whatever others have signed.
    let body = json!({ "envelope": Envelope(system.study.manifest.envelope().unwrap()) });
    let stranger = SigningKey::from_seed(&[77; 32]).unwrap();
    let endpoint_now: Endpoint = url.replace("http://", "tcp://").parse().unwrap();
    let json = [("content-type", "application/json")];
    let body = body.to_string();
    let signer = (&stranger, Role::Party);
    let reply = http::send_as(signer, &endpoint_now, "POST", "/v1/studies", &json, body.as_bytes())
        .unwrap();
    refused(&reply, 403, "right");
    // It is known after a restart as well.
    drop(server);
    let Lone { server: _server, url, .. } = Lone::start(folder, "closed", &["--operator", key]);
    let _ = approve(&url).good();
    assert_ne!(endpoint, endpoint_now);
}

/// The keys are those of the manifests: an amendment that gives a site a new key
/// changes it at the host, with the first offer under it.
#[test]
fn a_new_key_by_amendment_takes_the_place_of_the_old_one() {
    let system = System::start(&Options::default());
    let (old, new) = (&system.study.sites[3], SigningKey::from_seed(&[99; 32]).unwrap());
    let replaced = Site { name: old.name.clone(), key: new, release_seed: old.release_seed };
    // No site reaches further than its body: an empty envelope is no commit.
    let standing = |site: &Site| system.post_as(site, "commits", b"").check();
    assert_eq!((standing(old).as_str(), standing(&replaced).as_str()), ("encoding", "right"));
    for (site, value) in [("site-000", 1.0), ("site-001", 2.0), ("site-002", 4.0)] {
        let _ = system.submit(site, value).good();
    }
    let update = sealed(&system, 3, 8.0);
    let _ = system.begin_upload(&update.header);
    let reply = system.append_as(old, &update.header.digest(), 0, &update.bytes);
    assert_eq!(reply.status, 200);
    let round = system.wait_for(1, "the roster's leaf", |round| round.roster_leaf.is_some());
    system.commit(&["site-000", "site-001", "site-002"]);
    let checkpoint = system.roster_checkpoint(&round);
    let offer = Offer::open(&round.offer.clone().unwrap().0).unwrap();
    let roster = Signed::open(&round.roster.unwrap().0, &offer.statement().instance_key).unwrap();

    let folder = system.folder.path();
    let [from, to] =
        [old, &replaced].map(|site| format!("signing_key = \"{}\"", site.key.verifying_key()));
    let approving = ["site-000", "site-001", "site-002"];
    let _ = system.amend(&approving, |text| text.replace(&from, &to));
    // In force: the new key is the site's; the old one too, while its round runs.
    assert_eq!((standing(old).as_str(), standing(&replaced).as_str()), ("encoding", "encoding"));
    let commit = old.commit_at(&roster, update.header.digest(), checkpoint);
    assert_eq!(system.post_as(old, "commits", commit.envelope()).status, 200);
    let _ = system.wait_for(1, "the release", |round| round.release.is_some());
    let out = folder.join("model.safetensors");
    for site in ["site-000", "site-001", "site-002"] {
        let _ = system.on_study(site, &["fetch"], &["--out", out.to_str().unwrap()]).good();
    }
    let _ = system.wait_for(2, "the next offer", |round| round.offer.is_some());
    // The old key is still an approver's, and no site's.
    assert_eq!((standing(old).as_str(), standing(&replaced).as_str()), ("right", "encoding"));
}
