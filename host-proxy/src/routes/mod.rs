//! The HTTP API for sites, one table: the router and the OpenAPI document are
//! both made from it.

use crate::access::guard::{self, Access, Content};
use crate::host::Host;
use crate::{access, limits, openapi, page};
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::uri::PathAndQuery;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get, post};
use axum::{Json, Router};
use metrics::counter;
use sealfold_attestation::log::note::MAX_NOTE;
use sealfold_protocol::api::{self, MAX_JSON, MAX_PIECE};
use sealfold_protocol::refusal::{Check, Refusal};
use serde::Serialize;
use std::sync::Arc;

mod log;
mod rounds;
mod studies;
mod uploads;

/// What handlers share.
pub type Shared = State<Arc<Host>>;

/// What a request has to be signed with, in the form of RFC 9421, section 5.1.
const ACCEPT_SIGNATURE: &str = "sealfold=(\"@method\" \"@authority\" \"@path\" \"@query\");\
    created;expires;nonce;alg=\"ed25519\";keyid;tag=\"sealfold/v1/party\"";

/// A refusal as an HTTP reply.
#[derive(Debug)]
pub struct Refused(pub Refusal);

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        Self(refusal)
    }
}

impl From<sealfold_protocol::Error> for Refused {
    fn from(error: sealfold_protocol::Error) -> Self {
        Self(error.into())
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0.http_status()).unwrap_or(StatusCode::BAD_REQUEST);
        counter!("sealfold_refusals_total", "check" => self.0.check.to_string()).increment(1);
        let check = self.0.check;
        let mut response = (status, Json(self.0)).into_response();
        let headers = response.headers_mut();
        match check {
            Check::Rate => _ = headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1")),
            Check::Access | Check::Clock | Check::Replay => {
                let how = HeaderValue::from_static(ACCEPT_SIGNATURE);
                headers.insert(HeaderName::from_static("accept-signature"), how);
                let scheme = HeaderValue::from_static("Signature realm=\"sealfold\"");
                headers.insert(header::WWW_AUTHENTICATE, scheme);
            }
            _ => {}
        }
        // For the log of access.
        response.extensions_mut().insert(check);
        response
    }
}

/// A JSON reply or a refusal.
pub type Reply<T> = Result<Json<T>, Refused>;

/// One operation of the API.
#[derive(Debug, Clone, Copy)]
pub struct Operation {
    /// The HTTP method.
    pub method: &'static str,
    /// The path, with parameters in braces.
    pub path: &'static str,
    /// Who may use it.
    pub access: Access,
    /// What it does.
    pub summary: &'static str,
    /// How much it takes in.
    pub content: Content,
    /// What its body is; empty without one.
    pub body: &'static str,
    /// What the reply is.
    pub reply: &'static str,
}

