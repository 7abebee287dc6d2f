//! The whole system as real processes: enclave, host, and the site client's
//! command line.

pub use crate::ended::Ended;
use crate::http::{self, Reply};
use crate::launcher::Launcher;
pub use crate::platform::{Company, Platform};
use crate::process::{self, Server};
use crate::site::Site;
use crate::study::{self, Options, Study};
pub use crate::tensors::{first_value, write_tensors};
use sealfold_protocol::access::Role;
use sealfold_protocol::api::{RoundStatus, StudyStatus, UPLOAD_OFFSET};
use sealfold_protocol::bytes::Envelope;
use sealfold_protocol::endpoint::Endpoint;
use sealfold_protocol::{Digest, SigningKey};
use std::net::TcpListener;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How long a test waits for something that must happen.
const PATIENCE: Duration = Duration::from_mins(1);

/// A running system with a study.
pub struct System {
    /// Everything on disk.
    pub folder: TempDir,
    /// The enclave.
    pub enclave: Server,
    /// The host.
    pub host: Server,
    /// The host's URL.
    pub url: String,
    /// The study and its sites.
    pub study: Study,
    /// Where the enclave runs.
    pub platform: Platform,
    company: Option<Company>,
    port: u16,
}

impl System {
    /// Starts a system; the study is approved by all and has its model.
    #[must_use]
    pub fn start(options: &Options) -> Self {
        Self::start_on(Platform::Process, options)
    }

    /// As [`System::start`], with the enclave on that platform.
    #[must_use]
    pub fn start_on(platform: Platform, options: &Options) -> Self {
        let policy = |folder: &Path| platform.policy(folder);
        Self::start_with(platform.clone(), options, policy)
    }

