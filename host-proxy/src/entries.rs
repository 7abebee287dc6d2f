//! What goes into the log, made from what the host has.

use crate::candidates::Candidates;
use crate::host::round_folder;
use crate::log::{Entry, Log};
use crate::state::Round;
use crate::store::Store;
use crate::study::Study;
use sealfold_protocol::abandonment::Abandonment;
use sealfold_protocol::api::EvidenceReply;
use sealfold_protocol::leaf::{Kind, Leaf};
use sealfold_protocol::offer::Offer;
use sealfold_protocol::refusal::Refusal;
use sealfold_protocol::roster::Commit;
use sealfold_protocol::{Digest, MultiSigned, Signed, Statement};
use sealfold_study::Manifest;

/// A manifest with the signatures that it has.
///
/// # Errors
/// If its envelope cannot be encoded.
pub fn manifest(manifest: &MultiSigned<Manifest>) -> Result<Entry, Refusal> {
    several(Kind::Manifest, manifest)
}

/// A study's approved manifests.
///
/// # Errors
/// As [`manifest`].
pub fn manifests(study: &Study) -> Result<Vec<Entry>, Refusal> {
    study.approved().iter().flat_map(|approved| approved.manifests()).map(manifest).collect()
}

/// An abandonment with its signatures.
///
/// # Errors
/// If its envelope cannot be encoded.
pub fn abandonment(abandonment: &MultiSigned<Abandonment>) -> Result<Entry, Refusal> {
    several(Kind::Abandonment, abandonment)
}

fn several<T: Statement>(kind: Kind, statement: &MultiSigned<T>) -> Result<Entry, Refusal> {
    let envelope = statement.envelope()?;
    let leaf = Leaf::said(kind, statement.digest(), &envelope)?;
    Ok(Entry::new(leaf, vec![envelope]))
}

/// An offer with the evidence that was obtained when it was made.
#[must_use]
pub fn offer(offer: &Signed<Offer>, evidence: &EvidenceReply) -> Entry {
    let (envelope, document) = (offer.envelope(), &evidence.document.0);
    let leaf = Leaf::offer(offer.digest(), envelope, &evidence.platform, document);
    Entry::new(leaf, vec![envelope.to_vec(), document.clone()])
}

/// A statement of one signer: a roster, a commit or a release.
///
/// # Errors
/// For an offer, which needs evidence.
pub fn signed<T: Statement>(kind: Kind, statement: &Signed<T>) -> Result<Entry, Refusal> {
    let envelope = statement.envelope();
    let leaf = Leaf::said(kind, statement.digest(), envelope)?;
    Ok(Entry::new(leaf, vec![envelope.to_vec()]))
}

/// Everything of a study that the log lacks, in the order in which it happened.
///
/// # Errors
/// A refusal by `storage`, or if something in the store does not open.
pub async fn of_study(
    store: &Store,
    log: &Log,
    id: &Digest,
    study: &Study,
) -> Result<Vec<Entry>, Refusal> {
    let mut entries = Vec::new();
    let Some(approved) = study.approved() else { return Ok(entries) };
    let approval = &study.terms().approval;
    let is_given_up = |words: &Candidates<Abandonment>| {
        words.approved(&approval.approvers, approval.required).is_some()
    };
    let mut rounds = study.rounds.values();
    if rounds.any(|round| round.abandonments.values().any(is_given_up)) {
        // By the approvers of the last one.
        entries.extend(manifests(study)?);
    }
    // A manifest under which no offer was made is logged before the first one.
    let offers = || study.rounds.values().filter_map(|round| round.offer.as_ref());
    let is_used = |manifest: &&MultiSigned<Manifest>| {
        offers().any(|offer| offer.statement().manifest == manifest.digest())
    };
    for used in approved.manifests().iter().filter(is_used) {
        entries.push(manifest(used)?);
    }
    for (number, round) in &study.rounds {
        let folder = round_folder(id, *number);
        of_round(store, log, &folder, study, round, &mut entries).await?;
    }
    Ok(entries)
}

async fn of_round(
    store: &Store,
    log: &Log,
    folder: &str,
    study: &Study,
    round: &Round,
    entries: &mut Vec<Entry>,
) -> Result<(), Refusal> {
    let Some(standing) = &round.offer else { return Ok(()) };
    if log.lacks(Kind::Offer, &standing.digest()).await {
        let name = format!("{folder}/{}/evidence", standing.digest());
        let Some(bytes) = store.get(&name).await? else {
            tracing::error!(name, "an offer without evidence cannot be logged");
            return Ok(());
        };
        let evidence = serde_json::from_slice(&bytes).map_err(crate::store::failed)?;
        entries.push(offer(standing, &evidence));
    }
    if let Some(roster) = &round.roster {
        entries.push(signed(Kind::Roster, roster)?);
    }
    for envelope in round.commits.values() {
        let commit = Signed::<Commit>::open_by(&envelope.0, |commit| {
            study.key_in(Some(standing.statement()), &commit.site)
        })?;
        entries.push(signed(Kind::Commit, &commit)?);
    }
    if let Some(release) = &round.release {
        entries.push(signed(Kind::Release, release)?);
    }
    let approval = &study.terms().approval;
    for words in round.abandonments.values() {
        if let Some(given_up) = words.approved(&approval.approvers, approval.required) {
            entries.push(abandonment(given_up)?);
        }
    }
    Ok(())
}
