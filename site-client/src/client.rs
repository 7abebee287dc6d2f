//! The host's API, as a site calls it. Only ever dials out.

use crate::report::Voice;
use crate::{Error, Result};
use sealfold_protocol::Digest;
use sealfold_protocol::api::{
    EnvelopeBody, EvidenceReply, EvidenceRequest, MAX_JSON, RoundStatus, StudyStatus,
    UPLOAD_OFFSET, UPLOAD_TOKEN, UploadStatus,
};
use sealfold_protocol::bytes::{Envelope, Random};
use sealfold_protocol::refusal::Refusal;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use ureq::http::{Request, Response, StatusCode};
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

/// A client of one host.
#[derive(Debug, Clone)]
pub struct Client {
    agent: Agent,
    base: String,
    voice: Voice,
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
        Ok(Self { agent, base, voice })
    }

    fn network(&self, what: &str, error: impl ToString) -> Error {
        Error::Network { what: format!("{what} at {}", self.base), reason: error.to_string() }
    }

    /// Reads a reply's JSON, or the refusal in it.
    fn json<T: DeserializeOwned>(
        &self,
        what: &str,
        reply: std::result::Result<Response<Body>, ureq::Error>,
    ) -> Result<T> {
        let mut reply = reply.map_err(|error| self.network(what, error))?;
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

    fn refusal(&self, what: &str, status: StatusCode, bytes: &[u8]) -> Error {
        serde_json::from_slice::<Refusal>(bytes)
            .map_or_else(|_| self.network(what, format!("status {status}")), Error::Host)
    }

    fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        self.json(path, self.agent.get(format!("{}/v1{path}", self.base)).call())
    }

    fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T> {
        self.json(path, self.agent.post(format!("{}/v1{path}", self.base)).send_json(body))
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
    pub fn begin_upload(
        &self,
        study: &Digest,
        round: u32,
        header: &[u8],
        token: &str,
    ) -> Result<UploadStatus> {
        let path = format!("/studies/{study}/rounds/{round}/updates");
        let request = self.agent.post(format!("{}/v1{path}", self.base));
        self.json(&path, request.header(UPLOAD_TOKEN, token).send_json(Self::envelope(header)))
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
    pub fn append(
        &self,
        header: &Digest,
        offset: u64,
        piece: &[u8],
        token: &str,
    ) -> Result<UploadStatus> {
        let path = format!("/uploads/{header}");
        let request = self
            .agent
            .patch(format!("{}/v1{path}", self.base))
            .header(UPLOAD_OFFSET, offset.to_string())
            .header(UPLOAD_TOKEN, token);
        self.json(&path, request.send(piece))
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
        let path = format!("/studies/{study}/model");
        let request = self.agent.put(format!("{}/v1{path}", self.base));
        let bar = self.voice.bar("initial model up", length);
        let reply = request.send(SendBody::from_owned_reader(bar.wrap_read(content)));
        bar.finish_and_clear();
        let mut reply = reply.map_err(|error| self.network(&path, error))?;
        if reply.status().is_success() {
            return Ok(());
        }
        let bytes = reply.body_mut().with_config().limit(MAX_JSON as u64).read_to_vec();
        Err(self.refusal(&path, reply.status(), &bytes.unwrap_or_default()))
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
        let reply = self.agent.get(format!("{}/log/{path}", self.base)).call();
        let mut reply = reply.map_err(|error| self.network(path, error))?;
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
        let reply = self.agent.post(format!("{}{path}", self.base)).send(checkpoint);
        let mut reply = reply.map_err(|error| self.network(path, error))?;
        if reply.status().is_success() {
            return Ok(());
        }
        let bytes = reply.body_mut().with_config().limit(MAX_JSON as u64).read_to_vec();
        Err(self.refusal(path, reply.status(), &bytes.unwrap_or_default()))
    }

    fn download(&self, path: &str, limit: u64) -> Result<impl Read + use<>> {
        let reply = self.agent.get(format!("{}/v1{path}", self.base)).call();
        let mut reply = reply.map_err(|error| self.network(path, error))?;
        if !reply.status().is_success() {
            let status = reply.status();
            let bytes = reply.body_mut().with_config().limit(MAX_JSON as u64).read_to_vec();
            return Err(self.refusal(path, status, &bytes.unwrap_or_default()));
        }
        Ok(reply.into_body().into_with_config().limit(limit).reader())
    }
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
}
