//! The end of a round: the release is kept, and what it leaves behind forgotten.

use super::{Conductor, is_abandoned};
use crate::entries;
use crate::host::round_folder;
use crate::state::Upload;
use metrics::counter;
use sealfold_protocol::api::{EnclaveStatus, Phase};
use sealfold_protocol::leaf::Kind;
use sealfold_protocol::offer::Offer;
use sealfold_protocol::refusal::Refusal;
use sealfold_protocol::release::Release;
use sealfold_protocol::{Digest, Signed};

impl Conductor {
    /// Keeps the release of whichever study the enclave's round belongs to:
    /// before anybody hears of it, and before another study asks for an offer,
    /// upon which the enclave forgets it. Whether there was one to keep.
    pub(super) async fn keep_release(
        &self,
        offer: &Signed<Offer>,
        status: &EnclaveStatus,
    ) -> Result<bool, Refusal> {
        let (id, number) = (offer.statement().study, offer.statement().round);
        // Held until the release is kept: no abandonment of its offer comes in
        // between, after which some sites would go on and others begin again.
        let mut state = self.host.state.lock().await;
        let round = state.studies.get(&id).and_then(|study| study.rounds.get(&number));
        let is_to_keep = round.is_some_and(|round| {
            let known = round.offer.as_ref().map(Signed::digest);
            known == Some(offer.digest())
                && round.release.is_none()
                && !is_abandoned(&state, id, round, &offer.digest())
        });
        if !is_to_keep {
            return Ok(false);
        }
        let Some(envelope) = &status.release else { return Ok(false) };
        let release = Signed::<Release>::open(&envelope.0, &offer.statement().instance_key)?;
        let name = format!("{}/{}/release", round_folder(&id, number), offer.digest());
        self.host.store.put(&name, envelope.0.clone()).await?;
        self.host.record(vec![entries::signed(Kind::Release, &release)?]).await?;
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
    pub(super) async fn store_aggregates(&self, id: Digest) -> Result<(), Refusal> {
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
            let mut old: Vec<_> = state.uploads.values().filter(|upload| is_over(upload)).collect();
            old.sort_by(|a, b| a.header.statement().site.cmp(&b.header.statement().site));
            old.into_iter().map(|upload| upload.header.digest()).collect()
        };
        for header in old {
            self.host.forget_upload(&header).await?;
        }
        Ok(())
    }
}
