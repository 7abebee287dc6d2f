//! Certificates from a leaf to a root that the policy pins, at a given time.
//!
//! The same for every platform: which algorithms and which usage it demands is
//! part of the [`Chain`]; the time is an argument, because an auditor asks at
//! the evidence's own time and a site asks now.

use crate::verdict::{CheckName as Name, Collector};
use ring::digest::{SHA256, digest};
use rustls_pki_types::{CertificateDer, SignatureVerificationAlgorithm, TrustAnchor, UnixTime};
use std::time::Duration;
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};

/// The common name of a simulation root, to call simulated evidence by its
/// name where it is refused. Nothing is accepted because of it.
pub(crate) const SIMULATION_ROOT_NAME: &[u8] = b"sealfold simulation root";

/// SHA-256 of a certificate's DER.
pub(crate) fn fingerprint(der: &[u8]) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(digest(&SHA256, der).as_ref());
    bytes
}

/// How the certificates fared.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ChainError {
    /// They do not lead to the root.
    Unknown,
    /// One of them is not valid at the time.
    NotValid(String),
    /// They are malformed or do not fit.
    Broken(String),
}

/// The certificates that evidence brings; nothing about them is believed.
pub(crate) struct Chain<'a> {
    /// The certificate whose key signed the evidence, DER.
    pub leaf: &'a [u8],
    /// The certificates between it and the root, DER.
    pub intermediates: Vec<&'a [u8]>,
    /// The root that the evidence brings. It is not used, only named.
    pub brought_root: &'a [u8],
    /// The signature algorithm of the platform's certificates.
    pub algorithm: &'static dyn SignatureVerificationAlgorithm,
    /// The usage that the certificates must allow.
    pub usage: KeyUsage,
}

/// A root that a policy accepts, and what it accepts under it.
pub(crate) struct Trusted<'a, T> {
    /// The root, DER.
    pub root: &'a [u8],
    /// What the policy says of evidence under that root.
    pub accepted: T,
    /// Whether it is a throw-away root.
    pub simulated: bool,
}

impl Chain<'_> {
    /// Verifies the certificates up to `root` at a time in milliseconds.
    pub fn verify(&self, root: &[u8], at: u64) -> Result<(), ChainError> {
        let broken = |error: webpki::Error| ChainError::Broken(error.to_string());
        let root = CertificateDer::from(root);
        let anchor: TrustAnchor<'_> = anchor_from_trusted_cert(&root).map_err(broken)?;
        let leaf = CertificateDer::from(self.leaf);
        let leaf = EndEntityCert::try_from(&leaf).map_err(broken)?;
        let between: Vec<_> =
            self.intermediates.iter().map(|der| CertificateDer::from(*der)).collect();
        leaf.verify_for_usage(
            &[self.algorithm],
            &[anchor],
            &between,
            UnixTime::since_unix_epoch(Duration::from_millis(at)),
            self.usage,
            None,
            None,
        )
        .map(|_| ())
        .map_err(|error| match error {
            webpki::Error::UnknownIssuer => ChainError::Unknown,
            webpki::Error::CertExpired { .. } | webpki::Error::CertNotValidYet { .. } => {
                ChainError::NotValid(error.to_string())
            }
            other => broken(other),
        })
    }

    /// The checks `chain`, `root` and `simulation`, at the time when the
    /// evidence says that it was signed (ms): which of the policy's roots the
    /// certificates lead to.
    pub fn root<'a, T>(
        &self,
        collector: &mut Collector,
        trusted: Vec<Trusted<'a, T>>,
        signed: u64,
    ) -> Option<Trusted<'a, T>> {
        let simulation_allowed = trusted.iter().any(|trusted| trusted.simulated);
        let mut last = ChainError::Unknown;
        let mut roots = Vec::new();
        for trusted in trusted {
            roots.push(hex::encode(fingerprint(trusted.root)));
            match self.verify(trusted.root, signed) {
                Ok(()) => {
                    collector.check(Name::Chain, true, "a chain to a root", "a chain to a root");
                    collector.check(Name::Root, true, roots.pop().unwrap_or_default(), "the same");
                    simulation(collector, trusted.simulated);
                    return Some(trusted);
                }
                Err(ChainError::Unknown) => {}
                Err(error) => last = error,
            }
        }
        if self.is_named_simulated() && !simulation_allowed {
            let expected = "evidence of a real platform: the policy has no [simulation] of it";
            collector.check(Name::Simulation, false, expected, "simulated evidence");
            return None;
        }
        match last {
            ChainError::Unknown => {
                let found = hex::encode(fingerprint(self.brought_root));
                let none = "evidence without certificates: the policy has no root".to_owned();
                let expected = if roots.is_empty() { none } else { roots.join(" or ") };
                collector.check(Name::Root, false, expected, found);
            }
            ChainError::NotValid(error) | ChainError::Broken(error) => {
                let expected = "a chain that holds at the signed time";
                collector.check(Name::Chain, false, expected, error);
            }
        }
        None
    }

    fn is_named_simulated(&self) -> bool {
        let mut windows = self.brought_root.windows(SIMULATION_ROOT_NAME.len());
        windows.any(|window| window == SIMULATION_ROOT_NAME)
    }
}

/// Notes that evidence is simulated, which the policy allows, or is not.
pub(crate) fn simulation(collector: &mut Collector, simulated: bool) {
    let (expected, found) = if simulated {
        ("simulation allowed by the policy", "simulated evidence")
    } else {
        ("evidence of a real platform", "evidence of a real platform")
    };
    collector.check(Name::Simulation, true, expected, found);
}
