//! A study as the host knows it: its manifests, who its parties are, and how far
//! its rounds are.

use crate::state::Round;
use sealfold_protocol::api::StudyStatus;
use sealfold_protocol::bytes::Envelope;
use sealfold_protocol::manifest::Manifest;
use sealfold_protocol::offer::Offer;
use sealfold_protocol::report::ModelReport;
use sealfold_protocol::study::Study as Approved;
use sealfold_protocol::{Digest, MultiSigned, Signed, VerifyingKey};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;

/// A study.
#[derive(Debug)]
pub struct Study {
    /// Oldest first; the last may lack approvals.
    manifests: Vec<MultiSigned<Manifest>>,
    /// The sites of the manifest in force, by key.
    sites: HashMap<VerifyingKey, String>,
    /// Its approvers, and whoever a manifest names that is not in force yet.
    others: BTreeSet<VerifyingKey>,
    /// Whether the initial model is in the store.
    pub has_model: bool,
    /// By number.
    pub rounds: BTreeMap<u32, Round>,
    /// What it waits for, in words.
    pub waiting_for: String,
}

/// What a key is in a study.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// A site of the manifest in force, or of the latest offer's.
    Site(String),
    /// An approver, or a site that an amendment names which is not in force.
    Approver,
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Site(name) => f.write_str(name),
            Self::Approver => f.write_str("approver"),
        }
    }
}

impl Study {
    /// A study that was just heard of.
    #[must_use]
    pub fn new(first: MultiSigned<Manifest>) -> Self {
        let mut study = Self {
            manifests: vec![first],
            sites: HashMap::new(),
            others: BTreeSet::new(),
            has_model: false,
            rounds: BTreeMap::new(),
            waiting_for: String::new(),
        };
        study.index();
        study
    }

    /// The manifests, oldest first; the last may lack approvals.
    #[must_use]
    pub fn manifests(&self) -> &[MultiSigned<Manifest>] {
        &self.manifests
    }

    /// Puts a manifest at a place: in place of the one there, or behind the last.
    pub fn put_manifest(&mut self, place: usize, manifest: MultiSigned<Manifest>) {
        match self.manifests.get_mut(place) {
            Some(known) => *known = manifest,
            None => self.manifests.push(manifest),
        }
        self.index();
    }

    fn index(&mut self) {
        let current = self.manifest();
        let last = self.manifests.last().map(|manifest| manifest.statement().clone());
        let all = [Some(current.clone()), last];
        let named = |manifest: Manifest| {
            let sites = manifest.sites.into_iter().map(|site| site.signing_key);
            manifest.approval.approvers.into_iter().chain(sites).collect::<Vec<_>>()
        };
        self.others = all.into_iter().flatten().flat_map(named).collect();
        let sites = current.sites.into_iter();
        self.sites = sites.map(|site| (site.signing_key, site.name)).collect();
    }

    /// What a key is in this study. A key that an amendment replaced stands for
    /// its site until the next offer: the round that runs is under the older
    /// manifest.
    #[must_use]
    pub fn standing(&self, key: &VerifyingKey) -> Option<Standing> {
        if let Some(name) = self.sites.get(key) {
            return Some(Standing::Site(name.clone()));
        }
        let offer = self.rounds.values().rev().find_map(|round| round.offer.as_ref());
        let manifest = offer.map(|offer| offer.statement().manifest);
        let manifest = self.manifests.iter().find(|known| Some(known.digest()) == manifest);
        let mut sites = manifest.iter().flat_map(|manifest| &manifest.statement().sites);
        if let Some(site) = sites.find(|site| site.signing_key == *key) {
            return Some(Standing::Site(site.name.clone()));
        }
        self.others.contains(key).then_some(Standing::Approver)
    }

    /// The approved part of the chain, if the first manifest is approved.
    #[must_use]
    pub fn approved(&self) -> Option<Approved> {
        let mut manifests = self.manifests.iter();
        let mut study = Approved::open(manifests.next()?.clone()).ok()?;
        for amendment in manifests {
            if study.amend(amendment.clone()).is_err() {
                break;
            }
        }
        Some(study)
    }

    /// The manifest in force, or the first while it lacks approvals.
    #[must_use]
    pub fn manifest(&self) -> Manifest {
        self.approved().map_or_else(
            || self.manifests[0].statement().clone(),
            |study| study.current().statement().clone(),
        )
    }

