//! A study as its leaves tell it: the chain of manifests, of rounds, of
//! releases.

use crate::agreement;
use crate::finding::{Check, Finding};
use crate::privacy::{Account, Place};
use crate::round::{Measured, Offered, Round};
use crate::summary::Released;
use jiff::{SignedDuration, Timestamp};
use sealfold_attestation::{Evidence, Policy, verify_replay};
use sealfold_protocol::offer::Offer;
use sealfold_protocol::release::Release;
use sealfold_protocol::roster::{Commit, Roster};
use sealfold_protocol::terms::{RoundKind, Terms};
use sealfold_protocol::{Digest, Error, MultiSigned, Signed, VerifyingKey};
use sealfold_study::{Manifest, Study as Chain};
use std::collections::BTreeMap;

mod earlier;
mod ending;

/// A study.
pub struct Study {
    chain: Chain,
    /// Of its manifests, oldest first: a manifest may be large, and is asked for
    /// at every leaf.
    digests: Vec<Digest>,
    last: Option<Last>,
    round: Option<Round>,
    /// Offers of rounds before that one, which may still be abandoned.
    earlier: earlier::Offers,
    /// The latest time of any evidence so far.
    clock: Option<(Timestamp, &'static str)>,
    images: BTreeMap<String, u64>,
    took_part: BTreeMap<String, u64>,
    released: u64,
    account: Account,
}

/// The release that the next offer goes on from.
struct Last {
    round: u32,
    release: Digest,
    /// The place of its manifest in the chain.
    manifest: usize,
    /// The clip that it leads to, if the clip is adaptive.
    clip: Option<f64>,
    /// The model that it leads to, if it changed none: after an evaluation round.
    unchanged: Option<Digest>,
}

impl Study {
    /// Begins with a first manifest.
    ///
    /// # Errors
    /// A finding by `manifest`.
    pub fn begin(first: MultiSigned<Manifest>) -> Result<Self, Finding> {
        let account = Account::open(first.statement())?;
        let chain = Chain::open(first).map_err(|error| not_approved(&error))?;
        Ok(Self {
            account,
            digests: vec![chain.id()],
            chain,
            last: None,
            round: None,
            earlier: earlier::Offers::default(),
            clock: None,
            images: BTreeMap::new(),
            took_part: BTreeMap::new(),
            released: 0,
        })
    }

    /// Its identity.
    #[must_use]
    pub fn id(&self) -> Digest {
        // It begins with one manifest, and only gets more.
        self.digests[0]
    }

    /// The place of a manifest in the chain.
    fn place(&self, manifest: &Digest) -> Option<usize> {
        self.digests.iter().position(|known| known == manifest)
    }

    /// Its manifests, oldest first.
    #[must_use]
    pub fn chain(&self) -> &Chain {
        &self.chain
    }

    /// Adds an amendment, or further signatures of the manifest in force.
    pub fn manifest(
        &mut self,
        manifest: MultiSigned<Manifest>,
        policy: &Policy,
        findings: &mut Vec<Finding>,
    ) {
        let digest = manifest.digest();
        if let Some(place) = self.place(&digest) {
            let known = &self.chain.manifests()[place];
            if manifest.signers().is_subset(&known.signers()) {
                let found = "no signature more than before";
                findings.push(Finding::new(Check::LeafTwice, "further signatures", found));
            }
            // A signature of one that was amended since changes nothing.
            if digest == self.chain.current().digest()
                && let Err(error) = self.chain.merge(&manifest)
            {
                findings.push(not_approved(&error));
            }
            return;
        }
        findings.extend(agreement::against_policy(&manifest, policy));
        match self.chain.amend(manifest) {
            Ok(()) => self.digests.push(digest),
            Err(error) => findings.push(not_approved(&error)),
        }
    }

    /// The key of the instance that made an offer of the round that runs.
    ///
    /// # Errors
    /// [`Error::Link`] if no such offer is in the log.
    pub fn instance(&self, what: &'static str, offer: &Digest) -> Result<VerifyingKey, Error> {
        let found = self.round.as_ref().and_then(|round| round.instance(offer));
        found.ok_or_else(|| self.unknown_offer(what, offer))
    }

    fn unknown_offer(&self, what: &'static str, offer: &Digest) -> Error {
        let round = self.round.as_ref().map_or(1, |round| round.number);
        let expected = format!("an offer of round {round} before it in the log");
        Error::Link { what, expected, found: offer.to_string() }
    }

