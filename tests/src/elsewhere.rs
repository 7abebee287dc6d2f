//! A second enclave behind a second host, with the same study: what an operator
//! starts who wants a second aggregate of a round.

use crate::http::{self, call};
use crate::process::{self, Server};
use crate::study;
use crate::system::{System, operator, trial};
use sealfold_protocol::access::Role;
use sealfold_protocol::api::{EnclaveStatus, RoundStatus};
use sealfold_protocol::endpoint::Endpoint;
use serde_json::json;
use std::path::Path;

/// The second enclave and the second host.
pub struct Elsewhere {
    /// The host.
    pub host: Server,
    /// The host's URL.
    pub url: String,
    _enclave: Option<Server>,
    at: Endpoint,
    id: String,
}

impl Elsewhere {
    /// Starts both, and has every site approve the system's study there too.
    #[must_use]
    pub fn start(system: &System) -> Self {
        let folder = system.folder.path();
        let (enclave, at) = process::enclave(folder, "elsewhere", &door(folder));
        Self { _enclave: Some(enclave), ..Self::in_front_of(system, at) }
    }

    /// A second host alone, in front of an enclave that runs.
    #[must_use]
    pub fn in_front_of(system: &System, at: Endpoint) -> Self {
        let folder = system.folder.path();
        let mut command = process::command("sealfold-host");
        command.args(["serve", "--listen", "tcp://127.0.0.1:0"]);
        command.args(["--enclave", &at.to_string(), "--door", &door(folder).to_string()]);
        command.arg("--data").arg(folder.join("elsewhere")).args(trial());
        // The operator's own, so that the study's sites may come.
        study::give_log_key(&folder.join("elsewhere"));
        let host = Server::start(command, &folder.join("elsewhere-host.log"));
        let url = host.place().unwrap();
        let file = |kind: &str| folder.join(format!("study.{kind}")).display().to_string();
        let (manifest, model) = (file("toml"), file("safetensors"));
        for (place, site) in system.study.sites.iter().enumerate() {
            let mut approve = vec!["study", "approve", &manifest, "--host", &url, "--yes"];
            // The model last: rounds begin with it, for those who approved.
            if place + 1 == system.study.sites.len() {
                approve.extend(["--model", &model]);
            }
            let _ = system.sealfold(&site.name, &approve).good();
        }
        Self { host, url, _enclave: None, at, id: system.id() }
    }

    /// A command of the site client on the study at this host.
    #[must_use]
    pub fn on_study(&self, system: &System, site: &str, command: &str) -> crate::system::Ended {
        system.sealfold(site, &[command, "--host", &self.url, &self.id])
    }

    /// Round 1 as this host knows it.
    #[must_use]
    pub fn round(&self) -> RoundStatus {
        let host: Endpoint = self.url.replace("http://", "tcp://").parse().unwrap();
        let path = format!("/v1/studies/{}/rounds/1", self.id);
        let signer = (&operator(), Role::Operator);
        let reply = http::send_as(signer, &host, "GET", &path, &[], b"").unwrap();
        serde_json::from_slice(&reply.body).unwrap()
    }

    /// Waits until round 1 is in a state.
    pub fn wait_for(&self, what: &str, holds: impl Fn(&RoundStatus) -> bool) {
        let start = std::time::Instant::now();
        while !holds(&self.round()) {
            assert!(start.elapsed().as_secs() < 60, "{what}: {:?}", self.round());
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }

    /// The sites whose commits have reached this enclave.
    #[must_use]
    pub fn committed(&self) -> Vec<String> {
        let status: EnclaveStatus = call(&self.at, "GET", "/v1/status", &json!({})).unwrap();
        status.committed
    }
}

fn door(folder: &Path) -> Endpoint {
    Endpoint::Unix(folder.join("elsewhere-door.sock"))
}
