//! Where a study stands when its leaves are at their end.

use super::Study;
use crate::finding::{Check, Finding};
use crate::summary::Summary;
use jiff::{SignedDuration, Timestamp};

/// How far the clocks of a platform and an auditor may differ.
const LEEWAY: SignedDuration = SignedDuration::from_mins(5);

impl Study {
    /// At the end of the log, at the auditor's own time.
    pub fn end(&self, now: Timestamp, findings: &mut Vec<Finding>) -> Summary {
        let current = self.chain.current();
        let manifest = current.statement().clone();
        let approval = &manifest.terms.approval;
        // A platform's clock that runs ahead, or an auditor's that is behind.
        let clock = self.clock.map(|(time, _)| time);
        if let Some(ahead) = clock.filter(|time| time.duration_since(now) > LEEWAY) {
            let expected = format!("evidence not after {now}, the time of the audit");
            findings.push(Finding::new(Check::Clock, expected, ahead).within(self.id(), None));
        }
        let mut open = None;
        if let Some(round) = self.round.as_ref().filter(|round| round.release.is_none()) {
            open =
                Some(format!("round {}: {} offers, no release", round.number, round.offers.len()));
            for offered in round.offers.values() {
                let waiting = offered.waiting();
                let end = offered.measured.as_ref().map(|m| m.time.as_second());
                let seconds = i64::try_from(offered.seconds).unwrap_or(i64::MAX);
                let is_over = end.is_some_and(|t| t.saturating_add(seconds) < now.as_second());
                if !waiting.is_empty() && is_over {
                    let expected = "a release, or an abandonment, within the round's time";
                    let found =
                        format!("commits of {waiting:?} under offer {}", offered.offer.digest());
                    let finding = Finding::new(Check::Unfinished, expected, found).at(offered.leaf);
                    findings.push(finding.within(self.id(), Some(round.number)));
                }
            }
        }
        Summary {
            study: self.id(),
            manifests: self.chain.manifests().len(),
            participants: self.chain.participants().into_iter().map(str::to_owned).collect(),
            approvals: current.expect_approvals(&approval.approvers, 0).unwrap_or(0),
            released: self.released,
            last_round: manifest.terms.last_round(),
            took_part: self.took_part.clone(),
            images: self.images.clone(),
            open,
            manifest,
            privacy: self.account.spent(),
        }
    }
}
