//! The conductor: drives the enclave through rounds, from what is on disk.
//!
//! It can be killed at any point. What the enclave has done is seen in its
//! status; what it has to do again is idempotent there.

use crate::entries;
use crate::host::{Host, round_folder};
use crate::state::{Round, State, Upload};
use metrics::{counter, gauge};
use sealfold_protocol::api::{CheckpointRequest, EnclaveStatus, Phase, UploadState};
use sealfold_protocol::bytes::Envelope;
use sealfold_protocol::leaf::Kind;
use sealfold_protocol::offer::Offer;
use sealfold_protocol::refusal::{Check, Refusal};
use sealfold_protocol::roster::Roster;
use sealfold_protocol::{Digest, Signed};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

mod offer;
mod release;

/// How often the enclave is asked while nothing wakes the conductor.
const PAUSE: Duration = Duration::from_millis(250);
/// How often the enclave is asked whether it is there while no round runs.
const WATCH: Duration = Duration::from_secs(5);
/// Admissions at a time.
const ADMISSIONS: usize = 2;

/// The conductor's own memory; nothing that must survive.
pub struct Conductor {
    host: Arc<Host>,
    /// What was logged last of a study, so that it is logged once.
    said: BTreeMap<Digest, String>,
    /// Whether the enclave answered, and when it was asked.
    seen: Option<(bool, Instant)>,
}

/// What a step came to.
enum Step {
    /// Something happened; look again at once.
    Again,
    /// It waits for this.
    Wait(String),
}

impl Conductor {
    /// A conductor of this host's studies.
    #[must_use]
    pub fn new(host: Arc<Host>) -> Self {
        Self { host, said: BTreeMap::new(), seen: None }
    }

    /// Runs until the process ends.
    pub async fn run(mut self) {
        loop {
            self.watch().await;
            if !self.look().await {
                let _ = tokio::time::timeout(PAUSE, self.host.wake.notified()).await;
            }
        }
    }

    /// Does the next thing in every study. Whether there is more to do at once.
    pub async fn look(&mut self) -> bool {
        let studies: Vec<_> = self.host.state.lock().await.studies.keys().copied().collect();
        let mut again = false;
        for study in studies {
            let step = self.step(study).await;
            let step = step.unwrap_or_else(|refusal| self.refused(study, &refusal));
            match step {
                Step::Again => again = true,
                Step::Wait(what) => {
                    if let Some(study) = self.host.state.lock().await.studies.get_mut(&study) {
                        study.waiting_for = what;
                    }
                }
            }
        }
        again
    }

    /// Notices when the enclave goes and when it is back.
    async fn watch(&mut self) {
        if self.seen.is_some_and(|(_, when)| when.elapsed() < WATCH) {
            return;
        }
        let outcome = self.host.enclave.status().await;
        self.saw(outcome.as_ref().err());
    }

    fn saw(&mut self, refusal: Option<&Refusal>) {
        let is_up = refusal.is_none();
        self.host.enclave_answers.store(is_up, Ordering::Relaxed);
        gauge!("sealfold_enclave_up").set(f64::from(u8::from(is_up)));
        if self.seen.map(|(up, _)| up) != Some(is_up) {
            match refusal {
                None => tracing::info!("the enclave answers"),
                Some(refusal) => tracing::warn!(%refusal, "the enclave does not answer"),
            }
        }
        self.seen = Some((is_up, Instant::now()));
    }

    /// Counts a refusal, and logs it unless the same was the last of its study.
    fn refused(&mut self, study: Digest, refusal: &Refusal) -> Step {
        counter!("sealfold_refusals_total", "check" => refusal.check.to_string()).increment(1);
        let text = refusal.to_string();
        let last = self.said.insert(study, text.clone());
        if last.as_ref() != Some(&text) && refusal.check != Check::Enclave {
            tracing::warn!(%study, %refusal, "a round does not go on");
        }
        // Everybody reads it: where the enclave is and what the system said is the
        // operator's business, and stands in the log.
        Step::Wait(match refusal.check {
            Check::Enclave => "the enclave, which does not answer; the host tries again, and \
                the operator starts the enclave"
                .to_owned(),
            Check::Storage => "the host's store, which fails; the host's log says why".to_owned(),
            _ => text,
        })
    }

