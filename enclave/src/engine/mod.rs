//! One round at a time: requests in, statements out.
//!
//! The engine holds its lock only while it looks at the round or changes its
//! phase; passes over records run without it and are valid only if the round
//! is still the same when they end. The host may ask for anything in any
//! order; what is not possible in the round's phase is refused by name.

use crate::admission;
use crate::attester::Attester;
use crate::door::Parent;
use crate::fold::{self, Failure};
use crate::keyed_hash::KeyedHash;
use crate::round::{Round, Secrets, Subject, left};
use sealfold_aggregation::noise::Seed;
use sealfold_attestation::{binding, nonce_hash};
use sealfold_protocol::api::{
    CheckpointRequest, EnclaveStatus, EvidenceReply, OfferRequest, Phase,
};
use sealfold_protocol::bytes::{Envelope, Random};
use sealfold_protocol::endpoint::Endpoint;
use sealfold_protocol::manifest::TermsOnly;
use sealfold_protocol::offer::Offer;
use sealfold_protocol::refusal::{Check, Refusal};
use sealfold_protocol::seal::RoundSecret;
use sealfold_protocol::study::Study;
use sealfold_protocol::{Secret, Signed, SigningKey};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;
use zeroize::Zeroize;

mod disclosure;
mod stage;
use stage::{Stage, State};

/// The most offers that an instance makes in its life.
const MAX_OFFERS: usize = 1 << 20;

/// An enclave instance.
pub struct Engine {
    attester: Box<dyn Attester>,
    door: Endpoint,
    threads: usize,
    key: SigningKey,
    clock: Box<dyn Fn() -> Instant + Send + Sync>,
    state: Mutex<State>,
}

impl Engine {
    /// A new instance with a signing key of its own.
    ///
    /// # Errors
    /// If the platform has no randomness.
    pub fn new(
        attester: Box<dyn Attester>,
        door: Endpoint,
        threads: usize,
    ) -> sealfold_protocol::Result<Self> {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let state = State { stage: Stage::Idle, offered: BTreeSet::new(), folding: false };
        Ok(Self {
            attester,
            door,
            threads: if threads == 0 { cores } else { threads },
            key: SigningKey::generate()?,
            clock: Box::new(Instant::now),
            state: Mutex::new(state),
        })
    }

    /// The same instance on another clock than the system's monotonic one, for
    /// a simulation of time.
    #[must_use]
    pub fn on_clock(mut self, clock: impl Fn() -> Instant + Send + Sync + 'static) -> Self {
        self.clock = Box::new(clock);
        self
    }

    /// Makes the offer of a round, or repeats it for the same request.
    ///
    /// # Errors
    /// A refusal by `manifest`, `rounds`, `one-offer` or `phase`.
    pub fn offer(&self, request: &OfferRequest) -> Result<Envelope, Refusal> {
        let envelopes = request.manifests.iter().map(|envelope| envelope.0.as_slice());
        let study = Study::<TermsOnly>::from_envelopes(envelopes)?;
        let terms = &study.current().statement().terms;
        if request.round == 0 || request.round > terms.last_round() {
            let expected = format!("a round from 1 to {}", terms.last_round());
            return Err(Refusal::new(Check::Rounds, expected, request.round));
        }
        let (k, signed) = (terms.quorum.smallest_roster, study.participants().len());
        if signed < k {
            let expected = format!("a manifest that at least {k} sites signed");
            return Err(Refusal::new(Check::Manifest, expected, format!("{signed} sites")));
        }
        terms.check_clip(request.clip)?;
        // Before the lock, since the platform may take its time, and before the
        // instance's one offer of the round is used up, since it may fail.
        let noise = terms.privacy.noise().map(|_| self.noise_seed()).transpose()?;
        let mut state = self.state()?;
        if let Some(offer) = state.stage.offer() {
            let standing = offer.statement();
            if standing.manifest == study.current().digest()
                && (standing.round, standing.base, standing.previous, standing.clip)
                    == (request.round, request.base, request.previous, request.clip)
            {
                return Ok(Envelope(offer.envelope().to_vec()));
            }
        }
        if state.offered.len() >= MAX_OFFERS {
            return Err(Refusal::new(Check::OneOffer, "fewer than 2^20 offers", "a full list"));
        }
        if !state.offered.insert((study.id(), request.round)) {
            return Err(Refusal::new(
                Check::OneOffer,
                "one offer for a study and round in an instance's life",
                format!("a second for round {}", request.round),
            )
            .next("start a new instance; sites that committed wait for this one's release or an abandonment"));
        }
        let secret = RoundSecret::generate().map_err(sealfold_protocol::Error::from)?;
        let offer = Offer {
            study: study.id(),
            manifest: study.current().digest(),
            round: request.round,
            base: request.base,
            previous: request.previous,
            clip: request.clip,
            update_key: secret.public_key().map_err(sealfold_protocol::Error::from)?,
            instance_key: self.key.verifying_key(),
        };
        let offer = Signed::sign(offer, &self.key)?;
        let envelope = Envelope(offer.envelope().to_vec());
        let subject = Subject {
            study: study.id(),
            terms: terms.clone(),
            participants: study.participants().into_iter().map(str::to_owned).collect(),
            offer,
            started: (self.clock)(),
        };
        let hash = KeyedHash::new(Secret::draw()?.as_bytes());
        let secrets = Secrets { round: secret, hash, noise };
        state.stage = Stage::Open(Round::open(subject, secrets));
        Ok(envelope)
    }

