//! A study as the host knows it: its manifests, who its parties are, and how far
//! its rounds are.

use crate::candidates::Candidates;
use crate::state::Round;
use sealfold_protocol::api::{PendingAmendment, StudyStatus};
use sealfold_protocol::bytes::Envelope;
use sealfold_protocol::offer::Offer;
use sealfold_protocol::report::ModelReport;
use sealfold_protocol::terms::Terms;
use sealfold_protocol::{Digest, MultiSigned, Signed, VerifyingKey};
use sealfold_study::{Accountant, Manifest, PrivacySpent, Study as Approved};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;

/// A study.
#[derive(Debug)]
pub struct Study {
    chain: Chain,
    /// Amendments of the last manifest that are not in force yet.
    pub pending: Candidates<Manifest>,
    /// The sites of the manifest in force, by key.
    sites: HashMap<VerifyingKey, String>,
    /// Its approvers.
    approvers: BTreeSet<VerifyingKey>,
    /// What a round costs; none without privacy noise. No amendment changes it.
    accountant: Option<Accountant>,
    /// Whether the initial model is in the store.
    pub has_model: bool,
    /// By number.
    pub rounds: BTreeMap<u32, Round>,
    /// What it waits for, in words.
    pub waiting_for: String,
}

/// A study's manifests.
#[derive(Debug)]
enum Chain {
    /// The first, which lacks approvals.
    Proposed(Box<MultiSigned<Manifest>>),
    /// Those that are approved, from the first to the one in force.
    Approved(Approved),
}

impl Chain {
    fn of(first: MultiSigned<Manifest>) -> Self {
        match Approved::open(first.clone()) {
            Ok(study) => Self::Approved(study),
            Err(_) => Self::Proposed(Box::new(first)),
        }
    }
}

