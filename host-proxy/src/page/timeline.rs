//! A round as a line of six steps: offered, uploads, receipts, roster, commits,
//! release. Each says how far it is, in words and not by colour alone.

use super::html::Html;
use crate::state::Round;
use sealfold_protocol::Signed;
use sealfold_protocol::api::{UploadState, UploadStatus};
use sealfold_protocol::roster::Roster;

/// How far a round is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// Sites that take part.
    pub sites: usize,
    /// Complete uploads.
    pub uploads: usize,
    /// Admitted uploads.
    pub receipts: usize,
    /// Sites on the roster.
    pub roster: Option<usize>,
    /// Commits to it.
    pub commits: usize,
    /// Whether there is an offer.
    pub is_offered: bool,
    /// Whether it is released.
    pub is_released: bool,
}

/// A step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Done,
    Now,
    Later,
}

impl Progress {
    /// Of a round, with its uploads.
    #[must_use]
    pub fn of(sites: usize, round: Option<&Round>, uploads: &[UploadStatus]) -> Self {
        let count = |is: fn(&UploadState) -> bool| uploads.iter().filter(|u| is(&u.state)).count();
        let admitted = |state: &UploadState| matches!(state, UploadState::Admitted(_));
        let complete =
            |state: &UploadState| matches!(state, UploadState::Stored | UploadState::Admitted(_));
        let roster = round.and_then(|round| round.roster.as_ref());
        let members = roster.map(|roster: &Signed<Roster>| roster.statement().members.len());
        let is_released = round.is_some_and(|round| round.release.is_some());
        let commits = round.map_or(0, |round| round.commits.len());
        // After a release the uploads are gone.
        let folded = members.filter(|_| is_released);
        Self {
            sites,
            uploads: folded.unwrap_or_else(|| count(complete)),
            receipts: folded.unwrap_or_else(|| count(admitted)),
            roster: members,
            commits,
            is_offered: round.is_some_and(|round| round.offer.is_some()),
            is_released,
        }
    }

    fn steps(&self) -> [(Step, &'static str, String); 6] {
        let has_roster = self.roster.is_some();
        let step = |done: bool, now: bool| match (done, now) {
            (true, _) => Step::Done,
            (false, true) => Step::Now,
            (false, false) => Step::Later,
        };
        let members = self.roster.unwrap_or(self.sites);
        let all_in = self.commits >= members && has_roster;
        [
            (step(self.is_offered, true), "Offered", String::new()),
            (
                step(has_roster, self.is_offered),
                "Uploads",
                format!("{} of {}", self.uploads, self.sites),
            ),
            (
                step(has_roster, self.uploads > 0),
                "Receipts",
                format!("{} of {}", self.receipts, self.sites),
            ),
            (
                step(has_roster, false),
                "Roster",
                self.roster.map_or_else(String::new, |n| format!("{n} sites")),
            ),
            (
                step(all_in || self.is_released, has_roster),
                "Commits",
                if has_roster { format!("{} of {members}", self.commits) } else { String::new() },
            ),
            (step(self.is_released, all_in), "Release", String::new()),
        ]
    }

    /// Draws the line.
    pub fn draw(&self, page: &mut Html) {
        page.markup("<ol class=line aria-label=\"The round, step by step\">");
        for (step, name, detail) in self.steps() {
            let (open, word) = match step {
                Step::Done => ("<li class=good><b>", "✓ done"),
                Step::Now => ("<li class=now aria-current=step><b>", "● now"),
                Step::Later => ("<li class=soft><b>", "○ not yet"),
            };
            page.within(open, name, "</b><span>").text(word);
            if !detail.is_empty() {
                page.within(" · ", detail, "");
            }
            page.markup("</span></li>");
        }
        page.markup("</ol>");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steps(progress: &Progress) -> Vec<Step> {
        progress.steps().into_iter().map(|(step, ..)| step).collect()
    }

    #[test]
    fn a_round_goes_from_left_to_right() {
        use Step::{Done, Later, Now};
        let idle = Progress::of(4, None, &[]);
        assert_eq!(steps(&idle), [Now, Later, Later, Later, Later, Later]);
        let open = Progress { is_offered: true, ..idle };
        assert_eq!(steps(&open), [Done, Now, Later, Later, Later, Later]);
        let some = Progress { uploads: 3, receipts: 2, ..open };
        assert_eq!(steps(&some), [Done, Now, Now, Later, Later, Later]);
        let rostered = Progress { roster: Some(3), commits: 1, ..some };
        assert_eq!(steps(&rostered), [Done, Done, Done, Done, Now, Later]);
        assert_eq!(rostered.steps()[4].2, "1 of 3");
        let folding = Progress { commits: 3, ..rostered };
        assert_eq!(steps(&folding), [Done, Done, Done, Done, Done, Now]);
        let released = Progress { is_released: true, ..folding };
        assert_eq!(steps(&released), [Done; 6]);
    }
}