    /// What an offer's privacy noise is drawn from: the system's randomness and
    /// the platform's own, so that either alone would do.
    fn noise_seed(&self) -> Result<Seed, Refusal> {
        let (system, platform) = (Secret::draw()?, self.attester.random()?);
        let mut mixed = blake3::Hasher::new_derive_key("sealfold v1 seed of the privacy noise");
        mixed.update(system.as_bytes()).update(platform.as_bytes());
        let seed = Seed::new(*mixed.finalize().as_bytes());
        mixed.zeroize();
        Ok(seed)
    }

    /// Evidence that binds the standing offer and the asker's nonce.
    ///
    /// # Errors
    /// A refusal by `phase` without an offer, or `evidence`.
    pub fn evidence(&self, nonce: Random) -> Result<EvidenceReply, Refusal> {
        let offer = {
            let state = self.state()?;
            let offer = state.stage.offer().ok_or_else(|| {
                Refusal::new(Check::Phase, "an offer", "none yet").next("ask for an offer first")
            })?;
            offer.digest()
        };
        let (user_data, nonce_hash) = (binding(offer.as_bytes()), nonce_hash(nonce.as_bytes()));
        let document = self.attester.attest(&user_data, &nonce_hash)?;
        let platform = self.attester.platform().to_owned();
        Ok(EvidenceReply { platform, offer, nonce, document: Envelope(document) })
    }

    /// Admits an update whose header this is.
    ///
    /// # Errors
    /// Any refusal of [`Round::begin_admission`] or [`admission::admit`].
    pub fn admit(&self, header: &[u8]) -> Result<Envelope, Refusal> {
        let (subject, secrets, header) = {
            let mut state = self.state()?;
            let Stage::Open(round) = &mut state.stage else {
                return Err(state.stage.wrong_phase(Phase::Open));
            };
            let (header, known) = round.begin_admission(header)?;
            if let Some(known) = known {
                return Ok(Envelope(known.receipt.envelope().to_vec()));
            }
            (round.subject().clone(), round.secrets(), header)
        };
        let site = header.statement().site.clone();
        let door = Parent { endpoint: &self.door, until: subject.ends() };
        let result = admission::admit(&subject, &secrets, header, &door, self.threads, &self.key);
        let mut state = self.state()?;
        match &mut state.stage {
            Stage::Open(round) if Arc::ptr_eq(round.subject(), &subject) => {
                let admitted = result.as_ref().ok();
                let receipt = admitted.map(|admitted| admitted.receipt.envelope().to_vec());
                match result {
                    Ok(admitted) => round.end_admission(&site, Some(Arc::new(admitted))),
                    Err(refusal) => {
                        round.end_admission(&site, None);
                        return Err(refusal);
                    }
                }
                Ok(Envelope(receipt.unwrap_or_default()))
            }
            stage => Err(stage.wrong_phase(Phase::Open)),
        }
    }

    /// The roster: the first when the round closes, the standing one, or the
    /// next without those who did not commit in time.
    ///
    /// # Errors
    /// A refusal by `phase` or `smallest-roster`.
    pub fn roster(&self) -> Result<Envelope, Refusal> {
        let now = (self.clock)();
        let mut state = self.state()?;
        let folding = state.folding;
        match std::mem::replace(&mut state.stage, Stage::Idle) {
            Stage::Open(round) => match round.close(&self.key, now) {
                Ok(round) => {
                    let roster = Envelope(round.roster().envelope().to_vec());
                    state.stage = Stage::Rostered(round);
                    Ok(roster)
                }
                Err(back) => {
                    let (round, refusal) = *back;
                    state.stage = Stage::Open(round);
                    Err(refusal)
                }
            },
            Stage::Rostered(round) => {
                let missing = round.missing();
                if missing.is_empty() || folding || round.seconds_left(now) > 0 {
                    let roster = Envelope(round.roster().envelope().to_vec());
                    state.stage = Stage::Rostered(round);
                    return Ok(roster);
                }
                state.drop_sites(round, &missing, &self.key, now)
            }
            Stage::Released(round) => {
                let roster = Envelope(round.roster().envelope().to_vec());
                state.stage = Stage::Released(round);
                Ok(roster)
            }
            other => {
                state.stage = other;
                Err(state.stage.wrong_phase(Phase::Open))
            }
        }
    }

    /// Takes the checkpoint of the log that ends with the standing roster.
    ///
    /// # Errors
    /// A refusal by `phase`, `roster` or `checkpoint`.
    pub fn checkpoint(&self, request: &CheckpointRequest) -> Result<(), Refusal> {
        let mut state = self.state()?;
        match &mut state.stage {
            Stage::Rostered(round) => round.take_checkpoint(&request.roster, request.checkpoint),
            stage => Err(stage.wrong_phase(Phase::Rostered)),
        }
    }

