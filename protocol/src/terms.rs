//! The terms: the part of a manifest that an enclave decodes and enforces.
//!
//! A [manifest](crate::manifest) has two parts under one digest and the same
//! signatures: these terms, and an *agreement* that is a string of bytes to the
//! enclave. Whatever changes what an enclave does stands here; whatever only
//! people, sites and auditors act on stands there.
//!
//! A value of [`Terms`] that was [checked](Terms::check) has consistent numbers
//! and makes only promises that the protocol can keep; each promise that it
//! gives up is named in [`Terms::accepts`].

use crate::seal::PublicKey;
use crate::text::{is_hidden, shown};
use crate::{Digest, Error, Result, VerifyingKey};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

mod accepts;
mod aggregation;
mod amendment;
mod channel;
mod layout;
mod model;
mod privacy;
mod quorum;
mod sums;
pub use accepts::{Weakness, listed};
pub use aggregation::{Aggregation, Rule, UpdateType};
pub use amendment::expect_same;
pub use channel::Channel;
pub use layout::{RoundKind, Section};
pub use model::{Dtype, Model, Tensor, TensorRole};
pub use privacy::{AdaptiveClip, Noise, Privacy};
pub use quorum::Quorum;

/// The most sites that a study may list.
pub const MAX_SITES: usize = 200;
/// The largest weight of a site. With 200 sites of this weight, sums of 32-bit
/// values still fit 64 bits.
pub const MAX_WEIGHT: u32 = 1_000_000;
/// The longest round in seconds: an enclave keeps its keys no longer.
const MAX_ROUND: u64 = 366 * 24 * 60 * 60;
/// The longest name of a site or a tensor, in bytes.
pub const MAX_NAME: usize = 128;
/// The most training rounds of a study.
pub const MAX_ROUNDS: u32 = 1_000_000;

/// What an enclave enforces.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Terms {
    /// What this manifest amends; absent in a study's first manifest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub amends: Option<Amends>,
    /// The number of training rounds. If there are channels, one evaluation
    /// round follows them ([`Terms::last_round`]).
    pub rounds: u32,
    /// The model's tensors, their quantisation grid, and where the model starts.
    pub model: Model,
    /// How updates are combined.
    pub aggregation: Aggregation,
    /// The noise of a release.
    pub privacy: Privacy,
    /// The channels beside the model, in the order in which they lie behind it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub channels: Vec<Channel>,
    /// The smallest roster and how many sites may collude.
    pub quorum: Quorum,
    /// The promises that the study gives up, by name, sorted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub accepts: Vec<Weakness>,
    /// How long the phases of a round last.
    pub deadlines: Deadlines,
    /// Who may read a release.
    pub readers: Readers,
    /// Who approves manifests and abandonments.
    pub approval: Approval,
    /// The sites, sorted by name.
    pub sites: Vec<Site>,
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
    /// How much its update counts in a mean, relative to the others'.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub weight: u32,
}

fn one() -> u32 {
    1
}

#[allow(clippy::trivially_copy_pass_by_ref)] // as serde calls it
fn is_one(weight: &u32) -> bool {
    *weight == 1
}

impl Terms {
    /// Checks every rule that terms keep, whoever signed them.
    ///
    /// # Errors
    /// [`Error::Manifest`] with the field, what is expected and what is found.
    pub fn check(&self) -> Result<()> {
        let rounds = self.rounds;
        let expected = format!("1 to {MAX_ROUNDS}");
        expect("study.rounds", (1..=MAX_ROUNDS).contains(&rounds), expected, rounds)?;
        for tensor in &self.model.tensors {
            expect_readable("model.tensor.name", &tensor.name)?;
        }
        self.model.check()?;
        self.check_sites()?;
        self.quorum.check(self.sites.len())?;
        self.aggregation.check(&self.quorum)?;
        self.check_privacy()?;
        self.check_channels()?;
        self.check_grid()?;
        self.check_accepts()?;
        self.check_approval()?;
        self.deadlines.check()
    }

