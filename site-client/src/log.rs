//! The host's log, as a site looks at it before it commits.
//!
//! A site keeps the last checkpoint that it accepted, demands that the next one
//! only adds to it, cosigns that, and commits at the checkpoint whose last leaf
//! is the roster. The enclave folds only commits that name the same one, so
//! sites that were shown different logs get no release. The kept checkpoint is
//! what an auditor needs to see that nothing was hidden later.
//!
//! The manifest names the log and its key, which must have signed the checkpoint;
//! a policy that names one accepts no manifest with another. Where the policy
//! demands witnesses, so many of them must have cosigned a checkpoint that covers
//! the roster: then a host that shows each site another log, all under its own
//! key, has to deceive the witnesses too.

use crate::client::Client;
use crate::error::SiteRefusal;
use crate::home::{read_file, write_file};
use crate::keys::Keys;
use crate::{Error, Result};
use jiff::Timestamp;
use sealfold_attestation::Policy;
use sealfold_attestation::log::cosignature::cosign;
use sealfold_attestation::log::note::{KeyKind, MAX_NOTE, Note};
use sealfold_attestation::log::proof::Tree;
use sealfold_attestation::log::tile::{Content, WIDTH, decode_entries, narrow};
use sealfold_attestation::log::tree::{leaf_hash, verify_consistency, verify_inclusion};
use sealfold_attestation::log::{
    Checkpoint, LogError, NoteKey, NoteSigner, SignedCheckpoint, Tile, TileReader,
};
use sealfold_protocol::Digest;
use sealfold_protocol::leaf::{Kind, Leaf};
use sealfold_study::LogTerms;
use std::cell::RefCell;
use std::path::Path;

/// The log of a host, at the size of one checkpoint.
struct Remote<'a> {
    client: &'a Client,
    size: u64,
    /// Why a tile could not be had, if the network is why.
    failed: RefCell<Option<Error>>,
}

impl Remote<'_> {
    fn fetch(&self, tile: &Tile) -> std::result::Result<Option<Vec<u8>>, LogError> {
        let path = tile.to_string();
        self.client.log_file(&path, tile.longest()).map_err(|error| {
            let reason = error.to_string();
            *self.failed.borrow_mut() = Some(error);
            LogError::Unreadable { path, reason }
        })
    }

    /// What went wrong, as the caller should see it.
    fn wrong(&self, check: &'static str, error: &LogError) -> Error {
        if let Some(failed) = self.failed.take() {
            return failed;
        }
        let expected = "a log that is what its checkpoint says";
        refusal(check, expected, error)
    }
}

impl TileReader for Remote<'_> {
    /// A tile of an older tree is found in that of this one, and where the log
    /// has grown since, in the full one.
    fn read(&self, tile: &Tile) -> std::result::Result<Vec<u8>, LogError> {
        let wider = Tile::of(tile.content(), tile.index(), self.size).unwrap_or(*tile);
        if let Some(bytes) = self.fetch(&wider)? {
            return narrow(tile, &wider, &bytes);
        }
        let full = wider.filled();
        let reason = "the host does not have it".to_owned();
        let missing = LogError::Unreadable { path: tile.to_string(), reason };
        narrow(tile, &full, &self.fetch(&full)?.ok_or(missing)?)
    }
}

fn refusal(check: &'static str, expected: impl ToString, found: impl ToString) -> Error {
    SiteRefusal::new(check, expected, found)
        .next("commit to nothing; keep the checkpoint and compare it with the other sites'")
        .into()
}

/// A site's view of one study's log.
pub struct Watch<'a> {
    /// The host.
    pub client: &'a Client,
    /// The site's policy, for the witnesses.
    pub policy: &'a Policy,
    /// The site's keys, which cosign.
    pub keys: &'a Keys,
    /// The log, as the manifest names it.
    pub log: &'a LogTerms,
    /// Where the last checkpoint is kept.
    pub kept: &'a Path,
}