    /// The key of a site under an offer of the round that runs.
    ///
    /// # Errors
    /// [`Error::Link`] or [`Error::Signer`].
    pub fn site_key(&self, commit: &Commit) -> Result<VerifyingKey, Error> {
        let offers = self.round.as_ref().map(|round| &round.offers);
        let offered = offers.and_then(|offers| offers.get(&commit.offer));
        let offered = offered.ok_or_else(|| self.unknown_offer("commit's offer", &commit.offer))?;
        let place = self.place(&offered.offer.statement().manifest);
        let manifest = place.and_then(|place| self.chain.manifests().get(place));
        let manifest = manifest.unwrap_or(self.chain.current());
        manifest.statement().terms.site(&commit.site).map(|site| site.signing_key)
    }

    /// Adds an offer, and verifies its evidence at the document's own time.
    pub fn offer(
        &mut self,
        leaf: u64,
        offer: Signed<Offer>,
        evidence: Option<&Evidence>,
        policy: &Policy,
        findings: &mut Vec<Finding>,
    ) {
        let statement = offer.statement().clone();
        let place = self.place(&statement.manifest);
        let oldest = self.last.as_ref().map_or(0, |last| last.manifest);
        let Some(place) = place.filter(|place| *place >= oldest) else {
            let expected =
                "an approved manifest before it in the log, in force since the last release";
            findings.push(Finding::new(Check::Manifest, expected, statement.manifest));
            return;
        };
        let manifest = self.chain.manifests()[place].clone();
        let measured = evidence.and_then(|evidence| {
            self.evidence(&manifest, &offer.digest(), evidence, policy, findings)
        });
        let terms = &manifest.statement().terms;
        self.links(terms, &statement, findings);
        let signers = manifest.signers();
        let taking_part = terms.sites.iter().filter(|site| signers.contains(&site.signing_key));
        let offered = Offered::new(
            leaf,
            offer,
            taking_part.map(|site| site.name.clone()).collect(),
            terms.quorum.smallest_roster,
            terms.deadlines.round_seconds,
            measured,
        );
        let number = self.next();
        if statement.round != number {
            // Told of by `links`; the round that runs is not disturbed.
            return;
        }
        let is_new = self.round.as_ref().is_none_or(|round| round.number != number);
        if is_new && let Some(over) = self.round.replace(Round::new(number)) {
            self.earlier.add(&over);
        }
        if let Some(round) = &mut self.round
            && let Err(finding) = round.offer(offered)
        {
            findings.push(finding);
        }
    }

    fn next(&self) -> u32 {
        self.last.as_ref().map_or(1, |last| last.round.saturating_add(1))
    }

    /// Whether an offer continues the chain of rounds.
    fn links(&self, terms: &Terms, offer: &Offer, findings: &mut Vec<Finding>) {
        let mut expect = |what: &str, expected: String, found: String| {
            if expected != found {
                findings.push(Finding::new(Check::Chain, format!("{what} {expected}"), found));
            }
        };
        let show = |digest: Option<Digest>| digest.map_or("none".to_owned(), |d| d.to_string());
        expect("round", self.next().to_string(), offer.round.to_string());
        let previous = self.last.as_ref().map(|last| last.release);
        expect("previous release", show(previous), show(offer.previous));
        let clip = terms.round_clip(self.last.as_ref().and_then(|last| last.clip));
        let show = |clip: Option<f64>| clip.map_or("none".to_owned(), |clip| clip.to_string());
        expect("clip", show(clip), show(offer.clip));
        let last_round = terms.last_round();
        if offer.round > last_round {
            expect("a round up to", last_round.to_string(), offer.round.to_string());
        }
        // What a training round leads to only the readers of its release can
        // compute. That all offers of a round go on from one model can be seen, and
        // that an evaluation round left the model as it was.
        let standing = self.round.as_ref().filter(|round| round.number == offer.round);
        let standing = standing.and_then(|round| round.offers.values().next());
        let unchanged = self.last.as_ref().filter(|_| offer.round == self.next());
        let base = match offer.round {
            1 => Some(terms.model.initial),
            _ => unchanged
                .and_then(|last| last.unchanged)
                .or(standing.map(|known| known.offer.statement().base)),
        };
        if let Some(base) = base {
            expect("base model", base.to_string(), offer.base.to_string());
        }
    }

