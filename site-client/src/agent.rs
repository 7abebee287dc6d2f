//! The agent: does rounds unattended.
//!
//! One loop that looks at where things stand and does the next thing; whatever
//! it does can be cut short and done again. It re-verifies and re-seals on its
//! own when the enclave was restarted before its first commit, and never after.
//!
//! It waits for what others have yet to do. A training that fails, or an update
//! that was damaged on its way, it does again, so many times in a row and no more.

pub use crate::attempts::Memory;
use crate::binding::Binding;
use crate::client::Client;
use crate::error::SiteRefusal;
use crate::home::Home;
use crate::keys::Keys;
use crate::report::Voice;
use crate::round::Site;
use crate::study::{Joined, LocalStudy};
use crate::update::SealedUpdate;
use crate::{Error, Result, data};
use jiff::Timestamp;
use sealfold_attestation::Policy;
use sealfold_protocol::api::{RoundStatus, UploadState};
use sealfold_protocol::offer::Offer;
use sealfold_protocol::refusal::Check;
use sealfold_protocol::roster::Commit;
use sealfold_protocol::{Digest, Signed};
use serde_json::json;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// The longest pause between two tries.
const LONGEST_PAUSE: Duration = Duration::from_mins(1);

/// What an agent was asked for.
#[derive(Debug, Clone)]
pub struct Assignment {
    /// The study.
    pub study: Digest,
    /// The training command, if the site trains.
    pub train: Option<String>,
    /// The data that is checked before the site takes part.
    pub data: Option<PathBuf>,
    /// Rounds after which the agent ends.
    pub max_rounds: Option<u32>,
    /// How often it looks.
    pub poll: Duration,
}

/// An agent of one site for one study.
pub struct Agent<'a> {
    /// The site's folder.
    pub home: &'a Home,
    /// Its keys.
    pub keys: &'a Keys,
    /// Its policy.
    pub policy: &'a Policy,
    /// The host.
    pub client: &'a Client,
    /// How it speaks.
    pub voice: Voice,
    /// Set when it is to stop.
    pub stop: Arc<AtomicBool>,
}

/// Whether a refusal says no more than that the round is elsewhere by now.
#[must_use]
pub fn moved_on(check: Check) -> bool {
    matches!(
        check,
        Check::Phase
            | Check::Offer
            | Check::Round
            | Check::Roster
            | Check::Upload
            | Check::Deadline
            | Check::SmallestRoster
    )
}

/// What a look at the round came to.
#[derive(Debug)]
pub enum Look {
    /// Something was done; look again at once.
    Again,
    /// Nothing to do but wait, for this.
    Wait(String),
    /// An attempt at an update failed; another one may not.
    Failed(Error),
    /// A round is released.
    Released,
    /// The study is over.
    Done,
}

