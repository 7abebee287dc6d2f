//! A binding as people read it.

use super::{Committed, Ledger, counter, ledger};
use crate::Result;
use crate::home::{Home, read_json};
use crate::study::LocalStudy;
use sealfold_protocol::Digest;

/// What a binding says, read without taking hold of it: for people, while an
/// agent may be at work.
pub struct Recalled {
    ledger: Ledger,
    fault: Option<String>,
}

impl Recalled {
    /// Reads a study's binding.
    ///
    /// # Errors
    /// [`Error::File`](crate::Error::File).
    pub fn read(home: &Home, study: &LocalStudy) -> Result<Self> {
        // An agent that writes in between makes the ledger the younger one.
        let counted: u64 = read_json(&counter(home, study))?.unwrap_or_default();
        let ledger: Ledger = read_json(&ledger(study))?.unwrap_or_default();
        let is_older = ledger.generation < counted;
        let fault = is_older.then(|| {
            format!(
                "This site's binding is of generation {}, its counter of {counted}: one of the two \
                 was lost or restored.",
                ledger.generation
            )
        });
        Ok(Self { ledger, fault })
    }

    /// Why it cannot be relied on, if so.
    #[must_use]
    pub fn fault(&self) -> Option<String> {
        self.fault.clone()
    }

    /// The offer of a round that the site was bound to last, abandoned or not.
    #[must_use]
    pub fn last_bound(&self, round: u32) -> Option<Digest> {
        self.ledger.rounds.get(&round).map(|bound| bound.offer)
    }

    /// The offers of a round that were abandoned under this site.
    #[must_use]
    pub fn abandoned(&self, round: u32) -> Vec<Digest> {
        self.ledger.rounds.get(&round).map_or_else(Vec::new, |bound| bound.abandoned.clone())
    }

    /// The rosters of a round that the site committed to, in order.
    #[must_use]
    pub fn rosters(&self, round: u32) -> Vec<Committed> {
        self.ledger.commits.iter().filter(|commit| commit.round == round).cloned().collect()
    }

    /// Whether the site committed to a roster.
    #[must_use]
    pub fn has_committed(&self, roster: &Digest) -> bool {
        self.ledger.commits.iter().any(|commit| commit.roster == *roster)
    }
}
