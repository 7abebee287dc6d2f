//! The bodies of HTTP requests and replies between site, host and enclave.
//!
//! JSON, with envelopes in base64. An error reply has a
//! [`Refusal`] as its body. Nothing in these bodies
//! is believed because it arrived; whatever matters is inside an envelope.

use crate::bytes::{Envelope, Random};
use crate::refusal::{Check, Refusal};
use crate::{Digest, VerifyingKey};
use serde::{Deserialize, Serialize};

/// The phase of a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// No offer yet.
    Idle,
    /// Updates are admitted.
    Open,
    /// A roster waits for commits.
    Rostered,
    /// The key of the aggregate is disclosed.
    Released,
    /// The deadline passed or too few sites were left; keys are erased.
    Closed,
}

/// `POST /v1/offer` to the enclave: the study and where it stands, as the host
/// says. The sites check it against what they know.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OfferRequest {
    /// The study's manifests, oldest first.
    pub manifests: Vec<Envelope>,
    /// The round.
    pub round: u32,
    /// The content digest of the base model.
    pub base: Digest,
    /// The digest of the release before.
    pub previous: Option<Digest>,
    /// Under an adaptive clip: the clip that the release before leads to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clip: Option<f64>,
}

/// `POST .../evidence`: ask for evidence that is bound to the current offer.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvidenceRequest {
    /// The asking party's own nonce.
    pub nonce: Random,
}

/// Evidence for the current offer.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvidenceReply {
    /// The platform, `nitro` or `confidential-space`.
    pub platform: String,
    /// The offer that the evidence binds, for orientation.
    pub offer: Digest,
    /// The nonce that was asked with, for orientation.
    pub nonce: Random,
    /// The attestation document, or the bytes of the token.
    pub document: Envelope,
}

/// `POST /v1/checkpoint` to the enclave: the checkpoint of the log whose last
/// leaf is the roster, as the host says. Taken once for each roster; commits
/// that name another one are no commits.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckpointRequest {
    /// The roster's digest.
    pub roster: Digest,
    /// SHA-256 of the checkpoint's text.
    pub checkpoint: Digest,
}

/// `POST /v1/operator/studies`: a study that the operator lets in.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Introduction {
    /// The study's identity.
    pub study: Digest,
}

/// One envelope, wherever a body is just that.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnvelopeBody {
    /// The envelope.
    pub envelope: Envelope,
}

/// Where an enclave instance stands.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnclaveStatus {
    /// The software's version.
    pub version: String,
    /// The phase of its round.
    pub phase: Phase,
    /// Its offer.
    pub offer: Option<Envelope>,
    /// The receipts it gave.
    pub receipts: Vec<Envelope>,
    /// Its latest roster.
    pub roster: Option<Envelope>,
    /// The checkpoint that commits to that roster have to name.
    pub checkpoint: Option<Digest>,
    /// The sites that have committed to that roster.
    pub committed: Vec<String>,
    /// The release, until the next offer.
    pub release: Option<Envelope>,
    /// Seconds until the roster may close, the commits may close, or the
    /// round ends, whichever is next.
    pub seconds_left: u64,
    /// Why the round was closed without a release.
    pub closed: Option<Refusal>,
}

/// A study as the host knows it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StudyStatus {
    /// The study's identity.
    pub study: Digest,
    /// Its name.
    pub name: String,
    /// Its manifests, oldest first, the last in force; only the first may lack
    /// approvals.
    pub manifests: Vec<Envelope>,
    /// Amendments of the last manifest that lack approvals.
    #[serde(default)]
    pub pending: Vec<PendingAmendment>,
    /// Whether the manifest in force has its approvals and the host has the
    /// initial model, so that rounds can run.
    pub active: bool,
    /// What is still missing, in words.
    pub missing: Vec<String>,
    /// The number of rounds released so far.
    pub rounds_done: u32,
    /// The last round: the training rounds, and the one behind them that measures
    /// the last model, if anything is measured.
    pub rounds: u32,
}

/// An amendment that is not in force yet; the host has it by its digest.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PendingAmendment {
    /// The manifest's digest.
    pub manifest: Digest,
    /// The keys that have signed it so far.
    pub signers: Vec<VerifyingKey>,
}

/// A round as the host knows it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RoundStatus {
    /// The round.
    pub round: u32,
    /// Its phase.
    pub phase: Phase,
    /// The offer of the instance that runs it now.
    pub offer: Option<Envelope>,
    /// The sites whose uploads under that offer are complete and not refused.
    #[serde(default)]
    pub uploaded: Vec<String>,
    /// The uploads under that offer: a site is shown its own, the operator all.
    pub uploads: Vec<UploadStatus>,
    /// The latest roster.
    pub roster: Option<Envelope>,
    /// The number of its leaf in the log; sites look.
    pub roster_leaf: Option<u64>,
    /// The commits to that roster.
    pub commits: Vec<Envelope>,
    /// The release.
    pub release: Option<Envelope>,
    /// The abandonments of offers of this round.
    pub abandonments: Vec<Envelope>,
    /// What the round waits for, in words.
    pub waiting_for: String,
}

/// An upload as the host knows it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UploadStatus {
    /// The site's name.
    pub site: String,
    /// The digest of the update's header, the upload's name.
    pub header: Digest,
    /// How many sealed bytes are on disk.
    pub received: u64,
    /// How many there will be.
    pub length: u64,
    /// What became of it.
    pub state: UploadState,
}

/// What became of an upload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum UploadState {
    /// Bytes are missing.
    Receiving,
    /// Complete, on disk, not yet admitted.
    Stored,
    /// The enclave gave a receipt.
    Admitted(Envelope),
    /// The enclave refused it.
    Refused(Refusal),
}

/// The header of a `PATCH` request that says where its bytes belong.
pub const UPLOAD_OFFSET: &str = "upload-offset";
/// The largest body of a `PATCH`: one piece of an upload.
pub const MAX_PIECE: usize = 8 << 20;
/// The largest JSON body, but for a study's whole history.
pub const MAX_JSON: usize = 4 << 20;
/// The largest JSON body with all manifests of a study: what an offer is asked for
/// with, and a study's status. A manifest of 200 sites that all have signed takes
/// less than half a MiB.
pub const MAX_HISTORY: usize = 32 << 20;

/// The longest head of a request: the bytes of its target and of its fields'
/// names and values.
pub const MAX_HEAD: usize = 16 << 10;
/// How much of a head is read at most before its end must have come. The HTTP
/// library reads up to twice as much in the worst case, and answers by itself,
/// with status 431 and no body, before it closes the connection.
pub const MAX_HEAD_READ: usize = 64 << 10;

/// Refuses a head of more than [`MAX_HEAD`] bytes: a request's target, and its
/// fields' names and values.
///
/// # Errors
/// A refusal by `size`.
pub fn expect_head<'a>(
    target: Option<&str>,
    fields: impl Iterator<Item = (&'a str, &'a [u8])>,
) -> Result<(), Refusal> {
    let fields = fields.map(|(name, value)| name.len() + value.len());
    let length = target.map_or(0, str::len) + fields.sum::<usize>();
    if length > MAX_HEAD {
        let expected = format!("a head of at most {MAX_HEAD} bytes");
        return Err(Refusal::new(Check::Size, expected, format!("{length} bytes"))
            .next("send fewer or shorter header fields"));
    }
    Ok(())
}