impl Watch<'_> {
    /// Looks the roster up in the log, as leaf `leaf`, and keeps the log's
    /// checkpoint in a file, cosigned. The digest of the checkpoint to commit at.
    ///
    /// # Errors
    /// A refusal by `log` if the checkpoint is not the log's, `log-shortened` or
    /// `log-forked` if it does not continue the kept one or is not the witnesses',
    /// `roster-not-logged`, `witnesses`; as [`Client::log_file`]; [`Error::File`].
    pub fn commit_at(&self, roster: &Digest, leaf: u64) -> Result<Digest> {
        let key = self.key()?;
        // Before the checkpoint, which then is as large as any of them.
        let cosigned = self.cosigned(&key)?;
        let bytes = self.client.log_file("checkpoint", MAX_NOTE)?;
        let bytes =
            bytes.ok_or_else(|| refusal("log", "a checkpoint of the host's log", "none"))?;
        let (mut note, now) = read(&bytes, &key)?;
        let remote = Remote { client: self.client, size: now.size, failed: RefCell::default() };
        let tree = Tree::new(&remote, now.size);
        if let Some(bytes) = read_file(self.kept)? {
            continues(&tree, &remote, &read(&bytes, &key)?.1, &now)?;
        }
        let then = tree_at(&tree, &remote, roster, leaf, &now)?;
        let mut vouching = 0;
        for witnessed in cosigned {
            continues(&tree, &remote, &witnessed, &now)?;
            vouching += usize::from(witnessed.size > leaf);
        }
        let required = self.policy.required_witnesses();
        if vouching < required {
            let expected =
                format!("cosignatures of {required} witnesses of the policy on the roster's leaf");
            let found = format!("{vouching}");
            let refused = SiteRefusal::new("witnesses", expected, found).next(
                "the host asks its witnesses; if it stays, ask the operator whether it knows them \
                 (sealfold-host serve --witness)",
            );
            return Err(refused.into());
        }
        cosign_note(&mut note, self.keys)?;
        write_file(self.kept, &note.to_bytes())?;
        // For others to read. A host that does not take it does not stop this
        // site, which has kept it.
        let _ = self.client.cosign(&note.to_bytes());
        Ok(Digest::new(then.digest()))
    }

    fn key(&self) -> Result<NoteKey> {
        let LogTerms { origin, key } = self.log;
        NoteKey::new(origin, KeyKind::Ed25519, *key.as_bytes())
            .map_err(|error| refusal("log", "a log's name and key", error))
    }

    /// What the policy's witnesses have cosigned of the log, by their word alone.
    fn cosigned(&self, key: &NoteKey) -> Result<Vec<Checkpoint>> {
        if self.policy.required_witnesses() == 0 {
            return Ok(Vec::new());
        }
        let mut found = Vec::new();
        for witness in self.policy.witnesses() {
            let path = format!("cosigned/{}", hex::encode(witness.digest()));
            let Some(bytes) = self.client.log_file(&path, MAX_NOTE)? else { continue };
            // One that does not verify counts for as much as none.
            let signed = SignedCheckpoint::open(&bytes, key).ok();
            let signed = signed.and_then(|signed| signed.cosigned_by(key, witness));
            found.extend(signed.map(|signed| signed.checkpoint().clone()));
        }
        Ok(found)
    }
}

/// A checkpoint, signed by the log's key.
fn read(bytes: &[u8], key: &NoteKey) -> Result<(Note, Checkpoint)> {
    let wrong = |error: LogError| refusal("log", "a checkpoint of the log", error);
    let note = Note::parse(bytes).map_err(wrong)?;
    let checkpoint = Checkpoint::parse(note.text()).map_err(wrong)?;
    if checkpoint.origin != key.name() {
        return Err(refusal("log", format!("log {}", key.name()), checkpoint.origin));
    }
    note.expect("checkpoint", key).map_err(wrong)?;
    Ok((note, checkpoint))
}

/// Whether a checkpoint only adds to the kept one.
fn continues(
    tree: &Tree<'_, Remote<'_>>,
    remote: &Remote<'_>,
    kept: &Checkpoint,
    now: &Checkpoint,
) -> Result<()> {
    if kept.size > now.size {
        let expected = format!("at least the {} leaves that this site has seen", kept.size);
        return Err(refusal("log-shortened", expected, now.size));
    }
    let proof = tree.consistency(kept.size).map_err(|error| remote.wrong("log", &error))?;
    verify_consistency(kept.size, &kept.root, now.size, &now.root, &proof)
        .map_err(|error| remote.wrong("log-forked", &error))
}

/// The checkpoint that ends with the roster's leaf.
fn tree_at(
    tree: &Tree<'_, Remote<'_>>,
    remote: &Remote<'_>,
    roster: &Digest,
    leaf: u64,
    now: &Checkpoint,
) -> Result<Checkpoint> {
    let missing = |found: String| refusal("roster-not-logged", format!("roster {roster}"), found);
    let wrong = |error: LogError| remote.wrong("roster-not-logged", &error);
    let bundle = Tile::of(Content::Entries, leaf / WIDTH, now.size).filter(|_| leaf < now.size);
    let bundle = bundle.ok_or_else(|| missing(format!("{} leaves, none {leaf}", now.size)))?;
    let bytes = remote.read(&bundle).map_err(wrong)?;
    let entries = decode_entries(&bundle, &bytes).map_err(wrong)?;
    let place = usize::try_from(leaf % WIDTH).unwrap_or(usize::MAX);
    let entry = entries.get(place).ok_or_else(|| missing("no such leaf".to_owned()))?;
    let found = Leaf::decode(entry)?;
    if (found.kind(), found.statement()) != (Kind::Roster, *roster) {
        return Err(missing(format!("{} {}", found.kind(), found.statement())));
    }
    let then = Tree::new(remote, leaf + 1);
    let root = then.root().map_err(wrong)?;
    let proof = then.inclusion(leaf).map_err(wrong)?;
    verify_inclusion(leaf, &leaf_hash(entry), leaf + 1, &root, &proof).map_err(wrong)?;
    let proof = tree.consistency(leaf + 1).map_err(wrong)?;
    verify_consistency(leaf + 1, &root, now.size, &now.root, &proof).map_err(wrong)?;
    Ok(Checkpoint { origin: now.origin.clone(), size: leaf + 1, root })
}

/// Says, under the site's own key and clock, that it has seen this checkpoint
/// and no other history.
fn cosign_note(note: &mut Note, keys: &Keys) -> Result<()> {
    let seed = keys.signing.seed();
    let wrong = |error: LogError| refusal("log", "a cosignature", error);
    let signer = NoteSigner::from_seed(&keys.site, KeyKind::CosignatureV1, &seed).map_err(wrong)?;
    let time = u64::try_from(Timestamp::now().as_second()).unwrap_or(0);
    let signature = cosign(note.text(), &signer, time).map_err(wrong)?;
    note.add(signer.key(), signature);
    Ok(())
}
