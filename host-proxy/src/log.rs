//! The log that this host keeps: leaves appended when something happens, in
//! static files that anybody may copy.
//!
//! The order of writing makes it safe to be killed at any point: first the
//! objects that a leaf names, then the bundle and the tiles, the checkpoint
//! last. A name of a tile has one content for ever as far as any checkpoint
//! reaches; what lies beyond is written again by the next append. After a write
//! that failed nobody knows whether it came about, so the log is read from its
//! checkpoint again before anything else is signed: two roots of one size would
//! be a fork.
//!
//! No leaf stands in it twice: the leaves' [keys](Leaf::key) are read when the
//! host starts, and whatever the store holds and the log does not is appended.

use crate::log_key;
use crate::state::{Logged, State};
use crate::store::{Store, failed};
use sealfold_attestation::log::tile::{Content, WIDTH, decode_entries, leaf_hashes, narrow};
use sealfold_attestation::log::{
    Checkpoint, Edge, LogError, NoteKey, NoteSigner, SignedCheckpoint, Tile,
};
use sealfold_protocol::Digest;
use sealfold_protocol::leaf::{Kind, Leaf};
use sealfold_protocol::refusal::Refusal;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;
use tokio::sync::Mutex;

/// Where the log is in the store; a copy of this folder is the whole log.
pub const FOLDER: &str = "log";

/// The log, with its key.
pub struct Log {
    signer: NoteSigner,
    /// None after a write that failed.
    standing: Mutex<Option<Standing>>,
}

/// The log as its checkpoint says.
struct Standing {
    edge: Edge,
    /// The number of each leaf.
    leaves: HashMap<Digest, u64>,
}

/// A leaf, and the bytes that it names as objects.
pub struct Entry {
    leaf: Leaf,
    bytes: Vec<Vec<u8>>,
}

impl Entry {
    /// A leaf made of these bytes: those that are too long for it become
    /// objects.
    #[must_use]
    pub fn new(leaf: Leaf, bytes: Vec<Vec<u8>>) -> Self {
        Self { leaf, bytes }
    }
}

impl Log {
    /// Opens the log of a store, signed with the key in the data folder, which
    /// is made if there is none.
    ///
    /// # Errors
    /// If the key cannot be read, the log's checkpoint is not signed by it, or
    /// the log is not what its checkpoint says.
    pub async fn open(store: &Store, data: &Path, origin: Option<&str>) -> anyhow::Result<Self> {
        let has_log = store.length(&format!("{FOLDER}/checkpoint")).await?.is_some();
        let key = data.join("log.key");
        // A second history under the same key would be a fork.
        if !has_log && key.exists() && has_rounds(store).await? {
            anyhow::bail!(
                "expected the log that {} signs in the store, found none; restore {FOLDER}/",
                key.display()
            );
        }
        let signer = log_key::open(&key, origin, has_log)?;
        let standing = restore(store, &signer).await?;
        tracing::info!(key = %signer.key(), size = standing.edge.size(), "the log");
        metrics::gauge!("sealfold_log_size").set(precise(standing.edge.size()));
        let log = Self { signer, standing: Mutex::new(Some(standing)) };
        // An empty log has a checkpoint too, so that it can be told from none.
        if !has_log {
            let signed = SignedCheckpoint::sign(0, Edge::new().root(), &log.signer)?;
            store.put(&format!("{FOLDER}/checkpoint"), signed.to_bytes()).await?;
        }
        Ok(log)
    }

    /// The key that verifies its checkpoints.
    #[must_use]
    pub fn key(&self) -> &NoteKey {
        self.signer.key()
    }

    /// Appends the leaves that are not there yet, in this order. When this
    /// returns they are durable and a checkpoint covers them.
    ///
    /// # Errors
    /// A refusal by `storage`; whatever the entries are for must not go on.
    pub async fn append(&self, store: &Store, entries: Vec<Entry>) -> Result<(), Refusal> {
        let mut standing = self.standing.lock().await;
        // Taken out, and only put back when all is written.
        let mut now = match standing.take() {
            Some(now) => now,
            None => restore(store, &self.signer).await.map_err(failed)?,
        };
        let (before, mut written) = (now.edge.size(), Vec::new());
        let known: HashSet<_> = Tile::edge(before).into_iter().collect();
        for entry in entries {
            if now.leaves.contains_key(&entry.leaf.key()) {
                continue;
            }
            for bytes in &entry.bytes {
                put_object(store, bytes).await?;
            }
            let leaf = entry.leaf.encode()?;
            now.leaves.insert(entry.leaf.key(), now.edge.size());
            now.edge.push(&leaf, &mut written).map_err(failed)?;
        }
        if now.edge.size() > before {
            written.extend(now.edge.partial());
            for (tile, bytes) in written.into_iter().filter(|(tile, _)| !known.contains(tile)) {
                store.put(&format!("{FOLDER}/{tile}"), bytes).await?;
            }
            let size = now.edge.size();
            let signed = SignedCheckpoint::sign(size, now.edge.root(), &self.signer);
            let bytes = signed.map_err(failed)?.to_bytes();
            store.put(&format!("{FOLDER}/checkpoint"), bytes).await?;
            metrics::gauge!("sealfold_log_size").set(precise(size));
            prune(store, before, size).await;
        }
        *standing = Some(now);
        Ok(())
    }

    /// The number of leaves; nothing while that is not known.
    pub async fn size(&self) -> Option<u64> {
        self.standing.lock().await.as_ref().map(|standing| standing.edge.size())
    }

