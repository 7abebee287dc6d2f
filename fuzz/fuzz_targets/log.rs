//! What a copy of a log may hold: leaves, notes, checkpoints, paths of tiles.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sealfold_attestation::log::note::{Note, NoteKey};
use sealfold_attestation::log::{Checkpoint, Tile};
use sealfold_protocol::leaf::Leaf;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(leaf) = Leaf::decode(bytes) {
        assert_eq!(leaf.encode().ok().as_deref(), Some(bytes));
    }
    if let Ok(note) = Note::parse(bytes) {
        let _ = Checkpoint::parse(note.text());
    }
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = text.parse::<NoteKey>();
        if let Ok(tile) = Tile::parse(text) {
            assert_eq!(tile.to_string(), text);
        }
    }
});
