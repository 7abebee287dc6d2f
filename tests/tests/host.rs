//! The host as sites and operators meet it: limits, TLS, the relay.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use sealfold_protocol::access::Role;
use sealfold_protocol::api::{MAX_HEAD, MAX_PIECE};
use sealfold_protocol::bytes::Envelope;
use sealfold_protocol::endpoint::Endpoint;
use sealfold_protocol::offer::Offer;
use sealfold_tests::http;
use sealfold_tests::process::{self, Server};
use sealfold_tests::study::{self, Options, give_log_key};
use sealfold_tests::system::{Ended, System};
use sealfold_tests::tls::TlsHost;
use serde_json::{Value, json};

#[test]
fn requests_that_are_too_large_or_no_requests_are_refused_by_name() {
    let system = System::start(&Options::default());
    let send = |method: &str, path: &str, body: &[u8]| {
        let json = [("content-type", "application/json")];
        let reply = system.send_as(&system.study.sites[0], method, path, &json, body);
        let refusal: Value = serde_json::from_slice(&reply.body)
            .unwrap_or_else(|e| panic!("{method} {path}: {} {e}", reply.status));
        (reply.status, refusal["check"].as_str().unwrap_or_default().to_owned())
    };
    let (study, upload) = (system.id(), format!("/v1/uploads/{}", "00".repeat(32)));
    assert_eq!(send("POST", "/v1/studies", b"{}"), (400, "request".to_owned()));
    assert_eq!(send("POST", "/v1/studies", b"{\"envelope\": \"AAAA\"}").1, "encoding");
    assert_eq!(send("POST", "/v1/studies", &vec![b' '; 5 << 20]).1, "size");
    let offer = Offer::open(&system.round(1).offer.unwrap().0).unwrap();
    let terms = system.study.terms().clone();
    let update = system.study.sites[0].seal(&offer, &terms, &[1.0; 1000]);
    let own = format!("/v1/uploads/{}", system.begin_upload(&update.header).header);
    assert_eq!(send("PATCH", &own, &vec![0; MAX_PIECE + 1]).1, "size");
    assert_eq!(send("PATCH", &own, b"x").1, "request");
    assert_eq!(send("PATCH", &upload, b"x").1, "not-found");
    assert_eq!(send("GET", &upload, b"").1, "not-found");
    assert_eq!(send("GET", "/v1/studies/xyz", b"").1, "request");
    assert_eq!(send("GET", &format!("/v1/studies/{study}/rounds/0"), b"").1, "not-found");
    assert_eq!(send("GET", &format!("/v1/studies/{study}/rounds/99"), b"").1, "not-found");
    assert_eq!(send("GET", &format!("/v1/studies/{study}/rounds/1/aggregate"), b"").1, "phase");
    let updates = format!("/v1/studies/{study}/rounds/1/updates");
    let long = json!({ "envelope": Envelope(vec![0; 20_000]) }).to_string();
    let site = &system.study.sites[0];
    let with_field = |value: &str, body: &str| {
        let headers = [("content-type", "application/json"), ("x-field", value)];
        let signer = (&site.key, Role::Party);
        http::send_as(signer, &system.endpoint(), "POST", &updates, &headers, body.as_bytes())
    };
    let check = |reply: http::Reply| {
        let refusal: Value = serde_json::from_slice(&reply.body).unwrap();
        (reply.status, refusal["check"].as_str().unwrap_or_default().to_owned())
    };
    // A header of an update, and headers of the request, that are too long.
    assert_eq!(check(with_field("", &long).unwrap()), (413, "size".to_owned()));
    for length in [MAX_HEAD + 1, 60_000] {
        let reply = with_field(&"a".repeat(length), "{}").unwrap();
        assert_eq!(check(reply), (413, "size".to_owned()), "{length}");
    }
    // Beyond what is read of a head, the HTTP library ends the connection.
    for length in [100_000, 3_000_000] {
        let status = with_field(&"a".repeat(length), "{}").map_or(431, |reply| reply.status);
        assert!([413, 431].contains(&status), "{length}: {status}");
    }
    assert_eq!(send("GET", &upload, b"").1, "not-found");
    // Another model than the manifest's.
    let model = format!("/v1/studies/{study}/model");
    assert_eq!(send("PUT", &model, &[1; 4000]).1, "chain");
    assert_eq!(send("PUT", &model, &[0; 4001]).1, "size");
    let range = [("range", "bytes=4-7")];
    let reply = system.send_as(site, "GET", &model, &range, b"");
    assert_eq!((reply.status, reply.body.len()), (206, 4));
}