    async fn step(&mut self, id: Digest) -> Result<Step, Refusal> {
        let (number, offer, wait) = {
            let state = self.host.state.lock().await;
            let study = state.study(&id)?;
            let number = study.current_round();
            let round = study.rounds.get(&number);
            let is_running = round.is_some_and(|r| r.offer.is_some() && r.release.is_none());
            let wait = if is_running { None } else { study.expects_first() };
            (number, round.and_then(|round| round.offer.clone()), wait)
        };
        self.store_aggregates(id).await?;
        if let Some(wait) = wait {
            return Ok(Step::Wait(wait));
        }
        let status = self.host.enclave.status().await;
        self.saw(status.as_ref().err());
        let status = status?;
        let standing = status.offer.as_ref().map(|offer| Offer::open(&offer.0)).transpose()?;
        if let (Phase::Released, Some(standing)) = (status.phase, &standing)
            && self.keep_release(standing, &status).await?
        {
            return Ok(Step::Again);
        }
        let Some(standing) = standing.filter(|standing| {
            (standing.statement().study, standing.statement().round) == (id, number)
        }) else {
            if matches!(status.phase, Phase::Open | Phase::Rostered) {
                return Ok(Step::Wait("the enclave, which runs another round".to_owned()));
            }
            return self.ask_for_offer(id, number, offer).await;
        };
        if offer.as_ref().map(Signed::digest) != Some(standing.digest()) {
            let bound = {
                let state = self.host.state.lock().await;
                let round = state.study(&id)?.rounds.get(&number);
                round.zip(offer.as_ref()).is_some_and(|(round, old)| {
                    round.was_committed && !is_abandoned(&state, id, round, &old.digest())
                })
            };
            if bound {
                return self.ask_for_offer(id, number, offer).await;
            }
            self.record_offer(id, number, &standing).await?;
        }
        self.set_phase(id, number, status.phase).await?;
        if self.is_given_up(id, number, &standing).await? {
            return Ok(Step::Wait(format!(
                "the operator, to restart the enclave: the approvers have abandoned offer {}, the \
                 one that this instance makes of round {number}",
                standing.digest()
            )));
        }
        match status.phase {
            Phase::Open => self.open(&standing, &status).await,
            Phase::Rostered => self.rostered(id, number, &standing, &status).await,
            // Kept above, or recorded just now and kept in the next step.
            Phase::Released => Ok(Step::Wait("the enclave's release".to_owned())),
            Phase::Idle => self.ask_for_offer(id, number, Some(standing)).await,
            Phase::Closed => self.closed(id, number, &standing, &status).await,
        }
    }

    /// Whether the approvers have abandoned an offer.
    async fn is_given_up(
        &self,
        id: Digest,
        number: u32,
        offer: &Signed<Offer>,
    ) -> Result<bool, Refusal> {
        let state = self.host.state.lock().await;
        let round = state.study(&id)?.rounds.get(&number);
        Ok(round.is_some_and(|round| is_abandoned(&state, id, round, &offer.digest())))
    }

    async fn set_phase(&self, id: Digest, number: u32, phase: Phase) -> Result<(), Refusal> {
        let mut state = self.host.state.lock().await;
        state.study_mut(&id)?.rounds.entry(number).or_default().phase = phase;
        Ok(())
    }

    /// A round that the instance closed without a release: it makes no second
    /// offer of the round, so another instance has to.
    async fn closed(
        &self,
        id: Digest,
        number: u32,
        offer: &Signed<Offer>,
        status: &EnclaveStatus,
    ) -> Result<Step, Refusal> {
        let reason = status.closed.as_ref().map_or_else(String::new, |why| format!(" ({why})"));
        let state = self.host.state.lock().await;
        let round = state.study(&id)?.rounds.get(&number);
        let is_bound = round.is_some_and(|round| {
            round.was_committed && !is_abandoned(&state, id, round, &offer.digest())
        });
        let approvers = if is_bound {
            let offer = offer.digest();
            format!("the approvers, to abandon offer {offer} (sealfold study abandon), and for ")
        } else {
            String::new()
        };
        Ok(Step::Wait(format!(
            "{approvers}the operator, to restart the enclave: this instance has closed round \
             {number} without a release{reason}"
        )))
    }

    /// Has complete uploads admitted, and asks for a roster.
    async fn open(&self, offer: &Signed<Offer>, status: &EnclaveStatus) -> Result<Step, Refusal> {
        let stored: Vec<Upload> = {
            let state = self.host.state.lock().await;
            let mine = |upload: &&Upload| upload.header.statement().offer == offer.digest();
            let uploads = state.uploads.values().filter(mine);
            let stored = |upload: &&Upload| upload.status().state == UploadState::Stored;
            let mut stored: Vec<_> = uploads.filter(stored).cloned().collect();
            stored.sort_by(|a, b| a.header.statement().site.cmp(&b.header.statement().site));
            stored
        };
        let mut settled = false;
        for pair in stored.chunks(ADMISSIONS) {
            let admissions = pair.iter().map(|upload| self.admit(upload));
            for outcome in futures_util::future::join_all(admissions).await {
                settled |= outcome?;
            }
        }
        match self.host.enclave.roster().await {
            Ok(_) => return Ok(Step::Again),
            Err(refusal) if matches!(refusal.check, Check::Phase | Check::SmallestRoster) => {}
            Err(refusal) => return Err(refusal),
        }
        if settled {
            return Ok(Step::Again);
        }
        let (found, seconds) = (status.receipts.len(), status.seconds_left);
        Ok(Step::Wait(format!("updates: {found} admitted, {seconds} s until the roster may close")))
    }

