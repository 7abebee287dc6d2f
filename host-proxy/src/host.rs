//! The host: its state, and the writing of whatever changes it.

use crate::access::nonces::Nonces;
use crate::access::rates::Rates;
use crate::enclave::Enclave;
use crate::log::{Entry, Log};
use crate::staging::Staging;
use crate::state::{Logged, MAX_STUDIES, Round, State, Study, Upload};
use crate::store::Store;
use crate::witness::Witness;
use metrics_exporter_prometheus::PrometheusHandle;
use sealfold_protocol::abandonment::Abandonment;
use sealfold_protocol::api::UploadState;
use sealfold_protocol::leaf::Kind;
use sealfold_protocol::manifest::Manifest;
use sealfold_protocol::offer::Offer;
use sealfold_protocol::refusal::{Check, Refusal};
use sealfold_protocol::release::Release;
use sealfold_protocol::roster::Roster;
use sealfold_protocol::update::UpdateHeader;
use sealfold_protocol::{Digest, MultiSigned, Signed, Statement, VerifyingKey};
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
        let mut state = load(&store, &staging, &terms).await?;
        log.catch_up(&store, &state).await?;
        for round in state.studies.values_mut().flat_map(|study| study.rounds.values_mut()) {
            // Sites that are yet to commit look the roster up.
            if let (Some(roster), None) = (&round.roster, &round.release) {
                round.logged = Some(log.find(&store, Kind::Roster, &roster.digest()).await?);
            }
        }
        let kept: BTreeSet<_> = state
            .uploads
            .keys()
            .map(ToString::to_string)
            .chain(unstored(&state).map(|object| object.to_string()))
            .collect();
        // An aggregate whose release is not in the store yet may still be the
        // enclave's; it is kept if it is whole.
        staging.sweep(|name| kept.contains(name) || name.len() == 64);
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
        self.state.lock().await.uploads.remove(header);
        // The bytes first: killed in between, the host still knows the upload
        // and forgets it again; bytes without a header would stay for good.
        self.staging.forget_update(header.as_bytes());
        for part in ["header", "outcome"] {
            self.store.delete(&format!("uploads/{header}/{part}")).await?;
        }
        Ok(())
    }
}

/// Aggregates of releases that are not in the store yet.
fn unstored(state: &State) -> impl Iterator<Item = sealfold_protocol::bytes::Random> {
    let rounds = state.studies.values().flat_map(|study| study.rounds.values());
    rounds
        .filter(|round| !round.has_aggregate)
        .filter_map(|round| round.release.as_ref().map(|release| release.statement().object))
}

async fn load(store: &Store, staging: &Staging, terms: &Terms) -> anyhow::Result<State> {
    let mut state = State::default();
    let introduced = store.list("introduced").await?;
    state.introduced = introduced.iter().filter_map(|name| name.parse().ok()).collect();
    let names = store.list("studies").await?;
    for name in names.iter().filter(|name| name.contains("/manifests/")) {
        let bytes = read(store, &format!("studies/{name}")).await?;
        let manifest = match Manifest::open(&bytes) {
            Ok(manifest) => manifest,
            Err(error) => {
                tracing::error!(name, %error, "a manifest is set aside");
                continue;
            }
        };
        let id = sealfold_protocol::study::identity(&manifest);
        if terms.expect_served(&state.introduced, &id).is_err() {
            tracing::info!(study = %id, "not among the studies that are served");
            continue;
        }
        match state.studies.get_mut(&id) {
            Some(study) => study.put_manifest(study.manifests().len(), manifest),
            None => _ = state.studies.insert(id, Study::new(manifest)),
        }
    }
    let mut broken = Vec::new();
    for (id, study) in &mut state.studies {
        study.has_model = store.length(&format!("{}/model", study_folder(id))).await?.is_some();
        if let Err(error) = load_rounds(store, &names, id, study).await {
            // A store that fails now says nothing about the document.
            if store_failed(&error) {
                return Err(error);
            }
            tracing::error!(study = %id, %error, "a study is set aside: a document of it cannot be used");
            broken.push(*id);
        }
    }
    state.studies.retain(|id, _| !broken.contains(id));
    for name in store.list("uploads").await? {
        let Some(digest) = name.strip_suffix("/header") else { continue };
        match load_upload(store, staging, &state, digest).await {
            Ok(upload) => _ = state.uploads.insert(upload.header.digest(), upload),
            Err(error) if store_failed(&error) => return Err(error),
            Err(error) => tracing::error!(upload = digest, %error, "an upload is set aside"),
        }
    }
    Ok(state)
}