/// What a key is in a study.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// A site of the manifest in force, or of the latest offer's.
    Site(String),
    /// An approver of the manifest in force.
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
        let mechanism = first.statement().mechanism();
        let accountant = mechanism.and_then(|mechanism| mechanism.accountant().ok());
        let mut study = Self {
            accountant,
            chain: Chain::of(first),
            pending: Candidates::default(),
            sites: HashMap::new(),
            approvers: BTreeSet::new(),
            has_model: false,
            rounds: BTreeMap::new(),
            waiting_for: String::new(),
        };
        study.index();
        study
    }

    /// The manifests, oldest first; only the first may lack approvals.
    #[must_use]
    pub fn manifests(&self) -> &[MultiSigned<Manifest>] {
        match &self.chain {
            Chain::Proposed(first) => std::slice::from_ref(&**first),
            Chain::Approved(study) => study.manifests(),
        }
    }

    /// The last of them.
    #[must_use]
    pub fn last(&self) -> &MultiSigned<Manifest> {
        match &self.chain {
            Chain::Proposed(first) => first,
            Chain::Approved(study) => study.current(),
        }
    }

    /// Takes over further signatures of the last manifest.
    ///
    /// # Errors
    /// If it is another.
    pub fn merge(&mut self, manifest: &MultiSigned<Manifest>) -> sealfold_protocol::Result<()> {
        match &mut self.chain {
            Chain::Approved(study) => study.merge(manifest)?,
            Chain::Proposed(first) => {
                first.merge(manifest)?;
                self.chain = Chain::of(*first.clone());
            }
        }
        self.index();
        Ok(())
    }

    /// Puts an amendment in force; those that were pending beside it follow no
    /// more.
    ///
    /// # Errors
    /// If it does not follow.
    pub fn amend(&mut self, amendment: MultiSigned<Manifest>) -> sealfold_protocol::Result<()> {
        let Chain::Approved(study) = &mut self.chain else {
            return self.expect_amendment(&amendment);
        };
        study.amend(amendment)?;
        self.pending = Candidates::default();
        self.index();
        Ok(())
    }

    /// Whether an amendment would be in force with more signatures.
    ///
    /// # Errors
    /// If it does not name the last manifest, or changes what no amendment may;
    /// [`sealfold_protocol::Error::Approvals`] while there is nothing to amend.
    pub fn expect_amendment(
        &self,
        amendment: &MultiSigned<Manifest>,
    ) -> sealfold_protocol::Result<()> {
        match &self.chain {
            Chain::Proposed(first) => Approved::open(*first.clone()).map(|_| ()),
            Chain::Approved(study) => match study.clone().amend(amendment.clone()) {
                Ok(()) | Err(sealfold_protocol::Error::Approvals { .. }) => Ok(()),
                Err(error) => Err(error),
            },
        }
    }

    /// The pending amendment that has all its approvals.
    #[must_use]
    pub fn approved_amendment(&self) -> Option<MultiSigned<Manifest>> {
        let study = self.approved()?;
        self.pending.iter().find(|next| study.clone().amend((*next).clone()).is_ok()).cloned()
    }

    fn index(&mut self) {
        let terms = self.terms();
        let sites = terms.sites.iter().map(|site| (site.signing_key, site.name.clone()));
        let (sites, approvers) = (sites.collect(), terms.approval.approvers.clone());
        self.sites = sites;
        self.approvers = approvers.into_iter().collect();
    }

    /// What a key is in this study, by the manifest in force alone: an amendment
    /// that lacks approvals makes nobody a party. A key that an amendment replaced
    /// stands for its site until the next offer: the round that runs is under the
    /// older manifest.
    #[must_use]
    pub fn standing(&self, key: &VerifyingKey) -> Option<Standing> {
        if let Some(name) = self.sites.get(key) {
            return Some(Standing::Site(name.clone()));
        }
        let offer = self.rounds.values().rev().find_map(|round| round.offer.as_ref());
        let manifest = offer.map(|offer| offer.statement().manifest);
        let manifest = self.manifests().iter().find(|known| Some(known.digest()) == manifest);
        let mut sites = manifest.iter().flat_map(|manifest| &manifest.statement().terms.sites);
        if let Some(site) = sites.find(|site| site.signing_key == *key) {
            return Some(Standing::Site(site.name.clone()));
        }
        self.approvers.contains(key).then_some(Standing::Approver)
    }

    /// The manifests, once the first is approved.
    #[must_use]
    pub fn approved(&self) -> Option<&Approved> {
        match &self.chain {
            Chain::Proposed(_) => None,
            Chain::Approved(study) => Some(study),
        }
    }

    /// The manifest in force, or the first while it lacks approvals.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        self.last().statement()
    }

    /// The terms of that manifest.
    #[must_use]
    pub fn terms(&self) -> &Terms {
        &self.manifest().terms
    }

    /// The terms that a round's offer stands under, which an amendment does not
    /// change.
    ///
    /// # Errors
    /// If there is no offer, or its manifest is not known.
    pub fn under(&self, offer: Option<&Offer>) -> sealfold_protocol::Result<&Terms> {
        let wrong = |found: &str| sealfold_protocol::Error::Signer {
            what: "statement",
            expected: "a site of a round with an offer".to_owned(),
            found: found.to_owned(),
        };
        let manifest = offer.ok_or_else(|| wrong("a round without one"))?.manifest;
        let manifest = self.manifests().iter().find(|known| known.digest() == manifest);
        let manifest = manifest.ok_or_else(|| wrong("an offer under an unknown manifest"))?;
        Ok(&manifest.statement().terms)
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
            let terms = self.terms();
            Signed::<ModelReport>::open_by(envelope, |report| {
                terms.site(&report.site).map(|site| site.signing_key)
            })
        };
        then.or_else(now).map(|report| report.statement().clone())
    }

    /// The privacy that the rounds up to this one spent; none without privacy
    /// noise. What an abandoned offer may have released is not in it.
    #[must_use]
    pub fn spent(&self, round: u32) -> Option<PrivacySpent> {
        let delta = self.manifest().agreement.claim?.delta;
        let epsilon = self.accountant.as_ref()?.spent(round.into()).ok()?;
        Some(PrivacySpent { epsilon, delta })
    }

    /// What is missing before rounds can run.
    #[must_use]
    pub fn missing(&self) -> Vec<String> {
        let mut missing = Vec::new();
        let terms = self.terms();
        if self.approved().is_none() {
            let approval = &terms.approval;
            let found = self.last().expect_approvals(&approval.approvers, 0).unwrap_or(0);
            missing.push(format!("approvals: {found} of {} are there", approval.required));
        }
        let signers = self.last().signers();
        let signed = match self.approved() {
            Some(study) => study.participants().len(),
            None => terms.sites.iter().filter(|s| signers.contains(&s.signing_key)).count(),
        };
        let smallest = terms.quorum.smallest_roster;
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
        if self.is_offered(next) { next } else { next.min(self.terms().last_round()) }
    }

    /// The number of the last round that there is or will be.
    #[must_use]
    pub fn last_round(&self) -> u32 {
        self.terms().last_round().max(self.current_round())
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
        let is_over = self.rounds_done() >= self.terms().last_round();
        is_over.then(|| "nothing: all rounds are done".to_owned())
    }

    /// For replies.
    #[must_use]
    pub fn status(&self, id: Digest) -> StudyStatus {
        let manifest = self.manifest();
        let missing = self.missing();
        let envelopes = self.manifests().iter().filter_map(|m| m.envelope().ok()).map(Envelope);
        let pending = self.pending.iter().map(|amendment| PendingAmendment {
            manifest: amendment.digest(),
            signers: amendment.signers().into_iter().collect(),
        });
        StudyStatus {
            study: id,
            name: manifest.agreement.study.name.clone(),
            manifests: envelopes.collect(),
            pending: pending.collect(),
            active: missing.is_empty(),
            missing,
            rounds_done: self.rounds_done(),
            rounds: manifest.terms.last_round(),
        }
    }
}
