//! A study as this site knows it: the manifests that it signed, and how far
//! its own chain of releases has come.
//!
//! Everything here was signed or computed by the site itself. What the host
//! says is compared with it.

use crate::error::SiteRefusal;
use crate::home::{Home, read_json, write_json};
use crate::keys::Keys;
use crate::{Error, Result};
use jiff::Timestamp;
use sealfold_attestation::Policy;
use sealfold_protocol::api::StudyStatus;
use sealfold_protocol::manifest::Manifested;
use sealfold_protocol::offer::NextRound;
use sealfold_protocol::{Digest, Error as ProtocolError, MultiSigned, VerifyingKey};
use sealfold_study::Manifest;
use sealfold_study::Study;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Where the site's chain of releases stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Head {
    /// The round after the last release that the site verified.
    pub round: u32,
    /// The model that this release leads to.
    pub base: Digest,
    /// The release; none before the first.
    pub previous: Option<Digest>,
    /// The clip that this release leads to, if the clip is adaptive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clip: Option<f64>,
}

/// A study on this site's disk.
#[derive(Debug, Clone)]
pub struct LocalStudy {
    /// The study's identity.
    pub id: Digest,
    /// The study's folder.
    pub folder: PathBuf,
}

impl LocalStudy {
    /// A study's place on disk.
    #[must_use]
    pub fn new(home: &Home, id: Digest) -> Self {
        Self { id, folder: home.study(&id) }
    }

    /// The digests of the manifests that this site signed.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn approved(&self) -> Result<Vec<Digest>> {
        Ok(read_json(&self.folder.join("approved.json"))?.unwrap_or_default())
    }

    /// Remembers that this site signed a manifest.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn approve(&self, manifest: Digest) -> Result<()> {
        let mut approved = self.approved()?;
        if !approved.contains(&manifest) {
            approved.push(manifest);
        }
        write_json(&self.folder.join("approved.json"), &approved)
    }

    /// Where the chain stands; the beginning if the site has no release yet.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn head(&self, manifest: &Manifest) -> Result<Head> {
        let first = Head {
            round: 1,
            base: manifest.terms.model.initial,
            previous: None,
            clip: manifest.terms.first_clip(),
        };
        Ok(read_json(&self.folder.join("head.json"))?.unwrap_or(first))
    }

    /// Moves the head.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn set_head(&self, head: &Head) -> Result<()> {
        write_json(&self.folder.join("head.json"), head)
    }

    /// The model after so many rounds.
    #[must_use]
    pub fn model(&self, rounds: u32) -> PathBuf {
        self.folder.join("models").join(format!("round-{rounds:04}.safetensors"))
    }

    /// Whether this site signed a manifest.
    ///
    /// # Errors
    /// A refusal by `not-approved`; [`Error::File`].
    fn expect_approved(&self, manifest: &MultiSigned<Manifest>, keys: &Keys) -> Result<()> {
        let known = self.approved()?.contains(&manifest.digest());
        if known && manifest.signers().contains(&keys.signing.verifying_key()) {
            return Ok(());
        }
        let expected = "a manifest that this site signed";
        let found = format!("manifest {}", manifest.digest());
        Err(SiteRefusal::new("not-approved", expected, found)
            .next("read it and approve it: sealfold study approve")
            .into())
    }

    /// The folder of what a round needs.
    #[must_use]
    pub fn round(&self, round: u32) -> PathBuf {
        self.folder.join("rounds").join(format!("{round:04}"))
    }
}

/// A study that this site takes part in, with its chain of approved manifests.
pub struct Joined {
    /// On disk.
    pub local: LocalStudy,
    /// The chain, verified.
    pub study: Study,
}

impl Joined {
    /// Verifies what the host says of a study against what this site signed
    /// and what its policy accepts.
    ///
    /// # Errors
    /// A refusal by `manifest` checks, by `study`, and as
    /// [`Joined::expect_approved`] and [`Joined::expect_acceptable`];
    /// [`Error::Unsigned`] while others have yet to approve.
    pub fn verify(
        home: &Home,
        keys: &Keys,
        policy: &Policy,
        id: Digest,
        status: &StudyStatus,
        now: Timestamp,
    ) -> Result<Self> {
        let joined = match Self::open(home, id, status) {
            Err(Error::Protocol(ProtocolError::Approvals { required, found, .. })) => {
                // Whether this site can take part at all is known before that.
                if let Some(first) = status.manifests.first() {
                    let first = Manifest::open(&first.0)?;
                    LocalStudy::new(home, id).expect_approved(&first, keys)?;
                    acceptable(first.statement(), keys, policy, now)?;
                }
                let expected = format!("the approvals of {required} listed approvers");
                let refusal = SiteRefusal::new("approvers", expected, found)
                    .next("wait until they have approved it");
                return Err(Error::Unsigned(refusal));
            }
            other => other?,
        };
        joined.expect_approved(keys)?;
        joined.expect_acceptable(keys, policy, now)?;
        Ok(joined)
    }

    /// The chain of manifests that the host shows, approved by the study's own
    /// approvers. Whether this site approves is another question.
    ///
    /// # Errors
    /// A refusal by `manifest` checks or by `study`.
    pub fn open(home: &Home, id: Digest, status: &StudyStatus) -> Result<Self> {
        // An amendment that lacks approvals is not in force yet; the chain ends
        // at the last manifest that follows.
        let mut envelopes = status.manifests.iter();
        let first = envelopes.next().ok_or_else(|| {
            SiteRefusal::new("manifest", "the study's manifests", "none")
                .next("ask the operator what became of them")
        })?;
        let first = Manifest::open(&first.0)?;
        if first.digest() != id {
            return Err(SiteRefusal::new("study", id, first.digest())
                .next("stop: the host shows another study")
                .into());
        }
        let mut study = Study::open(first)?;
        for envelope in envelopes {
            if study.amend(Manifest::open(&envelope.0)?).is_err() {
                break;
            }
        }
        Ok(Self { local: LocalStudy::new(home, id), study })
    }

