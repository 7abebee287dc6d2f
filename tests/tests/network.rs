//! How the site client reaches its host: authorities, proxies, and what a
//! person sees of a transfer.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use sealfold_tests::process::{self};
use sealfold_tests::study::Options;
use sealfold_tests::system::{Ended, System, write_tensors};
use sealfold_tests::tls::TlsHost;
use std::io::{BufRead, BufReader, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};

/// A name that only the proxy can resolve, as in many a hospital.
const NAME: &str = "sealfold.test";

/// An HTTP proxy that does CONNECT, to this machine whatever the name, and
/// remembers what was asked.
struct Proxy {
    port: u16,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Proxy {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let asked = Arc::<Mutex<Vec<String>>>::default();
        let told = asked.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let told = told.clone();
                std::thread::spawn(move || tunnel(&stream.unwrap(), &told));
            }
        });
        Self { port, asked }
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }
}

fn tunnel(site: &TcpStream, asked: &Mutex<Vec<String>>) {
    let mut reader = BufReader::new(site);
    let mut first = String::new();
    let _ = reader.read_line(&mut first);
    let mut line = String::new();
    while reader.read_line(&mut line).is_ok_and(|n| n > 2) {
        line.clear();
    }
    asked.lock().unwrap().push(first.trim().to_owned());
    let target = first.split(' ').nth(1).unwrap_or_default();
    let port = target.rsplit(':').next().unwrap_or_default();
    let Ok(host) = TcpStream::connect(format!("127.0.0.1:{port}")) else { return };
    (&mut &*site).write_all(b"HTTP/1.1 200 established\r\n\r\n").unwrap();
    std::thread::scope(|scope| {
        let copy = |mut from: &TcpStream, mut to: &TcpStream| {
            let _ = std::io::copy(&mut from, &mut to);
            let _ = to.shutdown(Shutdown::Write);
        };
        let host = &host;
        scope.spawn(move || copy(site, host));
        copy(host, site);
    });
}

/// Approves the study at this host, under a name, in an environment.
fn approve_at(host: &TlsHost, name: &str, more: &[&str], environment: &[(&str, &str)]) -> Ended {
    let manifest = host.system.folder.path().join("study.toml");
    let url = host.url(name);
    let fixed = ["study", "approve", manifest.to_str().unwrap(), "--host", &url, "--yes"];
    let mut command = host.system.command("site-001", &[&fixed[..], more].concat());
    for name in ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "HTTP_PROXY"] {
        command.env_remove(name);
    }
    for name in ["http_proxy", "NO_PROXY", "no_proxy", "SEALFOLD_CA", "SSL_CERT_FILE"] {
        command.env_remove(name);
    }
    command.envs(environment.iter().copied()).output().unwrap().into()
}

#[test]
fn an_authority_is_taken_from_the_environment() {
    let host = TlsHost::start(&["localhost", NAME]);
    let ca = host.certificate.to_str().unwrap();
    let key = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let other = host.system.folder.path().join("other.pem");
    std::fs::write(&other, key.cert.pem()).unwrap();
    let other = other.to_str().unwrap();
    let approve = |more: &[&str], environment: &[(&str, &str)]| {
        approve_at(&host, "localhost", more, environment).code
    };
    assert_eq!(approve(&[], &[]), 2, "the public authorities do not know it");
    assert_eq!(approve(&["--ca", ca], &[]), 0);
    assert_eq!(approve(&[], &[("SEALFOLD_CA", ca)]), 0);
    assert_eq!(approve(&[], &[("SSL_CERT_FILE", ca)]), 0);
    // The option comes first, then our own variable, then everybody's.
    assert_eq!(approve(&["--ca", ca], &[("SEALFOLD_CA", other), ("SSL_CERT_FILE", other)]), 0);
    assert_eq!(approve(&["--ca", other], &[("SEALFOLD_CA", ca), ("SSL_CERT_FILE", ca)]), 2);
    assert_eq!(approve(&[], &[("SEALFOLD_CA", ca), ("SSL_CERT_FILE", other)]), 0);
    assert_eq!(approve(&[], &[("SEALFOLD_CA", other), ("SSL_CERT_FILE", ca)]), 2);
    // A file without a certificate is no reason to fall back.
    let empty = host.system.folder.path().join("study.toml");
    let empty = empty.to_str().unwrap();
    let ended = approve_at(&host, "localhost", &[], &[("SEALFOLD_CA", empty)]);
    assert_eq!(ended.code, 1, "{ended:?}");
    let refusal = &ended.json()["refusal"];
    assert_eq!(refusal["check"], "ca");
    assert_eq!(refusal["expected"], format!("certificates in PEM in {empty}"));
    let help = String::from_utf8(process::run("sealfold", &["--help"]).stdout).unwrap();
    assert!(help.contains("SEALFOLD_CA") && help.contains("SSL_CERT_FILE"), "{help}");
}