impl Agent<'_> {
    /// Runs until the study is over, or so many rounds are.
    ///
    /// # Errors
    /// Whatever is not passing; [`Error::Stopped`].
    pub fn run(&self, assignment: &Assignment) -> Result<u32> {
        let local = LocalStudy::new(self.home, assignment.study);
        let mut memory = Memory::new(Binding::open(self.home, &local)?);
        let (mut rounds, mut pause, mut said) = (0, assignment.poll, String::new());
        loop {
            if self.stop.load(Ordering::Relaxed) {
                return Err(Error::Stopped);
            }
            let wait = match self.once(assignment, &mut memory) {
                Ok(Look::Again) => {
                    pause = assignment.poll;
                    continue;
                }
                Ok(Look::Released) => {
                    rounds += 1;
                    pause = assignment.poll;
                    if assignment.max_rounds.is_some_and(|max| rounds >= max) {
                        return Ok(rounds);
                    }
                    continue;
                }
                Ok(Look::Done) => return Ok(rounds),
                Ok(Look::Wait(what)) => {
                    pause = assignment.poll;
                    what
                }
                Ok(Look::Failed(error)) => {
                    let failures = self.count(&mut memory, error)?;
                    pause = (assignment.poll * 2u32.pow(failures)).min(LONGEST_PAUSE);
                    self.sleep(pause);
                    continue;
                }
                // The round moved on between two requests: look again.
                Err(Error::Host(refusal)) if moved_on(refusal.check) => {
                    pause = assignment.poll;
                    refusal.to_string()
                }
                Err(error) if error.is_passing() => {
                    pause = (pause * 2).min(LONGEST_PAUSE);
                    error.to_string()
                }
                Err(error) => return Err(error),
            };
            // A countdown is not news.
            let news = wait.replace(|c: char| c.is_ascii_digit(), "");
            if news != said {
                self.voice.event("waiting", json!({ "for": wait }));
                said = news;
            }
            self.sleep(pause);
        }
    }

    /// Looks at where things stand and does the next thing.
    ///
    /// # Errors
    /// As the requests and the site's own files give them; refusals.
    pub fn once(&self, assignment: &Assignment, memory: &mut Memory) -> Result<Look> {
        let site = self.join(assignment)?;
        if !memory.data_checked {
            self.check_data(assignment, &site)?;
            memory.data_checked = true;
        }
        self.look(&site, memory, assignment)
    }

    /// Sleeps with some jitter, so that sites do not ask in step; wakes to stop.
    fn sleep(&self, pause: Duration) {
        let jitter = sealfold_protocol::keys::random().map_or(0, |random| random[0]);
        let mut left = pause.mul_f64(0.8 + 0.4 * f64::from(jitter) / 255.0);
        while left > Duration::ZERO && !self.stop.load(Ordering::Relaxed) {
            let nap = left.min(Duration::from_millis(100));
            std::thread::sleep(nap);
            left -= nap;
        }
    }

    /// The study as the host has it, verified.
    ///
    /// # Errors
    /// As [`Joined::verify`] and [`Client::study`].
    pub fn join(&self, assignment: &Assignment) -> Result<Site<'_>> {
        let id = assignment.study;
        let status = self.client.study(&id)?;
        let joined =
            Joined::verify(self.home, self.keys, self.policy, id, &status, Timestamp::now())?;
        let (keys, policy, client, voice) = (self.keys, self.policy, self.client, self.voice);
        Ok(Site { keys, policy, client, voice, joined })
    }

    fn check_data(&self, assignment: &Assignment, site: &Site<'_>) -> Result<()> {
        let Some(path) = &assignment.data else { return Ok(()) };
        let report = data::check(path, &site.joined.manifest().agreement.data)?;
        if let Some(violation) = report.violations.first() {
            let expected = "data that meets the study's specification";
            return Err(SiteRefusal::new("data", expected, violation)
                .next("sealfold check lists every violation")
                .into());
        }
        self.voice.event("data meets the specification", json!({ "rows": report.rows }));
        Ok(())
    }

    fn look(&self, site: &Site<'_>, memory: &mut Memory, assignment: &Assignment) -> Result<Look> {
        let next = site.joined.next()?;
        if next.round > site.joined.manifest().terms.last_round() {
            // The last report may have been lost.
            let _ = site.report();
            return Ok(Look::Done);
        }
        match site.fetch_initial() {
            Err(Error::Host(refusal)) if refusal.check == Check::NotFound => {
                return Ok(Look::Wait(
                    "the initial model, which the host does not have".to_owned(),
                ));
            }
            other => other?,
        }
        let status = site.status()?;
        for (round, reason) in site.notice(&mut memory.binding, &status)? {
            self.voice.event("abandoned", json!({ "round": round, "reason": reason }));
        }
        if status.release.is_some() {
            match site.finish(&memory.binding, &status) {
                Ok(Some(head)) => {
                    let (round, model) = (head.round - 1, head.base.to_string());
                    self.voice.event("released", json!({ "round": round, "model": model }));
                    return Ok(Look::Released);
                }
                Ok(None) => {}
                // Bound to an offer that never became a roster of all: the
                // approvers abandon it, and the site goes on with this release.
                Err(Error::Refused(refusal)) if refusal.check == "bound-to-another-offer" => {
                    return Ok(Look::Wait(refusal.to_string()));
                }
                Err(error) => return Err(error),
            }
        }
        let Some(envelope) = &status.offer else {
            if next.round > 1 {
                site.report()?;
            }
            return Ok(Look::Wait(format!(
                "an offer for round {}; {}",
                next.round, status.waiting_for
            )));
        };
        // A host may still show an offer of an older attempt; whether it fits
        // the chain is checked before anything else.
        let stands = Offer::open(&envelope.0)?;
        if let Err(Error::Refused(refusal)) = memory.binding.allows(next.round, &stands.digest()) {
            return Ok(Look::Wait(refusal.to_string()));
        }
        let Some(offer) = site.offer(&status)? else { return Ok(Look::Again) };
        site.expect_budget(&memory.binding)?;
        if !site.has_verified(&offer)? {
            site.verify(&offer)?;
            let (round, digest) = (next.round, offer.digest().to_string());
            self.voice.event("enclave verified", json!({ "round": round, "offer": digest }));
            return Ok(Look::Again);
        }
        let update = if let Some(update) = site.sealed(&offer)? {
            update
        } else {
            if assignment.train.is_none() {
                return Ok(Look::Wait("an update: sealfold submit".to_owned()));
            }
            match self.attempt(site, &offer, assignment)? {
                Ok(update) => update,
                Err(look) => return Ok(look),
            }
        };
        self.deliver(site, memory, &status, &offer, &update)
    }

    /// Uploads, and commits when there is a roster.
    fn deliver(
        &self,
        site: &Site<'_>,
        memory: &mut Memory,
        status: &RoundStatus,
        offer: &Signed<Offer>,
        update: &SealedUpdate,
    ) -> Result<Look> {
        let digest = update.header.digest();
        let known = status.uploads.iter().find(|upload| upload.header == digest);
        match known.map(|upload| &upload.state) {
            None | Some(UploadState::Receiving) => {
                match site.upload(offer, update) {
                    // It gave way meanwhile: to the round's end, or to another of
                    // this site that was begun. Where things stand says which.
                    Err(Error::Host(refusal)) if refusal.check == Check::NotFound => {
                        return Ok(Look::Wait(refusal.to_string()));
                    }
                    other => _ = other?,
                }
                self.voice.event("uploaded", json!({ "round": offer.statement().round }));
                return Ok(Look::Again);
            }
            Some(UploadState::Refused(refusal)) => {
                return memory.refused(site, offer, update, refusal);
            }
            Some(UploadState::Stored) => {}
            Some(UploadState::Admitted(_)) => memory.admitted(),
        }
        let Some(envelope) = &status.roster else {
            return Ok(Look::Wait(format!("the roster; {}", status.waiting_for)));
        };
        let roster = site.roster(offer, &envelope.0)?;
        if roster.statement().header_of(&site.keys.site) != Some(digest) {
            return Ok(Look::Wait("the release; this site is not on the roster".to_owned()));
        }
        let given = status.commits.iter().any(|commit| {
            Signed::<Commit>::open(&commit.0, &site.keys.signing.verifying_key())
                .is_ok_and(|commit| commit.statement().roster == roster.digest())
        });
        if given && memory.binding.has_committed(&roster.digest()) {
            return Ok(Look::Wait(format!("the release; {}", status.waiting_for)));
        }
        let Some(leaf) = status.roster_leaf else {
            return Ok(Look::Wait("the roster's place in the log".to_owned()));
        };
        match site.commit(&mut memory.binding, offer, &roster, leaf, &digest) {
            Ok(()) => {
                let sites = roster.statement().members.len();
                let round = roster.statement().round;
                self.voice.event("committed", json!({ "round": round, "sites": sites }));
                Ok(Look::Again)
            }
            // Others may yet change both: a larger roster, the host's witnesses.
            Err(Error::Refused(refusal))
                if ["roster-too-close", "witnesses"].contains(&refusal.check) =>
            {
                Ok(Look::Wait(refusal.to_string()))
            }
            Err(error) => Err(error),
        }
    }
}
