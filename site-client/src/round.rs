//! The steps of a round up to the commit, each of which can be repeated after
//! a crash.

use crate::binding::Binding;
use crate::client::Client;
use crate::error::SiteRefusal;
use crate::home::{read_json, write_json};
use crate::keys::Keys;
use crate::log::Watch;
use crate::measured;
use crate::report::Voice;
use crate::study::Joined;
use crate::update::Trained;
use crate::{Error, Result};
use jiff::Timestamp;
use sealfold_attestation::{Claims, Evidence, Policy, Verdict, verify_live};
use sealfold_protocol::abandonment::Abandonment;
use sealfold_protocol::api::RoundStatus;
use sealfold_protocol::bytes::Random;
use sealfold_protocol::offer::Offer;
use sealfold_protocol::refusal::{Check, Refusal};
use sealfold_protocol::roster::{Commit, Roster};
use sealfold_protocol::terms::Model;
use sealfold_protocol::{Digest, MultiSigned, Signed};
use sealfold_study::Manifest;
use std::path::PathBuf;

/// A site at work on one study.
pub struct Site<'a> {
    /// Its keys.
    pub keys: &'a Keys,
    /// Its policy.
    pub policy: &'a Policy,
    /// The host.
    pub client: &'a Client,
    /// How it speaks.
    pub voice: Voice,
    /// The study.
    pub joined: Joined,
}

