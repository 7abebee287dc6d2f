//! Rounds: evidence, commits, releases, abandonments.

use super::{Refused, Reply, Shared, object};
use crate::access::guard::{Asker, Key};
use crate::access::rates::{Limits, Who};
use crate::access::too_many;
use crate::entries;
use crate::host::round_folder;
use crate::state::State as Known;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use sealfold_protocol::abandonment::Abandonment;
use sealfold_protocol::api::{EnvelopeBody, EvidenceRequest, RoundStatus};
use sealfold_protocol::bytes::Envelope;
use sealfold_protocol::leaf::Kind;
use sealfold_protocol::offer::Offer;
use sealfold_protocol::refusal::{Check, Refusal};
use sealfold_protocol::roster::Commit;
use sealfold_protocol::{Digest, Signed, Unverified};
use serde_json::{Value, json};
use std::time::Instant;

/// The round that runs.
pub async fn current(
    State(host): Shared,
    Path(id): Path<Digest>,
    Extension(asker): Extension<Asker>,
) -> Reply<RoundStatus> {
    let state = host.state.lock().await;
    let number = state.study(&id)?.current_round();
    Ok(Json(shown_to(&asker, state.round_status(&id, number)?)))
}

/// A round as this asker may see it: the uploads of others are not its business.
/// Which sites have uploaded is everybody's.
fn shown_to(asker: &Asker, mut round: RoundStatus) -> RoundStatus {
    match asker {
        Asker::Operator => {}
        Asker::Site(name) => round.uploads.retain(|upload| upload.site == *name),
        _ => round.uploads.clear(),
    }
    round
}

/// One round.
pub async fn one(
    State(host): Shared,
    Path((id, number)): Path<(Digest, u32)>,
    Extension(asker): Extension<Asker>,
) -> Reply<RoundStatus> {
    Ok(Json(shown_to(&asker, host.state.lock().await.round_status(&id, number)?)))
}

fn offer(state: &Known, id: &Digest, number: u32) -> Result<Signed<Offer>, Refusal> {
    let round = state.study(id)?.rounds.get(&number);
    round.and_then(|round| round.offer.clone()).ok_or_else(|| {
        Refusal::new(Check::Phase, "an offer for this round", "none yet")
            .next("the round waits; ask again")
    })
}

/// Evidence for the standing offer, from the enclave, with the asker's nonce.
pub async fn evidence(
    State(host): Shared,
    Path((id, number)): Path<(Digest, u32)>,
    Extension(Key(key)): Extension<Key>,
    Json(body): Json<EvidenceRequest>,
) -> Result<Response, Refused> {
    offer(&*host.state.lock().await, &id, number)?;
    let limits = Limits::of_evidence(host.terms.evidence_rate);
    let _place = match host.rates.enter(Who::Evidence(key), limits, Instant::now()) {
        Ok(place) => place,
        Err(wait) => return Ok(too_many(&limits, wait)),
    };
    Ok(Json(host.enclave.evidence(body.nonce).await?).into_response())
}

/// The evidence that was kept when the offer was made.
pub async fn kept_evidence(
    State(host): Shared,
    Path((id, number)): Path<(Digest, u32)>,
) -> Reply<Value> {
    let offer = offer(&*host.state.lock().await, &id, number)?;
    let name = format!("{}/{}/evidence", round_folder(&id, number), offer.digest());
    let missing = || Refusal::new(Check::NotFound, "kept evidence", "none");
    let bytes = host.store.get(&name).await?.ok_or_else(missing)?;
    Ok(Json(serde_json::from_slice(&bytes).map_err(crate::store::failed)?))
}

/// Passes a commit on to the enclave, and keeps it.
pub async fn commit(
    State(host): Shared,
    Path((id, number)): Path<(Digest, u32)>,
    Extension(asker): Extension<Asker>,
    Json(body): Json<EnvelopeBody>,
) -> Reply<Value> {
    let commit = {
        let state = host.state.lock().await;
        let study = state.study(&id)?;
        let round = study.rounds.get(&number);
        let offer = round.and_then(|round| round.offer.as_ref()).map(Signed::statement);
        let commit = Signed::<Commit>::open_by(&body.envelope.0, |commit| {
            study.key_in(offer, &commit.site)
        })?;
        asker.expect_site(&commit.statement().site)?;
        let roster = round.and_then(|round| round.roster.clone());
        let roster = roster.ok_or_else(|| {
            Refusal::new(Check::Phase, "a roster that is open for commits", "none")
        })?;
        let logged = round.and_then(|round| round.logged).ok_or_else(|| {
            Refusal::new(Check::Phase, "a roster that stands in the log", "one that does not yet")
        })?;
        let statement = commit.statement();
        if statement.roster == roster.digest() && statement.checkpoint != logged.checkpoint {
            let found = statement.checkpoint;
            return Err(Refusal::new(Check::Checkpoint, logged.checkpoint, found).into());
        }
        statement.expect(&roster, &logged.checkpoint).map_err(|error| {
            Refusal::new(Check::Roster, "a commit to the roster that stands", error)
        })?;
        commit
    };
    let statement = commit.statement();
    // Kept before the enclave hears of it: a site that has committed is bound,
    // and the host must know that after a crash.
    let folder = format!("{}/{}/commits", round_folder(&id, number), statement.offer);
    let name = format!("{folder}/{}/{}", statement.roster, statement.site);
    host.store.put(&name, body.envelope.0.clone()).await?;
    // In the log before the enclave hears of it, and so before any release.
    host.record(vec![entries::signed(Kind::Commit, &commit)?]).await?;
    {
        let mut state = host.state.lock().await;
        let round = state.study_mut(&id)?.rounds.entry(number).or_default();
        if round.roster.as_ref().map(Signed::digest) == Some(statement.roster) {
            round.commits.insert(statement.site.clone(), body.envelope.clone());
        }
        round.was_committed = true;
    }
    host.enclave.commit(body.envelope).await?;
    host.wake.notify_one();
    Ok(Json(json!({})))
}

