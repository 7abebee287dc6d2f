//! A round, as types: what can be done in a phase is a method of that phase,
//! and a phase that is over does not exist any more.
//!
//! `Round<Open>` admits updates, `Round<Rostered>` collects commits,
//! `Round<Released>` has disclosed its one key and has no other. The round's
//! secrets live in the first two; leaving them erases the secrets.

use crate::admission::Admitted;
use crate::keyed_hash::KeyedHash;
use sealfold_aggregation::noise::Seed;
use sealfold_protocol::offer::Offer;
use sealfold_protocol::refusal::{Check, Refusal};
use sealfold_protocol::release::Release;
use sealfold_protocol::roster::Roster;
use sealfold_protocol::seal::RoundSecret;
use sealfold_protocol::terms::{RoundKind, Terms};
use sealfold_protocol::update::UpdateHeader;
use sealfold_protocol::{Digest, Signed};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

mod rostered;
pub use rostered::{Plan, Rostered};

/// What a round is about; public, and the same in every phase.
#[derive(Debug)]
pub struct Subject {
    /// The study's identity.
    pub study: Digest,
    /// The terms of the manifest in force.
    pub terms: Terms,
    /// The sites that signed it.
    pub participants: BTreeSet<String>,
    /// This instance's offer.
    pub offer: Signed<Offer>,
    /// When the offer was made, by the enclave's own clock.
    pub started: Instant,
}

/// What must not outlive the round.
pub struct Secrets {
    /// The private half of the offer's update key.
    pub round: RoundSecret,
    /// The key of the hash that ties admission and fold together.
    pub hash: KeyedHash,
    /// What the round's privacy noise is drawn from, if the study has any.
    pub noise: Option<Seed>,
}

/// A round in phase `P`.
pub struct Round<P> {
    subject: Arc<Subject>,
    phase: P,
}

/// Updates are admitted.
pub struct Open {
    secrets: Arc<Secrets>,
    admitted: BTreeMap<String, Arc<Admitted>>,
    /// Sites whose update is being read at this moment.
    reading: BTreeMap<String, Digest>,
}

/// The key of the aggregate is disclosed; the round's secrets are gone.
pub struct Released {
    roster: Signed<Roster>,
    release: Signed<Release>,
}

impl Subject {
    /// What the round is for.
    #[must_use]
    pub fn kind(&self) -> RoundKind {
        self.terms.kind(self.offer.statement().round)
    }

    /// The clip of this round: the offer's where it is adaptive, the
    /// manifest's otherwise; 0 without privacy noise.
    #[must_use]
    pub fn clip(&self) -> f64 {
        let agreed = self.terms.privacy.noise().map_or(0.0, |noise| noise.clip);
        self.offer.statement().clip.unwrap_or(agreed)
    }

    /// When the round ends, by the enclave's own clock.
    #[must_use]
    pub fn ends(&self) -> Option<Instant> {
        self.started.checked_add(Duration::from_secs(self.terms.deadlines.round_seconds))
    }
}

impl<P> Round<P> {
    /// What the round is about.
    #[must_use]
    pub fn subject(&self) -> &Arc<Subject> {
        &self.subject
    }

    /// Whether the round's time is over.
    #[must_use]
    pub fn is_over(&self, now: Instant) -> bool {
        left(self.subject.started, self.subject.terms.deadlines.round_seconds, now) == 0
    }
}

impl Round<Open> {
    /// Opens a round.
    #[must_use]
    pub fn open(subject: Subject, secrets: Secrets) -> Self {
        let phase = Open {
            secrets: Arc::new(secrets),
            admitted: BTreeMap::new(),
            reading: BTreeMap::new(),
        };
        Self { subject: Arc::new(subject), phase }
    }

    /// The round's secrets, for an admission.
    #[must_use]
    pub fn secrets(&self) -> Arc<Secrets> {
        self.phase.secrets.clone()
    }

    /// The admitted updates.
    pub fn admitted(&self) -> impl Iterator<Item = &Arc<Admitted>> {
        self.phase.admitted.values()
    }