    /// The manifest that a round's offer stands under, which an amendment does
    /// not change.
    ///
    /// # Errors
    /// If there is no offer, or its manifest is not known.
    pub fn under(&self, offer: Option<&Offer>) -> sealfold_protocol::Result<&Manifest> {
        let wrong = |found: &str| sealfold_protocol::Error::Signer {
            what: "statement",
            expected: "a site of a round with an offer".to_owned(),
            found: found.to_owned(),
        };
        let manifest = offer.ok_or_else(|| wrong("a round without one"))?.manifest;
        let manifest = self.manifests.iter().find(|known| known.digest() == manifest);
        let manifest = manifest.ok_or_else(|| wrong("an offer under an unknown manifest"))?;
        Ok(manifest.statement())
    }

    /// The signing key that a site has in a round, under the manifest of its offer.
    ///
    /// # Errors
    /// If there is no such offer, or its manifest does not list the site.
    pub fn key_in(
        &self,
        offer: Option<&Offer>,
        site: &str,
    ) -> sealfold_protocol::Result<VerifyingKey> {
        self.under(offer)?.site(site).map(|site| site.signing_key)
    }

    /// Opens a site's report of the model that a round led to. A site that was
    /// given a new key since signs it with that.
    ///
    /// # Errors
    /// If it is signed with neither.
    pub fn open_report(
        &self,
        offer: Option<&Offer>,
        envelope: &[u8],
    ) -> sealfold_protocol::Result<ModelReport> {
        let then = Signed::<ModelReport>::open_by(envelope, |r| self.key_in(offer, &r.site));
        let now = |_| {
            let manifest = self.manifest();
            Signed::<ModelReport>::open_by(envelope, |report| {
                manifest.site(&report.site).map(|site| site.signing_key)
            })
        };
        then.or_else(now).map(|report| report.statement().clone())
    }

    /// What is missing before rounds can run.
    #[must_use]
    pub fn missing(&self) -> Vec<String> {
        let mut missing = Vec::new();
        let manifest = self.manifest();
        if self.approved().is_none() {
            let approval = &manifest.approval;
            let found = self.manifests[0].expect_approvals(&approval.approvers, 0).unwrap_or(0);
            missing.push(format!("approvals: {found} of {} are there", approval.required));
        }
        let signers = self.manifests[0].signers();
        let signed = match self.approved() {
            Some(study) => study.participants().len(),
            None => manifest.sites.iter().filter(|s| signers.contains(&s.signing_key)).count(),
        };
        let smallest = manifest.quorum.smallest_roster;
        if signed < smallest {
            missing.push(format!("signatures of sites: {signed} of at least {smallest} are there"));
        }
        if !self.has_model {
            missing.push("the initial model (--model FILE publishes it)".to_owned());
        }
        missing
    }

    /// Rounds that are released.
    #[must_use]
    pub fn rounds_done(&self) -> u32 {
        let released = self.rounds.values().filter(|round| round.release.is_some()).count();
        u32::try_from(released).unwrap_or(u32::MAX)
    }

    /// The round that runs or is to be run, or the last.
    #[must_use]
    pub fn current_round(&self) -> u32 {
        let next = self.rounds_done() + 1;
        if self.is_offered(next) { next } else { next.min(self.manifest().study.rounds) }
    }

    /// The number of the last round that there is or will be.
    #[must_use]
    pub fn last_round(&self) -> u32 {
        self.manifest().study.rounds.max(self.current_round())
    }

    fn is_offered(&self, round: u32) -> bool {
        self.rounds.get(&round).is_some_and(|round| round.offer.is_some())
    }

    /// Why no offer can be made now, in words. A round that has its offer goes on
    /// under the manifest of that offer, whatever this says.
    #[must_use]
    pub fn expects_first(&self) -> Option<String> {
        let missing = self.missing();
        if !missing.is_empty() {
            return Some(missing.join(" and "));
        }
        let is_over = self.rounds_done() >= self.manifest().study.rounds;
        is_over.then(|| "nothing: all rounds are done".to_owned())
    }

    /// For replies.
    #[must_use]
    pub fn status(&self, id: Digest) -> StudyStatus {
        let manifest = self.manifest();
        let missing = self.missing();
        let envelopes = self.manifests.iter().filter_map(|m| m.envelope().ok()).map(Envelope);
        StudyStatus {
            study: id,
            name: manifest.study.name,
            manifests: envelopes.collect(),
            active: missing.is_empty(),
            missing,
            rounds_done: self.rounds_done(),
            rounds: manifest.study.rounds,
        }
    }
}