/// Whether it was the store that failed, and not what is in it.
fn store_failed(error: &anyhow::Error) -> bool {
    error.downcast_ref::<Refusal>().is_some_and(|refusal| refusal.check == Check::Storage)
}

async fn load_rounds(
    store: &Store,
    names: &[String],
    id: &Digest,
    study: &mut Study,
) -> anyhow::Result<()> {
    let prefix = format!("{id}/rounds/");
    let numbers: BTreeSet<u32> = names
        .iter()
        .filter_map(|name| name.strip_prefix(&prefix)?.split('/').next()?.parse().ok())
        .collect();
    for number in numbers {
        let round = load_round(store, names, id, study, number).await?;
        study.rounds.insert(number, round);
    }
    Ok(())
}

async fn read(store: &Store, name: &str) -> anyhow::Result<Vec<u8>> {
    store.get(name).await?.ok_or_else(|| anyhow::anyhow!("{name} is gone"))
}

async fn load_round(
    store: &Store,
    names: &[String],
    id: &Digest,
    study: &Study,
    number: u32,
) -> anyhow::Result<Round> {
    let folder = round_folder(id, number);
    let mut round = Round::default();
    let Some(offer) = store.get(&format!("{folder}/offer")).await? else { return Ok(round) };
    let offer = Offer::open(&offer)?;
    let key = offer.statement().instance_key;
    let of_offer = format!("{folder}/{}", offer.digest());
    if let Some(bytes) = store.get(&format!("{of_offer}/roster")).await? {
        round.roster = Some(Signed::<Roster>::open(&bytes, &key)?);
    }
    if let Some(bytes) = store.get(&format!("{of_offer}/release")).await? {
        let release = Signed::<Release>::open(&bytes, &key)?;
        let object = release.statement().object;
        round.has_aggregate = store.length(&format!("aggregates/{object}")).await?.is_some();
        round.release = Some(release);
    }
    for name in names {
        let name = format!("studies/{name}");
        if let Some(rest) = name.strip_prefix(&format!("{of_offer}/commits/")) {
            round.was_committed = true;
            // Kept by roster and site; only those to the standing roster count.
            let roster = round.roster.as_ref().map(|roster| roster.digest().to_string());
            if let Some((digest, site)) = rest.split_once('/')
                && roster.as_deref() == Some(digest)
            {
                let envelope = sealfold_protocol::bytes::Envelope(read(store, &name).await?);
                round.commits.insert(site.to_owned(), envelope);
            }
        } else if name.starts_with(&format!("{folder}/abandonments/")) {
            let abandonment = MultiSigned::<Abandonment>::open(&read(store, &name).await?)?;
            round.abandonments.insert(abandonment.statement().offer, abandonment);
        } else if name.starts_with(&format!("{folder}/reports/")) {
            let report = study.open_report(Some(offer.statement()), &read(store, &name).await?)?;
            round.reports.insert(report.site.clone(), report);
        }
    }
    round.offer = Some(offer);
    Ok(round)
}

async fn load_upload(
    store: &Store,
    staging: &Staging,
    state: &State,
    digest: &str,
) -> anyhow::Result<Upload> {
    let header = read(store, &format!("uploads/{digest}/header")).await?;
    let header = open_header(state, &header)?;
    let outcome = match store.get(&format!("uploads/{digest}/outcome")).await? {
        Some(json) => Some(serde_json::from_slice(&json)?),
        None => None,
    };
    Ok(Upload {
        length: header.statement().sealed_length()?,
        received: staging.received(header.digest().as_bytes()),
        outcome,
        writing: Arc::default(),
        header,
    })
}

/// Opens an update's header as the site's that it names.
///
/// # Errors
/// A refusal by `not-found`, `site`, `signature` or `encoding`.
pub fn open_header(state: &State, bytes: &[u8]) -> Result<Signed<UpdateHeader>, Refusal> {
    let header = Signed::<UpdateHeader>::open_by(bytes, |header| {
        let study =
            state.studies.get(&header.study).ok_or_else(|| sealfold_protocol::Error::Signer {
                what: UpdateHeader::NAME,
                expected: "a site of a study of this host".to_owned(),
                found: format!("study {}", header.study),
            })?;
        let offer = study.rounds.get(&header.round).and_then(|round| round.offer.as_ref());
        study.key_in(offer.map(Signed::statement), &header.site)
    })?;
    Ok(header)
}
