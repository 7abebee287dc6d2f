//! The binding: the memory that an enclave cannot have.
//!
//! An enclave has no memory that its host cannot take away: one that is
//! restarted, or run twice, could fold {A, B, C} and then {A, B}, and the
//! difference is C. So the sites remember. For a (study, round) a site binds
//! itself to at most one offer, on disk and synced, *before* its first commit.
//! Before that it re-seals to a restarted enclave freely; after it, it commits
//! to rosters of that offer only, and only a release under it, or an
//! abandonment, lets the site go on.
//!
//! An abandoned offer counts as possibly released. While the base model is the
//! same, the site then commits only to rosters that equal each roster it
//! committed to on that base, or differ from it by at least k sites, so that no
//! two sums differ by a few hospitals.
//!
//! The file is not for backups: a site that restores it could be bound twice. A
//! counter in a second place notices that one of the two was restored, and the
//! host's copy of this site's own commits is compared too. A site whose whole
//! state was restored cannot notice by itself; it gets a new key by amendment.

use crate::error::SiteRefusal;
use crate::home::{Home, make_folder, read_json, write_json};
use crate::study::LocalStudy;
use crate::{Error, Result};
use sealfold_protocol::Digest;
use sealfold_protocol::roster::Roster;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::PathBuf;

mod recalled;
pub use recalled::Recalled;

/// The binding of a site to the offers of one study.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Ledger {
    /// Counts every write.
    generation: u64,
    /// The offer of each round.
    rounds: BTreeMap<u32, Bound>,
    /// Every roster that the site committed to.
    commits: Vec<Committed>,
}

/// The offer that a site is bound to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Bound {
    offer: Digest,
    abandoned: Vec<Digest>,
}

/// A roster that the site committed to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Committed {
    /// The round.
    pub round: u32,
    /// The offer that the site is bound to since.
    pub offer: Digest,
    /// The model that the updates were trained from.
    pub base: Digest,
    /// The roster.
    pub roster: Digest,
    /// The sites on it.
    pub sites: BTreeSet<String>,
}

/// Where a study's ledger is.
fn ledger(study: &LocalStudy) -> PathBuf {
    study.folder.join("binding.json")
}

/// Where the counter of its writes is, beside the keys.
fn counter(home: &Home, study: &LocalStudy) -> PathBuf {
    home.path("keys").join(format!("binding-{}.json", study.id))
}

/// The binding, held by one agent.
pub struct Binding {
    ledger: Ledger,
    path: PathBuf,
    counter: PathBuf,
    _lock: File,
}

impl Binding {
    /// Takes hold of a study's binding.
    ///
    /// # Errors
    /// A refusal by `second-agent` if another process holds it, by
    /// `state-restored` if the file is older than the site's own counter.
    pub fn open(home: &Home, study: &LocalStudy) -> Result<Self> {
        make_folder(&study.folder)?;
        let lock_path = home.path("agent.lock");
        let lock = File::create(&lock_path).map_err(|e| Error::file(&lock_path, e))?;
        if lock.try_lock().is_err() {
            return Err(SiteRefusal::new(
                "second-agent",
                "one agent for this site's key",
                "another process that holds the lock",
            )
            .next("stop the other agent first; two could bind the site twice")
            .into());
        }
        let (path, counter) = (ledger(study), counter(home, study));
        let ledger: Ledger = read_json(&path)?.unwrap_or_default();
        let counted: u64 = read_json(&counter)?.unwrap_or_default();
        // The ledger is written first, so it may be one ahead after a crash.
        if ledger.generation != counted && ledger.generation != counted + 1 {
            return Err(restored(
                format!("generation {counted} of the binding"),
                format!("generation {}", ledger.generation),
            ));
        }
        Ok(Self { ledger, path, counter, _lock: lock })
    }

    fn write(&mut self, change: impl FnOnce(&mut Ledger)) -> Result<()> {
        let mut next = self.ledger.clone();
        change(&mut next);
        if next == self.ledger {
            return Ok(());
        }
        next.generation += 1;
        write_json(&self.path, &next)?;
        write_json(&self.counter, &next.generation)?;
        self.ledger = next;
        Ok(())
    }

    /// The offer that the site is bound to in a round.
    #[must_use]
    pub fn bound_to(&self, round: u32) -> Option<Digest> {
        let bound = self.ledger.rounds.get(&round)?;
        (!bound.abandoned.contains(&bound.offer)).then_some(bound.offer)
    }

