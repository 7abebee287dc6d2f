//! Uploads: begun with a signed header, written in pieces, resumed where they
//! stopped. Each is its own site's: the guard lets nobody else near it.

use super::{Reply, Shared};
use crate::access::guard::Asker;
use crate::host::Host;
use crate::index::open_header;
use crate::state::Upload;
use crate::store::failed;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::{Extension, Json};
use metrics::counter;
use sealfold_protocol::api::{EnvelopeBody, UPLOAD_OFFSET, UploadState, UploadStatus};
use sealfold_protocol::refusal::{Check, Refusal};
use sealfold_protocol::{Digest, Signed};
use std::sync::Arc;

/// Begins an upload, or finds it.
pub async fn begin(
    State(host): Shared,
    Path((id, number)): Path<(Digest, u32)>,
    Extension(asker): Extension<Asker>,
    Json(body): Json<EnvelopeBody>,
) -> Reply<UploadStatus> {
    let mut state = host.state.lock().await;
    state.study(&id)?;
    let header = open_header(&state, &body.envelope.0)?;
    let statement = header.statement().clone();
    asker.expect_site(&statement.site)?;
    if (statement.study, statement.round) != (id, number) {
        let found = format!("round {} of {}", statement.round, statement.study.short());
        let expected = format!("round {number} of {}", id.short());
        return Err(Refusal::new(Check::Round, expected, found).into());
    }
    if state.uploads.contains_key(&header.digest()) {
        drop(state);
        return settled(&host, &header.digest()).await;
    }
    let study = state.study(&id)?;
    let offer = study.rounds.get(&number).and_then(|round| round.offer.as_ref());
    let standing = offer.map(Signed::digest);
    if standing != Some(statement.offer) {
        let expected = standing.map_or("an offer, none stands".to_owned(), |d| d.to_string());
        return Err(Refusal::new(Check::Offer, expected, statement.offer)
            .next("verify the offer that stands now and seal to it")
            .into());
    }
    // A round stays under the manifest of its offer, whatever amends it meanwhile.
    let terms = study.under(offer.map(Signed::statement))?;
    let expected = terms.update_length(terms.kind(number));
    if statement.plain_length != expected {
        let expected = format!("{expected} bytes of plaintext");
        return Err(Refusal::new(Check::Layout, expected, statement.plain_length).into());
    }
    let older: Vec<_> = state
        .uploads
        .values()
        .filter(|upload| {
            let other = upload.header.statement();
            (&other.site, other.offer) == (&statement.site, statement.offer)
        })
        .map(|upload| (upload.header.digest(), upload.status().state))
        .collect();
    for (digest, state_of) in &older {
        if matches!(state_of, UploadState::Stored | UploadState::Admitted(_)) {
            let expected = format!("one update a site and round, {}", digest.short());
            let found = format!("another, {}", header.digest().short());
            return Err(Refusal::new(Check::OneUpdate, expected, found).into());
        }
    }
    let digest = header.digest();
    host.store.put(&format!("uploads/{digest}/header"), body.envelope.0).await?;
    let upload = Upload {
        length: statement.sealed_length()?,
        received: host.staging.received(digest.as_bytes()),
        outcome: None,
        writing: Arc::default(),
        header,
    };
    let status = upload.status();
    state.uploads.insert(digest, upload);
    drop(state);
    // An unfinished or refused update of the same site gives way.
    for (digest, _) in older {
        host.forget_upload(&digest).await?;
    }
    Ok(Json(status))
}

fn unknown(header: &Digest) -> Refusal {
    Refusal::new(Check::NotFound, "an upload that was begun", header)
        .next("begin it with its signed header")
}

/// Where an upload stands.
pub async fn status(State(host): Shared, Path(header): Path<Digest>) -> Reply<UploadStatus> {
    settled(&host, &header).await
}

/// Where an upload stands when no piece of it is being written: what is said to
/// be there is on the disk.
async fn settled(host: &Host, header: &Digest) -> Reply<UploadStatus> {
    let found = || async { host.state.lock().await.uploads.get(header).cloned() };
    let upload = found().await.ok_or_else(|| unknown(header))?;
    let writing = upload.writing.lock().await;
    let upload = found().await.ok_or_else(|| unknown(header))?;
    drop(writing);
    Ok(Json(upload.status()))
}

/// Takes a piece.
pub async fn append(
    State(host): Shared,
    Path(header): Path<Digest>,
    headers: HeaderMap,
    piece: Bytes,
) -> Reply<UploadStatus> {
    let offset = headers.get(UPLOAD_OFFSET).and_then(|value| value.to_str().ok());
    let offset: u64 = offset.and_then(|value| value.parse().ok()).ok_or_else(|| {
        Refusal::new(Check::Request, format!("a header {UPLOAD_OFFSET} with a number"), "none")
    })?;
    let upload = host.state.lock().await.uploads.get(&header).cloned();
    let upload = upload.ok_or_else(|| unknown(&header))?;
    let writing = upload.writing.clone().lock_owned().await;
    // It may have given way to another while this piece waited; bytes of an upload
    // that is gone would stay for good.
    let upload = host.state.lock().await.uploads.get(&header).cloned();
    let upload = upload.ok_or_else(|| unknown(&header))?;
    if offset.saturating_add(piece.len() as u64) > upload.length {
        let expected = format!("at most {} bytes in all", upload.length);
        let found = format!("{} bytes at offset {offset}", piece.len());
        return Err(Refusal::new(Check::Size, expected, found).into());
    }
    let staging = host.staging.clone();
    let length = piece.len() as u64;
    let written =
        tokio::task::spawn_blocking(move || staging.append(header.as_bytes(), offset, &piece));
    let received = written.await.map_err(failed)??;
    counter!("sealfold_upload_bytes_total").increment(length);
    let mut state = host.state.lock().await;
    let upload = state.uploads.get_mut(&header).ok_or_else(|| unknown(&header))?;
    upload.received = received;
    let status = upload.status();
    drop(state);
    drop(writing);
    if received == status.length {
        host.wake.notify_one();
    }
    Ok(Json(status))
}