    /// Whether this site signed the manifest in force.
    ///
    /// # Errors
    /// A refusal by `not-approved`; [`Error::File`].
    pub fn expect_approved(&self, keys: &Keys) -> Result<()> {
        self.local.expect_approved(self.study.current(), keys)
    }

    /// Whether the manifest in force is one that this site can take part
    /// under, and approvers that it knows have signed it.
    ///
    /// # Errors
    /// As [`acceptable`] and [`approved_by_known`].
    pub fn expect_acceptable(&self, keys: &Keys, policy: &Policy, now: Timestamp) -> Result<()> {
        acceptable(self.manifest(), keys, policy, now)?;
        approved_by_known(self.study.current(), policy)
    }

    /// The manifest in force.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        self.study.current().statement()
    }

    /// A manifest of the chain: an offer may be older than the last amendment,
    /// which takes effect after a release.
    #[must_use]
    pub fn under(&self, manifest: &Digest) -> Option<&MultiSigned<Manifest>> {
        self.study.manifests().iter().find(|known| known.digest() == *manifest)
    }

    /// The round that this site expects.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn next(&self) -> Result<NextRound> {
        let head = self.local.head(self.manifest())?;
        Ok(NextRound {
            study: self.local.id,
            manifest: self.study.current().digest(),
            round: head.round,
            base: head.base,
            previous: head.previous,
            clip: self.manifest().terms.round_clip(head.clip),
        })
    }
}

/// Whether this site can take part under a manifest, whoever has signed it so
/// far. [`approved_by_known`] asks for the signatures.
///
/// # Errors
/// A refusal by `site-keys`, `smallest-roster`, `colluders`, `peers`, `log`,
/// `approvers` or `validity`.
pub fn acceptable(manifest: &Manifest, keys: &Keys, policy: &Policy, now: Timestamp) -> Result<()> {
    let refuse = |check, expected: String, found: String| {
        let next = "the manifest does not fit your policy: leave, or ask for an amendment";
        Err(Error::from(SiteRefusal::new(check, expected, found).next(next)))
    };
    let me = manifest.terms.site(&keys.site)?;
    if me.signing_key != keys.signing.verifying_key() || me.release_key != keys.release_key()? {
        return refuse(
            "site-keys",
            "this site's keys".to_owned(),
            "other keys under its name".to_owned(),
        );
    }
    let (k, c) = (manifest.terms.quorum.smallest_roster, manifest.terms.quorum.colluders);
    if k < policy.smallest_roster() {
        return refuse(
            "smallest-roster",
            format!("at least {}", policy.smallest_roster()),
            k.to_string(),
        );
    }
    if c < policy.colluders() {
        return refuse("colluders", format!("at least {}", policy.colluders()), c.to_string());
    }
    if let Some(peers) = policy.peers() {
        for site in manifest.terms.sites.iter().filter(|site| site.name != keys.site) {
            if peers.get(site.name.as_str()) != Some(&site.signing_key.as_bytes()) {
                let found = format!("{} with key {}", site.name, site.signing_key);
                return refuse(
                    "peers",
                    "sites that the policy lists, with their keys".to_owned(),
                    found,
                );
            }
        }
    }
    if let Some(log) = policy.log() {
        let terms = &manifest.agreement.log;
        if (terms.origin.as_str(), terms.key.as_bytes()) != (log.name(), log.key()) {
            let of = |name: &str, key: VerifyingKey| format!("log {name} with key {key}");
            let found = of(&terms.origin, terms.key);
            return refuse("log", of(log.name(), VerifyingKey::new(*log.key())), found);
        }
    }
    // A quorum of the manifest's approvers must include enough that we know.
    let known = policy.approvers().filter(|key| {
        manifest.terms.approval.approvers.iter().any(|approver| approver.as_bytes() == *key)
    });
    let found = known.count();
    if found < policy.required_approvals() {
        let expected =
            format!("at least {} approvers that the policy lists", policy.required_approvals());
        return refuse("approvers", expected, found.to_string());
    }
    let (from, until) = (manifest.agreement.study.valid_from, manifest.agreement.study.valid_until);
    if now < from || now > until {
        return refuse("validity", format!("from {from} to {until}"), now.to_string());
    }
    Ok(())
}

/// Whether enough of the approvers that the policy lists have signed.
///
/// # Errors
/// [`Error::Unsigned`], by `approvers`.
pub fn approved_by_known(manifest: &MultiSigned<Manifest>, policy: &Policy) -> Result<()> {
    let signers = manifest.signers();
    let listed = &manifest.statement().terms.approval.approvers;
    let found = policy
        .approvers()
        .filter(|key| {
            listed.iter().any(|l| l.as_bytes() == *key)
                && signers.iter().any(|signer| signer.as_bytes() == *key)
        })
        .count();
    if found < policy.required_approvals() {
        let expected = format!(
            "signatures of {} approvers that the policy lists",
            policy.required_approvals()
        );
        let refusal = SiteRefusal::new("approvers", expected, found)
            .next("ask the approvers whom you know to sign it");
        return Err(Error::Unsigned(refusal));
    }
    Ok(())
}
