//! What it means that a study gives up a promise, for the people who approve.

use sealfold_protocol::terms::{Privacy, Rule, Terms, Weakness, listed};
use sealfold_protocol::text::counted;
use sealfold_protocol::{Error, Result};

/// What giving up a promise means in a study with these terms.
#[must_use]
pub fn meaning(weakness: Weakness, terms: &Terms) -> String {
    match weakness {
        Weakness::TwoReleasesOfOneRound => {
            "a host that runs two enclaves may obtain two aggregates of one round and subtract them"
                .to_owned()
        }
        Weakness::FewHonestSites => "colluding sites may subtract their own updates and be left \
                                     with the sum of fewer than three hospitals"
            .to_owned(),
        Weakness::ChangingAttendance => match terms.privacy {
            Privacy::Patient(_) => "sites may come and go between rounds, so a hospital's totals \
                                    can become visible; its patients stay hidden by noise"
                .to_owned(),
            _ => "sites may come and go between rounds, and an amendment may change weights and \
                  rule, so a hospital's update can be worked out from two releases"
                .to_owned(),
        },
        Weakness::OverlappingStudies => "another study on the same data, with a model of the same \
                                         layout, may have other rosters, so what tells the two \
                                         rosters apart can be worked out"
            .to_owned(),
        Weakness::SelectiveRule => selective(terms),
        Weakness::DominantWeight => {
            let site = terms.dominant_site();
            let name = site.map_or("one site", |(site, _)| site.name.as_str());
            format!(
                "the weight of {name} is more than half of what colluders may be left with, so a \
                 release is mostly its update"
            )
        }
        Weakness::PerSiteMetrics => {
            "each release shows the metrics or counts of single hospitals, without noise".to_owned()
        }
    }
}

/// What a selective rule lets out.
fn selective(terms: &Terms) -> String {
    let rule = terms.aggregation.rule;
    let (k, n) = (terms.quorum.smallest_roster, terms.sites.len());
    let of = |rule: sealfold_aggregation::rule::Rule| {
        (k..=n).map(move |roster| rule.sites_behind_a_value(roster)).min()
    };
    let behind = terms.aggregation.selective().and_then(of);
    let behind = match (rule, behind) {
        (Rule::Krum, _) => "it releases one hospital's update as it was sent".to_owned(),
        (Rule::Median | Rule::TrimmedMean | Rule::MultiKrum | Rule::Bulyan, Some(sites)) => {
            let stands = if sites == 1 { "stands" } else { "stand" };
            format!(
                "behind each value of a release {stands} as few as {} of a roster of {k}",
                counted(sites as u64, "hospital")
            )
        }
        _ => "how much a hospital counts depends on the others' updates".to_owned(),
    };
    format!(
        "{} is a selective rule: what a release says of one hospital depends on what the others \
         send, so colluding sites can choose it; {behind}",
        rule.name()
    )
}

/// Refuses terms that do not name a promise which they give up, with what giving
/// it up means.
///
/// # Errors
/// [`Error::Manifest`] naming `accepts`.
pub fn expect_accepted(terms: &Terms) -> Result<()> {
    let unnamed = terms.weaknesses().into_iter().find(|weak| !terms.accepts.contains(weak));
    let Some(weakness) = unnamed else { return Ok(()) };
    Err(Error::Manifest {
        field: "accepts".to_owned(),
        expected: format!(
            "to name \"{weakness}\", since {} ({})",
            terms.because(weakness),
            meaning(weakness, terms)
        ),
        found: listed(&terms.accepts),
        next: Some(
            "change the study so that the promise holds, or give it up by name at the top of the \
             manifest, accepts = [\"...\"]: docs/manifest.md says what each name means",
        ),
    })
}