/// The sealed aggregate of a released round.
pub async fn aggregate(
    State(host): Shared,
    Path((id, number)): Path<(Digest, u32)>,
    headers: HeaderMap,
) -> Result<Response, Refused> {
    let found = {
        let state = host.state.lock().await;
        let round = state.study(&id)?.rounds.get(&number);
        round
            .filter(|round| round.has_aggregate)
            .and_then(|round| round.release.as_ref().map(|release| release.statement().object))
    };
    let object_name = found.ok_or_else(|| {
        Refusal::new(Check::Phase, "a released round", format!("round {number} without a release"))
    })?;
    object(&host, &format!("aggregates/{object_name}"), &headers).await
}

/// Takes an approver's signature of an abandonment. Each party backs one wording;
/// the first that has enough signatures gives the offer up.
pub async fn abandon(
    State(host): Shared,
    Path((id, number)): Path<(Digest, u32)>,
    Extension(Key(key)): Extension<Key>,
    Json(body): Json<EnvelopeBody>,
) -> Reply<EnvelopeBody> {
    let brought = Unverified::<Abandonment>::decode(&body.envelope.0)?;
    let statement = brought.statement().clone();
    if (statement.study, statement.round) != (id, number) {
        let found = format!("round {} of {}", statement.round, statement.study);
        return Err(Refusal::new(Check::Round, format!("round {number} of {id}"), found).into());
    }
    let mut state = host.state.lock().await;
    let study = state.study_mut(&id)?;
    let approval = study.terms().approval.clone();
    let approvers = approval.approvers;
    let mut entries = entries::manifests(study)?;
    let strangers = brought.claimed().into_iter().find(|key| !approvers.contains(key));
    if let Some(stranger) = strangers {
        return Err(Refusal::new(Check::Site, "approvers' signatures only", stranger).into());
    }
    let abandonment = brought.verify()?;
    // A round that was never offered is not made by what somebody says of it.
    let Some(round) = study.rounds.get_mut(&number).filter(|round| round.offer.is_some()) else {
        let expected = "an offer of a round that was offered";
        let found = format!("offer {} of round {number}", statement.offer);
        return Err(Refusal::new(Check::Offer, expected, found).into());
    };
    let offered = round.offer.as_ref().map(Signed::digest);
    if offered == Some(statement.offer) && round.release.is_some() {
        return Err(Refusal::new(Check::Phase, "an offer without a release", "a released round")
            .next("fetch the release; there is nothing to give up")
            .into());
    }
    // A site may be bound to an offer from before the one that stands, though its
    // commit never arrived here.
    let evidence = format!("{}/{}/evidence", round_folder(&id, number), statement.offer);
    if offered != Some(statement.offer) && host.store.length(&evidence).await?.is_none() {
        let expected = offered.map_or("an offer of this round".to_owned(), |d| d.to_string());
        return Err(Refusal::new(Check::Offer, expected, statement.offer).into());
    }
    let words = round.abandonments.entry(statement.offer).or_default();
    let given_up = words.approved(&approvers, approval.required);
    if let Some(given_up) = given_up.filter(|known| known.digest() != abandonment.digest()) {
        return Ok(Json(EnvelopeBody { envelope: Envelope(given_up.envelope()?) }));
    }
    let prefix = format!("{}/abandonments/{}.", round_folder(&id, number), statement.offer);
    let abandonment = words.keep(&host.store, &prefix, key, &abandonment).await?;
    // With fewer signatures it is none yet.
    if abandonment.expect_approvals(&approvers, approval.required).is_ok() {
        // Behind the manifest whose approvers these are: no offer may have been made
        // under it yet.
        entries.push(entries::abandonment(&abandonment)?);
        host.record(entries).await?;
    }
    host.wake.notify_one();
    Ok(Json(EnvelopeBody { envelope: Envelope(abandonment.envelope()?) }))
}

/// Takes a site's report of the model that the release led to.
pub async fn report(
    State(host): Shared,
    Path((id, number)): Path<(Digest, u32)>,
    Extension(asker): Extension<Asker>,
    Json(body): Json<EnvelopeBody>,
) -> Reply<Value> {
    let mut state = host.state.lock().await;
    let (report, release) = {
        let study = state.study(&id)?;
        let round = study.rounds.get(&number);
        let offer = round.and_then(|round| round.offer.as_ref()).map(Signed::statement);
        let report = study.open_report(offer, &body.envelope.0)?;
        asker.expect_site(&report.site)?;
        (report, round.and_then(|round| round.release.as_ref().map(Signed::digest)))
    };
    if (report.study, report.round, Some(report.release)) != (id, number, release) {
        let expected = release.map_or("a released round".to_owned(), |digest| digest.to_string());
        return Err(Refusal::new(Check::Chain, expected, report.release).into());
    }
    let name = format!("{}/reports/{}", round_folder(&id, number), report.site);
    host.store.put(&name, body.envelope.0).await?;
    let round = state.study_mut(&id)?.rounds.entry(number).or_default();
    round.reports.insert(report.site.clone(), report);
    host.wake.notify_one();
    Ok(Json(json!({})))
}
