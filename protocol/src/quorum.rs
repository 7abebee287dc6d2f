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

use crate::Result;
use crate::manifest::expect;
use serde::{Deserialize, Serialize};
use std::fmt;

/// The fewest honest sites whose sum colluders may be left with.
const FEWEST_HONEST: usize = 3;

/// The smallest roster, and how many sites may collude.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Quorum {
    /// k: the smallest roster that is ever released.
    pub smallest_roster: usize,
    /// c: the number of sites that may collude.
    pub colluders: usize,
    /// Guarantees that the manifest gives up, by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub accepts: Vec<Weakness>,
}

/// A guarantee that a study may give up by naming it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Weakness {
    /// `2k > n + c` does not hold.
    TwoReleasesOfOneRound,
    /// `k - c >= 3` does not hold.
    FewHonestSites,
}

impl Weakness {
    /// What giving it up means, for the people who approve.
    #[must_use]
    pub fn meaning(self) -> &'static str {
        match self {
            Self::TwoReleasesOfOneRound => {
                "a host that runs two enclaves may obtain two aggregates of one round and subtract them"
            }
            Self::FewHonestSites => {
                "colluding sites may subtract their own updates and be left with the sum of fewer than three hospitals"
            }
        }
    }
}

impl fmt::Display for Weakness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TwoReleasesOfOneRound => "two-releases-of-one-round",
            Self::FewHonestSites => "few-honest-sites",
        })
    }
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

    /// Checks the arithmetic for n sites.
    ///
    /// # Errors
    /// [`crate::Error::Manifest`] if k is not from 1 to n, c is not below k, a
    /// guarantee is missing that the manifest does not give up by name, or one
    /// is given up that holds.
    pub fn check(&self, n: usize) -> Result<()> {
        let (k, c) = (self.smallest_roster, self.colluders);
        expect("quorum.smallest_roster", (2..=n).contains(&k), format!("2 to {n}"), k)?;
        expect("quorum.colluders", c < k, format!("fewer than {k}"), c)?;
        let weak = self.weaknesses(n);
        let mut accepted = self.accepts.clone();
        accepted.sort_unstable();
        for weakness in &weak {
            let rule = match weakness {
                Weakness::TwoReleasesOfOneRound => format!("2k > n + c, that is 2*{k} > {n}+{c}"),
                Weakness::FewHonestSites => format!("k - c >= 3, that is {k}-{c} >= 3"),
            };
            expect(
                "quorum",
                accepted.contains(weakness),
                format!("{rule}; or accepts = [\"{weakness}\"]"),
                format!("n = {n}, k = {k}, c = {c}: {}", weakness.meaning()),
            )?;
        }
        expect(
            "quorum.accepts",
            accepted == weak,
            format!("exactly the guarantees that do not hold: {}", listed(&weak)),
            listed(&self.accepts),
        )
    }
}

/// Names, or that there are none.
fn listed(weaknesses: &[Weakness]) -> String {
    match weaknesses {
        [] => "none".to_owned(),
        named => named.iter().map(Weakness::to_string).collect::<Vec<_>>().join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quorum(k: usize, c: usize) -> Quorum {
        Quorum { smallest_roster: k, colluders: c, accepts: Vec::new() }
    }

    #[test]
    fn four_hospitals() {
        assert!(quorum(4, 1).check(4).is_ok());
        assert!(quorum(3, 0).check(4).is_ok());
        // 3 of 4 with one colluder: he subtracts himself, two are left.
        let error = quorum(3, 1).check(4).unwrap_err().to_string();
        assert!(error.contains("k - c >= 3"), "{error}");
        assert!(quorum(5, 0).check(4).is_err());
        assert!(quorum(2, 2).check(4).is_err());
    }

    #[test]
    fn a_weaker_guarantee_must_be_named_and_only_then() {
        let weak = Quorum { accepts: vec![Weakness::FewHonestSites], ..quorum(2, 0) };
        assert!(quorum(2, 0).check(3).is_err());
        assert!(weak.check(3).is_ok());
        let needless = Quorum { accepts: vec![Weakness::FewHonestSites], ..quorum(3, 0) };
        assert!(needless.check(4).is_err());
    }

    /// What the rules are for, for every small study: any two rosters share an
    /// honest site, and whoever colludes is left with three others' sum.
    #[test]
    fn rosters_share_an_honest_site() {
        let mut accepted = 0;
        for (n, k, c) in (3..=8usize)
            .flat_map(|n| (2..=n).flat_map(move |k| (0..k).map(move |c| (n, k, c))))
            .filter(|(n, k, c)| quorum(*k, *c).check(*n).is_ok())
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
