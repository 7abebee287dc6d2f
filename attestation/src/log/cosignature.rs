//! Cosignatures ([tlog-cosignature], `cosignature/v1`): a witness says that it
//! has seen a checkpoint, at a time, and no other history before.
//!
//! [tlog-cosignature]: https://c2sp.org/tlog-cosignature

use super::note::{KeyKind, Note, NoteKey, NoteSigner};
use super::{LogError, Result};

/// A cosignature that verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cosignature {
    /// Whose it is.
    pub name: String,
    /// When it was made, in seconds since 1970, by the witness's own clock.
    pub time: u64,
}

fn message(text: &str, time: u64) -> Vec<u8> {
    format!("cosignature/v1\ntime {time}\n{text}").into_bytes()
}

/// Cosigns the text of a checkpoint: the time in eight bytes, big-endian, and
/// the signature.
///
/// # Errors
/// [`LogError::Malformed`] if the key is not one for cosignatures: a key that
/// signs two kinds of messages could be made to say what it did not mean.
pub fn cosign(text: &str, witness: &NoteSigner, time: u64) -> Result<Vec<u8>> {
    if witness.key().kind() != KeyKind::CosignatureV1 {
        let found = witness.key().to_string();
        return Err(LogError::malformed("witness's key", "one for cosignatures", found));
    }
    let signature = witness.sign(&message(text, time));
    Ok([&time.to_be_bytes(), &signature[..]].concat())
}

/// The cosignature of a witness, if it is there and verifies.
#[must_use]
pub fn verify(note: &Note, witness: &NoteKey) -> Option<Cosignature> {
    if witness.kind() != KeyKind::CosignatureV1 {
        return None;
    }
    note.lines_of(witness).find_map(|line| {
        let (time, signature) = line.signature.split_first_chunk::<8>()?;
        let time = u64::from_be_bytes(*time);
        let holds = witness.verifies(&message(note.text(), time), signature);
        holds.then(|| Cosignature { name: witness.name().to_owned(), time })
    })
}

#[cfg(test)]
mod tests {
    use super::super::SignedCheckpoint;
    use super::super::tree::leaf_hash;
    use super::*;

    #[test]
    fn a_witness_vouches_for_one_checkpoint_at_one_time() {
        let log = NoteSigner::from_seed("log", KeyKind::Ed25519, &[1; 32]).unwrap();
        let site = NoteSigner::from_seed("site", KeyKind::CosignatureV1, &[2; 32]).unwrap();
        let mut signed = SignedCheckpoint::sign(3, leaf_hash(b"x"), &log).unwrap();
        signed.cosign(&site, 1_700_000_000).unwrap();
        let keys = [site.key().clone(), log.key().clone()];
        let found = signed.cosignatures(&keys);
        let expected = Cosignature { name: "site".to_owned(), time: 1_700_000_000 };
        assert_eq!(found, [expected]);
        // One witness's line can be kept alone.
        let alone = signed.cosigned_by(log.key(), site.key()).unwrap();
        assert_eq!(alone.to_bytes(), signed.to_bytes());
        assert!(signed.cosigned_by(log.key(), log.key()).is_none());
        // The log's own signature still stands, and another text has none.
        let bytes = signed.to_bytes();
        let opened = SignedCheckpoint::open(&bytes, log.key()).unwrap();
        assert_eq!(opened.cosignatures(&keys).len(), 1);
        let other = SignedCheckpoint::sign(4, leaf_hash(b"x"), &log).unwrap();
        let line = Note::parse(&bytes).unwrap().signatures()[1].clone();
        let mut moved = Note::parse(&other.to_bytes()).unwrap();
        moved.add(site.key(), line.signature.clone());
        assert_eq!(verify(&moved, site.key()), None);
        let mut later = line.signature;
        later[7] ^= 1;
        let mut changed = Note::parse(&bytes).unwrap();
        changed.add(site.key(), later);
        assert_eq!(verify(&changed, site.key()), None);
        // A log's key cosigns nothing, and nobody has cosigned by its key.
        assert!(signed.cosign(&log, 1).is_err());
        assert_eq!(verify(&changed, log.key()), None);
    }
}
