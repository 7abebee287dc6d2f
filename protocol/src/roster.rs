//! The roster, and the sites' commits to it.

use crate::{Digest, Error, Result, Signed, Statement};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// The updates that will be folded. An instance may propose several rosters,
/// each smaller than the one before, but releases one at most.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Roster {
    /// The study's identity.
    pub study: Digest,
    /// The round.
    pub round: u32,
    /// The offer's digest.
    pub offer: Digest,
    /// 1 for the instance's first roster of the round, 2 for the next.
    pub attempt: u32,
    /// The members, sorted by name.
    pub members: Vec<Member>,
}

/// One update of a roster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Member {
    /// The site's name.
    pub site: String,
    /// The digest of its update's header.
    pub header: Digest,
}

impl Statement for Roster {
    const NAME: &'static str = "roster";
    const CONTENT_TYPE: &'static str = "application/vnd.sealfold.roster.v1+cbor";
    const LIMIT: usize = 64 << 10;
}

impl Roster {
    /// The names of the members.
    #[must_use]
    pub fn sites(&self) -> BTreeSet<&str> {
        self.members.iter().map(|member| member.site.as_str()).collect()
    }

    /// The update of a site.
    #[must_use]
    pub fn header_of(&self, site: &str) -> Option<Digest> {
        self.members.iter().find(|member| member.site == site).map(|member| member.header)
    }

    /// Checks what every roster keeps: members sorted, each once, at least k.
    ///
    /// # Errors
    /// [`Error::Malformed`] or [`Error::Approvals`].
    pub fn check(&self, smallest: usize) -> Result<()> {
        if !self.members.windows(2).all(|pair| pair[0].site < pair[1].site) {
            return Err(Error::malformed(Self::NAME, "members are not sorted, each once"));
        }
        if self.members.len() < smallest {
            return Err(Error::malformed(
                Self::NAME,
                format!("expected at least {smallest} members, found {}", self.members.len()),
            ));
        }
        Ok(())
    }
}

/// A site's word: "I saw evidence, offer and, in the log, this roster; my update
/// is in it; fold it".
///
/// The commits to one roster name one checkpoint, the one that ends with the
/// roster's leaf: sites that were shown different logs get no release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Commit {
    /// The study's identity.
    pub study: Digest,
    /// The round.
    pub round: u32,
    /// The offer's digest.
    pub offer: Digest,
    /// The roster's digest.
    pub roster: Digest,
    /// The site's name.
    pub site: String,
    /// The digest of its update's header.
    pub header: Digest,
    /// SHA-256 of the text of the log's checkpoint whose last leaf is the roster.
    pub checkpoint: Digest,
}

impl Statement for Commit {
    const NAME: &'static str = "commit";
    const CONTENT_TYPE: &'static str = "application/vnd.sealfold.commit.v1+cbor";
    const LIMIT: usize = 2 << 10;
}

impl Commit {
    /// The commit of a site to a roster that lists its update, and that is the
    /// last leaf of a checkpoint.
    #[must_use]
    pub fn to(roster: &Signed<Roster>, site: &str, header: Digest, checkpoint: Digest) -> Self {
        let statement = roster.statement();
        Self {
            study: statement.study,
            round: statement.round,
            offer: statement.offer,
            roster: roster.digest(),
            site: site.to_owned(),
            header,
            checkpoint,
        }
    }

    /// Checks that the commit is exactly the one that its site makes to `roster`
    /// at the checkpoint that ends with it.
    ///
    /// # Errors
    /// [`Error::Link`] or [`Error::Signer`] naming the first difference.
    pub fn expect(&self, roster: &Signed<Roster>, checkpoint: &Digest) -> Result<()> {
        let header = roster.statement().header_of(&self.site).ok_or_else(|| Error::Signer {
            what: Self::NAME,
            expected: "a member of the roster".to_owned(),
            found: self.site.clone(),
        })?;
        let expected = Self::to(roster, &self.site, header, *checkpoint);
        for (what, expected, found) in [
            ("commit's study", expected.study, self.study),
            ("commit's offer", expected.offer, self.offer),
            ("commit's roster", expected.roster, self.roster),
            ("commit's update", expected.header, self.header),
            ("commit's checkpoint", expected.checkpoint, self.checkpoint),
        ] {
            if expected != found {
                return Err(Error::link(what, &expected, &found));
            }
        }
        if expected.round != self.round {
            return Err(Error::Link {
                what: "commit's round",
                expected: expected.round.to_string(),
                found: self.round.to_string(),
            });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SigningKey;

    fn roster(names: &[&str]) -> Signed<Roster> {
        let members = names
            .iter()
            .map(|name| Member { site: (*name).to_owned(), header: Digest::of(&[name.as_bytes()]) })
            .collect();
        let roster = Roster {
            study: Digest::new([1; 32]),
            round: 2,
            offer: Digest::new([3; 32]),
            attempt: 1,
            members,
        };
        Signed::sign(roster, &SigningKey::from_seed(&[9; 32]).unwrap()).unwrap()
    }

    #[test]
    fn members_are_sorted_and_enough() {
        assert!(roster(&["a", "b", "c"]).statement().check(3).is_ok());
        assert!(roster(&["a", "b", "c"]).statement().check(4).is_err());
        assert!(roster(&["b", "a", "c"]).statement().check(3).is_err());
        assert!(roster(&["a", "a", "c"]).statement().check(3).is_err());
    }

    #[test]
    fn a_commit_is_to_one_roster() {
        let (roster, smaller) = (roster(&["a", "b", "c"]), roster(&["a", "b"]));
        let header = roster.statement().header_of("a").unwrap();
        let (log, fork) = (Digest::new([5; 32]), Digest::new([6; 32]));
        let commit = Commit::to(&roster, "a", header, log);
        assert!(commit.expect(&roster, &log).is_ok());
        assert!(matches!(
            commit.expect(&roster, &fork),
            Err(Error::Link { what: "commit's checkpoint", .. })
        ));
        assert!(matches!(
            commit.expect(&smaller, &log),
            Err(Error::Link { what: "commit's roster", .. })
        ));
        let stranger = Commit { site: "z".to_owned(), ..commit.clone() };
        assert!(matches!(stranger.expect(&roster, &log), Err(Error::Signer { .. })));
        let swapped = Commit { header: Digest::new([0; 32]), ..commit };
        assert!(swapped.expect(&roster, &log).is_err());
    }
}
