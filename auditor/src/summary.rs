//! A study and its released rounds, as reports show them.

use crate::privacy::Spent;
use crate::round::Measured;
use sealfold_protocol::Digest;
use sealfold_protocol::terms::RoundKind;
use sealfold_study::Manifest;
use serde::Serialize;
use std::collections::BTreeMap;

/// A released round, for reports.
#[derive(Debug, Clone, Serialize)]
pub struct Released {
    /// The study.
    pub study: Digest,
    /// The round.
    pub round: u32,
    /// What it was for, by the terms that it ran under.
    pub kind: RoundKind,
    /// The manifest that it ran under.
    pub manifest: Digest,
    /// The leaf of the offer.
    pub offer_leaf: u64,
    /// The leaf of the release.
    pub release_leaf: u64,
    /// The release.
    pub release: Digest,
    /// The release before.
    pub previous: Option<Digest>,
    /// The model that the sites trained from, or that they measured.
    pub base: Digest,
    /// The commitment to the aggregate.
    pub aggregate: Digest,
    /// The sites whose updates were folded.
    pub sites: Vec<String>,
    /// How many offers the round had, and how many were abandoned.
    pub offers: usize,
    /// Those that were abandoned, and so perhaps released.
    pub abandoned: usize,
    /// What the evidence says, if it was accepted.
    pub measured: Option<Measured>,
}

/// A study in a report.
#[derive(Debug, Serialize)]
pub struct Summary {
    /// Its identity.
    pub study: Digest,
    /// The manifest in force.
    pub manifest: Manifest,
    /// How many manifests the chain has.
    pub manifests: usize,
    /// The sites that signed the one in force.
    pub participants: Vec<String>,
    /// The approvers of it that signed.
    pub approvals: usize,
    /// Rounds released.
    pub released: u64,
    /// The number of the last round: the training rounds, and one that measures the
    /// last model if the manifest has channels.
    pub last_round: u32,
    /// By site, in how many of them its update was folded.
    pub took_part: BTreeMap<String, u64>,
    /// By image, how many offers an image made.
    pub images: BTreeMap<String, u64>,
    /// What stands open at the end of the log, in words.
    pub open: Option<String>,
    /// What was spent of the privacy budget; none without privacy noise.
    pub privacy: Option<Spent>,
}

impl Summary {
    /// How many rounds are released of how many, in words.
    #[must_use]
    pub fn progress(&self) -> String {
        let measures = if self.manifest.terms.channels.is_empty() {
            ""
        } else {
            "; the last round trains nothing, it measures the last model"
        };
        format!("{} of {} rounds released{measures}", self.released, self.last_round)
    }
}
