//! The host's API, as a site calls it. Only ever dials out. What a site writes or
//! reads of its own is signed with its key, and so is whatever else it asks.

mod network;
mod requests;

pub use network::Network;

use crate::report::Voice;
use crate::{Error, Result};
use jiff::Timestamp;
use network::Place;
use sealfold_protocol::SigningKey;
use sealfold_protocol::access::{self, CONTENT_DIGEST, Head, INPUT, Role, SIGNATURE};
use sealfold_protocol::api::{MAX_HISTORY, MAX_JSON, UPLOAD_OFFSET};
use sealfold_protocol::refusal::Refusal;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::sync::Arc;
use std::time::Duration;
use ureq::http::{Method, Request, Response, StatusCode};
use ureq::middleware::{Middleware, MiddlewareNext};
use ureq::{Agent, Body, SendBody};

/// How often a request is made again that the host had no room for.
const RETRIES: u32 = 5;
/// The longest that a host may ask to wait.
const LONGEST_WAIT: Duration = Duration::from_mins(1);

/// A client of one host.
#[derive(Debug, Clone)]
pub struct Client {
    agent: Agent,
    base: String,
    authority: String,
    signer: Option<(Arc<SigningKey>, Role)>,
    voice: Voice,
}

/// What a request carries.
enum Content<'a> {
    Nothing,
    Json(Vec<u8>),
    Bytes(&'a [u8]),
    /// Signed by what it is for: the study's manifest names its digest.
    Named(SendBody<'static>),
}

impl Client {
    /// A client of the host at this URL, which shows the progress of models.
    ///
    /// # Errors
    /// [`Error::Input`] for a URL, a proxy or an authority that cannot be used.
    pub fn new(url: &str, network: &Network, voice: Voice) -> Result<Self> {
        Self::through(url, network, voice, |request: Request<SendBody>, next: MiddlewareNext| {
            next.handle(request)
        })
    }

    /// As [`Client::new`], every request handed to `carrier` in place of the
    /// network, or before it: a simulation's.
    ///
    /// # Errors
    /// As [`Client::new`].
    pub fn through(
        url: &str,
        network: &Network,
        voice: Voice,
        carrier: impl Middleware,
    ) -> Result<Self> {
        let base = url.trim_end_matches('/').to_owned();
        let place = Place::of(&base)?;
        let agent = network.agent(&place, carrier)?;
        let name = place.name;
        let scheme = if place.is_tls { ":443" } else { ":80" };
        let authority = name.strip_suffix(scheme).unwrap_or(name).to_ascii_lowercase();
        Ok(Self { agent, base, authority, signer: None, voice })
    }

    /// The same client, which signs its requests (RFC 9421).
    ///
    /// # Errors
    /// Never for a key that was loaded.
    pub fn signed(self, key: &SigningKey, role: Role) -> Result<Self> {
        let key = SigningKey::from_seed(&key.seed())?;
        Ok(Self { signer: Some((Arc::new(key), role)), ..self })
    }

    fn network(&self, what: &str, error: impl ToString) -> Error {
        Error::Network { what: format!("{what} at {}", self.base), reason: error.to_string() }
    }

    /// Makes a request, signed anew each time; waits and asks again where the
    /// host had no room for it.
    fn ask(
        &self,
        method: &Method,
        path: &str,
        offset: Option<u64>,
        mut content: Content<'_>,
    ) -> Result<Response<Body>> {
        let mut tries = 0;
        loop {
            let is_once = matches!(content, Content::Named(_));
            let once = std::mem::replace(&mut content, Content::Nothing);
            let (reply, again) = self.send(method, path, offset, once)?;
            content = again;
            let waits = reply.status() == StatusCode::TOO_MANY_REQUESTS;
            if !waits || is_once || tries >= RETRIES {
                return Ok(reply);
            }
            tries += 1;
            let asked = reply.headers().get("retry-after").and_then(|value| value.to_str().ok());
            let seconds = asked.and_then(|value| value.parse().ok()).unwrap_or(1);
            std::thread::sleep(Duration::from_secs(seconds).min(LONGEST_WAIT));
        }
    }

    fn send<'a>(
        &self,
        method: &Method,
        path: &str,
        offset: Option<u64>,
        content: Content<'a>,
    ) -> Result<(Response<Body>, Content<'a>)> {
        let url = format!("{}{path}", self.base);
        let digest = match &content {
            Content::Nothing | Content::Named(_) => None,
            Content::Json(bytes) => Some(access::content_digest(bytes)),
            Content::Bytes(bytes) => Some(access::content_digest(bytes)),
        };
        let offset = offset.map(|offset| offset.to_string());
        let mut request = Request::builder().method(method).uri(&url);
        request = request.header("host", &self.authority);
        if let Some((key, role)) = &self.signer {
            let head = Head {
                method: method.as_str(),
                authority: &self.authority,
                target: target(&url),
                content_digest: digest.as_deref(),
                upload_offset: offset.as_deref(),
            };
            let fields = access::sign(&head, key, *role, Timestamp::now())?;
            request = request.header(INPUT, fields.input).header(SIGNATURE, fields.signature);
        }
        if let Some(digest) = digest {
            request = request.header(CONTENT_DIGEST, digest);
        }
        if let Some(offset) = offset {
            request = request.header(UPLOAD_OFFSET, offset);
        }
        if matches!(content, Content::Json(_)) {
            request = request.header("content-type", "application/json");
        }
        let wrong = |error: ureq::http::Error| self.network(path, error);
        let (reply, again) = match content {
            Content::Nothing => {
                (self.agent.run(request.body(()).map_err(wrong)?), Content::Nothing)
            }
            Content::Json(bytes) => {
                let reply = self.agent.run(request.body(bytes.as_slice()).map_err(wrong)?);
                (reply, Content::Json(bytes))
            }
            Content::Bytes(bytes) => {
                (self.agent.run(request.body(bytes).map_err(wrong)?), Content::Bytes(bytes))
            }
            Content::Named(body) => {
                (self.agent.run(request.body(body).map_err(wrong)?), Content::Nothing)
            }
        };
        Ok((reply.map_err(|error| self.network(path, error))?, again))
    }

    /// Reads a reply's JSON, or the refusal in it.
    fn json<T: DeserializeOwned>(&self, what: &str, mut reply: Response<Body>) -> Result<T> {
        let status = reply.status();
        let limit = MAX_HISTORY as u64;
        let bytes = reply.body_mut().with_config().limit(limit).read_to_vec();
        let bytes = bytes.map_err(|error| self.network(what, error))?;
        if status.is_success() {
            return serde_json::from_slice(&bytes).map_err(|error| {
                self.network(what, format!("an answer that does not parse: {error}"))
            });
        }
        Err(self.refusal(what, status, &bytes))
    }

    /// Expects that a request succeeded.
    fn expect_done(&self, what: &str, mut reply: Response<Body>) -> Result<Response<Body>> {
        if reply.status().is_success() {
            return Ok(reply);
        }
        let bytes = reply.body_mut().with_config().limit(MAX_JSON as u64).read_to_vec();
        Err(self.refusal(what, reply.status(), &bytes.unwrap_or_default()))
    }

    fn refusal(&self, what: &str, status: StatusCode, bytes: &[u8]) -> Error {
        serde_json::from_slice::<Refusal>(bytes)
            .map_or_else(|_| self.network(what, format!("status {status}")), Error::Host)
    }

    fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        let path = format!("/v1{path}");
        self.json(&path, self.ask(&Method::GET, &path, None, Content::Nothing)?)
    }

    fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T> {
        let path = format!("/v1{path}");
        let body = serde_json::to_vec(body).map_err(|error| self.network(&path, error))?;
        self.json(&path, self.ask(&Method::POST, &path, None, Content::Json(body))?)
    }
}

/// What stands behind the authority of a URL.
fn target(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.find('/').map_or("/", |slash| &rest[slash..])
}

#[cfg(test)]
mod tests;
