//! The host: its state, and the writing of whatever changes it.

use crate::access::nonces::Nonces;
use crate::access::rates::Rates;
use crate::enclave::Enclave;
use crate::index;
use crate::log::{Entry, Log};
use crate::staging::Staging;
use crate::state::{Logged, MAX_STUDIES, State};
use crate::store::Store;
use crate::witness::Witness;
use metrics_exporter_prometheus::PrometheusHandle;
use sealfold_protocol::api::UploadState;
use sealfold_protocol::leaf::Kind;
use sealfold_protocol::refusal::{Check, Refusal};
use sealfold_protocol::{Digest, VerifyingKey};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use tokio::sync::{Mutex, Notify};

/// What the operator allows.
#[derive(Debug, Default)]
pub struct Terms {
    /// The studies that are served, besides those that are introduced.
    pub studies: BTreeSet<Digest>,
    /// Whether every study is served that anybody publishes.
    pub any_study: bool,
    /// The operator's keys.
    pub operators: BTreeSet<VerifyingKey>,
    /// The names that sites know this host by; any without one.
    pub names: BTreeSet<String>,
    /// Requests a second of a party.
    pub site_rate: u32,
    /// Requests a second of an address without a known key.
    pub stranger_rate: u32,
    /// Requests a minute of a party for evidence.
    pub evidence_rate: u32,
    /// The largest initial model in bytes.
    pub largest_model: u64,
    /// Whose cosignatures of the log are kept, besides the sites'.
    pub witnesses: Vec<Witness>,
}

impl Terms {
    /// Whether a study is served, one of those that were introduced among them.
    ///
    /// # Errors
    /// A refusal by `not-found`.
    pub fn expect_served(
        &self,
        introduced: &BTreeSet<Digest>,
        study: &Digest,
    ) -> Result<(), Refusal> {
        if self.any_study || self.studies.contains(study) || introduced.contains(study) {
            return Ok(());
        }
        Err(Refusal::new(Check::NotFound, "a study that this host's operator serves", study).next(
            "tell the operator the study's identity (sealfold study show): sealfold operator \
             introduce IDENTITY, or sealfold-host serve --study IDENTITY",
        ))
    }

    /// Whether a signed request was meant for this host.
    ///
    /// # Errors
    /// A refusal by `access`.
    pub fn expect_name(&self, authority: &str) -> Result<(), Refusal> {
        if self.names.is_empty() || self.names.contains(&authority.to_ascii_lowercase()) {
            return Ok(());
        }
        let names: Vec<_> = self.names.iter().map(String::as_str).collect();
        Err(Refusal::new(Check::Access, format!("a request to {}", names.join(" or ")), authority)
            .next("use the host's own name; a reverse proxy must keep the field host"))
    }
}

/// The host's parts.
pub struct Host {
    /// What the operator allows.
    pub terms: Terms,
    /// Documents and finished objects.
    pub store: Store,
    /// Bytes under way.
    pub staging: Staging,
    /// The enclave.
    pub enclave: Enclave,
    /// The log.
    pub log: Log,
    /// The index of the store.
    pub state: Mutex<State>,
    /// Wakes the conductor.
    pub wake: Notify,
    /// Renders the metrics.
    pub metrics: PrometheusHandle,
    /// The nonces of signed requests.
    pub nonces: Nonces,
    /// What everybody takes.
    pub rates: Rates,
    /// Whether the enclave answered when it was asked last.
    pub enclave_answers: AtomicBool,
}

/// Where a study's documents are.
#[must_use]
pub fn study_folder(study: &Digest) -> String {
    format!("studies/{study}")
}

/// Where a round's documents are.
#[must_use]
pub fn round_folder(study: &Digest, round: u32) -> String {
    format!("studies/{study}/rounds/{round:07}")
}

