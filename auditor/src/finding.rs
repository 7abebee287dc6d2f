//! Findings: what is wrong, or missing, and where to look.

use sealfold_protocol::Digest;
use serde::Serialize;
use std::fmt;

/// What a finding means for whoever relies on the study.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// Something happened that must not have happened.
    Safety,
    /// Something that should be there is late or missing, so that it cannot be
    /// shown.
    Liveness,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

macro_rules! checks {
    ($($(#[doc = $doc:literal])+ $name:ident $severity:ident $look:literal,)*) => {
        /// The checks of a replay. The names appear in every report.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
        #[serde(rename_all = "kebab-case")]
        #[non_exhaustive]
        pub enum Check {
            $($(#[doc = $doc])+ $name,)*
        }

        impl Check {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// What it means when this check fails.
            #[must_use]
            pub fn severity(self) -> Severity {
                match self {
                    $(Self::$name => Severity::$severity,)*
                }
            }

            /// What to look at when this check fails.
            #[must_use]
            pub fn look(self) -> &'static str {
                match self {
                    $(Self::$name => $look,)*
                }
            }
        }
    };
}

checks! {
    /// The leaves lead to the checkpoint's root.
    Root Safety "take the log again, from its host and from a site; keep both copies: the \
        checkpoint is signed and proves which of them is false",
    /// A checkpoint that somebody kept is one that this log passed through.
    Fork Safety "keep both checkpoints: they are signed, and no log can have had both",
    /// The log is not shorter than a checkpoint that somebody kept.
    Shortened Safety "ask the host for the log up to the kept checkpoint; what is missing is what \
        it hides",
    /// As many witnesses as the policy requires have cosigned the log.
    Witnesses Liveness "ask the witnesses for the checkpoint that they keep, and give it with \
        --checkpoint",
    /// A tile is what the leaves make it.
    Tile Safety "proofs made from this tile fail; take the log again and compare",
    /// A tile is there.
    TileMissing Liveness "take the log again; without this tile nobody can prove what it covers",
    /// The leaves are there, and decode.
    Entries Liveness "take the log again; nothing behind this place could be judged",
    /// A leaf is of a type that this version knows, in its one encoding.
    Leaf Liveness "a newer sealfold-audit may know it; this one cannot judge it",
    /// An object that a leaf names is there.
    ObjectMissing Liveness "take the log again with its objects; a site may have kept it",
    /// An object that a leaf names is the named one.
    Object Safety "take the object again; its digest stands in the leaf",
    /// No leaf stands in the log twice.
    LeafTwice Safety "the host's log does not do what it says; compare with a site's copy",
    /// A statement decodes, is signed by who must sign it, and is the one that
    /// its leaf says.
    Statement Safety "it is not signed by who must have signed it, or it goes on from something that \
        is not in the log before it; ask the host where it is from",
    /// A manifest keeps the rules, follows from the one before, and is approved.
    Manifest Safety "nobody must have taken part under it; ask the study's approvers",
    /// As many approvers signed as the policy requires of those it lists.
    Approvers Safety "compare the approvers in the policy with those of the manifest",
    /// k is at least the policy's.
    SmallestRoster Safety "the study's k is smaller than the policy allows",
    /// c is at least the policy's.
    Colluders Safety "the study withstands fewer colluders than the policy asks for",
    /// The sites are those that the policy knows.
    Peers Safety "compare the sites and keys of the manifest with the policy's peers",
    /// The log that the manifest names is the one that is replayed.
    Log Safety "the sites agreed to another log, where the study's history may be another one; ask \
        them for it",
    /// The evidence behind an offer is accepted, at its own time.
    Evidence Safety "sealfold verify --evidence shows every check of this document; the policy \
        may lack an image that was accepted at the time",
    /// The evidence is of a platform that this version can judge.
    Platform Liveness "a newer sealfold-audit may know the platform; this one cannot judge it",
    /// The measured image is one of the manifest's.
    Measurements Safety "sites encrypted to an image that the study had not agreed to",
    /// The evidence lies within the manifest's validity.
    Validity Safety "the round ran outside the time that the sites agreed to",
    /// Evidence of a study gets younger from offer to offer, and is not of the
    /// future.
    Clock Liveness "a clock jumped, or leaves were logged late; compare the times of both offers, \
        and the auditor's own clock",
    /// An offer continues the chain of releases.
    Chain Safety "compare base and previous release with those of the release before",
    /// A roster is of its offer, has k members, all taking part, fewer each time.
    Roster Safety "sites refuse such a roster; ask them what they were shown",
    /// A commit is a member's, to that very roster.
    Commit Safety "ask the site; its binding remembers every commit that it made",
    /// The commits to a roster name the checkpoint that ends with its leaf.
    Checkpoint Safety "the site was shown another log than this one; ask it for the checkpoint that \
        it kept",
    /// A site commits under one offer in a round, or to another one only after
    /// an abandonment.
    BoundTwice Safety "a restored site disk, or two agents on one key: two aggregates of the round \
        may exist; the site needs a new key",
    /// After an abandonment, rosters on one base are equal or differ by k sites.
    RosterTooClose Safety "the two sums may differ by fewer hospitals than k; ask the sites on both",
    /// A release follows from its offer and roster, and its aggregate is as long as
    /// the terms make it.
    Release Safety "an enclave that its evidence vouches for does not sign this; look at the \
        evidence first",
    /// Every member of a released roster committed before.
    CommitsMissing Safety "an update was folded that its site had not committed to, or the log \
        hides the commit; ask the site",
    /// A round has one release.
    SecondRelease Safety "two aggregates of one round exist: their difference tells of a few sites",
    /// The releases, and the abandoned offers that may be some, stay within the
    /// privacy budget of the first manifest.
    Budget Safety "more was released than the patients were promised; nothing may be released any \
        more, and the sites' data protection officers need to know",
    /// An abandonment is of a known offer, signed by as many approvers as needed.
    Abandonment Safety "sites do not act on it; ask the approvers",
    /// A round to which sites committed ends in time.
    Unfinished Liveness "the sites are bound and wait: a release may be withheld; the approvers \
        can abandon the offer",
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

/// A finding.
#[derive(Debug, Clone, Serialize)]
pub struct Finding {
    /// What it means.
    pub severity: Severity,
    /// The check that failed.
    pub check: Check,
    /// The number of the leaf, from 0.
    pub leaf: Option<u64>,
    /// The study.
    pub study: Option<Digest>,
    /// The round.
    pub round: Option<u32>,
    /// What was expected.
    pub expected: String,
    /// What was found.
    pub found: String,
    /// What to look at.
    pub look: &'static str,
    /// A leaf before it that could not be judged, from which alone this may follow.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub follows: Option<u64>,
}

impl Finding {
    /// A finding of a check.
    #[must_use]
    pub fn new(check: Check, expected: impl ToString, found: impl ToString) -> Self {
        Self {
            severity: check.severity(),
            check,
            leaf: None,
            study: None,
            round: None,
            expected: expected.to_string(),
            found: found.to_string(),
            look: check.look(),
            follows: None,
        }
    }

    /// Whether it may be for want of a leaf before it that could not be judged.
    #[must_use]
    pub fn may_follow(&self) -> bool {
        matches!(
            self.check,
            Check::Statement
                | Check::Manifest
                | Check::Chain
                | Check::Roster
                | Check::Commit
                | Check::Release
                | Check::CommitsMissing
                | Check::BoundTwice
                | Check::Abandonment
        )
    }

    /// At a leaf.
    #[must_use]
    pub fn at(mut self, leaf: u64) -> Self {
        self.leaf = self.leaf.or(Some(leaf));
        self
    }

    /// In a round of a study.
    #[must_use]
    pub fn within(mut self, study: Digest, round: Option<u32>) -> Self {
        self.study = self.study.or(Some(study));
        self.round = self.round.or(round);
        self
    }
}

/// The findings of a replay; beyond [`Findings::KEPT`] they are only counted, so
/// that a log made of nothing but errors does not fill the memory.
#[derive(Debug, Default)]
pub struct Findings {
    kept: Vec<Finding>,
    safety: u64,
    liveness: u64,
}

impl Findings {
    /// How many are kept in full.
    pub const KEPT: usize = 1000;

    /// Adds one.
    pub fn add(&mut self, finding: Finding) {
        match finding.severity {
            Severity::Safety => self.safety += 1,
            Severity::Liveness => self.liveness += 1,
        }
        if self.kept.len() < Self::KEPT {
            self.kept.push(finding);
        }
    }

    /// The kept ones: those that stand for themselves before those that may follow
    /// from another, safety first, then by leaf.
    #[must_use]
    pub fn sorted(mut self) -> (Vec<Finding>, u64, u64) {
        let order = |finding: &Finding| (finding.follows.is_some(), finding.severity, finding.leaf);
        self.kept.sort_by_key(order);
        (self.kept, self.safety, self.liveness)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn safety_comes_first_and_a_flood_is_counted() {
        let mut findings = Findings::default();
        findings.add(Finding::new(Check::Clock, 1, 2).at(3));
        for leaf in 0..2000 {
            findings.add(Finding::new(Check::Commit, 1, 2).at(2000 - leaf).at(0));
        }
        let (kept, safety, liveness) = findings.sorted();
        assert_eq!((kept.len(), safety, liveness), (Findings::KEPT, 2000, 1));
        assert_eq!(kept[0].leaf, Some(1002), "the first place that is given stays");
        assert_eq!(kept[999].check, Check::Clock);
        assert!(kept.windows(2).all(|two| two[0].severity <= two[1].severity));
    }

    #[test]
    fn every_check_says_what_to_look_at_and_has_a_name_of_its_own() {
        let names: std::collections::BTreeSet<_> =
            Check::ALL.iter().map(ToString::to_string).collect();
        assert_eq!(names.len(), Check::ALL.len());
        assert!(Check::ALL.iter().all(|check| check.look().len() > 20));
        // The auditor's page explains them by these names.
        let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/auditing.md");
        let page = std::fs::read_to_string(page).unwrap();
        for name in names {
            assert!(page.contains(&format!("`{name}`")), "docs/auditing.md lacks {name}");
        }
    }
}
