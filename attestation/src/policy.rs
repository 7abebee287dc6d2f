//! The policy: a TOML file that a site owns.
//!
//! It says which enclave images the site has accepted, under which roots, who
//! approves studies, and the weakest quorum that the site takes part in. What
//! is missing is refused, not assumed; an unknown field is an error.

mod images;

use crate::chain::fingerprint;
use crate::confidential_space::Section;
use crate::log::NoteKey;
use crate::log::note::KeyKind;
use crate::nitro::AWS_ROOT_G1;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde::{Deserialize, Deserializer, de};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

/// The longest policy in bytes.
pub const MAX_POLICY: usize = 1 << 20;

/// Why a policy cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyError {
    /// The text is no policy; the parser names the line and the field.
    #[error("policy does not parse: {0}")]
    Parse(String),
    /// A rule that every policy keeps is broken.
    #[error("policy field {field}: expected {expected}, found {found}")]
    Field {
        /// The field, as a dotted path.
        field: &'static str,
        /// What it must be.
        expected: String,
        /// What it is.
        found: String,
    },
}

/// A site's policy.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    evidence: EvidenceTerms,
    approval: Approval,
    round: RoundTerms,
    /// Names of sites and their signing keys in hex; where it is given, a study
    /// with any other site is refused.
    peers: Option<BTreeMap<String, Bytes<32>>>,
    /// Where it is given, a study without privacy noise is refused, and each
    /// study is charged to the budget of the data source that it uses.
    budgets: Option<BTreeMap<String, Budget>>,
    log: Option<LogTerms>,
    nitro: Option<Nitro>,
    #[serde(rename = "confidential-space")]
    confidential_space: Option<Section>,
    simulation: Option<Simulation>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct EvidenceTerms {
    max_age_seconds: u32,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Approval {
    required: usize,
    approvers: Vec<Bytes<32>>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct RoundTerms {
    smallest_roster: usize,
    colluders: usize,
}

/// The total privacy budget of one data source, over all studies.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Budget {
    /// The privacy loss.
    pub epsilon: f64,
    /// The probability with which it may be more.
    pub delta: f64,
}

/// The log that the site believes, and who watches it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct LogTerms {
    #[serde(deserialize_with = "note_key")]
    key: NoteKey,
    #[serde(default, deserialize_with = "note_keys")]
    witnesses: Vec<NoteKey>,
    /// How many of them must have cosigned before the site commits.
    #[serde(default)]
    required: usize,
}

fn note_key<'de, D: Deserializer<'de>>(deserializer: D) -> Result<NoteKey, D::Error> {
    String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
}

fn note_keys<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<NoteKey>, D::Error> {
    let keys = Vec::<String>::deserialize(deserializer)?;
    keys.iter().map(|key| key.parse().map_err(de::Error::custom)).collect()
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Nitro {
    roots: Vec<Bytes<32>>,
    measurements: Vec<Measurement>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Simulation {
    root: Bytes<32>,
    certificate: String,
    /// Accepted images of simulated Nitro enclaves.
    #[serde(default)]
    measurements: Vec<Measurement>,
    /// What is accepted of a simulated Confidential Space.
    #[serde(rename = "confidential-space")]
    confidential_space: Option<Section>,
    #[serde(skip)]
    der: Vec<u8>,
}

/// The measurements of one accepted image. PCR0, 1 and 2 have to be there.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Measurement {
    /// What the site calls the image.
    #[serde(default)]
    pub name: String,
    /// The image file.
    pub pcr0: Bytes<48>,
    /// Kernel and boot ramdisk.
    pub pcr1: Bytes<48>,
    /// The application.
    pub pcr2: Bytes<48>,
    /// The image's signing certificate, if it must be signed.
    pub pcr8: Option<Bytes<48>>,
}

/// Bytes of a fixed length, in hex.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Bytes<const N: usize>(pub [u8; N]);

impl<const N: usize> fmt::Debug for Bytes<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl<'de, const N: usize> Deserialize<'de> for Bytes<N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let mut bytes = [0; N];
        hex::decode_to_slice(&text, &mut bytes).map_err(|_| {
            let found = text.chars().count();
            de::Error::custom(format!("expected {} hex digits, found {found} characters", 2 * N))
        })?;
        Ok(Self(bytes))
    }
}

