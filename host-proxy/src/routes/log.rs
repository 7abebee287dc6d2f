//! The log's static files, for everybody.
//!
//! A checkpoint changes; a tile or an object has one content for ever and may
//! be kept by whatever stands in between.

use super::{Refused, Shared, object};
use crate::cosigned;
use crate::log::FOLDER;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use sealfold_attestation::log::Tile;
use sealfold_protocol::Digest;
use sealfold_protocol::refusal::{Check, Refusal};

/// The log's latest checkpoint.
pub async fn checkpoint(State(host): Shared, headers: HeaderMap) -> Result<Response, Refused> {
    let mut response = object(&host, &format!("{FOLDER}/checkpoint"), &headers).await?;
    as_text(&mut response);
    Ok(response)
}

/// Keeps cosignatures of a checkpoint.
pub async fn cosign(State(host): Shared, body: Bytes) -> Result<StatusCode, Refused> {
    cosigned::keep(&host, &body).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The largest checkpoint that a witness has cosigned.
pub async fn cosigned(
    State(host): Shared,
    Path(witness): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Refused> {
    let is_key = witness.len() == 64 && witness.bytes().all(|b| b.is_ascii_hexdigit());
    if !is_key {
        let (expected, found) = ("64 hex digits, the digest of a key", witness.chars().take(80));
        let found = found.collect::<String>();
        return Err(Refusal::new(Check::NotFound, expected, found).into());
    }
    let name = format!("{FOLDER}/cosigned/{}", witness.to_ascii_lowercase());
    let mut response = object(&host, &name, &headers).await?;
    as_text(&mut response);
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

fn as_text(response: &mut Response) {
    let text = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, text);
    cached(response, "no-cache");
}

fn cached(response: &mut Response, how: &'static str) {
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static(how));
}
