//! A host of its own, in front of no enclave: for what never reaches one.

use crate::http::{self, Reply};
use crate::process::{self, Server};
use crate::study;
use sealfold_protocol::access::Role;
use sealfold_protocol::bytes::Envelope;
use sealfold_protocol::endpoint::Endpoint;
use sealfold_protocol::{MultiSigned, SigningKey};
use sealfold_study::Manifest;
use std::path::Path;

/// A running host.
pub struct Lone {
    /// The process.
    pub server: Server,
    /// Its URL.
    pub url: String,
    /// The same as an endpoint.
    pub endpoint: Endpoint,
}

impl Lone {
    /// Starts a host with these options, on the folder of that name.
    #[must_use]
    pub fn start(folder: &Path, name: &str, options: &[&str]) -> Self {
        let mut command = process::command("sealfold-host");
        command.args(["serve", "--listen", "tcp://127.0.0.1:0", "--enclave", "unix:///nowhere"]);
        command.arg("--data").arg(folder.join(name)).arg("--door");
        command.arg(format!("unix://{}", folder.join(format!("{name}.sock")).display()));
        command.args(options);
        study::give_log_key(&folder.join(name));
        let server = Server::start(command, &folder.join(format!("{name}.log")));
        let url = server.place().unwrap();
        let endpoint = url.replace("http://", "tcp://").parse().unwrap();
        Self { server, url, endpoint }
    }

    /// A request signed with a party's key.
    #[must_use]
    pub fn ask(&self, key: &SigningKey, method: &str, path: &str, body: &[u8]) -> Reply {
        let headers = [("content-type", "application/json")];
        let signer = (key, Role::Party);
        http::send_as(signer, &self.endpoint, method, path, &headers, body).unwrap()
    }

    /// Publishes what may be a manifest.
    #[must_use]
    pub fn bring(&self, key: &SigningKey, envelope: Vec<u8>) -> Reply {
        bring(&self.endpoint, key, envelope)
    }

    /// Publishes a manifest with the signatures that it has.
    #[must_use]
    pub fn publish(&self, key: &SigningKey, manifest: &MultiSigned<Manifest>) -> Reply {
        publish(&self.endpoint, key, manifest)
    }
}

/// Publishes a manifest at a host, in a request signed with a party's key.
#[must_use]
pub fn publish(endpoint: &Endpoint, key: &SigningKey, manifest: &MultiSigned<Manifest>) -> Reply {
    bring(endpoint, key, manifest.envelope().unwrap())
}

fn bring(endpoint: &Endpoint, key: &SigningKey, envelope: Vec<u8>) -> Reply {
    let body = serde_json::json!({ "envelope": Envelope(envelope) }).to_string();
    let headers = [("content-type", "application/json")];
    let signer = (key, Role::Party);
    http::send_as(signer, endpoint, "POST", "/v1/studies", &headers, body.as_bytes()).unwrap()
}
