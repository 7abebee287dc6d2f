//! A round while it runs: offers, rosters, commits, and what became of them.

use crate::finding::{Check, Finding};
use jiff::Timestamp;
use sealfold_protocol::abandonment::Abandonment;
use sealfold_protocol::offer::Offer;
use sealfold_protocol::release::Release;
use sealfold_protocol::roster::{Commit, Roster};
use sealfold_protocol::{Digest, Signed, VerifyingKey};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// The most offers of one round that are followed: a host that makes more is
/// told of, and not allowed to fill the auditor's memory.
const MAX_OFFERS: usize = 256;
/// The most rosters of one offer: each is smaller than the one before.
const MAX_ROSTERS: usize = 200;

/// What the evidence behind an offer says.
#[derive(Debug, Clone, Serialize)]
pub struct Measured {
    /// When it was signed, by the platform's clock.
    pub time: Timestamp,
    /// The image, by the check that compares it first: its PCR0, or the digest of
    /// a container image.
    pub image: String,
    /// The platform.
    pub platform: &'static str,
    /// Whether the evidence is simulated.
    pub simulated: bool,
}

/// An offer under which sites may work.
#[derive(Debug)]
pub struct Offered {
    /// Where it stands in the log.
    pub leaf: u64,
    /// The statement.
    pub offer: Signed<Offer>,
    /// The sites that signed its manifest by then.
    pub participants: BTreeSet<String>,
    /// k, by its manifest.
    pub smallest: usize,
    /// The seconds from the offer to the end of the round, by its manifest.
    pub seconds: u64,
    /// What its evidence says, if it was accepted.
    pub measured: Option<Measured>,
    rosters: Vec<Rostered>,
    abandoned: bool,
}

/// A roster with the sites that have committed to it.
#[derive(Debug)]
struct Rostered {
    roster: Signed<Roster>,
    checkpoint: Digest,
    commits: BTreeSet<String>,
}

/// A round.
#[derive(Debug)]
pub struct Round {
    /// Its number.
    pub number: u32,
    /// By digest.
    pub offers: BTreeMap<Digest, Offered>,
    /// The release and its leaf.
    pub release: Option<(u64, Signed<Release>)>,
}

impl Offered {
    /// An offer without rosters.
    #[must_use]
    pub fn new(
        leaf: u64,
        offer: Signed<Offer>,
        participants: BTreeSet<String>,
        smallest: usize,
        seconds: u64,
        measured: Option<Measured>,
    ) -> Self {
        let (rosters, abandoned) = (Vec::new(), false);
        Self { leaf, offer, participants, smallest, seconds, measured, rosters, abandoned }
    }

    fn has_commit_of(&self, site: &str) -> bool {
        self.rosters.iter().any(|rostered| rostered.commits.contains(site))
    }

    /// The sites that have committed under it and wait, if it is not abandoned.
    #[must_use]
    pub fn waiting(&self) -> BTreeSet<&str> {
        let commits = self.rosters.iter().flat_map(|rostered| &rostered.commits);
        commits.map(String::as_str).filter(|_| !self.abandoned).collect()
    }
}

impl Round {
    /// A round of which nothing is known yet.
    #[must_use]
    pub fn new(number: u32) -> Self {
        Self { number, offers: BTreeMap::new(), release: None }
    }

    /// The key of the instance that made an offer.
    #[must_use]
    pub fn instance(&self, offer: &Digest) -> Option<VerifyingKey> {
        self.offers.get(offer).map(|offered| offered.offer.statement().instance_key)
    }

    /// Adds an offer.
    ///
    /// # Errors
    /// A finding by `leaf-twice` or `chain`.
    pub fn offer(&mut self, offered: Offered) -> Result<(), Finding> {
        let digest = offered.offer.digest();
        if let Some(known) = self.offers.get(&digest) {
            return Err(twice(known.leaf));
        }
        if self.release.is_some() {
            return Err(Finding::new(
                Check::Chain,
                format!("an offer for round {}", self.number + 1),
                format!("one for round {}, which is released", self.number),
            ));
        }
        if self.offers.len() >= MAX_OFFERS {
            let expected = format!("at most {MAX_OFFERS} offers of a round");
            return Err(Finding::new(Check::Chain, expected, "another"));
        }
        self.offers.insert(digest, offered);
        Ok(())
    }

