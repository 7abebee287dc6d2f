//! The host's log, as a site looks at it before it commits.
//!
//! A site keeps the last checkpoint that it accepted, demands that the next one
//! only adds to it, cosigns that, and commits at the checkpoint whose last leaf
//! is the roster. The enclave folds only commits that name the same one, so
//! sites that were shown different logs get no release. The kept checkpoint is
//! what an auditor needs to see that nothing was hidden later.
//!
//! The policy's log key must have signed the checkpoint. A policy without one
//! leaves open whose log it is; that it only grows, and is the one that all
//! other sites see, is demanded all the same.

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
use sealfold_attestation::log::{Checkpoint, LogError, NoteSigner, Tile, TileReader};
use sealfold_protocol::Digest;
use sealfold_protocol::leaf::{Kind, Leaf};
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

/// Looks the roster up in the log, as leaf `leaf`, and keeps the log's checkpoint
/// in a file, cosigned. The digest of the checkpoint to commit at.
///
/// # Errors
/// A refusal by `log` if the checkpoint is not the log's, `log-shortened` or
/// `log-forked` if it does not continue the kept one, `roster-not-logged`; as
/// [`Client::log_file`]; [`Error::File`].
pub fn commit_at(
    client: &Client,
    policy: &Policy,
    keys: &Keys,
    kept: &Path,
    roster: &Digest,
    leaf: u64,
) -> Result<Digest> {
    let bytes = client.log_file("checkpoint", MAX_NOTE)?;
    let bytes = bytes.ok_or_else(|| refusal("log", "a checkpoint of the host's log", "none"))?;
    let (mut note, now) = read(&bytes, policy)?;
    let remote = Remote { client, size: now.size, failed: RefCell::default() };
    let tree = Tree::new(&remote, now.size);
    if let Some(bytes) = read_file(kept)? {
        continues(&tree, &remote, &read(&bytes, policy)?.1, &now)?;
    }
    let then = tree_at(&tree, &remote, roster, leaf, &now)?;
    cosigned(&mut note, keys)?;
    write_file(kept, &note.to_bytes())?;
    // For others to read. A host that does not take it does not stop this site,
    // which has kept it.
    let _ = client.cosign(&note.to_bytes());
    Ok(Digest::new(then.digest()))
}

/// A checkpoint, signed by the policy's log key if it names one.
fn read(bytes: &[u8], policy: &Policy) -> Result<(Note, Checkpoint)> {
    let wrong = |error: LogError| refusal("log", "a checkpoint of the log", error);
    let note = Note::parse(bytes).map_err(wrong)?;
    let checkpoint = Checkpoint::parse(note.text()).map_err(wrong)?;
    if let Some(key) = policy.log() {
        if checkpoint.origin != key.name() {
            return Err(refusal("log", format!("log {}", key.name()), checkpoint.origin));
        }
        note.expect("checkpoint", key).map_err(wrong)?;
    }
    Ok((note, checkpoint))
}

/// Whether a checkpoint only adds to the kept one.
fn continues(
    tree: &Tree<'_, Remote<'_>>,
    remote: &Remote<'_>,
    kept: &Checkpoint,
    now: &Checkpoint,
) -> Result<()> {
    if kept.origin != now.origin {
        return Err(refusal("log", format!("log {}", kept.origin), &now.origin));
    }
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
fn cosigned(note: &mut Note, keys: &Keys) -> Result<()> {
    let seed = keys.signing.seed();
    let wrong = |error: LogError| refusal("log", "a cosignature", error);
    let signer = NoteSigner::from_seed(&keys.site, KeyKind::CosignatureV1, &seed).map_err(wrong)?;
    let time = u64::try_from(Timestamp::now().as_second()).unwrap_or(0);
    let signature = cosign(note.text(), &signer, time).map_err(wrong)?;
    note.add(signer.key(), signature);
    Ok(())
}
