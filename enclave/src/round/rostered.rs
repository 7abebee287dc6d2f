//! The phase in which sites commit to a roster, until it can be folded.

use super::{Open, Released, Round, Secrets, left, too_few};
use crate::admission::Admitted;
use sealfold_protocol::refusal::{Check, Refusal};
use sealfold_protocol::release::Release;
use sealfold_protocol::roster::{Commit, Member, Roster};
use sealfold_protocol::{Digest, Signed, SigningKey};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

/// A roster waits for the commit of each of its members.
pub struct Rostered {
    secrets: Arc<Secrets>,
    admitted: BTreeMap<String, Arc<Admitted>>,
    roster: Signed<Roster>,
    since: Instant,
    checkpoint: Option<Digest>,
    committed: BTreeSet<String>,
}

/// What a fold needs; exists only for a roster that everyone committed to.
pub struct Plan {
    /// The roster.
    pub roster: Signed<Roster>,
    /// Its updates, in its order.
    pub members: Vec<Arc<Admitted>>,
    /// The secrets, for the keyed hash.
    pub secrets: Arc<Secrets>,
}

impl Round<Open> {
    /// Closes the round for updates with a first roster of all that were
    /// admitted. Call [`Round::may_close`] before.
    ///
    /// # Errors
    /// The refusal of [`Round::may_close`], with the round as it was.
    pub fn close(
        self,
        key: &SigningKey,
        now: Instant,
    ) -> Result<Round<Rostered>, Box<(Self, Refusal)>> {
        if let Err(refusal) = self.may_close(now) {
            return Err(Box::new((self, refusal)));
        }
        match first_roster(&self, key) {
            Ok(roster) => {
                let Open { secrets, admitted, .. } = self.phase;
                let (since, checkpoint, committed) = (now, None, BTreeSet::new());
                let phase = Rostered { secrets, admitted, roster, since, checkpoint, committed };
                Ok(Round { subject: self.subject, phase })
            }
            Err(refusal) => Err(Box::new((self, refusal))),
        }
    }
}

fn first_roster(round: &Round<Open>, key: &SigningKey) -> Result<Signed<Roster>, Refusal> {
    sign(&round.subject, &round.phase.admitted, 1, key)
}

fn sign(
    subject: &super::Subject,
    admitted: &BTreeMap<String, Arc<Admitted>>,
    attempt: u32,
    key: &SigningKey,
) -> Result<Signed<Roster>, Refusal> {
    let members = admitted
        .iter()
        .map(|(site, update)| Member { site: site.clone(), header: update.header.digest() })
        .collect();
    let offer = subject.offer.statement();
    let roster = Roster {
        study: offer.study,
        round: offer.round,
        offer: subject.offer.digest(),
        attempt,
        members,
    };
    Ok(Signed::sign(roster, key)?)
}

impl Round<Rostered> {
    /// The roster that is open for commits.
    #[must_use]
    pub fn roster(&self) -> &Signed<Roster> {
        &self.phase.roster
    }

    /// The checkpoint of the log that commits to it have to name.
    #[must_use]
    pub fn checkpoint(&self) -> Option<Digest> {
        self.phase.checkpoint
    }

    /// Takes the checkpoint that ends with the roster's leaf, once: sites that
    /// were shown another log have no commit here, and so no release.
    ///
    /// # Errors
    /// A refusal by `roster` for another roster, by `checkpoint` for a second
    /// checkpoint.
    pub fn take_checkpoint(&mut self, roster: &Digest, checkpoint: Digest) -> Result<(), Refusal> {
        let standing = self.phase.roster.digest();
        if *roster != standing {
            return Err(Refusal::new(Check::Roster, standing, roster));
        }
        let known = *self.phase.checkpoint.get_or_insert(checkpoint);
        if known != checkpoint {
            return Err(Refusal::new(Check::Checkpoint, known, checkpoint));
        }
        Ok(())
    }

