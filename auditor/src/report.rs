//! What a replay comes to.

use crate::finding::Finding;
use crate::summary::{Released, Summary};
use jiff::Timestamp;
use sealfold_attestation::log::cosignature::Cosignature;
use sealfold_protocol::leaf::Kind;
use serde::Serialize;
use std::collections::BTreeMap;

/// The report of one replay.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The log's origin.
    pub log: String,
    /// The leaves that its checkpoint covers.
    pub size: u64,
    /// The root.
    pub root: String,
    /// The auditor's time.
    pub replayed_at: Timestamp,
    /// Whether nothing was left out.
    pub completeness: Completeness,
    /// How many findings of that kind there are.
    pub safety: u64,
    /// How many findings of that kind there are.
    pub liveness: u64,
    /// The findings, safety first; the first thousand.
    pub findings: Vec<Finding>,
    /// How many leaves of each kind were read.
    pub leaves: BTreeMap<Kind, u64>,
    /// The studies.
    pub studies: Vec<Summary>,
    /// The latest released rounds.
    pub rounds: Vec<Released>,
}

/// Whether it can be shown that nothing was left out.
#[derive(Debug, Serialize)]
pub struct Completeness {
    /// Whether every leaf up to the checkpoint could be read.
    pub whole: bool,
    /// Up to which leaf others vouch for the log, by a checkpoint that was given
    /// or a cosignature.
    pub shown_up_to: u64,
    /// The witnesses that cosigned the log's own checkpoint.
    pub cosigned: Vec<Cosigned>,
    /// The same in words.
    pub words: String,
}

/// A cosignature.
#[derive(Debug, Serialize)]
pub struct Cosigned {
    /// By whom.
    pub name: String,
    /// When.
    pub time: Option<Timestamp>,
}

impl Completeness {
    /// Of a log of this size, with the size of the furthest checkpoint that was
    /// given, and the cosignatures of its own.
    #[must_use]
    pub fn of(
        whole: bool,
        size: u64,
        furthest: Option<u64>,
        cosignatures: Vec<Cosignature>,
    ) -> Self {
        let time = |seconds: u64| Timestamp::from_second(i64::try_from(seconds).ok()?).ok();
        let cosigned: Vec<_> = cosignatures
            .into_iter()
            .map(|found| Cosigned { name: found.name, time: time(found.time) })
            .collect();
        let by_others = if cosigned.is_empty() { None } else { Some(size) };
        let vouched = furthest.max(by_others);
        let shown_up_to = vouched.unwrap_or(0).min(size);
        let words = match vouched {
            _ if !whole => "not shown: the copy could not be read to its end".to_owned(),
            None => "not shown: without a checkpoint that a site or a witness kept, leaves may \
                be hidden at the end"
                .to_owned(),
            Some(vouched) if vouched > size => {
                format!("refuted: others have seen {vouched} leaves, this copy has {size}")
            }
            Some(vouched) if vouched == size => {
                format!("shown: others vouch for all {size} leaves")
            }
            Some(vouched) => format!(
                "shown up to leaf {vouched} of {size}: nothing before it is hidden or changed"
            ),
        };
        Self { whole, shown_up_to, cosigned, words }
    }
}

impl Report {
    /// The verdict as an exit code: 0 if nothing is wrong, 1 with findings.
    #[must_use]
    pub fn code(&self) -> u8 {
        u8::from(self.safety + self.liveness > 0)
    }

    /// The verdict in a sentence.
    #[must_use]
    pub fn verdict(&self) -> String {
        let count = |n: u64, what: &str| match n {
            1 => format!("1 {what} finding"),
            n => format!("{n} {what} findings"),
        };
        if self.code() == 0 {
            let releases = self.leaves.get(&Kind::Release).copied().unwrap_or(0);
            let simulated = |round: &Released| round.measured.as_ref().is_some_and(|m| m.simulated);
            let evidence = if self.rounds.iter().any(simulated) {
                "evidence (SIMULATED: no hardware vouches for it)"
            } else {
                "genuine evidence"
            };
            return format!(
                "Nothing is wrong: all {} leaves hold, and each of {releases} releases follows \
                 from an approved manifest, {evidence} and the commits of its sites.",
                self.size
            );
        }
        format!("{}, {}.", count(self.safety, "safety"), count(self.liveness, "liveness"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn completeness_is_what_others_vouch_for() {
        let cosigned = || vec![Cosignature { name: "witness".to_owned(), time: 1_700_000_000 }];
        let of = |whole, furthest, cosigned| {
            let found = Completeness::of(whole, 10, furthest, cosigned);
            (found.shown_up_to, found.words)
        };
        assert!(of(true, None, Vec::new()).1.starts_with("not shown: without"));
        assert_eq!(of(true, Some(7), Vec::new()).0, 7);
        assert_eq!(of(true, Some(10), Vec::new()).1, "shown: others vouch for all 10 leaves");
        // A witness of the checkpoint itself vouches for all of it.
        assert_eq!(of(true, Some(7), cosigned()).0, 10);
        let (shown, words) = of(true, Some(12), cosigned());
        assert!(shown == 10 && words.starts_with("refuted"), "{words}");
        assert!(of(false, Some(10), cosigned()).1.starts_with("not shown: the copy"));
    }
}
