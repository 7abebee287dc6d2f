//! Checkpoints ([tlog-checkpoint]): a signed size and root of a log.
//!
//! [tlog-checkpoint]: https://c2sp.org/tlog-checkpoint

use super::cosignature::{self, Cosignature};
use super::note::{Note, NoteKey, NoteSigner};
use super::tree::Hash;
use super::{LogError, Result};
use ring::digest::{SHA256, digest};

/// What a checkpoint says. By itself it is nobody's word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// The log's name.
    pub origin: String,
    /// The number of leaves.
    pub size: u64,
    /// The root of the tree.
    pub root: Hash,
}

impl Checkpoint {
    /// The text that is signed.
    #[must_use]
    pub fn to_text(&self) -> String {
        format!("{}\n{}\n{}\n", self.origin, self.size, self.root)
    }

    /// SHA-256 of the text: what a commit names a checkpoint by.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        let mut bytes = [0; 32];
        let text = self.to_text();
        bytes.copy_from_slice(digest(&SHA256, text.as_bytes()).as_ref());
        bytes
    }

    /// Reads a text. Further lines, which the format allows, are skipped: they
    /// are signed like the rest and say nothing to us.
    ///
    /// # Errors
    /// [`LogError::Malformed`].
    pub fn parse(text: &str) -> Result<Self> {
        let wrong = |found: &str| LogError::malformed("checkpoint", "origin, size, root", found);
        let mut lines = text.split('\n');
        let origin = lines.next().filter(|origin| !origin.is_empty());
        let origin = origin.ok_or_else(|| wrong("no origin"))?.to_owned();
        let number = lines.next().unwrap_or_default();
        let size = number
            .parse::<u64>()
            .ok()
            .filter(|size| size.to_string() == number)
            .ok_or_else(|| wrong("a size that is no number"))?;
        let root = lines.next().unwrap_or_default();
        let root = Hash::from_base64(root)
            .filter(|hash| hash.to_string() == root)
            .ok_or_else(|| wrong("a root that is no hash"))?;
        if lines.next().is_none() {
            return Err(wrong("a cut line"));
        }
        Ok(Self { origin, size, root })
    }
}

/// A checkpoint that its log signed. Only verification and signing make one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedCheckpoint {
    checkpoint: Checkpoint,
    note: Note,
}

impl SignedCheckpoint {
    /// Signs a checkpoint; its origin becomes the signer's name.
    ///
    /// # Errors
    /// [`LogError::Malformed`] if the name cannot stand in a note.
    pub fn sign(size: u64, root: Hash, signer: &NoteSigner) -> Result<Self> {
        let checkpoint = Checkpoint { origin: signer.key().name().to_owned(), size, root };
        let mut note = Note::new(checkpoint.to_text())?;
        note.sign(signer);
        Ok(Self { checkpoint, note })
    }

    /// Opens a checkpoint that a log's key must have signed, under the origin
    /// that is the key's name.
    ///
    /// # Errors
    /// [`LogError::Malformed`] if it is none or of another log,
    /// [`LogError::Signature`] if that key did not sign it.
    pub fn open(bytes: &[u8], log: &NoteKey) -> Result<Self> {
        let note = Note::parse(bytes)?;
        let checkpoint = Checkpoint::parse(note.text())?;
        if checkpoint.origin != log.name() {
            let shown: String = checkpoint.origin.chars().take(80).collect();
            return Err(LogError::malformed("checkpoint", format!("log {}", log.name()), shown));
        }
        note.expect("checkpoint", log)?;
        Ok(Self { checkpoint, note })
    }

    /// What it says.
    #[must_use]
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// The number of leaves.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.checkpoint.size
    }

    /// The root.
    #[must_use]
    pub fn root(&self) -> Hash {
        self.checkpoint.root
    }

    /// Adds a cosignature of this checkpoint.
    ///
    /// # Errors
    /// As [`cosignature::cosign`].
    pub fn cosign(&mut self, witness: &NoteSigner, time: u64) -> Result<()> {
        let signature = cosignature::cosign(self.note.text(), witness, time)?;
        self.note.add(witness.key(), signature);
        Ok(())
    }

    /// The cosignatures of these witnesses that verify.
    #[must_use]
    pub fn cosignatures(&self, witnesses: &[NoteKey]) -> Vec<Cosignature> {
        witnesses.iter().filter_map(|key| cosignature::verify(&self.note, key)).collect()
    }

    /// The checkpoint with the log's signature and that of one witness, if the
    /// witness cosigned it.
    #[must_use]
    pub fn cosigned_by(&self, log: &NoteKey, witness: &NoteKey) -> Option<Self> {
        cosignature::verify(&self.note, witness)?;
        let mut note = Note::new(self.note.text().to_owned()).ok()?;
        for key in [log, witness] {
            note.add(key, self.note.lines_of(key).next()?.signature.clone());
        }
        cosignature::verify(&note, witness)?;
        Some(Self { checkpoint: self.checkpoint.clone(), note })
    }

    /// The note, as it travels.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        self.note.to_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::super::note::KeyKind;
    use super::super::tree::leaf_hash;
    use super::*;
    use proptest::prelude::*;

    fn signer(name: &str, seed: u8) -> NoteSigner {
        NoteSigner::from_seed(name, KeyKind::Ed25519, &[seed; 32]).unwrap()
    }

    #[test]
    fn a_checkpoint_is_of_one_log() {
        let log = signer("log.example/a", 1);
        let signed = SignedCheckpoint::sign(7, leaf_hash(b"x"), &log).unwrap();
        let bytes = signed.to_bytes();
        let opened = SignedCheckpoint::open(&bytes, log.key()).unwrap();
        assert_eq!((opened.size(), opened.root()), (7, leaf_hash(b"x")));
        let other = SignedCheckpoint::open(&bytes, signer("log.example/b", 1).key());
        assert!(other.unwrap_err().to_string().contains("expected log log.example/b"));
        let forged = SignedCheckpoint::open(&bytes, signer("log.example/a", 2).key());
        assert!(matches!(forged, Err(LogError::Signature { .. })));
        for place in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[place] ^= 1;
            assert!(SignedCheckpoint::open(&changed, log.key()).is_err(), "{place}");
            assert!(SignedCheckpoint::open(&bytes[..place], log.key()).is_err(), "{place}");
        }
    }

    #[test]
    fn texts_that_are_no_checkpoint() {
        let root = leaf_hash(b"x").to_string();
        let reads = |size: &str| Checkpoint::parse(&format!("o\n{size}\n{root}\n"));
        assert_eq!(reads("0").unwrap().size, 0);
        for size in ["", "-1", "+1", "01", " 1", "18446744073709551616"] {
            assert!(reads(size).is_err(), "{size}");
        }
        assert!(Checkpoint::parse(&format!("\n1\n{root}\n")).is_err());
        assert!(Checkpoint::parse(&format!("o\n1\n{root}")).is_err());
        assert!(Checkpoint::parse(&format!("o\n1\n{root}\nextension\n")).is_ok());
        assert!(Checkpoint::parse("o\n1\nAAAA\n").is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_a_checkpoint_or_none(text in "[a-z]{0,3}\n?[0-9]{0,3}\n?[A-Za-z=+/]{0,44}\n?") {
            let _ = Checkpoint::parse(&text);
        }
    }
}
