//! The shipped enclave in a Confidential Space that is a test's: the launcher is a
//! double, the enclave listens on TCP and finds the record door on TCP.

use crate::launcher::{AUDIENCE, Launcher, authority};
use crate::process::{self, Server};
use crate::workload::Workload;
use sealfold_protocol::endpoint::Endpoint;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A Confidential Space.
#[derive(Debug, Clone)]
pub struct Space {
    /// The kind of token that the operator sets.
    pub token: &'static str,
    listen: Endpoint,
    door: Endpoint,
}

/// The enclave as it is shipped.
#[must_use]
pub fn shipped() -> PathBuf {
    let path = process::binaries().join("shipped/sealfold-enclave");
    assert!(path.exists(), "{} is not built; run `make shipped`", path.display());
    path
}

fn free() -> Endpoint {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    Endpoint::Tcp(address.to_string())
}

impl Space {
    /// One whose enclave asks for tokens of that kind.
    #[must_use]
    pub fn of(token: &'static str) -> Self {
        Self { token, listen: free(), door: free() }
    }

    /// Where the host finds the enclave.
    #[must_use]
    pub fn enclave(&self) -> Endpoint {
        self.listen.clone()
    }

    /// Where the host is to keep its record door, which the environment names.
    #[must_use]
    pub fn door(&self) -> Endpoint {
        self.door.clone()
    }

    fn arguments(&self, folder: &Path) -> Vec<String> {
        let socket = folder.join("teeserver.sock").display().to_string();
        ["--platform", "confidential-space", "--launcher", &socket, "--listen"]
            .into_iter()
            .chain([self.listen.to_string().as_str()])
            .map(str::to_owned)
            .collect()
    }

    /// The workload that is started in that folder, as it is measured.
    #[must_use]
    pub fn workload(&self, folder: &Path) -> Workload {
        let arguments = self.arguments(folder);
        let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
        let door = self.door.to_string();
        let operator = [
            ("SEALFOLD_DOOR", door.as_str()),
            ("SEALFOLD_AUDIENCE", AUDIENCE),
            ("SEALFOLD_TOKEN", self.token),
        ];
        Workload::process(&shipped(), &arguments, &operator)
    }

    /// The command of the enclave, with the environment that is measured.
    #[must_use]
    pub fn command(&self, folder: &Path) -> Command {
        let workload = self.workload(folder);
        let mut command = Command::new(shipped());
        command.args(self.arguments(folder)).env_clear().envs(workload.env);
        command
    }

    /// Starts launcher and enclave.
    #[must_use]
    pub fn boot(&self, folder: &Path) -> (Server, Launcher) {
        let launcher = Launcher::start(folder, self.workload(folder));
        let server = Server::start(self.command(folder), &folder.join("space.log"));
        (server, launcher)
    }

    /// The section of a policy beside that of simulated Nitro enclaves.
    #[must_use]
    pub fn section(&self, folder: &Path) -> String {
        section("simulation.confidential-space", &self.workload(folder).measurements(TABLE))
    }

    /// A policy that accepts both.
    #[must_use]
    pub fn policy(&self, folder: &Path) -> String {
        format!("{}\n{}", process::simulation_policy(folder), self.section(folder))
    }
}

/// The table of simulated Confidential Spaces in a policy.
pub const TABLE: &str = "simulation.confidential-space";

/// A policy's section under the test authority: its root for PKI tokens, its key
/// for OIDC tokens.
#[must_use]
pub fn section(table: &str, measurements: &str) -> String {
    let authority = authority();
    let key_set = authority.key_set();
    let key = key_set["keys"][0].as_object().unwrap().iter();
    let key: Vec<_> = key.map(|(name, value)| format!("{name} = {value}\n")).collect();
    format!(
        "[{table}]\naudience = \"{AUDIENCE}\"\nhardware_models = [\"GCP_INTEL_TDX\"]\n\
         support = \"STABLE\"\ncertificate = \"\"\"\n{}\"\"\"\n[[{table}.keys]]\n{}{measurements}",
        authority.certificate_pem(),
        key.concat(),
    )
}
