//! The beginning of a round: an offer on the base that the sites have agreed on.

use super::{Conductor, Step, is_abandoned};
use crate::entries;
use crate::host::round_folder;
use crate::state::Round;
use sealfold_protocol::api::OfferRequest;
use sealfold_protocol::bytes::{Envelope, Random};
use sealfold_protocol::offer::Offer;
use sealfold_protocol::refusal::{Check, Refusal};
use sealfold_protocol::report::ModelReport;
use sealfold_protocol::terms::{RoundKind, Terms};
use sealfold_protocol::{Digest, Signed};
use sealfold_study::Study;
use std::collections::BTreeMap;

impl Conductor {
    /// Asks for an offer, if no site can be bound to an older one.
    pub(super) async fn ask_for_offer(
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
            if let Some(wait) = study.expects_first() {
                return Ok(Step::Wait(wait));
            }
            let Some(approved) = study.approved() else {
                return Ok(Step::Wait("approvals".to_owned()));
            };
            let terms = &approved.current().statement().terms;
            let (base, previous, clip) =
                match number.checked_sub(1).filter(|n| *n > 0).and_then(|n| study.rounds.get(&n)) {
                    Some(last) => match next_base(approved, last) {
                        Ok(base) => (
                            base,
                            last.release.as_ref().map(Signed::digest),
                            next_clip(approved, last),
                        ),
                        Err(waiting) => return Ok(Step::Wait(waiting)),
                    },
                    None => (terms.model.initial, None, None),
                };
            let clip = terms.round_clip(clip);
            let manifests =
                approved.manifests().iter().map(sealfold_protocol::MultiSigned::envelope);
            let manifests = manifests.map(|e| Ok(Envelope(e?))).collect::<Result<_, Refusal>>()?;
            let request = OfferRequest { manifests, round: number, base, previous, clip };
            (request, entries::manifests(study)?)
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
    pub(super) async fn record_offer(
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
}

/// A round's offer, and the terms that it stands under.
fn offered<'a>(study: &'a Study, round: &'a Round) -> Option<(&'a Offer, &'a Terms)> {
    let offer = round.offer.as_ref()?.statement();
    let manifest = study.manifests().iter().find(|known| known.digest() == offer.manifest)?;
    Some((offer, &manifest.statement().terms))
}

/// The clip that a round led to, if its manifest has an adaptive one.
fn next_clip(study: &Study, last: &Round) -> Option<f64> {
    let (offer, terms) = offered(study, last)?;
    terms.next_clip(offer.clip, last.release.as_ref()?.statement().below_clip)
}

/// The model that a round led to. An evaluation round leaves the model as it is.
/// After a training round it is the model that more than half of the roster's
/// sites have reported. Fewer are not enough: a single wrong report would end the
/// next round for all honest sites.
fn next_base(study: &Study, last: &Round) -> Result<Digest, String> {
    if let Some((offer, terms)) = offered(study, last)
        && terms.kind(offer.round) == RoundKind::Evaluation
    {
        return Ok(offer.base);
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use sealfold_protocol::seal::RoundSecret;
    use sealfold_protocol::{MultiSigned, SigningKey};
    use sealfold_study::Manifest;

    /// A study of one training round and one evaluation round.
    fn manifest() -> MultiSigned<Manifest> {
        let text = include_str!("../../../study/example.toml").replace("rounds = 20", "rounds = 1");
        let manifest = Manifest::from_toml(&format!("{text}\n[evaluation]\nbins = 10\n")).unwrap();
        let keys: Vec<_> = (1..5).map(|i| SigningKey::from_seed(&[i; 32]).unwrap()).collect();
        let mut signed = MultiSigned::sign(manifest, &keys[0]).unwrap();
        keys[1..].iter().for_each(|key| signed.add_signature(key).unwrap());
        signed
    }

    #[test]
    fn an_evaluation_round_needs_no_reports_and_leaves_the_model_as_it_is() {
        let manifest = manifest();
        let known = crate::study::Study::new(manifest.clone());
        assert_eq!((known.last_round(), known.status(manifest.digest()).rounds), (2, 2));
        let study = Study::open(manifest.clone()).unwrap();
        let base = Digest::new([8; 32]);
        let after = |round| {
            let key = SigningKey::from_seed(&[9; 32]).unwrap();
            let offer = Offer {
                study: manifest.digest(),
                manifest: manifest.digest(),
                round,
                base,
                previous: None,
                clip: None,
                update_key: RoundSecret::from_seed(&[7; 32]).public_key().unwrap(),
                instance_key: key.verifying_key(),
            };
            let offer = Some(Signed::sign(offer, &key).unwrap());
            next_base(&study, &Round { offer, ..Round::default() })
        };
        assert_eq!(after(2), Ok(base));
        assert!(after(1).unwrap_err().contains("reports of the next model"));
    }
}