    /// Adds a roster, signed by its offer's instance, and the digest of the
    /// checkpoint that ends with its leaf.
    pub fn roster(
        &mut self,
        roster: Signed<Roster>,
        checkpoint: Digest,
        findings: &mut Vec<Finding>,
    ) {
        let statement = roster.statement();
        let Some(offered) = self.offers.get_mut(&statement.offer) else { return };
        if offered.rosters.iter().any(|known| known.roster.digest() == roster.digest()) {
            findings.push(twice(offered.leaf));
            return;
        }
        let mut expect = |holds: bool, expected: String, found: String| {
            if !holds {
                findings.push(Finding::new(Check::Roster, expected, found));
            }
        };
        if let Err(error) = statement.check(offered.smallest) {
            expect(false, format!("{} members, sorted", offered.smallest), error.to_string());
        }
        let strangers: Vec<_> =
            statement.sites().into_iter().filter(|s| !offered.participants.contains(*s)).collect();
        let expected = "sites that signed the manifest before the offer".to_owned();
        expect(strangers.is_empty(), expected, format!("{strangers:?} too"));
        expect(
            statement.round == self.number,
            format!("round {}", self.number),
            format!("round {}", statement.round),
        );
        let last = offered.rosters.last().map(|last| last.roster.statement());
        let attempt = last.map_or(1, |last| last.attempt.saturating_add(1));
        expect(
            statement.attempt == attempt,
            format!("attempt {attempt}"),
            format!("attempt {}", statement.attempt),
        );
        let is_smaller = last.is_none_or(|last| {
            let old = last.sites();
            statement.members.len() < last.members.len()
                && statement.sites().iter().all(|site| old.contains(site))
        });
        let expected = "fewer sites than the roster before, and no other".to_owned();
        expect(is_smaller, expected, format!("{:?}", statement.sites()));
        if offered.rosters.len() < MAX_ROSTERS {
            let commits = BTreeSet::new();
            offered.rosters.push(Rostered { roster, checkpoint, commits });
        }
    }

    /// Adds a commit, signed by its site.
    pub fn commit(&mut self, commit: &Signed<Commit>, findings: &mut Vec<Finding>) {
        let statement = commit.statement();
        let site = &statement.site;
        // Bound to another offer that nobody has abandoned?
        let others = self.offers.iter().filter(|(digest, _)| **digest != statement.offer);
        for (digest, other) in others.clone() {
            if !other.abandoned && other.has_commit_of(site) {
                let expected = format!("{site} bound to offer {digest} until it is abandoned");
                let found = format!("a commit under offer {}", statement.offer);
                findings.push(Finding::new(Check::BoundTwice, expected, found));
            }
        }
        let Some(offered) = self.offers.get(&statement.offer) else { return };
        let place = offered.rosters.iter().position(|r| r.roster.digest() == statement.roster);
        let Some(rostered) = place.and_then(|place| offered.rosters.get(place)) else {
            let found = format!("roster {}", statement.roster);
            findings.push(Finding::new(Check::Commit, "a roster of that offer in the log", found));
            return;
        };
        if statement.checkpoint != rostered.checkpoint {
            let expected = format!("checkpoint {}", rostered.checkpoint);
            findings.push(Finding::new(Check::Checkpoint, expected, statement.checkpoint));
        }
        if let Err(error) = statement.expect(&rostered.roster, &statement.checkpoint) {
            findings.push(Finding::new(
                Check::Commit,
                "a commit to the roster that it names",
                error,
            ));
            return;
        }
        if rostered.commits.contains(site) {
            findings.push(twice(offered.leaf));
            return;
        }
        let earlier = others.flat_map(|(_, other)| &other.rosters);
        for earlier in earlier.filter(|earlier| earlier.commits.contains(site)) {
            let before = earlier.roster.statement().sites();
            let sites = rostered.roster.statement().sites();
            let apart = sites.symmetric_difference(&before).count();
            if apart != 0 && apart < offered.smallest {
                let k = offered.smallest;
                let expected = format!("a roster equal to {before:?}, or {k} sites apart");
                findings.push(Finding::new(
                    Check::RosterTooClose,
                    expected,
                    format!("{apart} apart"),
                ));
            }
        }
        let place = place.unwrap_or_default();
        let rosters = self.offers.get_mut(&statement.offer).map(|offered| &mut offered.rosters);
        if let Some(rostered) = rosters.and_then(|rosters| rosters.get_mut(place)) {
            rostered.commits.insert(site.clone());
        }
    }