impl Host {
    /// Opens the host and reads what it knew.
    ///
    /// # Errors
    /// If the store cannot be read, or holds a document that does not verify.
    pub async fn open(
        store: Store,
        staging: Staging,
        enclave: Enclave,
        metrics: PrometheusHandle,
        terms: Terms,
        log: Log,
        nonces: Nonces,
    ) -> anyhow::Result<Arc<Self>> {
        let mut state = index::load(&store, &staging, &terms).await?;
        log.catch_up(&store, &state).await?;
        for round in state.studies.values_mut().flat_map(|study| study.rounds.values_mut()) {
            // Sites that are yet to commit look the roster up.
            if let (Some(roster), None) = (&round.roster, &round.release) {
                round.logged = Some(log.find(&store, Kind::Roster, &roster.digest()).await?);
            }
        }
        // Those among them that were set aside, too.
        let headers = store.list("uploads").await?;
        let headers: BTreeSet<_> =
            headers.iter().filter_map(|name| name.strip_suffix("/header")).collect();
        // An aggregate whose release is not in the store yet may still be the
        // enclave's; it is kept if it is whole.
        staging.sweep(|update| headers.contains(update), |aggregate| aggregate.len() == 64);
        let (state, wake) = (Mutex::new(state), Notify::new());
        let rates = Rates::default();
        Ok(Arc::new(Self {
            terms,
            store,
            staging,
            enclave,
            log,
            state,
            wake,
            metrics,
            nonces,
            rates,
            enclave_answers: AtomicBool::new(false),
        }))
    }

    /// Serves a study from now on.
    ///
    /// # Errors
    /// A refusal by `storage`, or by `size` if there are too many.
    pub async fn introduce(&self, study: &Digest) -> Result<(), Refusal> {
        let mut state = self.state.lock().await;
        if state.introduced.len() >= MAX_STUDIES {
            return Err(Refusal::new(
                Check::Size,
                format!("at most {MAX_STUDIES} studies"),
                "more",
            ));
        }
        self.store.put(&format!("introduced/{study}"), Vec::new()).await?;
        state.introduced.insert(*study);
        tracing::info!(%study, "introduced");
        Ok(())
    }

    /// Appends to the log what is not there yet.
    ///
    /// # Errors
    /// A refusal by `storage`; whatever the entries are for must not go on.
    pub async fn record(&self, entries: Vec<Entry>) -> Result<(), Refusal> {
        self.log.append(&self.store, entries).await
    }

    /// Where a statement stands in the log.
    ///
    /// # Errors
    /// A refusal by `storage` if it does not.
    pub async fn logged(&self, kind: Kind, statement: &Digest) -> Result<Logged, Refusal> {
        self.log.find(&self.store, kind, statement).await
    }

    /// Notes what became of an upload.
    ///
    /// # Errors
    /// A refusal by `storage`.
    pub async fn settle(&self, header: &Digest, outcome: UploadState) -> Result<(), Refusal> {
        let json = serde_json::to_vec(&outcome).map_err(crate::store::failed)?;
        self.store.put(&format!("uploads/{header}/outcome"), json).await?;
        if let Some(upload) = self.state.lock().await.uploads.get_mut(header) {
            upload.outcome = Some(outcome);
        }
        Ok(())
    }

    /// Forgets an upload.
    ///
    /// # Errors
    /// A refusal by `storage`.
    pub async fn forget_upload(&self, header: &Digest) -> Result<(), Refusal> {
        let upload = self.state.lock().await.uploads.remove(header);
        // A piece that is being written is written; those that wait for it find no
        // upload any more.
        let _writing = match &upload {
            Some(upload) => Some(upload.writing.lock().await),
            None => None,
        };
        // The bytes first: killed in between, the host still knows the upload
        // and forgets it again; bytes without a header would stay for good.
        self.staging.forget_update(header.as_bytes());
        for part in ["header", "outcome"] {
            self.store.delete(&format!("uploads/{header}/{part}")).await?;
        }
        Ok(())
    }
}