#[test]
fn metrics_and_the_status_page_say_what_happened() {
    let system = System::start(&Options::default());
    let _ = system.submit("site-000", 1.0).good();
    let metrics = system.metrics();
    for name in
        ["sealfold_upload_bytes_total", "sealfold_admissions_total 1", "sealfold_enclave_up 1"]
    {
        assert!(metrics.contains(name), "{name}: {metrics}");
    }
    // They tell what is a site's own business, and stand where strangers do not come.
    assert_eq!(system.get("/metrics").status, 404);
    let page = String::from_utf8(system.get("/").body).unwrap();
    assert!(page.contains("0 of 5") && page.contains("open"), "{page}");
}

#[test]
fn sites_reach_the_host_over_tls_under_an_authority_of_their_own() {
    let system = System::start(&Options::default());
    let folder = system.folder.path();
    // Plain HTTP beyond this machine is not served.
    let mut command = process::command("sealfold-host");
    command.args([
        "serve",
        "--listen",
        "tcp://0.0.0.0:0",
        "--enclave",
        "unix:///x",
        "--door",
        "unix:///y",
    ]);
    let output = command.output().unwrap();
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("--tls-cert"));
    // A second host on the same folder is refused.
    let mut command = process::command("sealfold-host");
    command.args([
        "serve",
        "--listen",
        "tcp://127.0.0.1:0",
        "--enclave",
        "unix:///x",
        "--door",
        "unix:///y",
    ]);
    let output = command.arg("--data").arg(folder.join("host")).output().unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).contains("another host"), "{output:?}");

    let host = TlsHost::start(&["localhost"]);
    let (system, url) = (&host.system, host.url("localhost"));
    assert!(url.starts_with("https://"), "{url}");
    let manifest = system.folder.path().join("study.toml");
    let approve = |ca: &[&str]| -> Ended {
        let fixed = ["study", "approve", manifest.to_str().unwrap(), "--host", &url, "--yes"];
        system.sealfold("site-001", &[&fixed, ca].concat())
    };
    let _ = approve(&["--ca", host.certificate.to_str().unwrap()]).good();
    let refused = approve(&[]);
    assert_eq!(refused.code, 2, "{refused:?}");
}

#[test]
fn the_relay_stands_between_any_two_endpoints() {
    let system = System::start(&Options::default());
    let folder = system.folder.path();
    let enclave = format!("unix://{}", folder.join("enclave.sock").display());
    let middle = format!("unix://{}", folder.join("relay.sock").display());
    let mut command = process::command("sealfold-host");
    command.args(["relay", "--from", &middle, "--to", &enclave]);
    let _unix = Server::start(command, &folder.join("relay-1.log"));
    let mut command = process::command("sealfold-host");
    command.args(["relay", "--from", "tcp://127.0.0.1:0", "--to", &middle]);
    let tcp = Server::start(command, &folder.join("relay-2.log"));
    let endpoint: Endpoint = tcp.place().unwrap().parse().unwrap();
    let reply = http::send(&endpoint, "GET", "/v1/status", &[], b"").unwrap();
    assert_eq!(reply.status, 200);
    assert!(String::from_utf8_lossy(&reply.body).contains("\"phase\":\"open\""));
    // It says where it listens, as it was asked: on all addresses here.
    let mut command = process::command("sealfold-host");
    command.args(["relay", "--from", "tcp://0.0.0.0:0", "--to", &middle]);
    let all = Server::start(command, &folder.join("relay-3.log"));
    let place = all.place().unwrap();
    let port = place.strip_prefix("tcp://0.0.0.0:").unwrap_or_else(|| panic!("{place}"));
    let endpoint: Endpoint = format!("tcp://127.0.0.1:{port}").parse().unwrap();
    assert_eq!(http::send(&endpoint, "GET", "/v1/status", &[], b"").unwrap().status, 200);
}