    /// Notes an abandonment that the approvers signed. Whether it is of an offer
    /// that stood, and may have been released all the same.
    pub fn abandon(&mut self, abandonment: &Abandonment, findings: &mut Vec<Finding>) -> bool {
        let released = self.release.as_ref().map(|(_, release)| release.statement().offer);
        match self.offers.get_mut(&abandonment.offer) {
            Some(offered) if offered.abandoned => findings.push(twice(offered.leaf)),
            Some(offered) => {
                offered.abandoned = true;
                // What is released is not spent a second time.
                return released != Some(abandonment.offer);
            }
            None => findings.push(Finding::new(
                Check::Abandonment,
                format!("an offer of round {}", self.number),
                abandonment.offer,
            )),
        }
        false
    }

    /// Adds a release, signed by its offer's instance.
    pub fn release(&mut self, leaf: u64, release: Signed<Release>, findings: &mut Vec<Finding>) {
        let statement = release.statement();
        if let Some((earlier, known)) = &self.release {
            findings.push(if known.digest() == release.digest() {
                twice(*earlier)
            } else {
                let expected = format!("one release of round {}, at leaf {earlier}", self.number);
                Finding::new(Check::SecondRelease, expected, format!("{}", release.digest()))
            });
            return;
        }
        let Some(offered) = self.offers.get(&statement.offer) else { return };
        let offer = offered.offer.statement();
        let show = |digest: Option<Digest>| digest.map_or("none".to_owned(), |d| d.to_string());
        for (field, expected, found) in [
            ("study", offer.study.to_string(), statement.study.to_string()),
            ("manifest", offer.manifest.to_string(), statement.manifest.to_string()),
            ("round", offer.round.to_string(), statement.round.to_string()),
            ("base", offer.base.to_string(), statement.base.to_string()),
            ("previous", show(offer.previous), show(statement.previous)),
        ] {
            if expected != found {
                let (expected, found) = (format!("the offer's {field} {expected}"), found);
                findings.push(Finding::new(Check::Release, expected, found));
            }
        }
        match offered.rosters.iter().find(|r| r.roster.digest() == statement.roster) {
            None => findings.push(Finding::new(
                Check::Release,
                "a roster of that offer in the log",
                format!("roster {}", statement.roster),
            )),
            Some(rostered) => {
                let sites = rostered.roster.statement().sites();
                let lacks: Vec<_> =
                    sites.into_iter().filter(|site| !rostered.commits.contains(*site)).collect();
                if !lacks.is_empty() {
                    let expected = "commits of every member before the release";
                    let found = format!("none of {}", lacks.join(", "));
                    findings.push(Finding::new(Check::CommitsMissing, expected, found));
                }
            }
        }
        self.release = Some((leaf, release));
    }

    /// The sites on the roster that was released.
    #[must_use]
    pub fn sites(&self) -> Vec<String> {
        let Some((_, release)) = &self.release else { return Vec::new() };
        let statement = release.statement();
        let offered = self.offers.get(&statement.offer);
        let rosters = offered.into_iter().flat_map(|offered| &offered.rosters);
        let mut found = rosters.filter(|r| r.roster.digest() == statement.roster);
        let sites = found.next().map(|rostered| rostered.roster.statement().sites());
        sites.into_iter().flatten().map(str::to_owned).collect()
    }

    /// The offers that were neither released nor abandoned, with the times of
    /// their evidence.
    pub fn left(&self) -> impl Iterator<Item = (Digest, Option<Timestamp>)> {
        let released = self.release.as_ref().map(|(_, release)| release.statement().offer);
        let left = self
            .offers
            .iter()
            .filter(move |(digest, offered)| !offered.abandoned && Some(**digest) != released);
        left.map(|(digest, offered)| (*digest, offered.measured.as_ref().map(|m| m.time)))
    }

    /// How many offers of the round were abandoned.
    #[must_use]
    pub fn abandoned(&self) -> usize {
        self.offers.values().filter(|offered| offered.abandoned).count()
    }
}

fn twice(leaf: u64) -> Finding {
    let found = format!("the same again; its round has an offer at leaf {leaf}");
    Finding::new(Check::LeafTwice, "each statement once", found)
}