/// Every operation.
#[rustfmt::skip]
pub const OPERATIONS: &[Operation] = &[
    Operation { method: "get", path: "/", access: Access::Anyone, content: Content::Nothing, summary: "A status page for people", body: "", reply: "text/html" },
    Operation { method: "get", path: "/log/checkpoint", access: Access::Anyone, content: Content::Nothing, summary: "The log's latest checkpoint, a signed note", body: "", reply: "text/plain" },
    Operation { method: "post", path: "/log/cosignatures", access: Access::Witness, content: Content::Whole(MAX_NOTE), summary: "A checkpoint of the log that a site or a witness has cosigned", body: "bytes", reply: "204" },
    Operation { method: "get", path: "/log/cosigned/{witness}", access: Access::Anyone, content: Content::Nothing, summary: "The largest checkpoint that a witness has cosigned, by the digest of its key", body: "", reply: "text/plain" },
    Operation { method: "get", path: "/log/tile/{tile}", access: Access::Anyone, content: Content::Nothing, summary: "A tile or a bundle of entries of the log (C2SP tlog-tiles); the parameter holds slashes, such as 0/x001/234.p/7 or entries/000", body: "", reply: "bytes" },
    Operation { method: "get", path: "/log/objects/{digest}", access: Access::Anyone, content: Content::Nothing, summary: "What a leaf of the log names by its SHA-256", body: "", reply: "bytes" },
    Operation { method: "get", path: "/v1/openapi.json", access: Access::Anyone, content: Content::Nothing, summary: "This document", body: "", reply: "OpenAPI 3.1" },
    Operation { method: "get", path: "/v1/health", access: Access::Anyone, content: Content::Nothing, summary: "Whether the host and its enclave answer", body: "", reply: "Health" },
    Operation { method: "get", path: "/v1/studies", access: Access::Anyone, content: Content::Nothing, summary: "All studies", body: "", reply: "[StudyStatus]" },
    Operation { method: "post", path: "/v1/studies", access: Access::Signer, content: Content::Whole(MAX_JSON), summary: "Publish a manifest, an amendment, or further signatures", body: "EnvelopeBody", reply: "StudyStatus" },
    Operation { method: "post", path: "/v1/operator/studies", access: Access::Operator, content: Content::Whole(MAX_JSON), summary: "Serve a study from now on", body: "Introduction", reply: "{}" },
    Operation { method: "get", path: "/v1/studies/{study}", access: Access::Anyone, content: Content::Nothing, summary: "One study", body: "", reply: "StudyStatus" },
    Operation { method: "get", path: "/v1/studies/{study}/manifests/{manifest}", access: Access::Anyone, content: Content::Nothing, summary: "A manifest of the study, in force or pending, by its digest", body: "", reply: "EnvelopeBody" },
    Operation { method: "put", path: "/v1/studies/{study}/model", access: Access::Party, content: Content::Named, summary: "Publish the initial model, whose digest the manifest names", body: "bytes", reply: "204" },
    Operation { method: "get", path: "/v1/studies/{study}/model", access: Access::Party, content: Content::Nothing, summary: "The initial model; Range is understood", body: "", reply: "bytes" },
    Operation { method: "get", path: "/v1/studies/{study}/round", access: Access::Party, content: Content::Nothing, summary: "The round that runs", body: "", reply: "RoundStatus" },
    Operation { method: "get", path: "/v1/studies/{study}/rounds/{round}", access: Access::Party, content: Content::Nothing, summary: "One round", body: "", reply: "RoundStatus" },
    Operation { method: "post", path: "/v1/studies/{study}/rounds/{round}/evidence", access: Access::Party, content: Content::Whole(MAX_JSON), summary: "Evidence for the standing offer, with the asker's nonce", body: "EvidenceRequest", reply: "EvidenceReply" },
    Operation { method: "get", path: "/v1/studies/{study}/rounds/{round}/evidence", access: Access::Anyone, content: Content::Nothing, summary: "The evidence that was kept for the offer", body: "", reply: "EvidenceReply" },
    Operation { method: "post", path: "/v1/studies/{study}/rounds/{round}/updates", access: Access::Site, content: Content::Whole(MAX_JSON), summary: "Begin or find an upload", body: "EnvelopeBody", reply: "UploadStatus" },
    Operation { method: "post", path: "/v1/studies/{study}/rounds/{round}/commits", access: Access::Site, content: Content::Whole(MAX_JSON), summary: "Commit to the standing roster", body: "EnvelopeBody", reply: "{}" },
    Operation { method: "get", path: "/v1/studies/{study}/rounds/{round}/aggregate", access: Access::Party, content: Content::Nothing, summary: "The sealed aggregate; Range is understood", body: "", reply: "bytes" },
    Operation { method: "post", path: "/v1/studies/{study}/rounds/{round}/abandonments", access: Access::Party, content: Content::Whole(MAX_JSON), summary: "Sign an abandonment of an offer", body: "EnvelopeBody", reply: "EnvelopeBody" },
    Operation { method: "post", path: "/v1/studies/{study}/rounds/{round}/models", access: Access::Site, content: Content::Whole(MAX_JSON), summary: "Report the model that the release led to", body: "EnvelopeBody", reply: "{}" },
    Operation { method: "get", path: "/v1/uploads/{header}", access: Access::Site, content: Content::Nothing, summary: "Where an upload stands", body: "", reply: "UploadStatus" },
    Operation { method: "patch", path: "/v1/uploads/{header}", access: Access::Site, content: Content::Whole(MAX_PIECE), summary: "A piece of at most 8 MiB at upload-offset; acknowledged when it is on disk", body: "bytes", reply: "UploadStatus" },
];

