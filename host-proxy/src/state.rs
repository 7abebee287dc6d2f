//! What the host knows: studies, rounds and uploads, in memory as on disk.
//!
//! Whatever is acknowledged is in the store first; this is an index of it,
//! read when the host starts. The host verifies what it stores, not because
//! anybody trusts it to, but so that strangers cannot fill its disk.

use crate::candidates::Candidates;
use crate::study::Study;
use sealfold_protocol::abandonment::Abandonment;
use sealfold_protocol::api::{Phase, RoundStatus, UploadState, UploadStatus};
use sealfold_protocol::bytes::Envelope;
use sealfold_protocol::offer::Offer;
use sealfold_protocol::refusal::{Check, Refusal};
use sealfold_protocol::release::Release;
use sealfold_protocol::report::ModelReport;
use sealfold_protocol::roster::Roster;
use sealfold_protocol::update::UpdateHeader;
use sealfold_protocol::{Digest, Signed};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use tokio::sync::Mutex;

/// The most studies of a host.
pub const MAX_STUDIES: usize = 256;

/// All of it.
#[derive(Debug, Default)]
pub struct State {
    /// By identity.
    pub studies: BTreeMap<Digest, Study>,
    /// By header digest.
    pub uploads: HashMap<Digest, Upload>,
    /// The studies that the operator has introduced.
    pub introduced: BTreeSet<Digest>,
}

/// A round.
#[derive(Debug)]
pub struct Round {
    /// Its phase when the enclave was last seen.
    pub phase: Phase,
    /// The offer that stands.
    pub offer: Option<Signed<Offer>>,
    /// The latest roster under that offer.
    pub roster: Option<Signed<Roster>>,
    /// Where that roster stands in the log.
    pub logged: Option<Logged>,
    /// The commits to that roster, by site.
    pub commits: BTreeMap<String, Envelope>,
    /// Whether any site committed under the offer that stands.
    pub was_committed: bool,
    /// The release.
    pub release: Option<Signed<Release>>,
    /// Whether the aggregate is in the store.
    pub has_aggregate: bool,
    /// By the offer that is given up: what approvers have signed of it, in which
    /// words. One with enough signatures gives it up.
    pub abandonments: BTreeMap<Digest, Candidates<Abandonment>>,
    /// The models that sites computed from the release.
    pub reports: BTreeMap<String, ModelReport>,
}

/// Where a statement stands in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Logged {
    /// The number of its leaf.
    pub leaf: u64,
    /// The digest of the checkpoint that ends with it.
    pub checkpoint: Digest,
}

impl Default for Round {
    fn default() -> Self {
        Self {
            phase: Phase::Idle,
            offer: None,
            roster: None,
            logged: None,
            commits: BTreeMap::new(),
            was_committed: false,
            release: None,
            has_aggregate: false,
            abandonments: BTreeMap::new(),
            reports: BTreeMap::new(),
        }
    }
}

/// An upload.
#[derive(Debug, Clone)]
pub struct Upload {
    /// The signed header.
    pub header: Signed<UpdateHeader>,
    /// How many sealed bytes there will be.
    pub length: u64,
    /// How many are on disk.
    pub received: u64,
    /// What became of it, once it was complete.
    pub outcome: Option<UploadState>,
    /// Held while a piece is written.
    pub writing: Arc<Mutex<()>>,
}

impl Upload {
    /// For replies.
    #[must_use]
    pub fn status(&self) -> UploadStatus {
        let stored =
            if self.received < self.length { UploadState::Receiving } else { UploadState::Stored };
        UploadStatus {
            site: self.header.statement().site.clone(),
            header: self.header.digest(),
            received: self.received,
            length: self.length,
            state: self.outcome.clone().unwrap_or(stored),
        }
    }
}

impl State {
    /// A study.
    ///
    /// # Errors
    /// A refusal by `not-found`.
    pub fn study(&self, id: &Digest) -> Result<&Study, Refusal> {
        self.studies.get(id).ok_or_else(|| {
            Refusal::new(Check::NotFound, "a study of this host", id)
                .next("publish its manifest first: sealfold study approve")
        })
    }

    /// A study, to change it.
    ///
    /// # Errors
    /// A refusal by `not-found`.
    pub fn study_mut(&mut self, id: &Digest) -> Result<&mut Study, Refusal> {
        self.study(id)?;
        self.studies.get_mut(id).ok_or_else(|| Refusal::new(Check::NotFound, "a study", id))
    }

    /// The uploads under an offer, by site.
    #[must_use]
    pub fn uploads_of(&self, offer: &Digest) -> Vec<UploadStatus> {
        let uploads = self.uploads.values();
        let mut found: Vec<_> = uploads
            .filter(|upload| upload.header.statement().offer == *offer)
            .map(Upload::status)
            .collect();
        found.sort_by(|a, b| a.site.cmp(&b.site));
        found
    }

    /// A round, for replies.
    ///
    /// # Errors
    /// A refusal by `not-found`.
    pub fn round_status(&self, id: &Digest, number: u32) -> Result<RoundStatus, Refusal> {
        let study = self.study(id)?;
        let rounds = study.last_round();
        if number == 0 || number > rounds {
            return Err(Refusal::new(
                Check::NotFound,
                format!("a round from 1 to {rounds}"),
                number,
            ));
        }
        let empty = Round::default();
        let round = study.rounds.get(&number).unwrap_or(&empty);
        let envelope = |bytes: &[u8]| Envelope(bytes.to_vec());
        let uploads = round.offer.as_ref().map(|offer| self.uploads_of(&offer.digest()));
        let released = round.release.as_ref().filter(|_| round.has_aggregate);
        let abandoned = round
            .abandonments
            .values()
            .flat_map(Candidates::iter)
            .filter_map(|a| a.envelope().ok());
        let waiting_for = if released.is_some() {
            "nothing: the round is released".to_owned()
        } else {
            study.waiting_for.clone()
        };
        Ok(RoundStatus {
            round: number,
            phase: if released.is_some() { Phase::Released } else { round.phase },
            offer: round.offer.as_ref().map(|offer| envelope(offer.envelope())),
            uploaded: complete(uploads.as_deref().unwrap_or_default()),
            uploads: uploads.unwrap_or_default(),
            roster: round.roster.as_ref().map(|roster| envelope(roster.envelope())),
            roster_leaf: round.logged.map(|logged| logged.leaf),
            commits: round.commits.values().cloned().collect(),
            release: released.map(|release| envelope(release.envelope())),
            abandonments: abandoned.map(Envelope).collect(),
            waiting_for,
        })
    }
}

/// The sites whose uploads are complete and not refused.
fn complete(uploads: &[UploadStatus]) -> Vec<String> {
    let is_complete =
        |state: &UploadState| matches!(state, UploadState::Stored | UploadState::Admitted(_));
    let complete = uploads.iter().filter(|upload| is_complete(&upload.state));
    complete.map(|upload| upload.site.clone()).collect()
}