    /// Whether the site may take part under an offer.
    ///
    /// # Errors
    /// A refusal by `bound-to-another-offer` or `abandoned-offer`.
    pub fn allows(&self, round: u32, offer: &Digest) -> Result<()> {
        if let Some(bound) = self.bound_to(round)
            && bound != *offer
        {
            return Err(SiteRefusal::new("bound-to-another-offer", bound, offer)
                .next(
                    "this site has committed under the first offer; it goes on with that offer's \
                     release, or when the approvers have abandoned it (sealfold study abandon)",
                )
                .into());
        }
        let abandoned = self.ledger.rounds.get(&round).map(|bound| &bound.abandoned);
        if abandoned.is_some_and(|abandoned| abandoned.contains(offer)) {
            return Err(SiteRefusal::new("abandoned-offer", "an offer that stands", offer).into());
        }
        Ok(())
    }

    /// Binds the site to an offer and notes the roster, synced, before a
    /// commit to it may be sent.
    ///
    /// # Errors
    /// As [`Binding::allows`]; a refusal by `roster-too-close`; [`Error::File`].
    pub fn commit(
        &mut self,
        roster: &Roster,
        digest: Digest,
        base: Digest,
        smallest_roster: usize,
    ) -> Result<()> {
        self.allows(roster.round, &roster.offer)?;
        let sites: BTreeSet<String> =
            roster.members.iter().map(|member| member.site.clone()).collect();
        for earlier in &self.ledger.commits {
            // Within one offer the same instance releases one roster at most.
            if earlier.offer == roster.offer || earlier.base != base {
                continue;
            }
            let difference = earlier.sites.symmetric_difference(&sites).count();
            if difference > 0 && difference < smallest_roster {
                return Err(SiteRefusal::new(
                    "roster-too-close",
                    format!(
                        "the sites {:?}, or {smallest_roster} sites of difference",
                        earlier.sites
                    ),
                    format!("the sites {sites:?}, {difference} of difference"),
                )
                .next(
                    "the roster of an abandoned offer may have been released; wait for a round \
                     with the same sites, or a release on another base",
                )
                .into());
            }
        }
        let committed =
            Committed { round: roster.round, offer: roster.offer, base, roster: digest, sites };
        self.write(|ledger| {
            let bound = ledger
                .rounds
                .entry(committed.round)
                .or_insert_with(|| Bound { offer: committed.offer, abandoned: Vec::new() });
            bound.offer = committed.offer;
            if !ledger.commits.contains(&committed) {
                ledger.commits.push(committed);
            }
        })
    }

    /// Whether the site committed to a roster.
    #[must_use]
    pub fn has_committed(&self, roster: &Digest) -> bool {
        self.ledger.commits.iter().any(|commit| commit.roster == *roster)
    }

    /// How many of the offers that this site was bound to were abandoned.
    #[must_use]
    pub fn abandoned(&self) -> u32 {
        let counts = self.ledger.rounds.values().map(|bound| bound.abandoned.len());
        u32::try_from(counts.sum::<usize>()).unwrap_or(u32::MAX)
    }

    /// Notes a verified abandonment.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn abandon(&mut self, round: u32, offer: Digest) -> Result<()> {
        self.write(|ledger| {
            let bound = ledger
                .rounds
                .entry(round)
                .or_insert_with(|| Bound { offer, abandoned: Vec::new() });
            if !bound.abandoned.contains(&offer) {
                bound.abandoned.push(offer);
            }
        })
    }

    /// Compares a commit under this site's own key, as the host shows it, with
    /// what the site remembers.
    ///
    /// # Errors
    /// A refusal by `state-restored` if the site does not remember it.
    pub fn expect_remembered(&self, roster: &Digest) -> Result<()> {
        if self.has_committed(roster) {
            return Ok(());
        }
        Err(restored(
            "a memory of every commit under this site's key".to_owned(),
            format!("a commit to roster {roster} that this folder does not know"),
        ))
    }
}