fn handler(operation: &Operation) -> MethodRouter<Arc<Host>> {
    match (operation.method, operation.path) {
        ("get", "/") => get(page::page),
        ("get", "/v1/openapi.json") => get(|| async { Json(openapi::document()) }),
        ("get", "/v1/health") => get(health),
        ("get", "/v1/studies") => get(studies::list),
        ("post", "/v1/studies") => post(studies::publish),
        ("post", "/v1/operator/studies") => post(studies::introduce),
        ("get", "/v1/studies/{study}") => get(studies::one),
        ("get", "/v1/studies/{study}/manifests/{manifest}") => get(studies::manifest),
        ("put", "/v1/studies/{study}/model") => {
            axum::routing::put(studies::put_model).layer(DefaultBodyLimit::disable())
        }
        ("get", "/v1/studies/{study}/model") => get(studies::model),
        ("get", "/v1/studies/{study}/round") => get(rounds::current),
        ("get", "/v1/studies/{study}/rounds/{round}") => get(rounds::one),
        ("post", "/v1/studies/{study}/rounds/{round}/evidence") => post(rounds::evidence),
        ("get", "/v1/studies/{study}/rounds/{round}/evidence") => get(rounds::kept_evidence),
        ("post", "/v1/studies/{study}/rounds/{round}/updates") => post(uploads::begin),
        ("post", "/v1/studies/{study}/rounds/{round}/commits") => post(rounds::commit),
        ("get", "/v1/studies/{study}/rounds/{round}/aggregate") => get(rounds::aggregate),
        ("post", "/v1/studies/{study}/rounds/{round}/abandonments") => post(rounds::abandon),
        ("post", "/v1/studies/{study}/rounds/{round}/models") => post(rounds::report),
        ("get", "/log/checkpoint") => get(log::checkpoint),
        ("post", "/log/cosignatures") => post(log::cosign),
        ("get", "/log/cosigned/{witness}") => get(log::cosigned),
        ("get", "/log/tile/{tile}") => get(log::tile),
        ("get", "/log/objects/{digest}") => get(log::named),
        ("get", "/v1/uploads/{header}") => get(uploads::status),
        ("patch", "/v1/uploads/{header}") => {
            axum::routing::patch(uploads::append).layer(DefaultBodyLimit::max(MAX_PIECE))
        }
        (method, path) => unreachable!("no handler for {method} {path}"),
    }
}

/// The metrics, for the operator: they stand at an endpoint of their own, since
/// they tell what is a site's business.
pub fn metrics(host: Arc<Host>) -> Router {
    let render = |State(host): Shared| async move { host.metrics.render() };
    Router::new().route("/metrics", get(render)).with_state(host)
}

/// The router.
pub fn router(host: Arc<Host>) -> Router {
    let mut router = Router::new();
    for operation in OPERATIONS {
        // A tile's name is a path of its own.
        let path = operation.path.replace("{tile}", "{*tile}");
        let guard = middleware::from_fn_with_state((host.clone(), operation), guard::guard);
        router = router.route(&path, handler(operation).route_layer(guard));
    }
    router
        .fallback(|request: Request| async move {
            let found = format!("{} {}", request.method(), request.uri().path());
            Refused(Refusal::new(Check::NotFound, "a path of /v1/openapi.json", found))
        })
        .layer(DefaultBodyLimit::max(MAX_JSON))
        .layer(middleware::from_fn(refusals))
        .layer(middleware::from_fn(detached))
        .layer(middleware::from_fn_with_state(host.clone(), access::accounted))
        .layer(middleware::from_fn(bounded_head))
        .with_state(host)
}

/// Refuses a request whose head is too long.
async fn bounded_head(request: Request, next: Next) -> Response {
    let target = request.uri().path_and_query().map(PathAndQuery::as_str);
    let fields = request.headers().iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
    match api::expect_head(target, fields) {
        Ok(()) => next.run(request).await,
        Err(refusal) => Refused(refusal).into_response(),
    }
}

/// Runs a request to its end even if the client hangs up, so that what is on
/// disk and what is in memory stay the same; and bounds how slow its body is.
async fn detached(request: Request, next: Next) -> Response {
    let request = request.map(limits::paced);
    tokio::spawn(next.run(request)).await.unwrap_or_else(|_| {
        Refused(Refusal::new(Check::Storage, "an answer", "a handler that failed")).into_response()
    })
}

