//! The host's API, request by request.

use super::{Client, Content};
use crate::Result;
use sealfold_protocol::Digest;
use sealfold_protocol::api::{
    EnvelopeBody, EvidenceReply, EvidenceRequest, Introduction, MAX_JSON, RoundStatus, StudyStatus,
    UploadStatus,
};
use sealfold_protocol::bytes::{Envelope, Random};
use std::io::Read;
use ureq::SendBody;
use ureq::http::{Method, StatusCode};

impl Client {
    fn envelope(bytes: &[u8]) -> EnvelopeBody {
        EnvelopeBody { envelope: Envelope(bytes.to_vec()) }
    }

    /// A study.
    ///
    /// # Errors
    /// The host's refusal, or [`crate::Error::Network`]; so for every request here.
    pub fn study(&self, study: &Digest) -> Result<StudyStatus> {
        self.get(&format!("/studies/{study}"))
    }

    /// A manifest of a study, in force or pending.
    ///
    /// # Errors
    /// As [`Client::study`].
    pub fn manifest(&self, study: &Digest, manifest: &Digest) -> Result<EnvelopeBody> {
        self.get(&format!("/studies/{study}/manifests/{manifest}"))
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