fn restored(expected: String, found: String) -> Error {
    SiteRefusal::new("state-restored", expected, found)
        .next(
            "this site's folder was restored or copied; it needs a new key by an amendment of the \
             study (sealfold init in a new folder), usable after the next release",
        )
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use sealfold_protocol::roster::Member;

    fn roster(round: u32, offer: u8, sites: &[&str]) -> Roster {
        let member =
            |name: &&str| Member { site: (*name).to_owned(), header: Digest::new([0; 32]) };
        Roster {
            study: Digest::new([1; 32]),
            round,
            offer: Digest::new([offer; 32]),
            attempt: 1,
            members: sites.iter().map(member).collect(),
        }
    }

    struct Site {
        folder: tempfile::TempDir,
    }

    impl Site {
        fn new() -> Self {
            Self { folder: tempfile::tempdir().unwrap() }
        }
        fn open(&self) -> Result<Binding> {
            let home = Home::open(self.folder.path())?;
            Binding::open(&home, &LocalStudy::new(&home, Digest::new([1; 32])))
        }
    }

    fn commit(binding: &mut Binding, roster: &Roster, base: u8) -> Result<()> {
        let digest = Digest::of(&[format!("{roster:?}").as_bytes()]);
        binding.commit(roster, digest, Digest::new([base; 32]), 3)
    }

    fn check(result: Result<()>) -> &'static str {
        match result {
            Ok(()) => "none",
            Err(Error::Refused(refusal)) => refusal.check,
            Err(other) => panic!("{other}"),
        }
    }

    #[test]
    fn a_site_is_bound_to_one_offer_of_a_round_across_restarts() {
        let site = Site::new();
        let mut binding = site.open().unwrap();
        commit(&mut binding, &roster(1, 7, &["a", "b", "c", "d"]), 1).unwrap();
        // A smaller roster of the same offer is fine, another offer is not.
        commit(&mut binding, &roster(1, 7, &["a", "b", "c"]), 1).unwrap();
        drop(binding);
        let mut binding = site.open().unwrap();
        assert_eq!(binding.bound_to(1), Some(Digest::new([7; 32])));
        let other = roster(1, 8, &["a", "b", "c", "d"]);
        assert_eq!(check(commit(&mut binding, &other, 1)), "bound-to-another-offer");
        assert_eq!(check(binding.allows(1, &Digest::new([7; 32]))), "none");
        // The next round is another matter.
        assert_eq!(check(commit(&mut binding, &roster(2, 8, &["a", "b", "c"]), 2)), "none");
    }

    #[test]
    fn after_an_abandonment_rosters_on_the_same_base_are_equal_or_far_apart() {
        let site = Site::new();
        let mut binding = site.open().unwrap();
        commit(&mut binding, &roster(1, 7, &["a", "b", "c", "d"]), 1).unwrap();
        binding.abandon(1, Digest::new([7; 32])).unwrap();
        assert_eq!(binding.bound_to(1), None);
        assert_eq!(check(binding.allows(1, &Digest::new([7; 32]))), "abandoned-offer");
        let without_one = roster(1, 8, &["a", "b", "c"]);
        assert_eq!(check(commit(&mut binding, &without_one, 1)), "roster-too-close");
        assert_eq!(binding.bound_to(1), None);
        let far = roster(1, 8, &["a", "e", "f", "g"]);
        assert_eq!(check(commit(&mut binding, &far, 1)), "none");
        binding.abandon(1, Digest::new([8; 32])).unwrap();
        // It must keep its distance from each.
        let same = roster(1, 9, &["a", "b", "c", "d"]);
        assert_eq!(check(commit(&mut binding, &same, 1)), "none");
        // Once there is a release, the base is another.
        assert_eq!(check(commit(&mut binding, &roster(2, 10, &["a", "b", "c"]), 2)), "none");
    }

    #[test]
    fn one_agent_for_a_key() {
        let site = Site::new();
        let first = site.open().unwrap();
        assert_eq!(check(site.open().map(|_| ())), "second-agent");
        drop(first);
        assert!(site.open().is_ok());
    }

    #[test]
    fn a_restored_binding_is_noticed() {
        let site = Site::new();
        let path = LocalStudy::new(&Home::open(site.folder.path()).unwrap(), Digest::new([1; 32]))
            .folder
            .join("binding.json");
        let mut binding = site.open().unwrap();
        commit(&mut binding, &roster(1, 7, &["a", "b", "c"]), 1).unwrap();
        let old = std::fs::read(&path).unwrap();
        commit(&mut binding, &roster(2, 8, &["a", "b", "c"]), 2).unwrap();
        commit(&mut binding, &roster(3, 9, &["a", "b", "c"]), 3).unwrap();
        drop(binding);
        std::fs::write(&path, old).unwrap();
        assert_eq!(check(site.open().map(|_| ())), "state-restored");
        std::fs::remove_file(&path).unwrap();
        assert_eq!(check(site.open().map(|_| ())), "state-restored");
    }

    #[test]
    fn the_hosts_copy_of_our_own_commit_is_compared() {
        let site = Site::new();
        let binding = site.open().unwrap();
        assert_eq!(check(binding.expect_remembered(&Digest::new([5; 32]))), "state-restored");
    }
}