/// Gives errors that axum makes itself (a body too long, JSON that does not
/// parse) the form of a refusal.
async fn refusals(request: Request, next: Next) -> Response {
    let response = next.run(request).await;
    let status = response.status();
    let is_json = response.headers().get(header::CONTENT_TYPE).is_some_and(|value| {
        value.to_str().is_ok_and(|value| value.starts_with("application/json"))
    });
    if !status.is_client_error() || is_json {
        return response;
    }
    let text = axum::body::to_bytes(response.into_body(), 4096).await.unwrap_or_default();
    let found = String::from_utf8_lossy(&text).into_owned();
    let refusal = match status {
        StatusCode::PAYLOAD_TOO_LARGE => {
            Refusal::new(Check::Size, "a body within the limit", found)
        }
        StatusCode::METHOD_NOT_ALLOWED => {
            Refusal::new(Check::NotFound, "a method of /v1/openapi.json", "another method")
        }
        _ => Refusal::new(Check::Request, "a request as in /v1/openapi.json", found),
    };
    Refused(refusal).into_response()
}

/// The health of host and enclave.
#[derive(Debug, Serialize)]
struct Health {
    status: &'static str,
    version: &'static str,
    enclave: bool,
}

async fn health(State(host): Shared) -> Json<Health> {
    let enclave = host.enclave.status().await.is_ok();
    Json(Health { status: "ok", version: crate::VERSION, enclave })
}

/// An object of the store, or the range of it that was asked for.
async fn object(host: &Host, name: &str, headers: &HeaderMap) -> Result<Response, Refused> {
    let length = host
        .store
        .length(name)
        .await?
        .ok_or_else(|| Refusal::new(Check::NotFound, "an object of this host", name))?;
    let range = headers.get(header::RANGE).and_then(|value| value.to_str().ok());
    let asked = range.map(|range| parse_range(range, length));
    let is_part = asked.is_some();
    let range = match asked {
        Some(None) => {
            let found = range.unwrap_or_default();
            return Err(
                Refusal::new(Check::Size, format!("a range of {length} bytes"), found).into()
            );
        }
        Some(Some(range)) => range,
        None => 0..length,
    };
    let mut response = if length == 0 {
        Response::new(Body::empty())
    } else {
        Response::new(Body::from_stream(host.store.stream(name, range.clone()).await?))
    };
    let headers = response.headers_mut();
    let bytes = HeaderValue::from_static("application/octet-stream");
    headers.insert(header::CONTENT_TYPE, bytes);
    headers.insert(header::CONTENT_LENGTH, (range.end - range.start).into());
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    if is_part {
        let text = format!("bytes {}-{}/{length}", range.start, range.end - 1);
        if let Ok(value) = text.parse() {
            headers.insert(header::CONTENT_RANGE, value);
        }
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    }
    Ok(response)
}

/// `bytes=FIRST-` or `bytes=FIRST-LAST` within an object (RFC 9110, section 14).
fn parse_range(text: &str, length: u64) -> Option<std::ops::Range<u64>> {
    let (first, last) = text.strip_prefix("bytes=")?.split_once('-')?;
    let first: u64 = first.parse().ok()?;
    let end = if last.is_empty() { length } else { last.parse::<u64>().ok()?.checked_add(1)? };
    let end = end.min(length);
    (first < end).then_some(first..end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_stay_within_the_object() {
        assert_eq!(parse_range("bytes=0-3", 10), Some(0..4));
        assert_eq!(parse_range("bytes=4-", 10), Some(4..10));
        assert_eq!(parse_range("bytes=4-99", 10), Some(4..10));
        for wrong in ["bytes=10-", "bytes=5-4", "bytes=-3", "items=0-1", "bytes=a-b", "bytes=0"] {
            assert_eq!(parse_range(wrong, 10), None, "{wrong}");
        }
        assert_eq!(parse_range("bytes=0-18446744073709551615", 10), None);
    }

    #[test]
    fn every_operation_has_a_handler_and_stands_once() {
        let mut seen = std::collections::BTreeSet::new();
        for operation in OPERATIONS {
            let _ = handler(operation);
            assert!(seen.insert((operation.method, operation.path)), "{operation:?}");
        }
    }
}
