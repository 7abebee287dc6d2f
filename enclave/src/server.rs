//! The engine over HTTP, on whatever endpoint the platform has.

use crate::engine::Engine;
use crate::erasure::with_wiped_stack;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::http::uri::PathAndQuery;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use sealfold_protocol::api::{
    self, CheckpointRequest, EnvelopeBody, EvidenceRequest, MAX_HEAD_READ, MAX_HISTORY, MAX_JSON,
    OfferRequest,
};
use sealfold_protocol::bytes::Envelope;
use sealfold_protocol::endpoint::{AsyncStream, Endpoint};
use sealfold_protocol::refusal::{Check, Refusal};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;

/// The most connections at a time.
const MAX_CONNECTIONS: usize = 64;
/// The route on which the host asks for an offer, with the study's manifests.
const OFFER: &str = "/v1/offer";
/// How long a client may take to send a request's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a client may take to send a request's body.
const BODY_TIMEOUT: Duration = Duration::from_mins(1);

/// Serves until the process ends.
///
/// # Errors
/// If the endpoint cannot be listened on.
pub async fn serve(engine: Arc<Engine>, endpoint: &Endpoint) -> io::Result<()> {
    let listener = endpoint
        .listen_async()
        .map_err(|error| io::Error::new(error.kind(), format!("{endpoint}: {error}")))?;
    eprintln!("listening on {}", listener.place(endpoint));
    let clock = engine.clone();
    tokio::spawn(async move {
        let mut seconds = tokio::time::interval(Duration::from_secs(1));
        loop {
            seconds.tick().await;
            clock.tick();
        }
    });
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(permit) = places.clone().acquire_owned().await else { return Ok(()) };
        match listener.accept().await {
            Ok((stream, _)) => {
                let engine = engine.clone();
                tokio::spawn(async move {
                    connection(engine, stream).await;
                    drop(permit);
                });
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

async fn connection(engine: Arc<Engine>, stream: AsyncStream) {
    let service = service_fn(move |request| {
        let engine = engine.clone();
        async move { Ok::<_, Infallible>(respond(engine, request).await) }
    });
    // A client that hangs up or sends nonsense is its own affair.
    let _ = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MAX_HEAD_READ)
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

async fn respond(engine: Arc<Engine>, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let (parts, body) = request.into_parts();
    let target = parts.uri.path_and_query().map(PathAndQuery::as_str);
    let fields = parts.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
    if let Err(refusal) = api::expect_head(target, fields) {
        return reply::<()>(Err(refusal));
    }
    let limit = if parts.uri.path() == OFFER { MAX_HISTORY } else { MAX_JSON };
    let body = match read(body, limit).await {
        Ok(body) => body,
        Err(refusal) => return reply::<()>(Err(refusal)),
    };
    // Passes over records and the NSM block, so no request runs on the
    // runtime's own threads.
    let answer = tokio::task::spawn_blocking(move || {
        with_wiped_stack(|| answer(&engine, &parts.method, parts.uri.path(), &body))
    });
    answer.await.unwrap_or_else(|_| {
        reply::<()>(Err(Refusal::new(Check::Request, "an answer", "an engine that failed")))
    })
}

/// Answers one request: the routes.
#[must_use]
pub fn answer(engine: &Engine, method: &Method, path: &str, body: &[u8]) -> Response<Full<Bytes>> {
    let wrap = |envelope: Envelope| EnvelopeBody { envelope };
    match (method.as_str(), path) {
        ("GET", "/v1/status") => reply(engine.status()),
        ("POST", OFFER) => {
            reply(parse::<OfferRequest>(body).and_then(|r| engine.offer(&r)).map(wrap))
        }
        ("POST", "/v1/evidence") => {
            reply(parse::<EvidenceRequest>(body).and_then(|r| engine.evidence(r.nonce)))
        }
        ("POST", "/v1/updates") => {
            reply(parse::<EnvelopeBody>(body).and_then(|r| engine.admit(&r.envelope.0)).map(wrap))
        }
        ("POST", "/v1/roster") => reply(engine.roster().map(wrap)),
        ("POST", "/v1/checkpoint") => reply(
            parse::<CheckpointRequest>(body)
                .and_then(|r| engine.checkpoint(&r))
                .map(|()| serde_json::json!({})),
        ),
        ("POST", "/v1/commits") => reply(
            parse::<EnvelopeBody>(body)
                .and_then(|r| engine.commit(&r.envelope.0))
                .map(|()| serde_json::json!({})),
        ),
        ("POST", "/v1/release") => reply(engine.release().map(wrap)),
        _ => reply::<()>(Err(Refusal::new(
            Check::NotFound,
            "a route of this enclave",
            format!("{method} {}", path.chars().take(100).collect::<String>()),
        ))),
    }
}

async fn read(body: Incoming, limit: usize) -> Result<Bytes, Refusal> {
    let limited = Limited::new(body, limit);
    let collected = tokio::time::timeout(BODY_TIMEOUT, limited.collect()).await;
    let too_slow = |_| Refusal::new(Check::Request, "a body within 60 s", "a slower one");
    let too_large = |e| Refusal::new(Check::Size, format!("at most {limit} bytes"), e);
    Ok(collected.map_err(too_slow)?.map_err(too_large)?.to_bytes())
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Refusal> {
    serde_json::from_slice(body).map_err(|e| Refusal::new(Check::Request, "a JSON body", e))
}

fn reply<T: Serialize>(result: Result<T, Refusal>) -> Response<Full<Bytes>> {
    let (status, body) = match result {
        Ok(value) => (StatusCode::OK, serde_json::to_vec(&value)),
        Err(refusal) => (status_of(&refusal), serde_json::to_vec(&refusal)),
    };
    let mut response = Response::new(Full::new(Bytes::from(body.unwrap_or_default())));
    *response.status_mut() = status;
    let json = hyper::header::HeaderValue::from_static("application/json");
    response.headers_mut().insert(hyper::header::CONTENT_TYPE, json);
    response
}

fn status_of(refusal: &Refusal) -> StatusCode {
    StatusCode::from_u16(refusal.http_status()).unwrap_or(StatusCode::BAD_REQUEST)
}
