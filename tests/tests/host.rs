//! The host as sites and operators meet it: its API document, TLS, the relay.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use sealfold_protocol::api::MAX_PIECE;
use sealfold_protocol::endpoint::Endpoint;
use sealfold_tests::http;
use sealfold_tests::process::{self, Server};
use sealfold_tests::study::Options;
use sealfold_tests::system::{Ended, System};
use serde_json::Value;
use std::collections::BTreeSet;

#[test]
fn the_api_document_is_the_servers_own_api() {
    let system = System::start(&Options::default());
    let document: Value = serde_json::from_slice(&system.get("/v1/openapi.json").body).unwrap();
    assert_eq!(document["openapi"], "3.1.0");
    let methods = ["GET", "POST", "PUT", "PATCH", "DELETE"];
    let mut documented = 0;
    for (path, operations) in document["paths"].as_object().unwrap() {
        let filled = path
            .replace("{study}", &system.id())
            .replace("{round}", "1")
            .replace("{header}", &"00".repeat(32));
        let listed: BTreeSet<String> =
            operations.as_object().unwrap().keys().map(|m| m.to_uppercase()).collect();
        for method in methods {
            let reply = http::send(&system.endpoint(), method, &filled, &[], b"").unwrap();
            let text = String::from_utf8_lossy(&reply.body).into_owned();
            let unknown = text.contains("a method of /v1/openapi.json")
                || text.contains("a path of /v1/openapi.json");
            assert_eq!(unknown, !listed.contains(method), "{method} {filled}: {text}");
            documented += usize::from(listed.contains(method));
        }
        // What succeeds has the fields that the document demands.
        if listed.contains("GET") {
            expect_shape(&document, &operations["get"], &system.get(&filled));
        }
    }
    assert!(documented >= 20, "{documented}");
    let odd = system.get("/v1/no/such/path");
    assert_eq!(odd.status, 404);
    assert_eq!(serde_json::from_slice::<Value>(&odd.body).unwrap()["check"], "not-found");
}

fn expect_shape(document: &Value, operation: &Value, reply: &http::Reply) {
    let which = if reply.status < 300 { "2XX" } else { "default" };
    let content = &operation["responses"][which]["content"]["application/json"]["schema"];
    let Some(name) = content["$ref"].as_str() else { return };
    let schema = &document["components"]["schemas"][name.rsplit('/').next().unwrap()];
    let body: Value = serde_json::from_slice(&reply.body).unwrap();
    for field in schema["required"].as_array().unwrap() {
        assert!(body.get(field.as_str().unwrap()).is_some(), "{name} lacks {field}: {body}");
    }
    for field in body.as_object().unwrap().keys() {
        assert!(schema["properties"].get(field).is_some(), "{name} has {field}, not documented");
    }
}

#[test]
fn requests_that_are_too_large_or_no_requests_are_refused_by_name() {
    let system = System::start(&Options::default());
    let send = |method: &str, path: &str, body: &[u8]| {
        let json = [("content-type", "application/json")];
        let reply = http::send(&system.endpoint(), method, path, &json, body).unwrap();
        let refusal: Value = serde_json::from_slice(&reply.body)
            .unwrap_or_else(|e| panic!("{method} {path}: {} {e}", reply.status));
        (reply.status, refusal["check"].as_str().unwrap_or_default().to_owned())
    };
    let (study, upload) = (system.id(), format!("/v1/uploads/{}", "00".repeat(32)));
    assert_eq!(send("POST", "/v1/studies", b"{}"), (400, "request".to_owned()));
    assert_eq!(send("POST", "/v1/studies", b"{\"envelope\": \"AAAA\"}").1, "encoding");
    assert_eq!(send("POST", "/v1/studies", &vec![b' '; 5 << 20]).1, "size");
    assert_eq!(send("PATCH", &upload, &vec![0; MAX_PIECE + 1]).1, "size");
    assert_eq!(send("PATCH", &upload, b"x").1, "request");
    assert_eq!(send("GET", &upload, b"").1, "not-found");
    assert_eq!(send("GET", "/v1/studies/xyz", b"").1, "request");
    assert_eq!(send("GET", &format!("/v1/studies/{study}/rounds/0"), b"").1, "not-found");
    assert_eq!(send("GET", &format!("/v1/studies/{study}/rounds/99"), b"").1, "not-found");
    assert_eq!(send("GET", &format!("/v1/studies/{study}/rounds/1/aggregate"), b"").1, "phase");
    // Another model than the manifest's.
    let model = format!("/v1/studies/{study}/model");
    assert_eq!(send("PUT", &model, &[1; 4000]).1, "chain");
    assert_eq!(send("PUT", &model, &[0; 4001]).1, "size");
    let range = [("range", "bytes=4-7")];
    let reply = http::send(&system.endpoint(), "GET", &model, &range, b"").unwrap();
    assert_eq!((reply.status, reply.body.len()), (206, 4));
}

#[test]
fn metrics_and_the_status_page_say_what_happened() {
    let system = System::start(&Options::default());
    let _ = system.submit("site-000", 1.0).good();
    let metrics = String::from_utf8(system.get("/metrics").body).unwrap();
    for name in
        ["sealfold_upload_bytes_total", "sealfold_admissions_total 1", "sealfold_enclave_up 1"]
    {
        assert!(metrics.contains(name), "{name}: {metrics}");
    }
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

    let key = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let (certificate, private) = (folder.join("tls.pem"), folder.join("tls.key"));
    std::fs::write(&certificate, key.cert.pem()).unwrap();
    std::fs::write(&private, key.signing_key.serialize_pem()).unwrap();
    let mut command = process::command("sealfold-host");
    command.args(["serve", "--listen", "tcp://127.0.0.1:0", "--tls-cert"]).arg(&certificate);
    command.arg("--tls-key").arg(&private).arg("--data").arg(folder.join("tls-host"));
    command.args(["--enclave", "unix:///nowhere", "--door"]);
    command.arg(format!("unix://{}", folder.join("tls-door.sock").display()));
    let host = Server::start(command, &folder.join("tls.log"));
    let place = host.place().unwrap();
    let url = place.replace("127.0.0.1", "localhost");
    assert!(url.starts_with("https://"), "{url}");
    let manifest = folder.join("study.toml");
    let approve = |ca: &[&str]| -> Ended {
        let fixed = ["study", "approve", manifest.to_str().unwrap(), "--host", &url, "--yes"];
        system.sealfold("site-001", &[&fixed, ca].concat())
    };
    let _ = approve(&["--ca", certificate.to_str().unwrap()]).good();
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