impl Site<'_> {
    pub(crate) fn id(&self) -> Digest {
        self.joined.local.id
    }

    pub(crate) fn model(&self) -> &Model {
        &self.joined.manifest().terms.model
    }

    /// The round that the site expects, as the host knows it.
    ///
    /// # Errors
    /// As [`Client::round`].
    pub fn status(&self) -> Result<RoundStatus> {
        self.client.round(&self.id(), self.joined.next()?.round)
    }

    /// Looks at what the host shows of this site's own commits, which it must
    /// remember, and of abandonments, which let it go on. The rounds that were
    /// abandoned, with the reasons.
    ///
    /// # Errors
    /// A refusal by `state-restored`; [`Error::File`].
    pub fn notice(
        &self,
        binding: &mut Binding,
        status: &RoundStatus,
    ) -> Result<Vec<(u32, String)>> {
        for commit in &status.commits {
            let mine = Signed::<Commit>::open(&commit.0, &self.keys.signing.verifying_key());
            if let Ok(commit) = mine {
                binding.expect_remembered(&commit.statement().roster)?;
            }
        }
        let mut abandoned = Vec::new();
        for envelope in &status.abandonments {
            // One that still lacks signatures is none yet.
            let opened = Abandonment::open(&envelope.0, &self.id(), &self.joined.manifest().terms);
            let Ok(abandonment) = opened else { continue };
            let statement = abandonment.statement();
            if binding.bound_to(statement.round) == Some(statement.offer) {
                if self.joined.manifest().terms.privacy.noise().is_some() {
                    // Trained on a sample that may have been released. It goes
                    // first: after a crash in between this is done again, and no
                    // second offer gets the same sample.
                    self.forget_sample(statement.round)?;
                    Trained::of(&self.joined.local, statement.round).clear()?;
                }
                binding.abandon(statement.round, statement.offer)?;
                abandoned.push((statement.round, statement.reason.clone()));
            }
        }
        Ok(abandoned)
    }

    /// The offer that stands, if it is the one that follows in this site's own
    /// chain.
    ///
    /// # Errors
    /// A refusal by `chain` naming the link that does not fit.
    pub fn offer(&self, status: &RoundStatus) -> Result<Option<Signed<Offer>>> {
        let Some(envelope) = &status.offer else { return Ok(None) };
        let offer = Offer::open(&envelope.0)?;
        let mut next = self.joined.next()?;
        let manifest = offer.statement().manifest;
        // An amendment takes effect after a release: an offer that this site
        // verified before it, or a round that is released, stays under its own.
        let is_older = status.release.is_some() || self.has_verified(&offer)?;
        if is_older && self.joined.under(&manifest).is_some() {
            next.manifest = manifest;
        }
        offer.statement().expect(&next)?;
        Ok(Some(offer))
    }

    /// The manifest of an offer.
    pub(crate) fn terms(&self, offer: &Signed<Offer>) -> &MultiSigned<Manifest> {
        let manifest = &offer.statement().manifest;
        self.joined.under(manifest).unwrap_or_else(|| self.joined.study.current())
    }

    /// Verifies the enclave behind an offer, now, with a nonce of this site's.
    ///
    /// # Errors
    /// As [`Client::evidence`].
    pub fn verdict(&self, offer: &Signed<Offer>) -> Result<Verdict> {
        let nonce = Random::draw()?;
        let reply = self.client.evidence(&self.id(), offer.statement().round, nonce)?;
        if reply.offer != offer.digest() {
            // The enclave was restarted and the host has not noticed yet.
            return Err(Refusal::new(Check::Evidence, offer.digest(), reply.offer)
                .next("the enclave behind this offer is gone; the host will show another")
                .into());
        }
        let evidence = Evidence::of(&reply.platform, &reply.document.0)?;
        let (digest, now) = (offer.digest(), Timestamp::now());
        Ok(verify_live(&evidence, self.policy, digest.as_bytes(), nonce.as_bytes(), now))
    }

    /// As [`Site::verdict`], and the image must be one of the manifest's.
    /// Remembers that the offer was verified.
    ///
    /// # Errors
    /// [`Error::Evidence`], or a refusal by `measurements`.
    pub fn verify(&self, offer: &Signed<Offer>) -> Result<()> {
        self.expect_measured(offer, &self.verdict(offer)?.into_claims()?)?;
        let path = self.verified(offer.statement().round);
        let mut verified: Vec<Digest> = read_json(&path)?.unwrap_or_default();
        if !verified.contains(&offer.digest()) {
            verified.push(offer.digest());
        }
        write_json(&path, &verified)
    }

    fn verified(&self, round: u32) -> PathBuf {
        self.joined.local.round(round).join("verified-offers.json")
    }

    /// Whether this site has verified the enclave behind an offer.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn has_verified(&self, offer: &Signed<Offer>) -> Result<bool> {
        let verified: Option<Vec<Digest>> = read_json(&self.verified(offer.statement().round))?;
        Ok(verified.is_some_and(|verified| verified.contains(&offer.digest())))
    }

    /// Whether the image behind verified evidence is one of the manifest's.
    ///
    /// # Errors
    /// A refusal by `measurements`.
    pub fn expect_measured(&self, offer: &Signed<Offer>, claims: &Claims) -> Result<()> {
        measured::expect_listed(&self.terms(offer).statement().agreement.measurements, claims)
    }

    /// The roster of an offer, checked as a site must check it before it
    /// commits: signed by the instance whose evidence it verified, at least k
    /// listed sites that take part, this site's own update in it.
    ///
    /// # Errors
    /// A refusal by `roster` or `not-on-roster`.
    pub fn roster(&self, offer: &Signed<Offer>, envelope: &[u8]) -> Result<Signed<Roster>> {
        let roster = Signed::<Roster>::open(envelope, &offer.statement().instance_key)?;
        let (statement, of) = (roster.statement(), offer.statement());
        let refuse = |expected: String, found: String| {
            Error::from(SiteRefusal::new("roster", expected, found))
        };
        if (statement.study, statement.round, statement.offer)
            != (of.study, of.round, offer.digest())
        {
            let found = format!("offer {} round {}", statement.offer, statement.round);
            return Err(refuse(format!("offer {} round {}", offer.digest(), of.round), found));
        }
        let terms = self.terms(offer);
        statement.check(terms.statement().terms.quorum.smallest_roster)?;
        let signers = terms.signers();
        for site in statement.sites() {
            if !signers.contains(&terms.statement().terms.site(site)?.signing_key) {
                return Err(refuse("sites that signed the manifest".to_owned(), site.to_owned()));
            }
        }
        Ok(roster)
    }

    /// Whether the study's rounds and its abandoned offers, each of which counts
    /// as a round, leave room for one more under privacy noise.
    ///
    /// # Errors
    /// A refusal by `budget`.
    pub fn expect_budget(&self, binding: &Binding) -> Result<()> {
        let manifest = self.joined.manifest();
        let (rounds, round) = (manifest.terms.last_round(), self.joined.next()?.round);
        let abandoned = binding.abandoned();
        if manifest.terms.privacy.noise().is_none() || round.saturating_add(abandoned) <= rounds {
            return Ok(());
        }
        let expected = format!("at most {rounds} rounds, abandoned offers counted");
        let found = format!("{} released and {abandoned} abandoned", round - 1);
        Err(SiteRefusal::new("budget", expected, found)
            .next("the study's privacy is spent; its last model is what sealfold fetch gives")
            .into())
    }

    /// Commits to a roster that is leaf `leaf` of the log. The binding is on disk
    /// before anything is sent.
    ///
    /// # Errors
    /// A refusal by `not-on-roster`, or of [`Binding::commit`]; as
    /// [`Watch::commit_at`] and [`Client::commit`].
    pub fn commit(
        &self,
        binding: &mut Binding,
        offer: &Signed<Offer>,
        roster: &Signed<Roster>,
        leaf: u64,
        header: &Digest,
    ) -> Result<()> {
        let statement = roster.statement();
        if statement.header_of(&self.keys.site) != Some(*header) {
            let found = statement.header_of(&self.keys.site);
            let found = found.map_or("none".to_owned(), |digest| digest.to_string());
            return Err(SiteRefusal::new("not-on-roster", header, found).into());
        }
        if !self.has_verified(offer)? {
            return Err(
                SiteRefusal::new("evidence", "verified evidence of this offer", "none").into()
            );
        }
        self.expect_budget(binding)?;
        // The binding is asked first: what it refuses is refused for good.
        binding.allows(statement.round, &offer.digest())?;
        let watch = Watch {
            client: self.client,
            policy: self.policy,
            keys: self.keys,
            log: &self.joined.manifest().agreement.log,
            kept: &self.joined.local.folder.join("checkpoint"),
        };
        let checkpoint = watch.commit_at(&roster.digest(), leaf)?;
        let k = self.terms(offer).statement().terms.quorum.smallest_roster;
        binding.commit(statement, roster.digest(), offer.statement().base, k)?;
        let commit = Signed::sign(
            Commit::to(roster, &self.keys.site, *header, checkpoint),
            &self.keys.signing,
        )?;
        self.client.commit(&self.id(), statement.round, commit.envelope())
    }
}
