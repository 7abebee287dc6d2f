//! The promises that a study gives up, each by a name in its one list `accepts`.

use super::{Rule, Terms, expect};
use crate::Result;
use serde::{Deserialize, Serialize};
use std::fmt;

/// A promise that a study may give up by naming it. None is given up by default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Weakness {
    /// `2k > n + c` does not hold: a round may have two releases.
    TwoReleasesOfOneRound,
    /// `k - c >= 3` does not hold: colluders may be left with fewer than three
    /// hospitals' sum.
    FewHonestSites,
    /// Without site-level noise, sites may come and go between rounds.
    ChangingAttendance,
    /// Without site-level noise, another study on the same data source whose
    /// model has the same layout may have other rosters.
    OverlappingStudies,
    /// No noise, and the rule is not a mean with fixed weights.
    SelectiveRule,
    /// No noise, and one site's weight is more than half of its group's.
    DominantWeight,
    /// No noise, and a channel releases the values of single sites.
    PerSiteMetrics,
}

impl Weakness {
    /// Its name in a manifest.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::TwoReleasesOfOneRound => "two-releases-of-one-round",
            Self::FewHonestSites => "few-honest-sites",
            Self::ChangingAttendance => "changing-attendance",
            Self::OverlappingStudies => "overlapping-studies",
            Self::SelectiveRule => "selective-rule",
            Self::DominantWeight => "dominant-weight",
            Self::PerSiteMetrics => "per-site-metrics",
        }
    }

    /// Whether it is a permission, of which nothing else in the terms tells
    /// whether the study needs it.
    fn is_permission(self) -> bool {
        matches!(self, Self::ChangingAttendance | Self::OverlappingStudies)
    }
}

impl fmt::Display for Weakness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Names, or that there are none.
#[must_use]
pub fn listed(weaknesses: &[Weakness]) -> String {
    match weaknesses {
        [] => "none".to_owned(),
        named => named.iter().map(|weakness| weakness.name()).collect::<Vec<_>>().join(", "),
    }
}

impl Terms {
    /// The promises that these terms do not keep, sorted. A study that is to
    /// run has to name each of them in `accepts`.
    #[must_use]
    pub fn weaknesses(&self) -> Vec<Weakness> {
        let mut weak = self.quorum.weaknesses(self.sites.len());
        if self.privacy.noise().is_none() {
            if !self.aggregation.rule.is_exact() {
                weak.push(Weakness::SelectiveRule);
            }
            if self.dominant_site().is_some() {
                weak.push(Weakness::DominantWeight);
            }
            if self.channels.iter().any(|channel| channel.per_site) {
                weak.push(Weakness::PerSiteMetrics);
            }
        }
        weak
    }

    /// The first site whose weight is more than half of what may be left of its
    /// group when the `c` heaviest others subtract themselves, and the largest weight
    /// that would not be. None for a rule that does not use weights.
    ///
    /// A group is a set of sites with the same attendance. In the worst case it
    /// is as small as attendance allows, and beside the site it has the lightest
    /// others.
    #[must_use]
    pub fn dominant_site(&self) -> Option<(&super::Site, u64)> {
        if !self.aggregation.rule.counts_weights() {
            return None;
        }
        let group = self.smallest_group();
        self.sites.iter().find_map(|site| {
            let mut others: Vec<u64> = (self.sites.iter())
                .filter(|other| other.name != site.name)
                .map(|other| u64::from(other.weight))
                .collect();
            others.sort_unstable();
            let honest = group.saturating_sub(1).saturating_sub(self.quorum.colluders);
            let left: u64 = others.iter().take(honest).sum();
            (u64::from(site.weight) > left).then_some((site, left))
        })
    }

    /// The fewest sites that are taken to have the same attendance: all of them
    /// where none may be absent; `c + 3` where so many may be absent; otherwise
    /// those of the smallest roster.
    fn smallest_group(&self) -> usize {
        let (n, k) = (self.sites.len(), self.quorum.smallest_roster);
        let least = self.quorum.colluders + super::quorum::FEWEST_HONEST;
        if k < n && n - k >= least { least.min(k) } else { k }
    }

    pub(super) fn check_accepts(&self) -> Result<()> {
        let sorted = self.accepts.windows(2).all(|pair| pair[0] < pair[1]);
        expect("accepts", sorted, "names sorted, each once", listed(&self.accepts))?;
        let weak = self.weaknesses();
        for weakness in &weak {
            expect(
                "accepts",
                self.accepts.contains(weakness),
                format!("to name {weakness}, since {}", self.because(*weakness)),
                listed(&self.accepts),
            )?;
        }
        let with_site_noise = matches!(self.privacy, super::Privacy::Site(_));
        for accepted in &self.accepts {
            let permitted = accepted.is_permission() && !with_site_noise;
            expect(
                "accepts",
                permitted || weak.contains(accepted),
                format!("only promises that the study does not keep: {}", listed(&weak)),
                accepted,
            )?;
        }
        Ok(())
    }

    /// The condition that does not hold, in numbers.
    #[must_use]
    pub fn because(&self, weakness: Weakness) -> String {
        let (n, k, c) = (self.sites.len(), self.quorum.smallest_roster, self.quorum.colluders);
        match weakness {
            Weakness::TwoReleasesOfOneRound => {
                format!("2k > n + c does not hold: 2*{k} > {n}+{c}")
            }
            Weakness::FewHonestSites => format!("k - c >= 3 does not hold: {k}-{c} >= 3"),
            Weakness::SelectiveRule => {
                format!("{} without noise is not a mean with fixed weights", self.rule_name())
            }
            Weakness::DominantWeight => match self.dominant_site() {
                Some((site, most)) => format!(
                    "weight {} of {} is above {most}, the weight of all who may be left beside it",
                    site.weight, site.name
                ),
                None => "one weight is more than half of its group's".to_owned(),
            },
            Weakness::PerSiteMetrics => "a channel is per site, without noise".to_owned(),
            Weakness::ChangingAttendance | Weakness::OverlappingStudies => {
                "the study asks for it".to_owned()
            }
        }
    }

    fn rule_name(&self) -> &'static str {
        Rule::name(self.aggregation.rule)
    }
}
