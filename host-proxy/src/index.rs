//! Reads the index of the store when the host starts.

use crate::amendments;
use crate::host::{Terms, round_folder, study_folder};
use crate::staging::Staging;
use crate::state::{Round, State, Upload};
use crate::store::Store;
use crate::study::Study;
use sealfold_protocol::abandonment::Abandonment;
use sealfold_protocol::manifest::Manifested;
use sealfold_protocol::offer::Offer;
use sealfold_protocol::refusal::{Check, Refusal};
use sealfold_protocol::release::Release;
use sealfold_protocol::roster::Roster;
use sealfold_protocol::update::UpdateHeader;
use sealfold_protocol::{Digest, MultiSigned, Signed, Statement};
use sealfold_study::Manifest;
use std::collections::BTreeSet;
use std::sync::Arc;

/// Reads what the store and the staging folder hold.
///
/// # Errors
/// If the store cannot be read. A document that does not verify is set aside.
pub async fn load(store: &Store, staging: &Staging, terms: &Terms) -> anyhow::Result<State> {
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
            Some(study) => {
                if let Err(error) = study.amend(manifest) {
                    tracing::error!(name, %error, "a manifest is set aside");
                }
            }
            None => _ = state.studies.insert(id, Study::new(manifest)),
        }
    }
    for (id, study) in &mut state.studies {
        amendments::load(store, id, study).await?;
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
        if round.offer.is_some() {
            study.rounds.insert(number, round);
        }
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
        } else if let Some(rest) = name.strip_prefix(&format!("{folder}/abandonments/")) {
            let Some(by) = rest.split_once('.').and_then(|(_, key)| key.parse().ok()) else {
                continue;
            };
            let abandonment = MultiSigned::<Abandonment>::open(&read(store, &name).await?)?;
            let words = round.abandonments.entry(abandonment.statement().offer).or_default();
            words.back(by, &abandonment)?;
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
