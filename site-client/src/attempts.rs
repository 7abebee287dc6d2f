//! An agent's attempts at an update: to train, to seal, to have it admitted.
//!
//! One that fails is made again, since a trainer may fail by chance or be
//! corrected meanwhile; so many in a row end the agent, since neither seems to
//! be the case.

use crate::agent::{Agent, Assignment, Look, moved_on};
use crate::binding::Binding;
use crate::metrics::Metrics;
use crate::round::Site;
use crate::training::{self, Task};
use crate::update::{SealedUpdate, Trained};
use crate::{Error, Result};
use sealfold_protocol::Signed;
use sealfold_protocol::offer::Offer;
use sealfold_protocol::refusal::{Check, Refusal};
use serde_json::json;
use std::path::Path;

/// After so many failures in a row the agent ends.
const ATTEMPTS: u32 = 5;

/// What an agent keeps in mind while it runs.
pub struct Memory {
    /// The offers that it is bound to; on disk.
    pub binding: Binding,
    /// How many attempts have failed since an update was admitted.
    failures: u32,
    /// Whether the site's data was found to meet the specification.
    pub(crate) data_checked: bool,
}

impl Memory {
    /// A fresh one.
    #[must_use]
    pub fn new(binding: Binding) -> Self {
        Self { binding, failures: 0, data_checked: false }
    }

    /// An update was admitted.
    pub(crate) fn admitted(&mut self) {
        self.failures = 0;
    }

    /// What to do after the enclave refused an update.
    pub(crate) fn refused(
        &self,
        site: &Site<'_>,
        offer: &Signed<Offer>,
        update: &SealedUpdate,
        refusal: &Refusal,
    ) -> Result<Look> {
        if moved_on(refusal.check) {
            return Err(Error::Host(refusal.clone()));
        }
        // It signed after the offer was made. What it sealed is kept, so that the
        // same is not brought again under this offer.
        if refusal.check == Check::SiteApproval {
            return Ok(Look::Wait(refusal.to_string()));
        }
        let error = site.take_refusal(&self.binding, offer, update, refusal)?;
        match refusal.check {
            // Bytes that were damaged on their way can be sealed and sent again.
            Check::Encapsulation | Check::Record => Ok(Look::Failed(error)),
            // The client has checked everything else itself before it sealed.
            _ => Err(error),
        }
    }
}

impl Agent<'_> {
    /// Counts and says a failure, and gives their number; the last one ends
    /// the agent.
    pub(crate) fn count(&self, memory: &mut Memory, error: Error) -> Result<u32> {
        memory.failures += 1;
        let (attempt, reason) = (memory.failures, error.to_string());
        let said = json!({ "attempt": attempt, "of": ATTEMPTS, "reason": reason });
        self.voice.event("failed", said);
        match error {
            _ if attempt < ATTEMPTS => Ok(attempt),
            Error::Training(reason) => Err(Error::Training(format!(
                "{reason}; {ATTEMPTS} attempts in a row failed; correct the command and start again"
            ))),
            error => Err(error),
        }
    }

    /// Trains, unless that is done for this round, and seals the outcome; or
    /// what to do instead.
    pub(crate) fn attempt(
        &self,
        site: &Site<'_>,
        offer: &Signed<Offer>,
        assignment: &Assignment,
    ) -> Result<std::result::Result<SealedUpdate, Look>> {
        let round = offer.statement().round;
        let trained = Trained::of(&site.joined.local, round);
        let metrics = if trained.is_complete() {
            Metrics::read(&trained.metrics)
        } else {
            self.train(site, offer, &trained, assignment)
        };
        match metrics.and_then(|metrics| site.seal(offer, &trained.update, &metrics)) {
            Ok(update) => {
                self.voice.event("sealed", json!({ "round": round }));
                Ok(Ok(update))
            }
            Err(Error::Stopped) => Err(Error::Stopped),
            Err(Error::Refused(refusal)) if refusal.check == "second-trainer" => {
                Ok(Err(Look::Wait(refusal.to_string())))
            }
            Err(error) => {
                trained.clear()?;
                Ok(Err(Look::Failed(error)))
            }
        }
    }

    /// Trains for a round; what comes of it is kept until the round is released.
    fn train(
        &self,
        site: &Site<'_>,
        offer: &Signed<Offer>,
        trained: &Trained,
        assignment: &Assignment,
    ) -> Result<Metrics> {
        let round = offer.statement().round;
        let folder = trained.update.parent().unwrap_or(Path::new("."));
        crate::home::make_folder(folder)?;
        let manifest = site.terms(offer).statement();
        let kind = manifest.terms.kind(round);
        let sample = site.draw_sample(offer, assignment.data.as_deref())?;
        let task = Task {
            command: assignment.train.as_deref().unwrap_or_default(),
            sample: sample.as_deref(),
            model: &site.joined.local.model(round - 1),
            update: &trained.update,
            metrics: &trained.metrics,
            round,
            kind,
            writes_tensors: !manifest.update_tensors(kind).is_empty(),
            site: &site.keys.site,
            study: site.joined.local.id.to_string(),
            manifest: offer.statement().manifest.to_string(),
            lock: &self.home.path("training.lock"),
        };
        let metrics = training::run(&task, &self.stop)?;
        trained.complete()?;
        self.voice.event("trained", json!({ "round": round }));
        Ok(metrics)
    }
}