    /// Whether the log has no leaf of that kind for a statement.
    pub async fn lacks(&self, kind: Kind, statement: &Digest) -> bool {
        let standing = self.standing.lock().await;
        let key = Leaf::key_of(kind, statement);
        standing.as_ref().is_none_or(|standing| !standing.leaves.contains_key(&key))
    }

    /// Where a statement stands, and the digest of the checkpoint that ends with
    /// it, whatever was appended since.
    ///
    /// # Errors
    /// A refusal by `storage` if it is not in the log.
    pub async fn find(
        &self,
        store: &Store,
        kind: Kind,
        statement: &Digest,
    ) -> Result<Logged, Refusal> {
        let standing = self.standing.lock().await;
        let place = standing.as_ref().and_then(|standing| {
            let leaf = standing.leaves.get(&Leaf::key_of(kind, statement))?;
            Some((*leaf, standing.edge.size()))
        });
        let (leaf, now) =
            place.ok_or_else(|| failed(format!("{kind} {statement} is not logged")))?;
        let size = leaf + 1;
        let mut tiles = BTreeMap::new();
        for tile in Tile::edge(size) {
            // What was partial then may be wider now.
            let wider = Tile::of(tile.content(), tile.index(), now).unwrap_or(tile);
            let bytes = read(store, &wider).await.map_err(failed)?;
            tiles.insert(tile.to_string(), narrow(&tile, &wider, &bytes).map_err(failed)?);
        }
        let root = Edge::restore(size, &tiles).map_err(failed)?.root();
        let origin = self.signer.key().name().to_owned();
        let checkpoint = Digest::new(Checkpoint { origin, size, root }.digest());
        Ok(Logged { leaf, checkpoint })
    }

    /// Appends whatever the store holds and the log does not: the host was
    /// killed in between, or is older than its log.
    ///
    /// # Errors
    /// A refusal by `storage`.
    pub async fn catch_up(&self, store: &Store, state: &State) -> Result<(), Refusal> {
        for (id, study) in &state.studies {
            let entries = crate::entries::of_study(store, self, id, study).await?;
            self.append(store, entries).await?;
        }
        Ok(())
    }
}

/// Whether rounds have run here.
async fn has_rounds(store: &Store) -> Result<bool, Refusal> {
    Ok(store.list("studies").await?.iter().any(|name| name.contains("/rounds/")))
}

#[allow(clippy::cast_precision_loss)]
fn precise(size: u64) -> f64 {
    size as f64
}

/// Objects are named by their digest: one that is there needs no second copy.
async fn put_object(store: &Store, bytes: &[u8]) -> Result<(), Refusal> {
    let held = sealfold_protocol::leaf::Held::new(bytes);
    let Some(object) = held.object() else { return Ok(()) };
    let name = format!("{FOLDER}/objects/{}", object.digest);
    if store.length(&name).await? == Some(object.length) {
        return Ok(());
    }
    store.put(&name, bytes.to_vec()).await
}

/// Forgets partial tiles in whose place a full one stands. A reader of an older
/// checkpoint takes the full one, as the format says.
async fn prune(store: &Store, before: u64, size: u64) {
    let stale = Tile::edge(before).into_iter().filter(|tile| {
        Tile::of(tile.content(), tile.index(), size).is_some_and(|now| now.is_full())
    });
    for tile in stale {
        let folder = format!("{FOLDER}/{}.p", tile.filled());
        // What stays costs space, nothing else.
        for width in store.list(&folder).await.unwrap_or_default() {
            let _ = store.delete(&format!("{folder}/{width}")).await;
        }
    }
}

/// Reads the log from its checkpoint and checks it: every leaf, and the edge
/// that the next one is appended to.
async fn restore(store: &Store, signer: &NoteSigner) -> anyhow::Result<Standing> {
    let Some(bytes) = store.get(&format!("{FOLDER}/checkpoint")).await? else {
        return Ok(Standing { edge: Edge::new(), leaves: HashMap::new() });
    };
    let checkpoint = SignedCheckpoint::open(&bytes, signer.key())?;
    let size = checkpoint.size();
    let mut tiles = BTreeMap::new();
    for tile in Tile::edge(size) {
        tiles.insert(tile.to_string(), read(store, &tile).await?);
    }
    let edge = Edge::restore(size, &tiles)?;
    if edge.root() != checkpoint.root() {
        anyhow::bail!(
            "the log's tiles lead to root {}, its checkpoint of {size} leaves says {}",
            edge.root(),
            checkpoint.root()
        );
    }
    let mut numbers = HashMap::new();
    for index in 0..size.div_ceil(WIDTH) {
        let Some(bundle) = Tile::of(Content::Entries, index, size) else { break };
        let bytes = read(store, &bundle).await?;
        let leaves = decode_entries(&bundle, &bytes)?;
        if let Some(hashes) = Tile::of(Content::Hashes(0), index, size) {
            let stored = read(store, &hashes).await?;
            if sealfold_attestation::log::tile::decode_hashes(&hashes, &stored)?
                != leaf_hashes(&leaves)
            {
                anyhow::bail!("the leaves of {bundle} are not those of {hashes}");
            }
        }
        for (number, leaf) in (index * WIDTH..).zip(leaves) {
            numbers.insert(Leaf::decode(leaf)?.key(), number);
        }
    }
    Ok(Standing { edge, leaves: numbers })
}

async fn read(store: &Store, tile: &Tile) -> anyhow::Result<Vec<u8>> {
    let path = tile.to_string();
    let found = store.get(&format!("{FOLDER}/{path}")).await?;
    let reason = "it is not in the store".to_owned();
    Ok(found.ok_or(LogError::Unreadable { path, reason })?)
}

#[cfg(test)]
mod tests;
