//! The log's static files, for everybody.
//!
//! A checkpoint changes; a tile or an object has one content for ever and may
//! be kept by whatever stands in between.

use super::{Refused, Shared, object};
use crate::log::FOLDER;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::Response;
use sealfold_attestation::log::Tile;
use sealfold_protocol::Digest;
use sealfold_protocol::refusal::{Check, Refusal};

/// The log's latest checkpoint.
pub async fn checkpoint(State(host): Shared, headers: HeaderMap) -> Result<Response, Refused> {
    let mut response = object(&host, &format!("{FOLDER}/checkpoint"), &headers).await?;
    let text = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, text);
    cached(&mut response, "no-cache");
    Ok(response)
}

/// A tile of hashes, or a bundle of entries.
pub async fn tile(
    State(host): Shared,
    Path(path): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Refused> {
    let tile = Tile::parse(&format!("tile/{path}"))
        .map_err(|error| Refusal::new(Check::NotFound, "a tile of the log", error))?;
    let mut response = object(&host, &format!("{FOLDER}/{tile}"), &headers).await?;
    cached(&mut response, "public, max-age=31536000, immutable");
    Ok(response)
}

/// An object that a leaf names.
pub async fn named(
    State(host): Shared,
    Path(digest): Path<Digest>,
    headers: HeaderMap,
) -> Result<Response, Refused> {
    let mut response = object(&host, &format!("{FOLDER}/objects/{digest}"), &headers).await?;
    cached(&mut response, "public, max-age=31536000, immutable");
    Ok(response)
}

fn cached(response: &mut Response, how: &'static str) {
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static(how));
}
