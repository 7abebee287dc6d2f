//! Studies: their manifests and their initial models.

use super::{Refused, Reply, Shared, object};
use crate::access::guard::{Access, Asker};
use crate::host::study_folder;
use crate::log_key;
use crate::state::MAX_STUDIES;
use crate::store::failed;
use crate::study::Study;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use axum::{Extension, Json};
use futures_util::StreamExt;
use sealfold_protocol::access::Role;
use sealfold_protocol::api::{EnvelopeBody, Introduction, StudyStatus};
use sealfold_protocol::content::ContentHasher;
use sealfold_protocol::manifest::Manifest;
use sealfold_protocol::refusal::{Check, Refusal};
use sealfold_protocol::study::identity;
use sealfold_protocol::{Digest, MultiSigned};
use serde_json::{Value, json};
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

/// Takes a manifest that at least one of its own sites or approvers signed: a
/// new study, an amendment, or further signatures.
pub async fn publish(
    State(host): Shared,
    Extension(asker): Extension<Asker>,
    Json(body): Json<EnvelopeBody>,
) -> Reply<StudyStatus> {
    let manifest = Manifest::open(&body.envelope.0)?;
    signed_by_a_party(&manifest)?;
    let id = identity(&manifest);
    log_key::expect_own(host.log.key(), &manifest.statement().log)?;
    let mut state = host.state.lock().await;
    host.terms.expect_served(&state.introduced, &id)?;
    brought_by_a_party(&asker, &manifest, state.studies.get(&id))?;
    let is_new = !state.studies.contains_key(&id);
    if is_new && state.studies.len() >= MAX_STUDIES {
        let expected = format!("at most {MAX_STUDIES} studies");
        return Err(Refusal::new(Check::Size, expected, "one more").into());
    }
    let (place, merged) = match state.studies.get(&id) {
        None if manifest.statement().amends.is_some() => {
            return Err(Refusal::new(Check::NotFound, "the study that is amended", id).into());
        }
        None => (0, manifest),
        Some(study) => {
            let known = study.manifests().iter().position(|m| m.digest() == manifest.digest());
            if let Some(place) = known {
                let mut merged = study.manifests()[place].clone();
                merged.merge(&manifest)?;
                (place, merged)
            } else {
                // An amendment that nobody approved yet can be replaced.
                let approved = study.approved().map_or(1, |study| study.manifests().len());
                follows(&study.manifests()[approved - 1], &manifest)?;
                (approved, manifest)
            }
        }
    };
    let name = format!("{}/manifests/{place:06}", study_folder(&id));
    host.store.put(&name, merged.envelope()?).await?;
    let study = match state.studies.entry(id) {
        std::collections::btree_map::Entry::Vacant(vacant) => vacant.insert(Study::new(merged)),
        std::collections::btree_map::Entry::Occupied(occupied) => {
            let study = occupied.into_mut();
            study.put_manifest(place, merged);
            study
        }
    };
    host.wake.notify_one();
    Ok(Json(study.status(id)))
}

/// The request must come from a party of this manifest or of the study.
fn brought_by_a_party(
    asker: &Asker,
    manifest: &MultiSigned<Manifest>,
    study: Option<&Study>,
) -> Result<(), Refusal> {
    let Asker::Signer(key, role) = asker else {
        return Err(Refusal::new(Check::Access, "a signed request", "none"));
    };
    let statement = manifest.statement();
    let mut named = statement.sites.iter().map(|site| &site.signing_key);
    let is_party = named.any(|site| site == key)
        || statement.approval.approvers.contains(key)
        || study.is_some_and(|study| study.standing(key).is_some());
    if *role == Role::Operator || is_party {
        return Ok(());
    }
    Err(Refusal::new(Check::Right, Access::Signer.in_words(), format!("one signed by {key}")))
}

/// Serves a study from now on.
pub async fn introduce(State(host): Shared, Json(body): Json<Introduction>) -> Reply<Value> {
    host.introduce(&body.study).await?;
    Ok(Json(json!({})))
}

fn signed_by_a_party(manifest: &MultiSigned<Manifest>) -> Result<(), Refusal> {
    let statement = manifest.statement();
    let signers = manifest.signers();
    let sites = statement.sites.iter().map(|site| &site.signing_key);
    if sites.chain(&statement.approval.approvers).any(|key| signers.contains(key)) {
        return Ok(());
    }
    let found = signers.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    Err(Refusal::new(Check::Site, "a signature of one of its sites or approvers", found))
}

/// An amendment must name the manifest in force and be signed by one of its
/// parties, or a stranger could block the next one.
fn follows(current: &MultiSigned<Manifest>, next: &MultiSigned<Manifest>) -> Result<(), Refusal> {
    let predecessor = next.statement().amends.as_ref().map(|amends| amends.predecessor);
    if predecessor != Some(current.digest()) {
        let found = predecessor.map_or("none".to_owned(), |digest| digest.to_string());
        return Err(Refusal::new(Check::Chain, format!("predecessor {}", current.digest()), found));
    }
    let signers = next.signers();
    let (sites, approvers) = (&current.statement().sites, &current.statement().approval.approvers);
    if sites.iter().map(|site| &site.signing_key).chain(approvers).any(|k| signers.contains(k)) {
        return Ok(());
    }
    Err(Refusal::new(Check::Site, "a signature of a party of the manifest in force", "none"))
}

/// Takes the initial model, if it is the one that the manifest names.
pub async fn put_model(
    State(host): Shared,
    Path(id): Path<Digest>,
    body: Body,
) -> Result<StatusCode, Refused> {
    let (expected, length, has_model) = {
        let state = host.state.lock().await;
        let study = state.study(&id)?;
        let model = study.manifest().model;
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
    Ok(StatusCode::NO_CONTENT)
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