    /// The site of that name.
    ///
    /// # Errors
    /// [`Error::Signer`] if the terms list none.
    pub fn site(&self, name: &str) -> Result<&Site> {
        self.sites.iter().find(|site| site.name == name).ok_or_else(|| Error::Signer {
            what: "statement",
            expected: "a site that the manifest lists".to_owned(),
            found: name.chars().take(MAX_NAME).collect(),
        })
    }

    /// The keys of its sites and approvers: a signature by any other changes
    /// nothing.
    pub fn parties(&self) -> impl Iterator<Item = VerifyingKey> {
        let sites = self.sites.iter().map(|site| site.signing_key);
        sites.chain(self.approval.approvers.iter().copied())
    }

    /// The last round: the training rounds, and one evaluation round behind
    /// them if anything is measured, because a round measures the model of the
    /// release before it.
    #[must_use]
    pub fn last_round(&self) -> u32 {
        self.rounds + u32::from(!self.channels.is_empty())
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
            expect(
                "site.weight",
                (1..=MAX_WEIGHT).contains(&site.weight),
                format!("a whole number from 1 to {MAX_WEIGHT}"),
                format!("{} for {}", site.weight, site.name),
            )?;
        }
        expect(
            "site.name",
            self.sites.windows(2).all(|pair| pair[0].name < pair[1].name),
            "names sorted, each once",
            "another order or a name twice",
        )?;
        let distinct: BTreeSet<_> = self.sites.iter().map(|site| site.signing_key).collect();
        let expected = "a key of its own for each site";
        expect("site.signing_key", distinct.len() == n, expected, "a key twice")?;
        let distinct: BTreeSet<_> =
            self.sites.iter().map(|site| site.release_key.as_bytes().to_vec()).collect();
        expect("site.release_key", distinct.len() == n, expected, "a key twice")
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

impl Deadlines {
    fn check(&self) -> Result<()> {
        let round = self.round_seconds;
        expect("deadlines.round_seconds", round <= MAX_ROUND, "at most 366 days", round)?;
        let phases = self.upload_seconds.saturating_add(self.commit_seconds);
        expect(
            "deadlines.round_seconds",
            self.upload_seconds > 0 && self.commit_seconds > 0 && phases <= round,
            "at least upload_seconds + commit_seconds, both positive",
            round,
        )
    }
}

/// Whether a text may name a site or a metric.
#[must_use]
pub fn is_name(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= MAX_NAME
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

/// Whether a number is finite and above 0.
#[must_use]
pub fn is_positive(value: f64) -> bool {
    value.is_finite() && value > 0.0
}

/// The smallest and the largest number that a parameter of terms can be: squares of
/// it, times those of any update, neither vanish nor overflow.
const ORDINARY: [f64; 2] = [1e-60, 1e60];

/// Refuses a parameter of terms that is not a positive number of an ordinary size.
///
/// # Errors
/// [`Error::Manifest`] naming the field and the range.
pub fn expect_ordinary(field: &str, value: f64) -> Result<()> {
    let [least, most] = ORDINARY;
    let expected = format!("a positive number, {least:e} to {most:e}");
    expect(field, (least..=most).contains(&value), expected, value)
}

/// Refuses a field of a manifest for which a condition does not hold.
///
/// # Errors
/// [`Error::Manifest`] with these words.
pub fn expect(
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

/// Refuses a text that people cannot read as it is: in which something is
/// hidden, or acts on what stands around it.
///
/// # Errors
/// [`Error::Manifest`] naming the field and the first such character.
pub fn expect_readable(field: &str, text: &str) -> Result<()> {
    let hidden = text.chars().position(is_hidden);
    expect(
        field,
        hidden.is_none(),
        "text on one line, without control characters and marks of direction",
        format!("character {} of {}", hidden.unwrap_or_default() + 1, shown(text)),
    )
}

/// A parameter that a library refuses, in the library's words.
#[must_use]
pub fn refused(field: &str, expected: &str, error: &sealfold_aggregation::Error) -> Error {
    let (field, expected, found) = (field.to_owned(), expected.to_owned(), error.to_string());
    Error::Manifest { field, expected, found, next: None }
}

#[cfg(test)]
mod limits;
#[cfg(test)]
pub(crate) mod tests;
