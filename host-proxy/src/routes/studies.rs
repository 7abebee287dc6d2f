//! Studies: their manifests and their initial models.

use super::{Refused, Reply, Shared, object};
use crate::access::guard::{Access, Asker, Key};
use crate::access::rates::{Limits, Who};
use crate::access::too_many;
use crate::host::{Host, study_folder};
use crate::state::MAX_STUDIES;
use crate::store::failed;
use crate::study::Study;
use crate::{amendments, log_key};
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use futures_util::StreamExt;
use sealfold_protocol::access::Role;
use sealfold_protocol::api::{EnvelopeBody, Introduction, StudyStatus};
use sealfold_protocol::bytes::Envelope;
use sealfold_protocol::content::ContentHasher;
use sealfold_protocol::manifest::Manifested;
use sealfold_protocol::refusal::{Check, Refusal};
use sealfold_protocol::{Digest, MultiSigned, Unverified, VerifyingKey};
use sealfold_study::Manifest;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::Instant;
use tokio::io::AsyncWriteExt;

/// All studies.
pub async fn list(State(host): Shared) -> Json<Vec<StudyStatus>> {
    let state = host.state.lock().await;
    Json(state.studies.iter().map(|(id, study)| study.status(*id)).collect())
}

/// One study.
pub async fn one(State(host): Shared, Path(study): Path<Digest>) -> Reply<StudyStatus> {
    Ok(Json(host.state.lock().await.study(&study)?.status(study)))
}

/// A manifest that the host has, in force or not.
pub async fn manifest(
    State(host): Shared,
    Path((id, digest)): Path<(Digest, Digest)>,
) -> Reply<EnvelopeBody> {
    let state = host.state.lock().await;
    let study = state.study(&id)?;
    let known = study.manifests().iter().find(|known| known.digest() == digest);
    let known = known.or_else(|| study.pending.get(&digest)).ok_or_else(|| {
        Refusal::new(Check::NotFound, "a manifest of this study", digest)
            .next("sealfold study show lists the amendments that are pending")
    })?;
    Ok(Json(EnvelopeBody { envelope: Envelope(known.envelope()?) }))
}

/// Takes a manifest that at least one of its own sites or approvers signed: a
/// new study, an amendment, or further signatures.
pub async fn publish(
    State(host): Shared,
    Extension(asker): Extension<Asker>,
    Json(body): Json<EnvelopeBody>,
) -> Reply<StudyStatus> {
    let mut brought = Unverified::<Manifest>::decode(&body.envelope.0)?;
    let id = match &brought.statement().terms.amends {
        Some(amends) => amends.study,
        None => brought.digest(),
    };
    // What nobody here wants, or brings who may not, is not verified: that hashes
    // the manifest once for each signature.
    let key = {
        let state = host.state.lock().await;
        host.terms.expect_served(&state.introduced, &id)?;
        log_key::expect_own(host.log.key(), &brought.statement().agreement.log)?;
        let study = state.studies.get(&id);
        // Other signatures change nothing, and would take the place of these.
        let mut listed: BTreeSet<_> = brought.statement().terms.parties().collect();
        listed.extend(study.iter().flat_map(|study| study.terms().parties()));
        brought.keep(&listed);
        expect_signed_by_a_party(&brought)?;
        brought_by(&asker, &brought, study)?
    };
    let verified = tokio::task::spawn_blocking(move || Manifest::verified(brought));
    let manifest = verified.await.map_err(failed)??;
    let mut state = host.state.lock().await;
    let Some(study) = state.studies.get_mut(&id) else {
        if manifest.statement().terms.amends.is_some() {
            return Err(Refusal::new(Check::NotFound, "the study that is amended", id).into());
        }
        if state.studies.len() >= MAX_STUDIES {
            let expected = format!("at most {MAX_STUDIES} studies");
            return Err(Refusal::new(Check::Size, expected, "one more").into());
        }
        put_manifest(&host, &id, 0, &manifest).await?;
        let study = state.studies.entry(id).or_insert_with(|| Study::new(manifest));
        host.wake.notify_one();
        return Ok(Json(study.status(id)));
    };
    let digest = manifest.digest();
    if digest == study.last().digest() {
        let mut merged = study.last().clone();
        merged.merge(&manifest)?;
        put_manifest(&host, &id, study.manifests().len() - 1, &merged).await?;
        study.merge(&merged)?;
    } else if study.manifests().iter().all(|known| known.digest() != digest) {
        // A signature of one that was amended since changes nothing.
        study.expect_amendment(&manifest)?;
        let backer = Some(key).filter(|_| may_propose(&asker, study));
        let backer = backer.or_else(|| study.pending.backer(&digest)).ok_or_else(|| {
            let expected = "an amendment that a party of the manifest in force brought before";
            Refusal::new(Check::Right, expected, digest)
        })?;
        let folder = amendments::folder(&id);
        study.pending.keep(&host.store, &folder, backer, &manifest).await?;
    }
    amendments::put_in_force(&host.store, &id, study).await?;
    host.wake.notify_one();
    Ok(Json(study.status(id)))
}