    /// Checks everything about a header that needs no decryption, and takes
    /// the site's place while its records are read. `Ok(Some)` is the receipt
    /// of an update that is admitted already.
    ///
    /// # Errors
    /// A refusal by `signature`, `site`, `site-approval`, `round`, `offer`,
    /// `layout`, `one-update` or `phase`.
    pub fn begin_admission(
        &mut self,
        envelope: &[u8],
    ) -> Result<(Signed<UpdateHeader>, Option<Arc<Admitted>>), Refusal> {
        let subject = &self.subject;
        let header = Signed::<UpdateHeader>::open_by(envelope, |header| {
            subject.terms.site(&header.site).map(|site| site.signing_key)
        })?;
        let statement = header.statement();
        if !subject.participants.contains(&statement.site) {
            return Err(Refusal::new(
                Check::SiteApproval,
                "a site that had signed the manifest when the offer was made",
                &statement.site,
            )
            .next("take part from the next offer on; who has not signed, signs: sealfold study approve"));
        }
        let offer = subject.offer.statement();
        if (statement.study, statement.round) != (offer.study, offer.round) {
            return Err(Refusal::new(
                Check::Round,
                format!("round {} of study {}", offer.round, offer.study.short()),
                format!("round {} of study {}", statement.round, statement.study.short()),
            ));
        }
        if statement.offer != subject.offer.digest() {
            return Err(Refusal::new(Check::Offer, subject.offer.digest(), statement.offer)
                .next("seal the update again to the offer that stands now"));
        }
        let expected = subject.terms.update_length(subject.kind());
        if statement.plain_length != expected {
            return Err(Refusal::new(
                Check::Layout,
                format!("{expected} bytes of plaintext"),
                format!("{} bytes", statement.plain_length),
            ));
        }
        if let Some(admitted) = self.phase.admitted.get(&statement.site) {
            if admitted.header.digest() == header.digest() {
                let again = admitted.clone();
                return Ok((header, Some(again)));
            }
            return Err(second_update(admitted.header.digest(), header.digest()));
        }
        if let Some(other) = self.phase.reading.get(&statement.site) {
            if *other == header.digest() {
                return Err(Refusal::new(
                    Check::Phase,
                    "one admission at a time",
                    "this update is being read",
                )
                .next("ask again in a moment"));
            }
            return Err(second_update(*other, header.digest()));
        }
        self.phase.reading.insert(statement.site.clone(), header.digest());
        Ok((header, None))
    }

    /// Gives the site's place back and, if the pass went well, the update in.
    pub fn end_admission(&mut self, site: &str, admitted: Option<Arc<Admitted>>) {
        self.phase.reading.remove(site);
        if let Some(admitted) = admitted {
            self.phase.admitted.insert(site.to_owned(), admitted);
        }
    }

    /// The roster that can be formed now: all participants, or, when the time
    /// for uploads is over, all that were admitted, at least k.
    ///
    /// # Errors
    /// A refusal by `phase` (too early) or `smallest-roster`.
    pub fn may_close(&self, now: Instant) -> Result<(), Refusal> {
        let subject = &self.subject;
        let (found, smallest) = (self.phase.admitted.len(), subject.terms.quorum.smallest_roster);
        let seconds = left(subject.started, subject.terms.deadlines.upload_seconds, now);
        if !self.phase.reading.is_empty() {
            return Err(Refusal::new(
                Check::Phase,
                "no admission under way",
                self.phase.reading.len(),
            ));
        }
        if found < subject.participants.len() && seconds > 0 {
            return Err(Refusal::new(
                Check::Phase,
                format!("{} updates", subject.participants.len()),
                format!("{found}"),
            )
            .next(format!("the round waits {seconds} s more for uploads")));
        }
        if found < smallest {
            return Err(too_few(smallest, found));
        }
        Ok(())
    }
}

impl Round<Released> {
    /// The release.
    #[must_use]
    pub fn release(&self) -> &Signed<Release> {
        &self.phase.release
    }

    /// The roster that was folded.
    #[must_use]
    pub fn roster(&self) -> &Signed<Roster> {
        &self.phase.roster
    }
}

/// Seconds left of a span that began at `start`.
#[must_use]
pub fn left(start: Instant, seconds: u64, now: Instant) -> u64 {
    let gone = now.saturating_duration_since(start);
    let remaining = Duration::from_secs(seconds).saturating_sub(gone);
    remaining.as_secs() + u64::from(remaining.subsec_nanos() > 0)
}

fn second_update(expected: Digest, found: Digest) -> Refusal {
    Refusal::new(
        Check::OneUpdate,
        format!("one update a site and round, {}", expected.short()),
        format!("another, {}", found.short()),
    )
}

fn too_few(smallest: usize, found: usize) -> Refusal {
    Refusal::new(Check::SmallestRoster, format!("at least {smallest} sites"), format!("{found}"))
        .next("the round waits for more sites, or is abandoned; it is never released")
}