    /// Whether something about the upload was settled.
    async fn admit(&self, upload: &Upload) -> Result<bool, Refusal> {
        let header = upload.header.digest();
        let outcome =
            match self.host.enclave.admit(Envelope(upload.header.envelope().to_vec())).await {
                Ok(receipt) => UploadState::Admitted(receipt),
                Err(refusal) if refusal.is_passing() || refusal.check == Check::Phase => {
                    return Ok(false);
                }
                Err(refusal) => {
                    let site = &upload.header.statement().site;
                    tracing::warn!(%site, %refusal, "an update was refused");
                    counter!("sealfold_refusals_total", "check" => refusal.check.to_string())
                        .increment(1);
                    UploadState::Refused(refusal)
                }
            };
        counter!("sealfold_admissions_total").increment(1);
        self.host.settle(&header, outcome).await?;
        Ok(true)
    }

    /// Keeps the roster, gives commits in again that the enclave lacks, and
    /// asks for the release when all are there.
    async fn rostered(
        &self,
        id: Digest,
        number: u32,
        offer: &Signed<Offer>,
        status: &EnclaveStatus,
    ) -> Result<Step, Refusal> {
        let Some(envelope) = &status.roster else { return Ok(Step::Again) };
        let roster = Signed::<Roster>::open(&envelope.0, &offer.statement().instance_key)?;
        let (known, logged) = {
            let state = self.host.state.lock().await;
            let round = state.study(&id)?.rounds.get(&number);
            let known = round.and_then(|round| round.roster.as_ref().map(Signed::digest));
            (known, round.and_then(|round| round.logged))
        };
        // A host that was killed knows the roster, and looks its leaf up again.
        if known != Some(roster.digest()) || logged.is_none() || status.checkpoint.is_none() {
            let name = format!("{}/{}/roster", round_folder(&id, number), offer.digest());
            self.host.store.put(&name, envelope.0.clone()).await?;
            self.host.record(vec![entries::signed(Kind::Roster, &roster)?]).await?;
            let logged = self.host.logged(Kind::Roster, &roster.digest()).await?;
            let (digest, checkpoint) = (roster.digest(), logged.checkpoint);
            self.host.enclave.checkpoint(&CheckpointRequest { roster: digest, checkpoint }).await?;
            let mut state = self.host.state.lock().await;
            let round = state.study_mut(&id)?.rounds.entry(number).or_default();
            if known != Some(digest) {
                round.commits.clear();
            }
            round.logged = Some(logged);
            round.roster = Some(roster);
            return Ok(Step::Again);
        }
        let missing: Vec<_> = {
            let state = self.host.state.lock().await;
            let commits = state.study(&id)?.rounds.get(&number).map(|round| round.commits.clone());
            let lacks = |site: &String| !status.committed.contains(site);
            commits.unwrap_or_default().into_iter().filter(|(site, _)| lacks(site)).collect()
        };
        for (_, commit) in missing {
            self.host.enclave.commit(commit).await?;
        }
        let sites = roster.statement().sites();
        let absent: Vec<_> =
            sites.iter().filter(|site| !status.committed.iter().any(|c| c == *site)).collect();
        if absent.is_empty() {
            match self.host.enclave.release().await {
                Ok(_) => {}
                Err(refusal) if matches!(refusal.check, Check::Phase | Check::Commits) => {}
                Err(refusal) => return Err(refusal),
            }
            return Ok(Step::Again);
        }
        if status.seconds_left == 0 {
            self.host.enclave.roster().await?;
            return Ok(Step::Again);
        }
        Ok(Step::Wait(format!("commits of {absent:?}, {} s left", status.seconds_left)))
    }
}

fn is_abandoned(state: &State, id: Digest, round: &Round, offer: &Digest) -> bool {
    let Ok(study) = state.study(&id) else { return false };
    let approval = &study.terms().approval;
    round
        .abandonments
        .get(offer)
        .is_some_and(|words| words.approved(&approval.approvers, approval.required).is_some())
}