    fn evidence(
        &mut self,
        manifest: &MultiSigned<Manifest>,
        offer: &Digest,
        evidence: &Evidence,
        policy: &Policy,
        findings: &mut Vec<Finding>,
    ) -> Option<Measured> {
        let claims = match verify_replay(evidence, policy, offer.as_bytes()).into_claims() {
            Ok(claims) => claims,
            Err(refused) => {
                let expected = format!("{}: {}", refused.check, refused.expected);
                findings.push(Finding::new(Check::Evidence, expected, refused.found));
                return None;
            }
        };
        let image = claims.image();
        let agreement = &manifest.statement().agreement;
        if !claims.is_one_of(&agreement.measurements.images(claims.platform())) {
            let expected = "an image that the manifest lists";
            let found = format!("{image} of {}", claims.platform());
            findings.push(Finding::new(Check::Measurements, expected, found));
        }
        let time = i64::try_from(claims.signed_at()).ok();
        let time = time.and_then(|time| Timestamp::from_millisecond(time).ok())?;
        let study = &agreement.study;
        if time < study.valid_from || time > study.valid_until {
            let expected = format!("{} to {}", study.valid_from, study.valid_until);
            findings.push(Finding::new(Check::Validity, expected, time));
        }
        let (platform, simulated) = (claims.platform(), claims.is_simulated());
        if let Some(before) = self.clock.filter(|before| is_before(time, platform, *before)) {
            findings.push(Finding::new(Check::Clock, format!("not before {}", before.0), time));
        }
        self.clock = self.clock.max(Some((time, platform)));
        *self.images.entry(image.clone()).or_default() += 1;
        Some(Measured { time, image, platform, simulated })
    }

    /// Adds a roster, with the digest of the checkpoint that ends with its leaf.
    pub fn roster(
        &mut self,
        roster: Signed<Roster>,
        checkpoint: Digest,
        findings: &mut Vec<Finding>,
    ) {
        if let Some(round) = &mut self.round {
            round.roster(roster, checkpoint, findings);
        }
    }

    /// Adds a commit.
    pub fn commit(&mut self, commit: &Signed<Commit>, findings: &mut Vec<Finding>) {
        if let Some(round) = &mut self.round {
            round.commit(commit, findings);
        }
    }

    /// Adds a release; what it says for the report if it is the round's first.
    pub fn release(
        &mut self,
        leaf: u64,
        release: Signed<Release>,
        findings: &mut Vec<Finding>,
    ) -> Option<Released> {
        let id = self.id();
        let round = self.round.as_mut()?;
        let is_first = round.release.is_none();
        round.release(leaf, release, findings);
        let (leaf, release) = round.release.as_ref().filter(|_| is_first)?;
        let statement = release.statement();
        let offered = round.offers.get(&statement.offer)?;
        let manifest = offered.offer.statement().manifest;
        let place = self.digests.iter().position(|known| *known == manifest).unwrap_or(0);
        let (number, digest) = (round.number, release.digest());
        let manifest = self.chain.manifests().get(place).unwrap_or(self.chain.current());
        let terms = &manifest.statement().terms;
        let kind = terms.kind(number);
        let length = terms.aggregate_length(kind);
        if statement.plain_length != length {
            let expected = format!("an aggregate of {length} bytes");
            let found = format!("{} bytes", statement.plain_length);
            findings.push(Finding::new(Check::Release, expected, found));
        }
        if statement.below_clip.is_some() != terms.first_clip().is_some() {
            let expected = "a count below the clip if the clip is adaptive, and none otherwise";
            findings.push(Finding::new(Check::Release, expected, "the opposite"));
        }
        let clip = terms.next_clip(offered.offer.statement().clip, statement.below_clip);
        let base = offered.offer.statement().base;
        let unchanged = Some(base).filter(|_| kind == RoundKind::Evaluation);
        self.last = Some(Last { round: number, release: digest, manifest: place, clip, unchanged });
        self.released += 1;
        let time = offered.measured.as_ref().map(|measured| measured.time);
        let at = Place { leaf: *leaf, round: number, time };
        self.account.release(at, findings);
        let sites = round.sites();
        for site in &sites {
            *self.took_part.entry(site.clone()).or_default() += 1;
        }
        Some(Released {
            study: id,
            round: number,
            kind,
            manifest: statement.manifest,
            offer_leaf: offered.leaf,
            release_leaf: *leaf,
            release: digest,
            previous: statement.previous,
            base: statement.base,
            aggregate: statement.aggregate,
            sites,
            offers: round.offers.len(),
            abandoned: round.abandoned(),
            measured: offered.measured.clone(),
        })
    }
}

fn not_approved(error: &Error) -> Finding {
    Finding::new(Check::Manifest, "a manifest that follows and is approved", error)
}

/// How far the clocks of two platforms may differ: as far as those of a site and
/// an enclave.
const BETWEEN_PLATFORMS: SignedDuration = SignedDuration::from_secs(60);

/// Whether evidence is older than what stands before it in the log. Of two
/// platforms one counts in milliseconds and one in whole seconds.
fn is_before(time: Timestamp, platform: &str, (before, then): (Timestamp, &str)) -> bool {
    let apart = if platform == then { SignedDuration::ZERO } else { BETWEEN_PLATFORMS };
    before.duration_since(time) > apart
}

#[cfg(test)]
mod tests;
