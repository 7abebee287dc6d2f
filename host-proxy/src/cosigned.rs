//! Cosignatures: what sites and witnesses have seen of this log.
//!
//! One file for each of them, with the largest checkpoint that it cosigned, so
//! that a reader need not believe the host alone. Anybody may bring a
//! cosignature: it verifies, or it is refused.

use crate::host::Host;
use crate::log::FOLDER;
use sealfold_attestation::log::note::KeyKind;
use sealfold_attestation::log::{NoteKey, SignedCheckpoint};
use sealfold_protocol::refusal::{Check, Refusal};

/// Where the latest checkpoint that a witness cosigned is in the store.
#[must_use]
pub fn place(witness: &NoteKey) -> String {
    format!("{FOLDER}/cosigned/{}", hex::encode(witness.digest()))
}

/// Keeps the cosignatures of a checkpoint of this log that known witnesses made:
/// the sites of this host's studies, and those that the operator names.
///
/// # Errors
/// A refusal by `signature` if it is no checkpoint of this log or nobody known
/// cosigned it; by `storage`.
pub async fn keep(host: &Host, bytes: &[u8]) -> Result<(), Refusal> {
    let key = host.log.key();
    let signed = SignedCheckpoint::open(bytes, key).map_err(|error| {
        Refusal::new(Check::Signature, format!("a checkpoint of the log {}", key.name()), error)
    })?;
    let named = host.terms.witnesses.iter();
    let mut known: Vec<_> = named.map(|witness| witness.key.clone()).collect();
    for study in host.state.lock().await.studies.values() {
        for site in &study.terms().sites {
            let public = *site.signing_key.as_bytes();
            known.extend(NoteKey::new(&site.name, KeyKind::CosignatureV1, public));
        }
    }
    let mut found = false;
    for witness in known {
        let Some(cosigned) = signed.cosigned_by(key, &witness) else { continue };
        found = true;
        let place = place(&witness);
        let before = host.store.get(&place).await?;
        let before = before.and_then(|bytes| SignedCheckpoint::open(&bytes, key).ok());
        if before.is_none_or(|before| before.size() < cosigned.size()) {
            host.store.put(&place, cosigned.to_bytes()).await?;
        }
    }
    if found {
        return Ok(());
    }
    Err(Refusal::new(Check::Signature, "a cosignature of a site or a witness of this host", "none"))
}