#[test]
fn studies_take_turns_and_neither_loses_its_release() {
    let rounds = 3;
    let options = Options { sites: 3, rounds, ..Options::default() };
    let mut system = System::start(&options);
    let mut agents: Vec<_> =
        system.study.sites.iter().map(|site| system.agent(&site.name, 1.0, rounds)).collect();
    let second = system.found("second", &Options { first_site: 3, ..options });
    let first = std::mem::replace(&mut system.study, second);
    agents.extend(system.study.sites.iter().map(|site| system.agent(&site.name, 2.0, rounds)));
    let _ = system.wait_for(1, "the second study's first release", |round| round.release.is_some());
    system.restart_host();
    let _ = system.wait_for(rounds, "the second study", |round| round.release.is_some());
    system.study = first;
    let _ = system.wait_for(rounds, "the first study", |round| round.release.is_some());
}

#[test]
fn a_host_serves_only_the_studies_that_its_operator_lists() {
    let system = System::start(&Options::default());
    let folder = system.folder.path();
    let manifest = folder.join("study.toml");
    for (listed, code) in [("00".repeat(32), 1), (system.id(), 0)] {
        let name = format!("listed-{code}");
        let mut command = process::command("sealfold-host");
        command.args(["serve", "--listen", "tcp://127.0.0.1:0", "--enclave", "unix:///nowhere"]);
        command.args(["--study", &listed, "--data"]).arg(folder.join(&name)).arg("--door");
        give_log_key(&folder.join(&name));
        command.arg(format!("unix://{}", folder.join(format!("{name}.sock")).display()));
        let host = Server::start(command, &folder.join(format!("{name}.log")));
        let url = host.place().unwrap();
        let fixed = ["study", "approve", manifest.to_str().unwrap(), "--host", &url, "--yes"];
        let ended = system.sealfold("site-001", &fixed);
        assert_eq!(ended.code, code, "{ended:?}");
        if code == 1 {
            assert_eq!(ended.check(), "not-found");
            assert!(ended.stdout.contains("--study"), "{ended:?}");
        }
    }
}

#[test]
fn a_study_of_another_log_is_taken_neither_by_the_host_nor_by_a_site_that_knows_its_log() {
    let system = System::start(&Options::default());
    let folder = system.folder.path();
    // What the operator gives to whoever writes the manifest, and to the sites.
    let own = folder.join("host").display().to_string();
    let print = |data: &str, more: &[&str]| {
        let output = process::run("sealfold-host", &[&["log-key", "--data", data], more].concat());
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let section = print(&own, &[]);
    let text = std::fs::read_to_string(folder.join("study.toml")).unwrap();
    assert!(text.contains(&section), "{section}");
    let policy = print(&own, &["--policy"]);
    assert_eq!(policy, format!("[log]\nkey = \"{}\"\n", system.log_key()));
    // A key is made once, and stays.
    let other = folder.join("other").display().to_string();
    let made = print(&other, &["--log-origin", "log.example/other"]);
    assert_eq!(print(&other, &[]), made);
    assert!(made.contains("log.example/other") && made != section);
    let moved = folder.join("moved.toml");
    std::fs::write(&moved, text.replace(&section, &made)).unwrap();
    let approve = || {
        let fixed = ["study", "approve", moved.to_str().unwrap(), "--host", &system.url, "--yes"];
        system.sealfold("site-001", &fixed)
    };
    let ended = approve();
    assert_eq!(ended.check(), "manifest", "{ended:?}");
    assert!(ended.stdout.contains("log-key"), "{ended:?}");
    // The site whose policy names the log does not sign it at all.
    let file = system.home("site-001").join("policy.toml");
    let before = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, format!("{before}\n{policy}")).unwrap();
    assert_eq!(approve().check(), "log");
    assert_eq!(study::LOG_ORIGIN, system.log_key().name());
}