pub(crate) fn expect(
    field: &'static str,
    holds: bool,
    expected: &str,
    found: impl ToString,
) -> Result<(), PolicyError> {
    if holds {
        return Ok(());
    }
    Err(PolicyError::Field { field, expected: expected.to_owned(), found: found.to_string() })
}

impl Policy {
    /// Reads a policy that names no other file.
    ///
    /// # Errors
    /// [`PolicyError`] naming the field.
    pub fn from_toml(text: &str) -> Result<Self, PolicyError> {
        Self::from_toml_with(text, &|name| Err(format!("{name}, and no way to read it")))
    }

    /// Reads a policy, and the key set that it may name with `read`, which is
    /// given the name as it stands there.
    ///
    /// # Errors
    /// [`PolicyError`] naming the field; what `read` says is found there.
    pub fn from_toml_with(
        text: &str,
        read: &dyn Fn(&str) -> Result<Vec<u8>, String>,
    ) -> Result<Self, PolicyError> {
        expect("(all)", text.len() <= MAX_POLICY, "at most 1 MiB", text.len())?;
        let mut policy: Self = toml::from_str(text).map_err(|error| {
            let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
            let line = before.matches('\n').count() + 1;
            PolicyError::Parse(format!("line {line}: {}", error.message()))
        })?;
        policy.check(read)?;
        Ok(policy)
    }

