//! The manifest: what the sites agreed to before the first round.
//!
//! People write it as TOML ([`Manifest::from_toml`]); machines sign its CBOR
//! form. A value of [`Manifest`] that came from either has been
//! [checked](Manifest::check): its numbers are consistent and its promises are
//! ones that the protocol can keep.

use crate::quorum::Quorum;
use crate::seal::PublicKey;
use crate::text::{is_hidden, shown};
use crate::{Digest, Error, MultiSigned, Result, Statement, Unverified, VerifyingKey};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

mod aggregation;
mod data;
pub mod in_words;
mod layout;
mod log;
mod measurements;
mod misread;
mod model;
mod privacy;
mod query;
pub use aggregation::{Aggregation, Leak, Rule, UpdateType};
pub use data::{Comparison, DataSpecification, Feature, FeatureType, Outcome};
pub use layout::Evaluation;
pub use log::LogTerms;
pub use measurements::{ConfidentialSpaceMeasurement, Measurements, NitroMeasurement};
pub use model::{Dtype, Model, Optimiser, Tensor, TensorRole};
pub use privacy::{Accountant, AdaptiveClip, Noise, Privacy};
pub use query::{Axis, Division, Draft, Measure, Part, Query, Statistic};

/// The version of the manifest's format that this library reads.
pub const FORMAT: u32 = 1;
/// The most sites that a study may list.
pub const MAX_SITES: usize = 200;
/// The longest round in seconds: an enclave keeps its keys no longer.
const MAX_ROUND: u64 = 366 * 24 * 60 * 60;
/// The longest name of a site or a tensor, in bytes.
pub const MAX_NAME: usize = 128;
/// The most rounds of a study.
pub const MAX_ROUNDS: u32 = 1_000_000;

/// What the sites of a study agreed to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The format's version, [`FORMAT`].
    pub format: u32,
    /// Purpose, length and validity.
    pub study: StudyTerms,
    /// What this manifest amends; absent in a study's first manifest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub amends: Option<Amends>,
    /// What every site's data is checked against before it may submit.
    pub data: DataSpecification,
    /// The model's tensors and where it starts.
    pub model: Model,
    /// How updates are combined.
    pub aggregation: Aggregation,
    /// The privacy that a release has by noise.
    pub privacy: Privacy,
    /// What is measured of the base model at each site, if anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evaluation: Option<Evaluation>,
    /// The statistics that are asked for, in a study that trains no model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub query: Option<Query>,
    /// The smallest roster and how many sites may collude.
    pub quorum: Quorum,
    /// How long the phases of a round last.
    pub deadlines: Deadlines,
    /// Who may read a release.
    pub release: ReleaseTerms,
    /// Who approves manifests and abandonments.
    pub approval: Approval,
    /// The log in which the study's history stands.
    pub log: LogTerms,
    /// The enclave images that may run the study.
    pub measurements: Measurements,
    /// The sites, sorted by name.
    #[serde(rename = "site")]
    pub sites: Vec<Site>,
}

/// Purpose, length and validity of a study.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StudyTerms {
    /// The study's name, for people; not its identity.
    pub name: String,
    /// Why the study is done.
    pub purpose: String,
    /// What the model may be used for.
    pub intended_use: String,
    /// The number of rounds.
    pub rounds: u32,
    /// No site takes part before this time.
    pub valid_from: Timestamp,
    /// No site takes part after this time.
    pub valid_until: Timestamp,
}

/// The place of an amendment in its study.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Amends {
    /// The study's identity: the digest of its first manifest.
    pub study: Digest,
    /// The digest of the manifest that this one replaces.
    pub predecessor: Digest,
}

/// How long the phases of a round last, by the enclave's own clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Deadlines {
    /// From the offer until the roster may close without every site.
    pub upload_seconds: u64,
    /// From a roster until a site that has not committed may be dropped.
    pub commit_seconds: u64,
    /// From the offer until the round's keys are erased, released or not.
    pub round_seconds: u64,
}

/// Who may read a release.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReleaseTerms {
    /// Everyone, or only the study's sites.
    pub readers: Readers,
}

/// Who may read a release.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Readers {
    /// The key of the aggregate is published.
    Everyone,
    /// The key is sealed to each site's release key; the operator has no model.
    Sites,
}