    /// The sites that have committed to it.
    #[must_use]
    pub fn committed(&self) -> &BTreeSet<String> {
        &self.phase.committed
    }

    /// The updates that are still in the round.
    pub fn admitted(&self) -> impl Iterator<Item = &Arc<Admitted>> {
        self.phase.admitted.values()
    }

    /// Seconds until a site that has not committed may be dropped.
    #[must_use]
    pub fn seconds_left(&self, now: Instant) -> u64 {
        left(self.phase.since, self.subject.terms.deadlines.commit_seconds, now)
    }

    /// Takes a site's commit.
    ///
    /// # Errors
    /// A refusal by `signature`, `site`, `phase` if there is no checkpoint yet,
    /// `checkpoint` if it names another one, or `roster` if it is not exactly the commit of a
    /// member to the roster that stands.
    pub fn commit(&mut self, envelope: &[u8]) -> Result<(), Refusal> {
        let subject = &self.subject;
        let commit = Signed::<Commit>::open_by(envelope, |commit| {
            subject.terms.site(&commit.site).map(|site| site.signing_key)
        })?;
        let found = commit.statement().checkpoint;
        let expected = self.phase.checkpoint.ok_or_else(|| {
            Refusal::new(Check::Phase, "the roster's checkpoint, from the host", "none yet")
                .next("the round waits; ask again")
        })?;
        if commit.statement().roster == self.phase.roster.digest() && found != expected {
            return Err(Refusal::new(Check::Checkpoint, expected, found)
                .next("stop: this site was shown another log than the enclave"));
        }
        commit.statement().expect(&self.phase.roster, &expected).map_err(|error| {
            Refusal::new(Check::Roster, "a commit to the roster that stands", error)
        })?;
        self.phase.committed.insert(commit.statement().site.clone());
        Ok(())
    }

    /// The members that have not committed.
    #[must_use]
    pub fn missing(&self) -> BTreeSet<String> {
        let members = self.phase.admitted.keys();
        members.filter(|site| !self.phase.committed.contains(*site)).cloned().collect()
    }

    /// What the fold needs, once every member has committed.
    ///
    /// # Errors
    /// A refusal by `commits` naming who is missing.
    pub fn plan(&self, now: Instant) -> Result<Plan, Refusal> {
        let missing = self.missing();
        if !missing.is_empty() {
            let seconds = self.seconds_left(now);
            return Err(Refusal::new(
                Check::Commits,
                "the commit of every site on the roster",
                format!("none of {missing:?}"),
            )
            .next(format!("the round waits {seconds} s more for commits")));
        }
        Ok(Plan {
            roster: self.phase.roster.clone(),
            members: self.phase.admitted.values().cloned().collect(),
            secrets: self.phase.secrets.clone(),
        })
    }

    /// A smaller roster without some sites, open for commits anew; or, if
    /// fewer than k are left, the refusal that closes the round.
    ///
    /// # Errors
    /// A refusal by `smallest-roster`; the round and its keys are gone then.
    pub fn without(
        mut self,
        sites: &BTreeSet<String>,
        key: &SigningKey,
        now: Instant,
    ) -> Result<Self, Refusal> {
        self.phase.admitted.retain(|site, _| !sites.contains(site));
        let (found, smallest) =
            (self.phase.admitted.len(), self.subject.terms.quorum.smallest_roster);
        if found < smallest {
            return Err(too_few(smallest, found));
        }
        let attempt = self.phase.roster.statement().attempt + 1;
        self.phase.roster = sign(&self.subject, &self.phase.admitted, attempt, key)?;
        self.phase.since = now;
        self.phase.checkpoint = None;
        self.phase.committed.clear();
        Ok(self)
    }

    /// The end of the round; its secrets and keys are dropped.
    #[must_use]
    pub fn released(self, release: Signed<Release>) -> Round<Released> {
        let phase = Released { roster: self.phase.roster, release };
        Round { subject: self.subject, phase }
    }
}
