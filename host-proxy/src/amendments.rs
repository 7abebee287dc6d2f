//! Amendments that lack approvals, in the store.

use crate::host::study_folder;
use crate::store::Store;
use crate::study::Study;
use sealfold_protocol::Digest;
use sealfold_protocol::manifest::Manifested;
use sealfold_protocol::refusal::Refusal;
use sealfold_study::Manifest;

/// Reads the amendments that lacked approvals, and puts the one in force that has
/// them: the host was killed when it had the last signature.
///
/// # Errors
/// A refusal by `storage`.
pub async fn load(store: &Store, id: &Digest, study: &mut Study) -> Result<(), Refusal> {
    let folder = folder(id);
    for name in store.list(&folder).await? {
        let Ok(by) = name.parse() else { continue };
        let bytes = store.get(&format!("{folder}{name}")).await?.unwrap_or_default();
        // One of an older manifest is left from before that was amended.
        if let Ok(amendment) = Manifest::open(&bytes)
            && study.expect_amendment(&amendment).is_ok()
        {
            study.pending.back(by, &amendment)?;
        }
    }
    put_in_force(store, id, study).await
}

/// Where a study's amendments are that lack approvals.
#[must_use]
pub fn folder(id: &Digest) -> String {
    format!("{}/pending/", study_folder(id))
}

/// Puts the pending amendment in force that has all its approvals, if one has.
///
/// # Errors
/// A refusal by `storage`.
pub async fn put_in_force(store: &Store, id: &Digest, study: &mut Study) -> Result<(), Refusal> {
    let Some(amendment) = study.approved_amendment() else { return Ok(()) };
    let name = format!("{}/manifests/{:06}", study_folder(id), study.manifests().len());
    store.put(&name, amendment.envelope()?).await?;
    study.amend(amendment)?;
    // What stays is of an older manifest, and is passed over.
    let folder = folder(id);
    for name in store.list(&folder).await? {
        store.delete(&format!("{folder}{name}")).await?;
    }
    Ok(())
}
