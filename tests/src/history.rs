//! The log of a system's host, as its readers see it.

use crate::system::System;
use sealfold_attestation::log::note::KeyKind;
use sealfold_attestation::log::tile::{Content, WIDTH, decode_entries};
use sealfold_attestation::log::{Checkpoint, Edge, NoteKey, NoteSigner, SignedCheckpoint, Tile};
use sealfold_protocol::Digest;
use sealfold_protocol::api::RoundStatus;
use std::path::PathBuf;

impl System {
    /// The host's log.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.folder.path().join("host/store/log")
    }

    /// The key of the host's log, as policies name it.
    #[must_use]
    pub fn log_key(&self) -> NoteKey {
        let file = std::fs::read_to_string(self.folder.path().join("host/log.key")).unwrap();
        let (name, seed) = file.trim().split_once(' ').unwrap();
        let seed = hex::decode(seed).unwrap().try_into().unwrap();
        NoteSigner::from_seed(name, KeyKind::Ed25519, &seed).unwrap().key().clone()
    }

    /// The digest of the checkpoint that ends with a round's roster, from the
    /// leaves themselves.
    #[must_use]
    pub fn roster_checkpoint(&self, round: &RoundStatus) -> Digest {
        let size = round.roster_leaf.unwrap() + 1;
        let known = self.get("/log/checkpoint").body;
        let now = SignedCheckpoint::open(&known, &self.log_key()).unwrap();
        let mut edge = Edge::new();
        for index in 0..size.div_ceil(WIDTH) {
            let bundle = Tile::of(Content::Entries, index, now.size()).unwrap();
            let bytes = self.get(&format!("/log/{bundle}")).body;
            let left = usize::try_from(size - edge.size()).unwrap();
            for entry in decode_entries(&bundle, &bytes).unwrap().into_iter().take(left) {
                edge.push(entry, &mut Vec::new()).unwrap();
            }
        }
        let origin = now.checkpoint().origin.clone();
        let (size, root) = (edge.size(), edge.root());
        Digest::new(Checkpoint { origin, size, root }.digest())
    }

    /// A policy for an auditor of the host's log, in a file.
    #[must_use]
    pub fn audit_policy(&self) -> PathBuf {
        let platform = self.platform.policy(self.folder.path());
        let policy = self.policy(&platform);
        let policy = format!("{policy}\n[log]\nkey = \"{}\"\n", self.log_key());
        let path = self.folder.path().join("audit.toml");
        std::fs::write(&path, policy).unwrap();
        path
    }
}