    /// As [`System::start_on`], with a policy of the test's own.
    #[must_use]
    pub fn start_with(
        platform: Platform,
        options: &Options,
        policy: impl Fn(&Path) -> String,
    ) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (enclave, company) = platform.boot(folder.path());
        let study = Study::new(options);
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let host = host(folder.path(), port, &platform, &trial());
        let url = format!("http://127.0.0.1:{port}");
        let policy = policy(folder.path());
        let mut system = Self { folder, enclave, host, url, study, platform, company, port };
        system.study = system.found_under("study", options, &policy);
        let _ = system.wait_for(1, "an offer", |round| round.offer.is_some());
        system
    }

    /// Founds a study, its manifest in a file of that name: all sites approve
    /// it, and the last gives in its model.
    #[must_use]
    pub fn found(&self, name: &str, options: &Options) -> Study {
        self.found_under(name, options, &self.platform.policy(self.folder.path()))
    }

    fn found_under(&self, name: &str, options: &Options, policy: &str) -> Study {
        let options = Options { measurements: listed(policy), ..options.clone() };
        let study = Study::new(&options);
        for site in &study.sites {
            self.furnish(site, &study, policy);
        }
        let file = |kind: &str| self.folder.path().join(format!("{name}.{kind}"));
        let (manifest, model) = (file("toml"), file("safetensors"));
        std::fs::write(&manifest, study::toml(&options, &study.sites)).unwrap();
        match &options.query {
            Some(query) => _ = std::fs::copy(&query.model, &model).unwrap(),
            None => write_tensors(&model, options.parameters, 0.0),
        }
        let manifest = manifest.to_str().unwrap();
        let with_model = study.sites.len() - if options.late { 2 } else { 1 };
        for (place, site) in study.sites.iter().enumerate() {
            let mut arguments = vec!["study", "approve", manifest, "--host", &self.url, "--yes"];
            if place == with_model {
                arguments.extend(["--model", model.to_str().unwrap()]);
            } else if place > with_model {
                let id = study.id().to_string();
                let _ = self.wait_in(&id, 1, "an offer", |round| round.offer.is_some());
            }
            let ended = self.sealfold(&site.name, &arguments).good();
            assert_eq!(ended.json()["study"], study.id().to_string());
        }
        study
    }

    /// A site's folder with its keys and its policy.
    fn furnish(&self, site: &Site, study: &Study, simulation: &str) {
        let home = self.home(&site.name);
        let keys = home.join("keys");
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&keys).unwrap();
        for (purpose, seed) in [("signing", *site.key.seed()), ("release", site.release_seed)] {
            let json = serde_json::json!({ "site": site.name, "purpose": purpose, "seed": hex::encode(seed) });
            let mut options = std::fs::OpenOptions::new();
            let file = options.write(true).create_new(true).mode(0o600);
            let file = file.open(keys.join(format!("{purpose}.json"))).unwrap();
            serde_json::to_writer(file, &json).unwrap();
        }
        std::fs::write(home.join("policy.toml"), policy_of(study, simulation)).unwrap();
    }

    /// A policy of a site of this study.
    #[must_use]
    pub fn policy(&self, platform: &str) -> String {
        policy_of(&self.study, platform)
    }

    /// A site's folder.
    #[must_use]
    pub fn home(&self, site: &str) -> PathBuf {
        self.folder.path().join("sites").join(site)
    }

    /// The study's identity as text.
    #[must_use]
    pub fn id(&self) -> String {
        self.study.id().to_string()
    }

    /// A command of the site client.
    #[must_use]
    pub fn command(&self, site: &str, arguments: &[&str]) -> Command {
        let mut command = process::command("sealfold");
        command.arg("--home").arg(self.home(site)).arg("--json").args(arguments);
        command.stdin(Stdio::null());
        command
    }

    /// Runs the site client to its end.
    #[must_use]
    pub fn sealfold(&self, site: &str, arguments: &[&str]) -> Ended {
        self.command(site, arguments).output().unwrap().into()
    }

    /// Runs the site client on this system's study.
    #[must_use]
    pub fn on_study(&self, site: &str, command: &[&str], more: &[&str]) -> Ended {
        let id = self.id();
        self.sealfold(site, &[command, &["--host", &self.url, &id], more].concat())
    }

    /// The host as an endpoint.
    #[must_use]
    pub fn endpoint(&self) -> Endpoint {
        format!("tcp://127.0.0.1:{}", self.port).parse().unwrap()
    }

    /// A request to the host, as its operator.
    #[must_use]
    pub fn get(&self, path: &str) -> Reply {
        let (endpoint, operator) = (self.endpoint(), operator());
        http::send_as((&operator, Role::Operator), &endpoint, "GET", path, &[], b"").unwrap()
    }

    /// A request to the host, signed with a site's key.
    #[must_use]
    pub fn send_as(
        &self,
        site: &Site,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Reply {
        let signer = (&site.key, Role::Party);
        http::send_as(signer, &self.endpoint(), method, path, headers, body).unwrap()
    }

    /// An envelope to a place of round 1, signed with a site's key.
    #[must_use]
    pub fn post_as(&self, site: &Site, place: &str, envelope: &[u8]) -> Reply {
        let body = serde_json::json!({ "envelope": Envelope(envelope.to_vec()) }).to_string();
        let path = format!("/v1/studies/{}/rounds/1/{place}", self.id());
        let headers = [("content-type", "application/json")];
        self.send_as(site, "POST", &path, &headers, body.as_bytes())
    }

    /// A piece of a site's upload.
    #[must_use]
    pub fn append_as(&self, site: &Site, header: &Digest, offset: usize, piece: &[u8]) -> Reply {
        let offset = offset.to_string();
        let headers = [(UPLOAD_OFFSET, offset.as_str())];
        self.send_as(site, "PATCH", &format!("/v1/uploads/{header}"), &headers, piece)
    }

    /// A site of the study by its name.
    #[must_use]
    pub fn site(&self, name: &str) -> &Site {
        self.study.sites.iter().find(|site| site.name == name).unwrap()
    }

    /// A round as the host knows it.
    #[must_use]
    pub fn round(&self, number: u32) -> RoundStatus {
        self.round_of(&self.id(), number)
    }

    fn round_of(&self, study: &str, number: u32) -> RoundStatus {
        let reply = self.get(&format!("/v1/studies/{study}/rounds/{number}"));
        serde_json::from_slice(&reply.body).unwrap()
    }

    /// The study as the host knows it.
    #[must_use]
    pub fn status(&self) -> StudyStatus {
        let reply = self.get(&format!("/v1/studies/{}", self.id()));
        serde_json::from_slice(&reply.body).unwrap()
    }

    /// Waits until a round is in a state.
    #[must_use]
    pub fn wait_for(
        &self,
        number: u32,
        what: &str,
        holds: impl Fn(&RoundStatus) -> bool,
    ) -> RoundStatus {
        self.wait_in(&self.id(), number, what, holds)
    }

    /// The same of another study of the host.
    fn wait_in(
        &self,
        study: &str,
        number: u32,
        what: &str,
        holds: impl Fn(&RoundStatus) -> bool,
    ) -> RoundStatus {
        let start = Instant::now();
        loop {
            let round = self.round_of(study, number);
            if holds(&round) {
                return round;
            }
            assert!(start.elapsed() < PATIENCE, "{what}: {round:?}\n{}", self.host.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// kill -9 on the host, and a new one on the same folder.
    pub fn restart_host(&mut self) {
        self.restart_host_with(&trial());
    }

    /// The same, with other options than [`trial`].
    pub fn restart_host_with(&mut self, options: &[String]) {
        self.host.kill();
        self.host = host(self.folder.path(), self.port, &self.platform, options);
    }

    /// The host's metrics.
    #[must_use]
    pub fn metrics(&self) -> String {
        let place = Endpoint::Unix(self.folder.path().join("metrics.sock"));
        String::from_utf8(http::send(&place, "GET", "/metrics", &[], b"").unwrap().body).unwrap()
    }

    /// kill -9 on the enclave, and a new instance at the same place.
    pub fn restart_enclave(&mut self) {
        self.enclave.kill();
        self.company = None;
        (self.enclave, self.company) = self.platform.boot(self.folder.path());
    }

    /// Ends the enclave and starts one on another platform, with a new host, on
    /// the same folder, in front of it.
    pub fn move_to(&mut self, platform: Platform) {
        self.platform = platform;
        self.host.kill();
        self.restart_enclave();
        self.restart_host();
    }

    /// The launcher of this system's Confidential Space.
    #[must_use]
    pub fn launcher(&self) -> &Launcher {
        match &self.company {
            Some(Company::Launcher(launcher)) => launcher,
            _ => panic!("{:?} has no launcher", self.platform),
        }
    }
}

/// The key of the operator of every test's host.
#[must_use]
pub fn operator() -> SigningKey {
    SigningKey::from_seed(&[0xee; 32]).unwrap()
}

/// Options of a host for a trial: any study, and room for impatient agents.
#[must_use]
pub fn trial() -> Vec<String> {
    let operator = operator().verifying_key().to_string();
    let rates = [
        ["--site-rate", "1000"],
        ["--stranger-rate", "1000"],
        ["--evidence-rate", "60000"],
        ["--operator", &operator],
    ];
    let options = ["--any-study"].into_iter().chain(rates.into_iter().flatten());
    options.map(str::to_owned).collect()
}

/// What a manifest lists under `measurements.nitro`, and the other platforms'
/// images behind that: those that a policy accepts.
fn listed(policy: &str) -> String {
    let lines = |names: &'static [&str]| {
        policy.lines().filter(|line| names.iter().any(|name| line.starts_with(name)))
    };
    let mut listed: Vec<_> = lines(&["pcr0", "pcr1", "pcr2"]).collect();
    for image in lines(&["image_digest"]) {
        listed.extend(["[[measurements.confidential-space]]", image]);
    }
    listed.join("\n")
}

fn policy_of(study: &Study, platform: &str) -> String {
    let keys: Vec<_> =
        study.sites.iter().map(|s| format!("\"{}\"", s.key.verifying_key())).collect();
    format!(
        "[evidence]\nmax_age_seconds = 300\n[approval]\nrequired = {}\napprovers = [{}]\n\
         [round]\nsmallest_roster = 3\ncolluders = 0\n{platform}",
        keys.len().min(3),
        keys.join(", ")
    )
}

fn host(folder: &Path, port: u16, platform: &Platform, options: &[String]) -> Server {
    let (enclave, door) = (platform.enclave(folder), platform.door(folder));
    let mut command = process::command("sealfold-host");
    command.args(["serve", "--listen", &format!("tcp://127.0.0.1:{port}")]);
    command.args(["--enclave", &enclave.to_string(), "--door", &door.to_string()]);
    command.arg("--data").arg(folder.join("host"));
    command.arg("--metrics").arg(Endpoint::Unix(folder.join("metrics.sock")).to_string());
    study::give_log_key(&folder.join("host"));
    command.args(options);
    Server::start(command, &folder.join("host.log"))
}