    /// Takes a site's commit to the standing roster.
    ///
    /// # Errors
    /// A refusal by `phase`, `signature`, `site`, `checkpoint` or `roster`.
    pub fn commit(&self, envelope: &[u8]) -> Result<(), Refusal> {
        let mut state = self.state()?;
        match &mut state.stage {
            Stage::Rostered(round) => round.commit(envelope),
            stage => Err(stage.wrong_phase(Phase::Rostered)),
        }
    }

    /// Folds and releases, or repeats the release.
    ///
    /// # Errors
    /// A refusal by `phase` or `commits`; by `record` or `admission` if a
    /// site's bytes are not the admitted ones (that site is dropped and the
    /// rest commit again); passing, by `door`.
    pub fn release(&self) -> Result<Envelope, Refusal> {
        let (subject, plan) = {
            let mut state = self.state()?;
            let (subject, plan) = match &state.stage {
                Stage::Released(round) => {
                    return Ok(Envelope(round.release().envelope().to_vec()));
                }
                Stage::Rostered(round) => (round.subject().clone(), round.plan((self.clock)())?),
                stage => return Err(stage.wrong_phase(Phase::Rostered)),
            };
            if std::mem::replace(&mut state.folding, true) {
                return Err(Refusal::new(Check::Phase, "one fold at a time", "a fold under way")
                    .next("ask again in a moment"));
            }
            (subject, plan)
        };
        let door = Parent { endpoint: &self.door, until: subject.ends() };
        let folded = fold::fold(&subject, &plan, &door, self.threads);
        let mut state = self.state()?;
        state.folding = false;
        let standing = std::mem::replace(&mut state.stage, Stage::Idle);
        let round = match standing {
            Stage::Rostered(round) if round.roster().digest() == plan.roster.digest() => round,
            other => {
                state.stage = other;
                return Err(state.stage.wrong_phase(Phase::Rostered));
            }
        };
        match folded {
            Ok(folded) => match disclosure::disclose(&subject, &plan.roster, &folded, &self.key) {
                Ok(release) => {
                    let envelope = Envelope(release.envelope().to_vec());
                    state.stage = Stage::Released(round.released(release));
                    Ok(envelope)
                }
                Err(refusal) => {
                    state.stage = Stage::Rostered(round);
                    Err(refusal)
                }
            },
            Err(Failure::Sites(sites, refusal)) => {
                let next = match state.drop_sites(round, &sites, &self.key, (self.clock)()) {
                    Ok(_) => {
                        format!("{sites:?} dropped; the other sites commit to a smaller roster")
                    }
                    Err(closed) => closed.to_string(),
                };
                Err(refusal.next(next))
            }
            Err(Failure::Passing(refusal)) => {
                state.stage = Stage::Rostered(round);
                Err(refusal)
            }
        }
    }

    /// Where the instance stands; erases the keys of a round that is over.
    ///
    /// # Errors
    /// Only if the engine itself is broken.
    pub fn status(&self) -> Result<EnclaveStatus, Refusal> {
        let now = (self.clock)();
        let state = self.state()?;
        let envelope = |bytes: &[u8]| Envelope(bytes.to_vec());
        let mut status = EnclaveStatus {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            phase: state.stage.phase(),
            offer: state.stage.offer().map(|offer| envelope(offer.envelope())),
            receipts: Vec::new(),
            roster: None,
            checkpoint: None,
            committed: Vec::new(),
            release: None,
            seconds_left: 0,
            closed: None,
        };
        match &state.stage {
            Stage::Open(round) => {
                let receipts = round.admitted().map(|a| envelope(a.receipt.envelope()));
                status.receipts = receipts.collect();
                let subject = round.subject();
                let upload = subject.terms.deadlines.upload_seconds;
                status.seconds_left = left(subject.started, upload, now);
            }
            Stage::Rostered(round) => {
                let receipts = round.admitted().map(|a| envelope(a.receipt.envelope()));
                status.receipts = receipts.collect();
                status.roster = Some(envelope(round.roster().envelope()));
                status.checkpoint = round.checkpoint();
                status.committed = round.committed().iter().cloned().collect();
                status.seconds_left = round.seconds_left(now);
            }
            Stage::Released(round) => {
                status.roster = Some(envelope(round.roster().envelope()));
                status.release = Some(envelope(round.release().envelope()));
            }
            Stage::Closed(_, refusal) => status.closed = Some(refusal.clone()),
            Stage::Idle => {}
        }
        Ok(status)
    }

    /// Ends a round whose deadline has passed: its keys are erased, released
    /// or not. Called once a second.
    pub fn tick(&self) {
        // A broken lock means a broken round, of which nothing is released.
        if let Ok(mut state) = self.state() {
            state.close_if_over((self.clock)());
        }
    }

    /// The state, with a round that is over already closed.
    fn state(&self) -> Result<MutexGuard<'_, State>, Refusal> {
        let mut state = self
            .state
            .lock()
            .map_err(|_| Refusal::new(Check::Phase, "a working instance", "a broken one"))?;
        state.close_if_over((self.clock)());
        Ok(state)
    }
}
