//! A host that serves TLS under an authority of the test's own.

use crate::process::{self, Server};
use crate::study::{self, Options};
use crate::system::{System, trial};
use std::path::PathBuf;

/// The host, and a system whose study it can be given.
pub struct TlsHost {
    /// A system beside it.
    pub system: System,
    /// The authority's certificate, PEM.
    pub certificate: PathBuf,
    /// Where it says that it listens.
    pub place: String,
    _host: Server,
}

impl TlsHost {
    /// Starts it, with a certificate for these names.
    #[must_use]
    pub fn start(names: &[&str]) -> Self {
        let system = System::start(&Options::default());
        let folder = system.folder.path();
        let names: Vec<_> = names.iter().map(ToString::to_string).collect();
        let key = rcgen::generate_simple_self_signed(names).unwrap();
        let (certificate, private) = (folder.join("tls.pem"), folder.join("tls.key"));
        std::fs::write(&certificate, key.cert.pem()).unwrap();
        std::fs::write(&private, key.signing_key.serialize_pem()).unwrap();
        let mut command = process::command("sealfold-host");
        command.args(["serve", "--listen", "tcp://127.0.0.1:0", "--tls-cert"]).arg(&certificate);
        command
            .arg("--tls-key")
            .arg(&private)
            .arg("--data")
            .arg(folder.join("tls-host"))
            .args(trial());
        command.args(["--enclave", "unix:///nowhere", "--door"]);
        command.arg(format!("unix://{}", folder.join("tls-door.sock").display()));
        study::give_log_key(&folder.join("tls-host"));
        let host = Server::start(command, &folder.join("tls.log"));
        let place = host.place().unwrap();
        Self { system, certificate, place, _host: host }
    }

    /// Its URL under a name.
    #[must_use]
    pub fn url(&self, name: &str) -> String {
        self.place.replace("127.0.0.1", name)
    }
}
