//! The host's API, as a site calls it. Only ever dials out. What a site writes or
//! reads of its own is signed with its key, and so is whatever else it asks.

use crate::report::Voice;
use crate::{Error, Result};
use jiff::Timestamp;
use sealfold_protocol::access::{self, CONTENT_DIGEST, Head, INPUT, Role, SIGNATURE};
use sealfold_protocol::api::{
    EnvelopeBody, EvidenceReply, EvidenceRequest, Introduction, MAX_JSON, RoundStatus, StudyStatus,
    UPLOAD_OFFSET, UploadStatus,
};
use sealfold_protocol::bytes::{Envelope, Random};
use sealfold_protocol::refusal::Refusal;
use sealfold_protocol::{Digest, SigningKey};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use ureq::http::{Method, Request, Response, StatusCode};
use ureq::middleware::{Middleware, MiddlewareNext};
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig};
use ureq::{Agent, Body, Proxy, SendBody};

/// How long the host may take to answer a request.
const ANSWER: Duration = Duration::from_mins(2);
/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(20);

/// How the site reaches the network.
#[derive(Debug, Clone, Default)]
pub struct Network {
    /// A certificate authority of the hospital's own, PEM, in place of the
    /// public ones.
    pub ca: Option<PathBuf>,
    /// A proxy; otherwise the environment's (`HTTPS_PROXY`, `NO_PROXY`).
    pub proxy: Option<String>,
}

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
        let host = base
            .strip_prefix("https://")
            .or_else(|| base.strip_prefix("http://"))
            .ok_or_else(|| {
                Error::input("host", "an https:// or http:// URL", format!("{url:?}"))
                    .next("give --host another URL")
            })?;
        let name = host.split('/').next().unwrap_or_default();
        let is_local = ["127.0.0.1", "localhost", "[::1]"]
            .iter()
            .any(|local| name == *local || name.starts_with(&format!("{local}:")));
        if base.starts_with("http://") && !is_local {
            return Err(Error::input("host", "https:// beyond this machine", format!("{url:?}"))
                .next("use https://; plain HTTP is for a host on this machine"));
        }
        // Without TLS there is no authority to read.
        let ca = network.ca.as_ref().filter(|_| base.starts_with("https://"));
        let roots = match ca {
            None => RootCerts::WebPki,
            Some(path) => {
                let pem = crate::home::read_text(path)?;
                let certificates: Vec<Certificate<'static>> = ureq::tls::parse_pem(pem.as_bytes())
                    .filter_map(|item| match item {
                        Ok(PemItem::Certificate(certificate)) => Some(certificate),
                        _ => None,
                    })
                    .collect();
                if certificates.is_empty() {
                    let expected = format!("certificates in PEM in {}", path.display());
                    return Err(Error::input("ca", expected, "none")
                        .next("give --ca, SEALFOLD_CA or SSL_CERT_FILE another file"));
                }
                RootCerts::Specific(Arc::new(certificates))
            }
        };
        let proxy = match &network.proxy {
            Some(url) => Some(Proxy::new(url).map_err(|error| {
                Error::input("proxy", "a proxy's URL", format!("{url:?}: {error}"))
                    .next("give --proxy another URL")
            })?),
            None if is_local => None,
            None => Proxy::try_from_env(),
        };
        let agent = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .timeout_connect(Some(CONNECT))
            .timeout_recv_response(Some(ANSWER))
            .tls_config(TlsConfig::builder().root_certs(roots).build())
            .proxy(proxy)
            .middleware(carrier)
            .build()
            .new_agent();
        let scheme = if base.starts_with("https://") { ":443" } else { ":80" };
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
        let limit = MAX_JSON as u64;
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

    fn envelope(bytes: &[u8]) -> EnvelopeBody {
        EnvelopeBody { envelope: Envelope(bytes.to_vec()) }
    }

    /// A study.
    ///
    /// # Errors
    /// The host's refusal, or [`Error::Network`]; so for every request here.
    pub fn study(&self, study: &Digest) -> Result<StudyStatus> {
        self.get(&format!("/studies/{study}"))
    }

    /// Publishes a manifest or signatures of it.
    ///
    /// # Errors
    /// As [`Client::study`].
    pub fn publish(&self, manifest: &[u8]) -> Result<StudyStatus> {
        self.post("/studies", &Self::envelope(manifest))
    }

    /// A round.
    ///
    /// # Errors
    /// As [`Client::study`].
    pub fn round(&self, study: &Digest, round: u32) -> Result<RoundStatus> {
        self.get(&format!("/studies/{study}/rounds/{round}"))
    }

    /// Fresh evidence.
    ///
    /// # Errors
    /// As [`Client::study`].
    pub fn evidence(&self, study: &Digest, round: u32, nonce: Random) -> Result<EvidenceReply> {
        self.post(&format!("/studies/{study}/rounds/{round}/evidence"), &EvidenceRequest { nonce })
    }

    /// The evidence that the host kept.
    ///
    /// # Errors
    /// As [`Client::study`].
    pub fn kept_evidence(&self, study: &Digest, round: u32) -> Result<EvidenceReply> {
        self.get(&format!("/studies/{study}/rounds/{round}/evidence"))
    }

    /// Gives a commit in.
    ///
    /// # Errors
    /// As [`Client::study`].
    pub fn commit(&self, study: &Digest, round: u32, commit: &[u8]) -> Result<()> {
        let path = format!("/studies/{study}/rounds/{round}/commits");
        self.post::<serde_json::Value>(&path, &Self::envelope(commit)).map(|_| ())
    }

    /// Signs an abandonment.
    ///
    /// # Errors
    /// As [`Client::study`].
    pub fn abandon(&self, study: &Digest, round: u32, abandonment: &[u8]) -> Result<EnvelopeBody> {
        let path = format!("/studies/{study}/rounds/{round}/abandonments");
        self.post(&path, &Self::envelope(abandonment))
    }

    /// Reports the model that a release led to.
    ///
    /// # Errors
    /// As [`Client::study`].
    pub fn report(&self, study: &Digest, round: u32, report: &[u8]) -> Result<()> {
        let path = format!("/studies/{study}/rounds/{round}/models");
        self.post::<serde_json::Value>(&path, &Self::envelope(report)).map(|_| ())
    }

    /// Begins or finds an upload.
    ///
    /// # Errors
    /// As [`Client::study`].
    pub fn begin_upload(&self, study: &Digest, round: u32, header: &[u8]) -> Result<UploadStatus> {
        self.post(&format!("/studies/{study}/rounds/{round}/updates"), &Self::envelope(header))
    }

    /// Has a study served, as the operator.
    ///
    /// # Errors
    /// As [`Client::study`].
    pub fn introduce(&self, study: &Digest) -> Result<()> {
        let body = Introduction { study: *study };
        self.post::<serde_json::Value>("/operator/studies", &body).map(|_| ())
    }

    /// Where an upload stands.
    ///
    /// # Errors
    /// As [`Client::study`].
    pub fn upload(&self, header: &Digest) -> Result<UploadStatus> {
        self.get(&format!("/uploads/{header}"))
    }

    /// Sends a piece.
    ///
    /// # Errors
    /// As [`Client::study`].
    pub fn append(&self, header: &Digest, offset: u64, piece: &[u8]) -> Result<UploadStatus> {
        let path = format!("/v1/uploads/{header}");
        let reply = self.ask(&Method::PATCH, &path, Some(offset), Content::Bytes(piece))?;
        self.json(&path, reply)
    }

    /// Publishes the initial model, of `length` bytes.
    ///
    /// # Errors
    /// As [`Client::study`].
    pub fn put_model(
        &self,
        study: &Digest,
        length: u64,
        content: impl Read + 'static,
    ) -> Result<()> {
        let path = format!("/v1/studies/{study}/model");
        let bar = self.voice.bar("initial model up", length);
        let body = SendBody::from_owned_reader(bar.wrap_read(content));
        let reply = self.ask(&Method::PUT, &path, None, Content::Named(body));
        bar.finish_and_clear();
        self.expect_done(&path, reply?).map(|_| ())
    }

    /// The initial model's content, of at most `limit` bytes.
    ///
    /// # Errors
    /// As [`Client::study`].
    pub fn model(&self, study: &Digest, limit: u64) -> Result<impl Read + use<>> {
        let content = self.download(&format!("/studies/{study}/model"), limit)?;
        Ok(self.voice.bar("initial model down", limit).wrap_read(content))
    }

    /// A round's sealed aggregate, of at most `limit` bytes.
    ///
    /// # Errors
    /// As [`Client::study`].
    pub fn aggregate(&self, study: &Digest, round: u32, limit: u64) -> Result<impl Read + use<>> {
        self.download(&format!("/studies/{study}/rounds/{round}/aggregate"), limit)
    }

    /// A file of the host's log, of at most `limit` bytes; none if it is not
    /// there.
    ///
    /// # Errors
    /// As [`Client::study`].
    pub fn log_file(&self, path: &str, limit: usize) -> Result<Option<Vec<u8>>> {
        let path = &format!("/log/{path}");
        let mut reply = self.ask(&Method::GET, path, None, Content::Nothing)?;
        let status = reply.status();
        let most = if status.is_success() { limit as u64 } else { MAX_JSON as u64 };
        let bytes = reply.body_mut().with_config().limit(most).read_to_vec();
        let bytes = bytes.map_err(|error| self.network(path, error))?;
        match status {
            StatusCode::NOT_FOUND => Ok(None),
            status if status.is_success() => Ok(Some(bytes)),
            status => Err(self.refusal(path, status, &bytes)),
        }
    }

    /// Brings a checkpoint that this site has cosigned.
    ///
    /// # Errors
    /// As [`Client::study`].
    pub fn cosign(&self, checkpoint: &[u8]) -> Result<()> {
        let path = "/log/cosignatures";
        let reply = self.ask(&Method::POST, path, None, Content::Bytes(checkpoint))?;
        self.expect_done(path, reply).map(|_| ())
    }

    fn download(&self, path: &str, limit: u64) -> Result<impl Read + use<>> {
        let path = format!("/v1{path}");
        let reply = self.ask(&Method::GET, &path, None, Content::Nothing)?;
        let reply = self.expect_done(&path, reply)?;
        Ok(reply.into_body().into_with_config().limit(limit).reader())
    }
}