/// Who approves manifests and abandonments.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Approval {
    /// How many of the approvers must sign.
    pub required: usize,
    /// Their keys.
    pub approvers: Vec<VerifyingKey>,
}

/// A hospital that takes part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Site {
    /// Its name: lower-case letters, digits and hyphens.
    pub name: String,
    /// The key that signs its updates and commits.
    pub signing_key: VerifyingKey,
    /// The key that releases and confidential replies are sealed to.
    pub release_key: PublicKey,
}

impl Statement for Manifest {
    const NAME: &'static str = "manifest";
    const CONTENT_TYPE: &'static str = "application/vnd.sealfold.manifest.v1+cbor";
    const LIMIT: usize = 1 << 20;
}

impl Manifest {
    /// Reads and checks the TOML that people write.
    ///
    /// # Errors
    /// If it is larger than a manifest may be, does not parse (an unknown or a
    /// missing field is named), or does not [check](Self::check).
    pub fn from_toml(text: &str) -> Result<Self> {
        if text.len() > Self::LIMIT {
            return Err(Error::TooLarge {
                what: Self::NAME,
                limit: Self::LIMIT,
                found: text.len(),
            });
        }
        let mut manifest: Self = toml::from_str(text).map_err(|e| misread::error(text, &e))?;
        manifest.sites.sort_by(|a, b| a.name.cmp(&b.name));
        manifest.check()?;
        Ok(manifest)
    }

    /// Opens a signed manifest, whose every signature must verify, and checks it.
    ///
    /// # Errors
    /// As [`MultiSigned::open`] and [`Manifest::check`].
    pub fn open(envelope: &[u8]) -> Result<MultiSigned<Self>> {
        Self::verified(Unverified::decode(envelope)?)
    }

    /// As [`Manifest::open`], of one that is decoded already.
    ///
    /// # Errors
    /// As [`Unverified::verify`] and [`Manifest::check`].
    pub fn verified(decoded: Unverified<Self>) -> Result<MultiSigned<Self>> {
        let signed = decoded.verify()?;
        signed.statement().check()?;
        Ok(signed)
    }

    /// The keys of its sites and approvers: a signature by any other changes
    /// nothing.
    pub fn parties(&self) -> impl Iterator<Item = VerifyingKey> {
        let sites = self.sites.iter().map(|site| site.signing_key);
        sites.chain(self.approval.approvers.iter().copied())
    }

    /// Checks every rule that a manifest keeps, whoever signed it.
    ///
    /// # Errors
    /// [`Error::Manifest`] with the field, what is expected and what is found.
    pub fn check(&self) -> Result<()> {
        expect("format", self.format == FORMAT, FORMAT, self.format)?;
        self.check_texts()?;
        let rounds = self.study.rounds;
        expect(
            "study.rounds",
            (1..=MAX_ROUNDS).contains(&rounds),
            format!("1 to {MAX_ROUNDS}"),
            rounds,
        )?;
        let (from, until) = (self.study.valid_from, self.study.valid_until);
        expect("study.valid_until", from < until, format!("a time after {from}"), until)?;
        self.data.check()?;
        self.model.check()?;
        self.check_sites()?;
        self.quorum.check(self.sites.len())?;
        self.aggregation.check(&self.quorum)?;
        self.check_layout()?;
        self.check_privacy()?;
        self.check_query()?;
        self.check_approval()?;
        self.check_log()?;
        let deadlines = self.deadlines;
        let round = deadlines.round_seconds;
        expect("deadlines.round_seconds", round <= MAX_ROUND, "at most 366 days", round)?;
        expect(
            "deadlines.round_seconds",
            deadlines.upload_seconds > 0
                && deadlines.commit_seconds > 0
                && deadlines.upload_seconds.saturating_add(deadlines.commit_seconds)
                    <= deadlines.round_seconds,
            "at least upload_seconds + commit_seconds, both positive",
            deadlines.round_seconds,
        )?;
        self.measurements.check()
    }

