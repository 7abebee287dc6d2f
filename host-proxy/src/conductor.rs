//! The conductor: drives the enclave through rounds, from what is on disk.
//!
//! It can be killed at any point. What the enclave has done is seen in its
//! status; what it has to do again is idempotent there.

use crate::entries;
use crate::host::{Host, round_folder};
use crate::state::{Round, State, Upload};
use metrics::{counter, gauge};
use sealfold_protocol::api::{CheckpointRequest, EnclaveStatus, OfferRequest, Phase, UploadState};
use sealfold_protocol::bytes::{Envelope, Random};
use sealfold_protocol::leaf::Kind;
use sealfold_protocol::offer::Offer;
use sealfold_protocol::refusal::{Check, Refusal};
use sealfold_protocol::release::Release;
use sealfold_protocol::report::ModelReport;
use sealfold_protocol::roster::Roster;
use sealfold_protocol::study::Study;
use sealfold_protocol::{Digest, Signed};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

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
            if !again {
                let _ = tokio::time::timeout(PAUSE, self.host.wake.notified()).await;
            }
        }
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
        Step::Wait(text)
    }

    async fn step(&mut self, id: Digest) -> Result<Step, Refusal> {
        let (number, offer, wait) = {
            let state = self.host.state.lock().await;
            let study = state.study(&id)?;
            let missing = study.missing();
            let wait = if !missing.is_empty() {
                Some(missing.join(" and "))
            } else if study.rounds_done() >= study.manifest().study.rounds {
                Some("nothing: all rounds are done".to_owned())
            } else {
                None
            };
            let number = study.current_round();
            (number, study.rounds.get(&number).and_then(|round| round.offer.clone()), wait)
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
        match status.phase {
            Phase::Open => self.open(&standing, &status).await,
            Phase::Rostered => self.rostered(id, number, &standing, &status).await,
            // Kept above, or recorded just now and kept in the next step.
            Phase::Released => Ok(Step::Wait("the enclave's release".to_owned())),
            Phase::Idle => self.ask_for_offer(id, number, Some(standing)).await,
            Phase::Closed => self.closed(id, number, &standing, &status).await,
        }
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

    /// Asks for an offer, if no site can be bound to an older one.
    async fn ask_for_offer(
        &mut self,
        id: Digest,
        number: u32,
        old: Option<Signed<Offer>>,
    ) -> Result<Step, Refusal> {
        let (request, entries) = {
            let state = self.host.state.lock().await;
            let study = state.study(&id)?;
            let round = study.rounds.get(&number);
            if let (Some(old), Some(round)) = (&old, round)
                && round.was_committed
                && !is_abandoned(&state, id, round, &old.digest())
            {
                return Ok(Step::Wait(format!(
                    "the approvers: sites committed under offer {}, whose enclave is gone; they go \
                     on when the approvers have abandoned it (sealfold study abandon)",
                    old.digest()
                )));
            }
            let Some(approved) = study.approved() else {
                return Ok(Step::Wait("approvals".to_owned()));
            };
            let manifest = approved.current().statement();
            let (base, previous, clip) =
                match number.checked_sub(1).and_then(|n| study.rounds.get(&n)) {
                    Some(last) => match next_base(last) {
                        Ok(base) => (
                            base,
                            last.release.as_ref().map(Signed::digest),
                            next_clip(&approved, last),
                        ),
                        Err(waiting) => return Ok(Step::Wait(waiting)),
                    },
                    None => (manifest.model.initial, None, None),
                };
            let clip = manifest.round_clip(clip);
            let manifests =
                approved.manifests().iter().map(sealfold_protocol::MultiSigned::envelope);
            let manifests = manifests.map(|e| Ok(Envelope(e?))).collect::<Result<_, Refusal>>()?;
            let request = OfferRequest { manifests, round: number, base, previous, clip };
            let entries = approved.manifests().iter().map(entries::manifest);
            (request, entries.collect::<Result<_, _>>()?)
        };
        // In the log before an offer is made under them, with the signatures
        // that the enclave sees.
        self.host.record(entries).await?;
        let envelope = match self.host.enclave.offer(&request).await {
            Ok(envelope) => envelope,
            Err(refusal) if refusal.check == Check::OneOffer => {
                return Ok(Step::Wait(
                    "a new enclave instance: this one has made its one offer of the round".into(),
                ));
            }
            Err(refusal) => return Err(refusal),
        };
        self.record_offer(id, number, &Offer::open(&envelope.0)?).await?;
        Ok(Step::Again)
    }

    /// Keeps an offer, and the evidence of it for a later replay.
    async fn record_offer(
        &self,
        id: Digest,
        number: u32,
        offer: &Signed<Offer>,
    ) -> Result<(), Refusal> {
        let folder = round_folder(&id, number);
        let evidence = self.host.enclave.evidence(Random::draw()?).await?;
        let json = serde_json::to_vec(&evidence).map_err(crate::store::failed)?;
        let store = &self.host.store;
        store.put(&format!("{folder}/{}/evidence", offer.digest()), json).await?;
        store.put(&format!("{folder}/offer"), offer.envelope().to_vec()).await?;
        self.host.record(vec![entries::offer(offer, &evidence)]).await?;
        let mut state = self.host.state.lock().await;
        let round = state.study_mut(&id)?.rounds.entry(number).or_default();
        round.offer = Some(offer.clone());
        round.roster = None;
        round.logged = None;
        round.commits.clear();
        round.was_committed = false;
        tracing::info!(study = %id, round = number, offer = %offer.digest(), "a new offer");
        Ok(())
    }

    /// Has complete uploads admitted, and asks for a roster.
    async fn open(&self, offer: &Signed<Offer>, status: &EnclaveStatus) -> Result<Step, Refusal> {
        let stored: Vec<Upload> = {
            let state = self.host.state.lock().await;
            let mine = |upload: &&Upload| upload.header.statement().offer == offer.digest();
            let uploads = state.uploads.values().filter(mine);
            uploads.filter(|upload| upload.status().state == UploadState::Stored).cloned().collect()
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

    /// Keeps the release of whichever study the enclave's round belongs to:
    /// before anybody hears of it, and before another study asks for an offer,
    /// upon which the enclave forgets it. Whether there was one to keep.
    async fn keep_release(
        &self,
        offer: &Signed<Offer>,
        status: &EnclaveStatus,
    ) -> Result<bool, Refusal> {
        let (id, number) = (offer.statement().study, offer.statement().round);
        {
            let state = self.host.state.lock().await;
            let round = state.studies.get(&id).and_then(|study| study.rounds.get(&number));
            let is_to_keep = round.is_some_and(|round| {
                let known = round.offer.as_ref().map(Signed::digest);
                known == Some(offer.digest()) && round.release.is_none()
            });
            if !is_to_keep {
                return Ok(false);
            }
        }
        let Some(envelope) = &status.release else { return Ok(false) };
        let release = Signed::<Release>::open(&envelope.0, &offer.statement().instance_key)?;
        let name = format!("{}/release", round_folder(&id, number));
        self.host.store.put(&name, envelope.0.clone()).await?;
        self.host.record(vec![entries::signed(Kind::Release, &release)?]).await?;
        let mut state = self.host.state.lock().await;
        let round = state.study_mut(&id)?.rounds.entry(number).or_default();
        round.release = Some(release);
        round.phase = Phase::Released;
        drop(state);
        self.store_aggregates(id).await?;
        counter!("sealfold_rounds_released_total").increment(1);
        tracing::info!(study = %id, round = number, "released");
        Ok(true)
    }

    /// Puts released aggregates into the store, and forgets their rounds' uploads.
    async fn store_aggregates(&self, id: Digest) -> Result<(), Refusal> {
        let waiting: Vec<_> = {
            let state = self.host.state.lock().await;
            let rounds = state.study(&id)?.rounds.iter();
            rounds
                .filter(|(_, round)| !round.has_aggregate)
                .filter_map(|(n, round)| Some((*n, round.release.as_ref()?.statement().object)))
                .collect()
        };
        for (number, object) in waiting {
            let (path, name) =
                (self.host.staging.aggregate(object.as_bytes()), format!("aggregates/{object}"));
            // After a crash it may be there already and the staged file gone.
            if self.host.store.length(&name).await?.is_none() {
                self.host.store.put_file(&name, &path).await?;
            }
            let mut state = self.host.state.lock().await;
            let round = state.study_mut(&id)?.rounds.entry(number).or_default();
            round.has_aggregate = true;
            drop(state);
            self.host.staging.forget_aggregate(object.as_bytes());
        }
        self.forget_uploads(id).await
    }

    /// Forgets the uploads of rounds that are released: now, or after a crash
    /// that came in between.
    async fn forget_uploads(&self, id: Digest) -> Result<(), Refusal> {
        let old: Vec<_> = {
            let state = self.host.state.lock().await;
            let study = state.study(&id)?;
            let is_over = |upload: &Upload| {
                let header = upload.header.statement();
                let round = study.rounds.get(&header.round);
                header.study == id && round.is_some_and(|round| round.has_aggregate)
            };
            state.uploads.iter().filter(|(_, u)| is_over(u)).map(|(digest, _)| *digest).collect()
        };
        for header in old {
            self.host.forget_upload(&header).await?;
        }
        Ok(())
    }
}

fn is_abandoned(state: &State, id: Digest, round: &Round, offer: &Digest) -> bool {
    let Ok(study) = state.study(&id) else { return false };
    let approval = study.manifest().approval;
    round.abandonments.get(offer).is_some_and(|abandonment| {
        abandonment.expect_approvals(&approval.approvers, approval.required).is_ok()
    })
}

/// The clip that a round led to, if its manifest has an adaptive one.
fn next_clip(study: &Study, last: &Round) -> Option<f64> {
    let (offer, release) = (last.offer.as_ref()?.statement(), last.release.as_ref()?.statement());
    let manifest = study.manifests().iter().find(|known| known.digest() == offer.manifest)?;
    manifest.statement().next_clip(offer.clip, release.below_clip)
}

/// The base that more than half of the roster's sites have reported. Fewer do
/// not do: a single wrong report would end the round for all honest sites.
fn next_base(last: &Round) -> Result<Digest, String> {
    let release = last.release.as_ref().map(Signed::digest);
    let roster = last.roster.as_ref().map(|roster| roster.statement().sites());
    let sites = roster.unwrap_or_default();
    let counts = |report: &&ModelReport| {
        Some(report.release) == release && sites.contains(&report.site.as_str())
    };
    let members = sites.len();
    let mut votes = BTreeMap::new();
    for report in last.reports.values().filter(counts) {
        *votes.entry(report.model).or_insert(0usize) += 1;
    }
    match votes.iter().max_by_key(|(_, count)| **count) {
        Some((model, count)) if 2 * count > members => Ok(*model),
        best => Err(format!(
            "the sites' reports of the next model: {} of more than half of {members} agree",
            best.map_or(0, |(_, count)| *count),
        )),
    }
}
