//! The arithmetic of n, k and c.
//!
//! Of n listed sites, c may collude with each other and with the host, and a
//! roster has at least k members.
//!
//! - `2k > n + c`: two rosters share at least `2k - n` sites, so more than c,
//!   so an honest one. An honest site commits under one offer a round only, so
//!   a round has at most one release in the world, however many enclaves the
//!   host runs.
//! - `k - c >= 3`: colluders who subtract their own updates from an aggregate
//!   are left with a sum of three hospitals or more, not with one.

use super::{Weakness, expect};
use crate::Result;
use serde::{Deserialize, Serialize};

/// The fewest honest sites whose sum colluders may be left with.
pub(super) const FEWEST_HONEST: usize = 3;

/// The smallest roster, and how many sites may collude.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Quorum {
    /// k: the smallest roster that is ever released.
    pub smallest_roster: usize,
    /// c: the number of sites that may collude.
    pub colluders: usize,
}

impl Quorum {
    /// The guarantees that do not hold for n sites.
    #[must_use]
    pub fn weaknesses(&self, n: usize) -> Vec<Weakness> {
        let (k, c) = (self.smallest_roster, self.colluders);
        let mut weak = Vec::new();
        if 2 * k <= n + c {
            weak.push(Weakness::TwoReleasesOfOneRound);
        }
        if k < c + FEWEST_HONEST {
            weak.push(Weakness::FewHonestSites);
        }
        weak
    }

    /// Checks that k is from 2 to n, and c below k.
    ///
    /// # Errors
    /// [`crate::Error::Manifest`] naming the field.
    pub fn check(&self, n: usize) -> Result<()> {
        let (k, c) = (self.smallest_roster, self.colluders);
        expect("quorum.smallest_roster", (2..=n).contains(&k), format!("2 to {n}"), k)?;
        expect("quorum.colluders", c < k, format!("fewer than {k}"), c)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quorum(k: usize, c: usize) -> Quorum {
        Quorum { smallest_roster: k, colluders: c }
    }

    #[test]
    fn four_hospitals() {
        assert_eq!(quorum(4, 1).weaknesses(4), []);
        assert_eq!(quorum(3, 0).weaknesses(4), []);
        // 3 of 4 with one colluder: it subtracts itself, two are left.
        let both = [Weakness::TwoReleasesOfOneRound, Weakness::FewHonestSites];
        assert_eq!(quorum(3, 1).weaknesses(5), both);
        assert_eq!(quorum(3, 1).weaknesses(4), both[1..]);
        assert!(quorum(5, 0).check(4).is_err());
        assert!(quorum(2, 2).check(4).is_err());
    }

    /// What the rules are for, for every small study: any two rosters share an
    /// honest site, and whoever colludes is left with three others' sum.
    #[test]
    fn rosters_share_an_honest_site() {
        let mut accepted = 0;
        for (n, k, c) in (3..=8usize)
            .flat_map(|n| (2..=n).flat_map(move |k| (0..k).map(move |c| (n, k, c))))
            .filter(|(n, k, c)| quorum(*k, *c).weaknesses(*n).is_empty())
        {
            accepted += 1;
            let rosters: Vec<u32> =
                (0..1u32 << n).filter(|r| r.count_ones() as usize >= k).collect();
            for a in &rosters {
                assert!(a.count_ones() as usize - c >= 3);
                assert!(rosters.iter().all(|b| (a & b).count_ones() as usize > c));
            }
        }
        assert!(accepted > 10, "{accepted}");
    }
}