#[test]
fn a_host_is_reached_through_a_proxy() {
    let (host, proxy) = (TlsHost::start(&["localhost", NAME]), Proxy::start());
    let (ca, url) = (["--ca", host.certificate.to_str().unwrap()], proxy.url());
    let through = format!("CONNECT {NAME}:{} HTTP/1.1", host.place.rsplit(':').next().unwrap());
    // The name means nothing here; the proxy knows it.
    assert_eq!(approve_at(&host, NAME, &ca, &[]).code, 2);
    assert_eq!(proxy.asked(), Vec::<String>::new());
    let _ = approve_at(&host, NAME, &[&ca[..], &["--proxy", &url]].concat(), &[]).good();
    assert_eq!(proxy.asked(), [through.as_str()]);
    let _ = approve_at(&host, NAME, &ca, &[("HTTPS_PROXY", &url)]).good();
    assert_eq!(proxy.asked(), [through.as_str()]);
    // NO_PROXY is for what stands in the same house.
    let direct = [("HTTPS_PROXY", url.as_str()), ("NO_PROXY", NAME)];
    assert_eq!(approve_at(&host, NAME, &ca, &direct).code, 2);
    let _ = approve_at(&host, "localhost", &ca, &[("HTTPS_PROXY", &url)]).good();
    assert_eq!(proxy.asked(), Vec::<String>::new());
    // The proxy sees TLS, whose authority is the site's own choice.
    let ended = approve_at(&host, NAME, &["--proxy", &url], &[]);
    assert_eq!(ended.code, 2, "{ended:?}");
    assert_eq!(proxy.asked(), [through.as_str()]);
    let odd = approve_at(&host, NAME, &[&ca[..], &["--proxy", "nonsense://x y"]].concat(), &[]);
    assert_eq!((odd.code, odd.json()["refusal"]["check"].as_str()), (1, Some("proxy")));
    // A proxy that is not there.
    let gone = format!(
        "http://127.0.0.1:{}",
        TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
    );
    assert_eq!(approve_at(&host, NAME, &[&ca[..], &["--proxy", &gone]].concat(), &[]).code, 2);
}

/// What a command prints on a terminal.
fn on_a_terminal(home: &Path, arguments: &[&str]) -> String {
    let binary = process::binaries().join("sealfold");
    let mut line = format!("{} --home {}", binary.display(), home.display());
    for argument in arguments {
        line.push_str(&format!(" '{argument}'"));
    }
    let output = Command::new("script").args(["-qefc", &line, "/dev/null"]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{line}: {text}");
    text
}

#[test]
fn whole_models_show_their_progress_on_a_terminal() {
    let system = System::start(&Options { parameters: 1 << 20, ..Options::default() });
    let study = system.folder.path().join("study.toml").to_str().unwrap().to_owned();
    let model = system.folder.path().join("again.safetensors");
    write_tensors(&model, 1 << 20, 0.0);
    let model = model.to_str().unwrap().to_owned();
    let home = system.home("site-000");
    let approve = ["study", "approve", &study, "--host", &system.url, "--yes", "--model", &model];
    let shown = on_a_terminal(&home, &approve);
    assert!(shown.contains("initial model up") && shown.contains("/4.00 MiB"), "{shown}");
    let out = system.folder.path().join("out.safetensors").to_str().unwrap().to_owned();
    let fetch = ["fetch", "--host", &system.url, &system.id(), "--out", &out];
    let shown = on_a_terminal(&home, &fetch);
    assert!(shown.contains("initial model down") && shown.contains("/4.00 MiB"), "{shown}");
    // Programs see none.
    let _ = system
        .sealfold("site-001", &["fetch", "--host", &system.url, &system.id(), "--out", &out])
        .good();
}