    /// A policy to start from, with comments. Its measurements and approvers
    /// are placeholders that no enclave and no key has.
    #[must_use]
    pub fn example() -> &'static str {
        include_str!("example-policy.toml")
    }

    fn check(&mut self, read: &dyn Fn(&str) -> Result<Vec<u8>, String>) -> Result<(), PolicyError> {
        let age = self.evidence.max_age_seconds;
        expect("evidence.max_age_seconds", (1..=86_400).contains(&age), "1 to 86400", age)?;
        let (required, listed) = (self.approval.required, self.approval.approvers.len());
        expect(
            "approval.required",
            (1..=listed).contains(&required),
            "from 1 to the number of approvers",
            format!("{required} of {listed}"),
        )?;
        expect("round.smallest_roster", self.round.smallest_roster > 1, "at least 2", "less")?;
        if let Some(log) = &self.log {
            let is_log = log.key.kind() == KeyKind::Ed25519;
            expect("log.key", is_log, "a key that signs checkpoints", &log.key)?;
            let cosign = log.witnesses.iter().all(|key| key.kind() == KeyKind::CosignatureV1);
            expect("log.witnesses", cosign, "keys for cosignatures", "another kind of key")?;
            // One witness listed twice would count for two.
            let ids: BTreeSet<_> = log.witnesses.iter().map(NoteKey::key).collect();
            let (found, listed) = (ids.len(), log.witnesses.len());
            expect("log.witnesses", found == listed, "each witness once", "one twice")?;
            expect(
                "log.required",
                log.required <= listed,
                "at most the number of witnesses",
                format!("{} of {listed}", log.required),
            )?;
        }
        for budget in self.budgets.iter().flat_map(BTreeMap::values) {
            let Budget { epsilon, delta } = *budget;
            let holds = epsilon.is_finite() && epsilon > 0.0 && (0.0..1.0).contains(&delta);
            let found = format!("epsilon {epsilon}, delta {delta}");
            expect("budgets", holds, "a positive epsilon, and a delta from 0, below 1", found)?;
        }
        let somewhere =
            self.nitro.is_some() || self.confidential_space.is_some() || self.simulation.is_some();
        let platforms = "a section on the platform, such as [nitro] or [confidential-space]";
        expect("(all)", somewhere, platforms, "none")?;
        if let Some(section) = &mut self.confidential_space {
            section.check(false, read)?;
        }
        if let Some(nitro) = &self.nitro {
            let pinned = fingerprint(AWS_ROOT_G1);
            for root in &nitro.roots {
                expect(
                    "nitro.roots",
                    root.0 == pinned,
                    "the AWS Nitro Enclaves root G1, 641a0321a3e2...",
                    format!("{root:?}"),
                )?;
            }
            expect("nitro.roots", !nitro.roots.is_empty(), "a root", "an empty list")?;
            measurements("nitro.measurements", &nitro.measurements)?;
        }
        if let Some(simulation) = &mut self.simulation {
            if let Some(section) = &mut simulation.confidential_space {
                section.check(true, read)?;
            }
            if simulation.confidential_space.is_none() || !simulation.measurements.is_empty() {
                measurements("simulation.measurements", &simulation.measurements)?;
            }
            let der = CertificateDer::from_pem_slice(simulation.certificate.as_bytes()).map_err(
                |error| PolicyError::Field {
                    field: "simulation.certificate",
                    expected: "a certificate in PEM".to_owned(),
                    found: format!("{error:?}"),
                },
            )?;
            let found = Bytes(fingerprint(&der));
            expect(
                "simulation.root",
                found == simulation.root,
                "the fingerprint of simulation.certificate",
                format!("{:?}", simulation.root),
            )?;
            simulation.der = der.to_vec();
        }
        Ok(())
    }

    /// How old evidence may be.
    #[must_use]
    pub fn max_age(&self) -> Duration {
        Duration::from_secs(self.evidence.max_age_seconds.into())
    }

    /// The approvers' keys that the site knows.
    pub fn approvers(&self) -> impl Iterator<Item = &[u8; 32]> {
        self.approval.approvers.iter().map(|key| &key.0)
    }

    /// How many of them must have signed a manifest.
    #[must_use]
    pub fn required_approvals(&self) -> usize {
        self.approval.required
    }

    /// The smallest roster that the site accepts.
    #[must_use]
    pub fn smallest_roster(&self) -> usize {
        self.round.smallest_roster
    }

    /// The fewest colluders that a study must withstand.
    #[must_use]
    pub fn colluders(&self) -> usize {
        self.round.colluders
    }

    /// The peers that the site knows, by name; `None` if it does not say.
    #[must_use]
    pub fn peers(&self) -> Option<BTreeMap<&str, &[u8; 32]>> {
        let peers = self.peers.as_ref()?;
        Some(peers.iter().map(|(name, key)| (name.as_str(), &key.0)).collect())
    }

    /// The budgets of the site's data sources, by name; `None` if the policy
    /// does not keep any.
    #[must_use]
    pub fn budgets(&self) -> Option<&BTreeMap<String, Budget>> {
        self.budgets.as_ref()
    }

    /// The key of the log that the site believes; `None` if it does not say.
    #[must_use]
    pub fn log(&self) -> Option<&NoteKey> {
        self.log.as_ref().map(|log| &log.key)
    }

    /// The witnesses of that log whose cosignatures count.
    #[must_use]
    pub fn witnesses(&self) -> &[NoteKey] {
        self.log.as_ref().map_or(&[], |log| &log.witnesses)
    }

    /// How many of the witnesses must have cosigned a checkpoint that covers a
    /// roster before the site commits to it.
    #[must_use]
    pub fn required_witnesses(&self) -> usize {
        self.log.as_ref().map_or(0, |log| log.required)
    }

    /// Whether simulated evidence is allowed.
    #[must_use]
    pub fn allows_simulation(&self) -> bool {
        self.simulation.is_some()
    }
}

fn measurements(field: &'static str, list: &[Measurement]) -> Result<(), PolicyError> {
    expect(field, !list.is_empty(), "at least one accepted image", "an empty list")?;
    let zero = [0; 48];
    let debug = |m: &Measurement| [m.pcr0.0, m.pcr1.0, m.pcr2.0].contains(&zero);
    expect(field, !list.iter().any(debug), "no register of zeros (debug mode)", "one")
}

#[cfg(test)]
mod tests;
