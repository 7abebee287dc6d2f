//! What a policy says of Confidential Space tokens.

use super::keys::{Jwk, Keys};
use super::{GOOGLE_ROOT, NAME};
use crate::chain::fingerprint;
use crate::policy::{Bytes, PolicyError, expect};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};

/// The section `[confidential-space]`, and `[simulation.confidential-space]`
/// for tokens under a throw-away root.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Section {
    /// Whom the tokens are for: what the enclave asks its launcher with.
    pub audience: String,
    /// PKI tokens: the pinned roots, by fingerprint.
    #[serde(default)]
    roots: Vec<Bytes<32>>,
    /// In a simulation: the throw-away root of PKI tokens, PEM, where it is
    /// another one than that of documents.
    certificate: Option<String>,
    /// OIDC tokens: keys in the policy itself.
    #[serde(default)]
    keys: Vec<Jwk>,
    /// OIDC tokens: a file with a key set, as Google publishes it.
    jwks: Option<String>,
    /// Accepted models of the confidential hardware.
    pub hardware_models: Vec<String>,
    /// The attribute that Google's support of the machine's image must have.
    pub support: Support,
    /// Accepted images.
    pub measurements: Vec<Workload>,
    #[serde(skip)]
    pub(super) key_set: Keys,
    #[serde(skip)]
    root: Option<Vec<u8>>,
}

/// How Google supports an image of Confidential Space. Each includes those
/// after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub(crate) enum Support {
    /// The newest image.
    Latest,
    /// Supported, and watched for vulnerabilities.
    Stable,
    /// Usable, but no longer supported.
    Usable,
}

impl Support {
    pub fn name(self) -> &'static str {
        match self {
            Self::Latest => "LATEST",
            Self::Stable => "STABLE",
            Self::Usable => "USABLE",
        }
    }
}

/// An accepted image, and all that may be said to it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Workload {
    /// What the site calls it.
    #[serde(default)]
    pub name: String,
    /// SHA-256 of the image's manifest.
    pub image_digest: Bytes<32>,
    /// The whole command line. The operator may change nothing of it.
    pub args: Vec<String>,
    /// Environment variables with the only value that each may have.
    pub env: BTreeMap<String, String>,
    /// Environment variables whose value is left to the operator or the launcher.
    /// A site that moves one to `env` pins its value.
    pub operator_env: BTreeSet<String>,
}

/// A section that is in force.
#[derive(Clone, Copy)]
pub(crate) struct Accepted<'a> {
    pub section: &'a Section,
    /// The root of PKI tokens, DER, if they are accepted.
    pub root: Option<&'a [u8]>,
    pub simulated: bool,
}

impl Section {
    /// Checks the rules of the section and reads its key set. In a simulation,
    /// whose root the section above names, no root is named by its fingerprint.
    pub fn check(
        &mut self,
        simulated: bool,
        read: &dyn Fn(&str) -> Result<Vec<u8>, String>,
    ) -> Result<(), PolicyError> {
        let audience = self.audience.len();
        expect(
            "confidential-space.audience",
            (1..=512).contains(&audience),
            "1 to 512 bytes",
            audience,
        )?;
        let google = fingerprint(GOOGLE_ROOT);
        for root in &self.roots {
            expect(
                "confidential-space.roots",
                root.0 == google && !simulated,
                if simulated { "none: simulation.root it is" } else { "Google's, 148b293821bb..." },
                format!("{root:?}"),
            )?;
        }
        if let Some(pem) = &self.certificate {
            let field = "simulation.confidential-space.certificate";
            expect(field, simulated, "none outside a simulation", "one")?;
            let wrong = |error| PolicyError::Field {
                field,
                expected: "a certificate in PEM".to_owned(),
                found: format!("{error:?}"),
            };
            let der = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(wrong)?;
            self.root = Some(der.to_vec());
        }
        let keys = |found| PolicyError::Field {
            field: "confidential-space.jwks",
            expected: "a set of RSA keys with ids of their own".to_owned(),
            found,
        };
        let set = self.jwks.as_deref().map(read).transpose().map_err(keys)?;
        self.key_set = Keys::of(&self.keys, set.as_deref()).map_err(keys)?;
        expect(
            "confidential-space.roots",
            simulated || !self.roots.is_empty() || !self.key_set.is_empty(),
            "roots, keys or jwks",
            "none",
        )?;
        let models = &self.hardware_models;
        expect(
            "confidential-space.hardware_models",
            !models.is_empty() && !models.iter().any(|model| model == "GCP_SHIELDED_VM"),
            "confidential hardware, such as GCP_INTEL_TDX",
            format!("{models:?}"),
        )?;
        self.check_measurements()
    }

    fn check_measurements(&self) -> Result<(), PolicyError> {
        let field = "confidential-space.measurements";
        let images = &self.measurements;
        expect(field, !images.is_empty(), "at least one accepted image", "an empty list")?;
        let digests: BTreeSet<_> = images.iter().map(|image| image.image_digest.0).collect();
        expect(field, digests.len() == images.len(), "each image once", "one twice")?;
        for image in images {
            expect(field, !image.args.is_empty(), "the whole command line", "no args")?;
            let both = image.env.keys().find(|name| image.operator_env.contains(*name));
            expect(
                field,
                both.is_none(),
                "a variable in env or in operator_env",
                format!("{} in both", both.map_or("", String::as_str)),
            )?;
        }
        Ok(())
    }

    /// The section with its root, where it is in force.
    pub fn accepted<'a>(&'a self, simulation_root: Option<&'a [u8]>) -> Accepted<'a> {
        let own = self.root.as_deref();
        let root = own.or(simulation_root).or((!self.roots.is_empty()).then_some(GOOGLE_ROOT));
        Accepted { section: self, root, simulated: simulation_root.is_some() }
    }
}

/// What a policy without the section is told.
pub(super) fn expected() -> String {
    format!("a section [{NAME}] of the policy")
}