    /// The site of that name.
    ///
    /// # Errors
    /// [`Error::Signer`] if the manifest lists none.
    pub fn site(&self, name: &str) -> Result<&Site> {
        self.sites.iter().find(|site| site.name == name).ok_or_else(|| Error::Signer {
            what: "statement",
            expected: "a site that the manifest lists".to_owned(),
            found: name.chars().take(MAX_NAME).collect(),
        })
    }

    /// Whether people can read everything that is written in words: nothing in
    /// it is hidden, or acts on what stands around it.
    fn check_texts(&self) -> Result<()> {
        let (study, data) = (&self.study, &self.data);
        let texts = [
            ("study.name", &study.name),
            ("study.purpose", &study.purpose),
            ("study.intended_use", &study.intended_use),
            ("data.cohort", &data.cohort),
            ("data.outcome.column", &data.outcome.column),
            ("log.origin", &self.log.origin),
        ];
        let features = data.features.iter().flat_map(|feature| {
            [("data.feature.name", &feature.name), ("data.feature.unit", &feature.unit)]
        });
        let tensors = self.model.tensors.iter().map(|tensor| ("model.tensor.name", &tensor.name));
        for (field, text) in texts.into_iter().chain(features).chain(tensors) {
            let hidden = text.chars().position(is_hidden);
            expect(
                field,
                hidden.is_none(),
                "text on one line, without control characters and marks of direction",
                format!("character {} of {}", hidden.unwrap_or_default() + 1, shown(text)),
            )?;
        }
        for (field, text) in &texts[..3] {
            expect(field, !text.trim().is_empty(), "a text", "an empty one")?;
        }
        Ok(())
    }

    fn check_sites(&self) -> Result<()> {
        let n = self.sites.len();
        expect("site", (1..=MAX_SITES).contains(&n), format!("1 to {MAX_SITES} sites"), n)?;
        for site in &self.sites {
            expect(
                "site.name",
                is_name(&site.name),
                "lower-case letters, digits and hyphens, at most 128",
                format!("{:?}", site.name),
            )?;
        }
        expect(
            "site.name",
            self.sites.windows(2).all(|pair| pair[0].name < pair[1].name),
            "names sorted, each once",
            "another order or a name twice",
        )?;
        let distinct: BTreeSet<_> = self.sites.iter().map(|site| site.signing_key).collect();
        expect(
            "site.signing_key",
            distinct.len() == n,
            "a key of its own for each site",
            "a key twice",
        )?;
        let distinct: BTreeSet<_> =
            self.sites.iter().map(|site| site.release_key.as_bytes().to_vec()).collect();
        expect(
            "site.release_key",
            distinct.len() == n,
            "a key of its own for each site",
            "a key twice",
        )
    }

    fn check_approval(&self) -> Result<()> {
        let approvers = &self.approval.approvers;
        let distinct: BTreeSet<_> = approvers.iter().collect();
        expect(
            "approval.approvers",
            !approvers.is_empty()
                && distinct.len() == approvers.len()
                && approvers.len() <= MAX_SITES,
            "1 to 200 keys, each once",
            approvers.len(),
        )?;
        let required = self.approval.required;
        // A minority that could abandon rounds or amend by itself would be a
        // veto and a backdoor: more than half must agree.
        expect(
            "approval.required",
            required <= approvers.len() && 2 * required > approvers.len(),
            format!("more than half of {} approvers", approvers.len()),
            required,
        )
    }
}

/// Whether a text may name a site or a tensor's site-wide label.
#[must_use]
pub fn is_name(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= MAX_NAME
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

pub(crate) fn is_positive(value: f64) -> bool {
    value.is_finite() && value > 0.0
}

pub(crate) fn expect(
    field: &str,
    holds: bool,
    expected: impl ToString,
    found: impl ToString,
) -> Result<()> {
    if holds {
        return Ok(());
    }
    Err(Error::Manifest {
        field: field.to_owned(),
        expected: expected.to_string(),
        found: found.to_string(),
        next: None,
    })
}

/// A parameter that a library refuses, in the library's words.
fn refused(field: &str, expected: &str, error: &sealfold_aggregation::Error) -> Error {
    let (field, expected, found) = (field.to_owned(), expected.to_owned(), error.to_string());
    Error::Manifest { field, expected, found, next: None }
}

#[cfg(test)]
mod limits;
#[cfg(test)]
pub(crate) mod tests;
