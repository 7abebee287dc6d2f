//! Simulated evidence: a Nitro document in every byte, under a throw-away root.
//!
//! The measurements are real ones, so that a site's comparison is. In a process
//! they are those of this very binary: PCR0 is the SHA-384 of the running
//! executable, PCR1 that of a label in place of a kernel, PCR2 that of a label
//! and the executable. In a virtual machine that emulates the NSM, which signs
//! nothing, they are what the NSM says, whose document is signed again.

use super::nsm::Nsm;
use super::{Attester, EvidenceError};
use ring::digest::{Context, SHA384};
use sealfold_attestation::nitro::Document;
use sealfold_attestation::simulation::{DocumentFields, SimulationRoot};
use sealfold_protocol::Secret;
use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// The largest file that holds a simulation root.
const MAX_ROOT: u64 = 64 << 10;

/// A simulated NSM.
pub struct Simulated {
    root: SimulationRoot,
    measured: Measured,
}

/// Where the measurements come from.
enum Measured {
    Binary(BTreeMap<u8, Vec<u8>>),
    Emulated(Nsm),
}

impl Simulated {
    /// Opens the root in that file, or makes one there, readable by its owner
    /// only, and measures this binary.
    ///
    /// # Errors
    /// If the file cannot be read or made, or holds something else.
    pub fn open(path: &Path) -> Result<Self, EvidenceError> {
        let root = match read(path) {
            Ok(pem) => SimulationRoot::from_pem(&pem).map_err(|e| wrong(path, &e))?,
            Err(error) if error.kind() == ErrorKind::NotFound => make(path)?,
            Err(error) => return Err(wrong(path, &error)),
        };
        let binary = std::fs::read("/proc/self/exe").map_err(|e| wrong(path, &e))?;
        let pcrs = BTreeMap::from([
            (0, sha384(&[&binary])),
            (1, sha384(&[b"sealfold simulated kernel"])),
            (2, sha384(&[b"sealfold simulated application", &binary])),
            (3, vec![0; 48]),
            (4, sha384(&[b"sealfold simulated instance"])),
        ]);
        Ok(Self { root, measured: Measured::Binary(pcrs) })
    }

    /// Opens the root in that file and the emulated NSM of this machine.
    ///
    /// # Errors
    /// If the file cannot be read, or there is no NSM.
    pub fn over_nsm(path: &Path) -> Result<Self, EvidenceError> {
        let pem = read(path).map_err(|error| wrong(path, &error))?;
        let root = SimulationRoot::from_pem(&pem).map_err(|error| wrong(path, &error))?;
        Ok(Self { root, measured: Measured::Emulated(Nsm::open()?) })
    }

    /// What a policy says to accept this binary under this root, as TOML.
    #[must_use]
    pub fn policy_section(&self) -> String {
        let none = BTreeMap::new();
        let pcrs = match &self.measured {
            Measured::Binary(pcrs) => pcrs,
            Measured::Emulated(_) => &none,
        };
        let pcr = |index: u8| hex::encode(pcrs.get(&index).map_or(&[][..], Vec::as_slice));
        format!(
            "[simulation]\nroot = \"{}\"\ncertificate = \"\"\"\n{}\"\"\"\n\n\
             [[simulation.measurements]]\npcr0 = \"{}\"\npcr1 = \"{}\"\npcr2 = \"{}\"\n",
            hex::encode(self.root.fingerprint()),
            self.root.certificate_pem(),
            pcr(0),
            pcr(1),
            pcr(2),
        )
    }
}

impl Attester for Simulated {
    fn attest(&self, user_data: &[u8; 32], nonce: &[u8; 32]) -> Result<Vec<u8>, EvidenceError> {
        let fields = match &self.measured {
            Measured::Binary(pcrs) => DocumentFields {
                module_id: "i-simulation-enc0000000000000000".to_owned(),
                pcrs: pcrs.clone(),
                user_data: Some(user_data.to_vec()),
                nonce: Some(nonce.to_vec()),
                ..DocumentFields::now()
            },
            Measured::Emulated(nsm) => said(&nsm.attest(user_data, nonce)?)?,
        };
        self.root
            .issue(&fields)
            .map_err(|e| EvidenceError { source_name: "simulated NSM", reason: e.to_string() })
    }

    fn random(&self) -> Result<Secret, EvidenceError> {
        match &self.measured {
            Measured::Emulated(nsm) => nsm.random(),
            Measured::Binary(_) => Secret::draw()
                .map_err(|e| EvidenceError { source_name: "simulated NSM", reason: e.to_string() }),
        }
    }
}

/// What an emulated NSM says in a document that nobody signed.
fn said(document: &[u8]) -> Result<DocumentFields, EvidenceError> {
    let odd = |found: String| EvidenceError {
        source_name: "emulated NSM",
        reason: format!("expected a COSE_Sign1 around a document, found {found}"),
    };
    let envelope: ciborium::Value =
        ciborium::from_reader(document).map_err(|error| odd(error.to_string()))?;
    let envelope = match envelope {
        ciborium::Value::Tag(_, inner) => *inner,
        other => other,
    };
    let payload = envelope.as_array().and_then(|parts| parts.get(2)?.as_bytes());
    let payload = payload.ok_or_else(|| odd("another structure".to_owned()))?;
    let said = Document::parse(payload).map_err(|error| odd(error.to_string()))?;
    Ok(DocumentFields {
        module_id: said.module_id,
        timestamp: said.timestamp,
        pcrs: said.pcrs,
        public_key: said.public_key,
        user_data: said.user_data,
        nonce: said.nonce,
    })
}

fn read(path: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    std::fs::File::open(path)?.take(MAX_ROOT).read_to_string(&mut text)?;
    Ok(text)
}

fn make(path: &Path) -> Result<SimulationRoot, EvidenceError> {
    let root = SimulationRoot::generate().map_err(|e| wrong(path, &e))?;
    let mut options = OpenOptions::new();
    let mut file =
        options.write(true).create_new(true).mode(0o600).open(path).map_err(|e| wrong(path, &e))?;
    file.write_all(root.to_pem().as_bytes())
        .and_then(|()| file.sync_all())
        .map_err(|e| wrong(path, &e))?;
    Ok(root)
}

fn sha384(parts: &[&[u8]]) -> Vec<u8> {
    let mut context = Context::new(&SHA384);
    parts.iter().for_each(|part| context.update(part));
    context.finish().as_ref().to_vec()
}

fn wrong(path: &Path, error: &impl std::fmt::Display) -> EvidenceError {
    EvidenceError {
        source_name: "simulated NSM",
        reason: format!("root file {}: {error}", path.display()),
    }
}
