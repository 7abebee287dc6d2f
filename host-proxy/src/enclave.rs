//! The host's side of the enclave's HTTP API.

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use sealfold_protocol::api::{
    CheckpointRequest, EnclaveStatus, EnvelopeBody, EvidenceReply, EvidenceRequest, MAX_JSON,
    OfferRequest,
};
use sealfold_protocol::bytes::{Envelope, Random};
use sealfold_protocol::endpoint::Endpoint;
use sealfold_protocol::refusal::{Check, Refusal};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// How long an answer may take for which the enclave reads updates: a fold reads
/// every one of them once.
const READING: Duration = Duration::from_hours(1);
/// How long any other answer may take; the NSM has 20 s for a document. A vsock
/// that stalls is noticed after this time.
const PROMPT: Duration = Duration::from_secs(30);

/// What carries a request to the enclave and its answer back: an endpoint, or
/// a simulated network.
pub trait Wire: fmt::Debug + Send + Sync {
    /// Sends a request; whether it succeeded, and the answer's body.
    fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Vec<u8>,
    ) -> BoxFuture<'_, anyhow::Result<(bool, Bytes)>>;

    /// Where the enclave is, for people.
    fn place(&self) -> String;
}

/// A client of the enclave.
#[derive(Debug, Clone)]
pub struct Enclave {
    wire: Arc<dyn Wire>,
    prompt: Duration,
}

impl Enclave {
    /// The enclave behind an endpoint.
    #[must_use]
    pub fn new(endpoint: Endpoint) -> Self {
        Self::over(Arc::new(endpoint))
    }

    /// The enclave at the other end of a wire.
    #[must_use]
    pub fn over(wire: Arc<dyn Wire>) -> Self {
        Self { wire, prompt: PROMPT }
    }

    fn unreachable(&self, error: impl fmt::Display) -> Refusal {
        Refusal::new(Check::Enclave, format!("an enclave at {}", self.wire.place()), error)
            .next("the host tries again; the operator starts the enclave")
    }

    async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: &impl Serialize,
        patience: Duration,
    ) -> Result<T, Refusal> {
        let body = serde_json::to_vec(body)
            .map_err(|e| Refusal::new(Check::Request, "a body that encodes", e))?;
        let exchange = self.wire.exchange(method, path, body);
        let late = || format!("no answer to {path} in {} s", patience.as_secs());
        let (ok, bytes) = tokio::time::timeout(patience, exchange)
            .await
            .map_err(|_| self.unreachable(late()))?
            .map_err(|error| self.unreachable(error))?;
        let odd = |e| self.unreachable(format!("an answer that does not parse: {e}"));
        if ok {
            serde_json::from_slice(&bytes).map_err(odd)
        } else {
            Err(serde_json::from_slice::<Refusal>(&bytes).map_err(odd)?)
        }
    }

    /// Where the instance stands.
    ///
    /// # Errors
    /// A refusal by `enclave` if it cannot be reached.
    pub async fn status(&self) -> Result<EnclaveStatus, Refusal> {
        self.call(Method::GET, "/v1/status", &(), self.prompt).await
    }

    /// Asks for an offer.
    ///
    /// # Errors
    /// The enclave's refusal, or one by `enclave`.
    pub async fn offer(&self, request: &OfferRequest) -> Result<Envelope, Refusal> {
        let body: EnvelopeBody = self.call(Method::POST, "/v1/offer", request, self.prompt).await?;
        Ok(body.envelope)
    }

    /// Asks for evidence.
    ///
    /// # Errors
    /// The enclave's refusal, or one by `enclave`.
    pub async fn evidence(&self, nonce: Random) -> Result<EvidenceReply, Refusal> {
        self.call(Method::POST, "/v1/evidence", &EvidenceRequest { nonce }, self.prompt).await
    }

    /// Has an update admitted.
    ///
    /// # Errors
    /// The enclave's refusal, or one by `enclave`.
    pub async fn admit(&self, header: Envelope) -> Result<Envelope, Refusal> {
        let body = EnvelopeBody { envelope: header };
        let body: EnvelopeBody = self.call(Method::POST, "/v1/updates", &body, READING).await?;
        Ok(body.envelope)
    }

    /// Asks for the roster.
    ///
    /// # Errors
    /// The enclave's refusal, or one by `enclave`.
    pub async fn roster(&self) -> Result<Envelope, Refusal> {
        let body: EnvelopeBody = self.call(Method::POST, "/v1/roster", &(), self.prompt).await?;
        Ok(body.envelope)
    }

    /// Gives the checkpoint in that ends with a roster.
    ///
    /// # Errors
    /// The enclave's refusal, or one by `enclave`.
    pub async fn checkpoint(&self, request: &CheckpointRequest) -> Result<(), Refusal> {
        self.call::<serde_json::Value>(Method::POST, "/v1/checkpoint", request, self.prompt)
            .await
            .map(|_| ())
    }

    /// Gives a commit in.
    ///
    /// # Errors
    /// The enclave's refusal, or one by `enclave`.
    pub async fn commit(&self, commit: Envelope) -> Result<(), Refusal> {
        let body = EnvelopeBody { envelope: commit };
        self.call::<serde_json::Value>(Method::POST, "/v1/commits", &body, self.prompt)
            .await
            .map(|_| ())
    }

    /// Asks for the release.
    ///
    /// # Errors
    /// The enclave's refusal, or one by `enclave`.
    pub async fn release(&self) -> Result<Envelope, Refusal> {
        let body: EnvelopeBody = self.call(Method::POST, "/v1/release", &(), READING).await?;
        Ok(body.envelope)
    }
}

impl Wire for Endpoint {
    fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Vec<u8>,
    ) -> BoxFuture<'_, anyhow::Result<(bool, Bytes)>> {
        let path = path.to_owned();
        async move { http(self, method, &path, body).await }.boxed()
    }

    fn place(&self) -> String {
        self.to_string()
    }
}

/// One request over a connection of its own.
async fn http(
    endpoint: &Endpoint,
    method: Method,
    path: &str,
    body: Vec<u8>,
) -> anyhow::Result<(bool, Bytes)> {
    let stream = TokioIo::new(endpoint.connect_async().await?);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await?;
    let driver = tokio::spawn(connection);
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", "enclave")
        .header("content-type", "application/json")
        .body(Full::new(Bytes::from(body)))?;
    let response = sender.send_request(request).await?;
    let ok = response.status().is_success();
    let limited = Limited::new(response.into_body(), MAX_JSON);
    let bytes = limited.collect().await.map_err(|e| anyhow::anyhow!("{e}"))?.to_bytes();
    driver.abort();
    Ok((ok, bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_enclave_that_takes_a_request_and_says_nothing_is_not_waited_for() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let place = listener.local_addr().unwrap();
        let stalled = tokio::spawn(async move {
            let connection = listener.accept().await;
            std::future::pending::<()>().await;
            drop(connection);
        });
        let mut enclave = Enclave::new(format!("tcp://{place}").parse().unwrap());
        enclave.prompt = Duration::from_millis(50);
        let refusal = enclave.status().await.unwrap_err();
        assert_eq!(refusal.check, Check::Enclave);
        assert!(refusal.to_string().contains("no answer to /v1/status in 0 s"), "{refusal}");
        assert!(refusal.to_string().contains("the operator starts the enclave"), "{refusal}");
        stalled.abort();
    }
}