async fn put_manifest(
    host: &Host,
    id: &Digest,
    place: usize,
    manifest: &MultiSigned<Manifest>,
) -> Result<(), Refusal> {
    let name = format!("{}/manifests/{place:06}", study_folder(id));
    host.store.put(&name, manifest.envelope()?).await
}

/// Whether who asks may bring an amendment: a party of the manifest in force, or
/// the operator. Whoever an amendment names besides may only sign that one.
fn may_propose(asker: &Asker, study: &Study) -> bool {
    match asker {
        Asker::Signer(_, Role::Operator) => true,
        Asker::Signer(key, Role::Party) => study.standing(key).is_some(),
        _ => false,
    }
}

/// The key of who brings a manifest: the operator, a party of the study, or, of a
/// manifest that the study has or that begins one, a party of that manifest.
fn brought_by(
    asker: &Asker,
    manifest: &Unverified<Manifest>,
    study: Option<&Study>,
) -> Result<VerifyingKey, Refusal> {
    let Asker::Signer(key, role) = asker else {
        return Err(Refusal::new(Check::Access, "a signed request", "none"));
    };
    let is_known = study.is_none_or(|study| study.pending.get(&manifest.digest()).is_some());
    let may = *role == Role::Operator
        || study.is_some_and(|study| study.standing(key).is_some())
        || is_known && manifest.statement().terms.parties().any(|party| party == *key);
    if may {
        return Ok(*key);
    }
    Err(Refusal::new(Check::Right, Access::Signer.in_words(), format!("one signed by {key}")))
}

/// Serves a study from now on.
pub async fn introduce(State(host): Shared, Json(body): Json<Introduction>) -> Reply<Value> {
    host.introduce(&body.study).await?;
    Ok(Json(json!({})))
}

fn expect_signed_by_a_party(manifest: &Unverified<Manifest>) -> Result<(), Refusal> {
    if manifest.claimed().is_empty() {
        let expected = "a signature of one of its sites or approvers";
        return Err(Refusal::new(Check::Site, expected, "none"));
    }
    Ok(())
}

/// Takes the initial model, if it is the one that the manifest names.
pub async fn put_model(
    State(host): Shared,
    Path(id): Path<Digest>,
    Extension(Key(key)): Extension<Key>,
    body: Body,
) -> Result<Response, Refused> {
    // One copy on disk for each party: one at a time for all of them would let the
    // slowest keep the model out.
    let limits = Limits::of_models();
    let _place = match host.rates.enter(Who::Models(key), limits, Instant::now()) {
        Ok(place) => place,
        Err(wait) => return Ok(too_many(&limits, wait)),
    };
    let (expected, length, has_model) = {
        let state = host.state.lock().await;
        let study = state.study(&id)?;
        let model = &study.terms().model;
        (model.initial, model.bytes(), study.has_model)
    };
    if length > host.terms.largest_model {
        let expected = format!("a model of at most {} bytes", host.terms.largest_model);
        return Err(Refusal::new(Check::Size, expected, length)
            .next("the operator sets the limit: sealfold-host serve --largest-model")
            .into());
    }
    let file = tempfile::NamedTempFile::new_in(host.staging.temporary()).map_err(failed)?;
    let mut writer = tokio::fs::File::from_std(file.reopen().map_err(failed)?);
    let (mut hasher, mut received) = (ContentHasher::new(), 0u64);
    let mut stream = body.into_data_stream();
    while let Some(piece) = stream.next().await {
        let cut = |e| Refusal::new(Check::Upload, "a whole body", e);
        let piece = piece.map_err(cut)?;
        received = received.saturating_add(piece.len() as u64);
        if received > length {
            let expected = format!("a model of {length} bytes");
            return Err(Refusal::new(Check::Size, expected, "a longer one").into());
        }
        hasher.update(&piece);
        // What is there already is compared, not stored again.
        if !has_model {
            writer.write_all(&piece).await.map_err(failed)?;
        }
    }
    writer.flush().await.map_err(failed)?;
    let found = hasher.finish();
    if found != expected {
        return Err(Refusal::new(Check::Chain, format!("the model {expected}"), found)
            .next("publish the very file whose digest the manifest names")
            .into());
    }
    if !has_model {
        let reader = tokio::fs::File::open(file.path()).await.map_err(failed)?;
        host.store.put_large(&format!("{}/model", study_folder(&id)), reader).await?;
        host.state.lock().await.study_mut(&id)?.has_model = true;
        host.wake.notify_one();
    }
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// The initial model.
pub async fn model(
    State(host): Shared,
    Path(id): Path<Digest>,
    headers: HeaderMap,
) -> Result<Response, Refused> {
    host.state.lock().await.study(&id)?;
    object(&host, &format!("{}/model", study_folder(&id)), &headers).await
}