/// What stands behind the authority of a URL.
fn target(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.find('/').map_or("/", |slash| &rest[slash..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_http_is_for_this_machine() {
        let (network, voice) = (Network::default(), Voice { json: true, quiet: false });
        for url in
            ["http://127.0.0.1:8080", "http://localhost", "https://host.example/", "http://[::1]:1"]
        {
            assert!(Client::new(url, &network, voice).is_ok(), "{url}");
        }
        for url in ["http://host.example", "http://127.0.0.1.example", "ftp://a", "host.example"] {
            assert!(Client::new(url, &network, voice).is_err(), "{url}");
        }
    }

    #[test]
    fn a_request_is_signed_for_the_name_and_the_path_that_the_host_sees() {
        let (network, voice) = (Network::default(), Voice { json: true, quiet: true });
        for (url, authority) in [
            ("https://Host.example:443/", "host.example"),
            ("https://host.example:8443", "host.example:8443"),
            ("http://127.0.0.1:80", "127.0.0.1"),
            ("http://127.0.0.1:443", "127.0.0.1:443"),
        ] {
            assert_eq!(Client::new(url, &network, voice).unwrap().authority, authority);
        }
        assert_eq!(target("https://host.example/a/v1/x?y=1"), "/a/v1/x?y=1");
        assert_eq!(target("https://host.example"), "/");
    }
}
