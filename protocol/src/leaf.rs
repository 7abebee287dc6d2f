//! The leaves of the log: what happened, in the order in which it happened.
//!
//! A leaf carries a statement's envelope. One of at most [`INLINE`] bytes (most
//! leaves are commits) stands in the leaf itself, a longer one is named by its
//! digest and kept beside the log as an *object*: leaves stay small, so that a
//! log is read quickly and its last bundle rewritten cheaply, and nothing that
//! a leaf names can be changed.
//!
//! A leaf proves only that its bytes were in the log. Whoever reads it verifies
//! the statement as if it had come over the network.

use crate::{Digest, Error, Result, encoding};
use serde::{Deserialize, Serialize};
use std::fmt;

/// The longest envelope that stands in its leaf, in bytes.
pub const INLINE: usize = 1024;
/// The longest object in bytes: a manifest with all its signatures is shorter.
pub const MAX_OBJECT: u64 = 2 << 20;
/// The longest leaf in bytes.
pub const MAX_LEAF: usize = 4096;
/// The longest name of a platform, in bytes.
const MAX_PLATFORM: usize = 64;

/// A leaf.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Leaf {
    /// A manifest with the signatures that it has by now. It may come again with
    /// more of them.
    Manifest(Said),
    /// An offer, with evidence of the instance that made it.
    Offer(Offered),
    /// A roster.
    Roster(Said),
    /// A site's commit to a roster.
    Commit(Said),
    /// A release.
    Release(Said),
    /// An abandonment with the signatures that it needs.
    Abandonment(Said),
}

/// The kinds of leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// [`Leaf::Manifest`].
    Manifest,
    /// [`Leaf::Offer`].
    Offer,
    /// [`Leaf::Roster`].
    Roster,
    /// [`Leaf::Commit`].
    Commit,
    /// [`Leaf::Release`].
    Release,
    /// [`Leaf::Abandonment`].
    Abandonment,
}

impl Kind {
    /// Every kind, in the order of a round.
    pub const ALL: [Self; 6] =
        [Self::Manifest, Self::Offer, Self::Roster, Self::Commit, Self::Release, Self::Abandonment];
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

/// A statement in the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Said {
    /// The statement's digest.
    pub statement: Digest,
    /// Its envelope.
    pub envelope: Held,
}

/// An offer in the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Offered {
    /// The offer's digest.
    pub statement: Digest,
    /// Its envelope.
    pub envelope: Held,
    /// The platform of the evidence, `nitro`.
    pub platform: String,
    /// The attestation document.
    pub evidence: Held,
}

/// Bytes that stand in the leaf, or are named by it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Held {
    /// The bytes.
    Inline(#[serde(with = "serde_bytes")] Vec<u8>),
    /// An object beside the log.
    Object(Object),
}

/// The name of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Object {
    /// SHA-256 of its bytes.
    pub digest: Digest,
    /// Their number.
    pub length: u64,
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inline(bytes) => write!(f, "Inline({} bytes)", bytes.len()),
            Self::Object(object) => write!(f, "{object:?}"),
        }
    }
}

impl Held {
    /// Bytes for a leaf, which are an object of their own if they are long.
    #[must_use]
    pub fn new(bytes: &[u8]) -> Self {
        if bytes.len() <= INLINE {
            return Self::Inline(bytes.to_vec());
        }
        Self::Object(Object { digest: Digest::of(&[bytes]), length: bytes.len() as u64 })
    }

    /// The object that has to be fetched, if the bytes are not here.
    #[must_use]
    pub fn object(&self) -> Option<Object> {
        match self {
            Self::Inline(_) => None,
            Self::Object(object) => Some(*object),
        }
    }

    fn check(&self) -> Result<()> {
        let fits = match self {
            Self::Inline(bytes) => bytes.len() <= INLINE,
            Self::Object(object) => (INLINE as u64 + 1..=MAX_OBJECT).contains(&object.length),
        };
        if fits {
            return Ok(());
        }
        let reason = format!("bytes in the leaf up to {INLINE}, an object up to {MAX_OBJECT}");
        Err(Error::malformed("leaf", format!("expected {reason}, found {self:?}")))
    }
}

impl Object {
    /// Expects bytes to be this object.
    ///
    /// # Errors
    /// [`Error::Link`].
    pub fn expect(&self, bytes: &[u8]) -> Result<()> {
        let found = Digest::of(&[bytes]);
        if found == self.digest && bytes.len() as u64 == self.length {
            return Ok(());
        }
        Err(Error::link("object of the log", &self.digest, &found))
    }
}

impl Leaf {
    /// A leaf of a kind that carries no evidence.
    ///
    /// # Errors
    /// [`Error::Malformed`] for an offer, which has evidence.
    pub fn said(kind: Kind, statement: Digest, envelope: &[u8]) -> Result<Self> {
        let said = Said { statement, envelope: Held::new(envelope) };
        match kind {
            Kind::Manifest => Ok(Self::Manifest(said)),
            Kind::Roster => Ok(Self::Roster(said)),
            Kind::Commit => Ok(Self::Commit(said)),
            Kind::Release => Ok(Self::Release(said)),
            Kind::Abandonment => Ok(Self::Abandonment(said)),
            Kind::Offer => Err(Error::malformed("leaf", "an offer has evidence")),
        }
    }

    /// The leaf of an offer and its evidence.
    #[must_use]
    pub fn offer(statement: Digest, envelope: &[u8], platform: &str, evidence: &[u8]) -> Self {
        let (envelope, evidence) = (Held::new(envelope), Held::new(evidence));
        Self::Offer(Offered { statement, envelope, platform: platform.to_owned(), evidence })
    }

    /// Its kind.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Manifest(_) => Kind::Manifest,
            Self::Offer(_) => Kind::Offer,
            Self::Roster(_) => Kind::Roster,
            Self::Commit(_) => Kind::Commit,
            Self::Release(_) => Kind::Release,
            Self::Abandonment(_) => Kind::Abandonment,
        }
    }

    /// The digest of the statement that it says it carries.
    #[must_use]
    pub fn statement(&self) -> Digest {
        match self {
            Self::Offer(offered) => offered.statement,
            Self::Manifest(said)
            | Self::Roster(said)
            | Self::Commit(said)
            | Self::Release(said)
            | Self::Abandonment(said) => said.statement,
        }
    }

    /// The statement's envelope.
    #[must_use]
    pub fn envelope(&self) -> &Held {
        match self {
            Self::Offer(offered) => &offered.envelope,
            Self::Manifest(said)
            | Self::Roster(said)
            | Self::Commit(said)
            | Self::Release(said)
            | Self::Abandonment(said) => &said.envelope,
        }
    }

    /// What makes it one leaf: a log has no two with the same key. A statement
    /// is logged once, whoever asks for it and with whichever evidence; a
    /// manifest once for each set of signatures.
    #[must_use]
    pub fn key(&self) -> Digest {
        let kind = self.kind().to_string();
        match (self, self.envelope()) {
            (Self::Manifest(_), Held::Inline(bytes)) => Digest::of(&[kind.as_bytes(), bytes]),
            (Self::Manifest(_), Held::Object(object)) => {
                Digest::of(&[kind.as_bytes(), object.digest.as_bytes()])
            }
            _ => Self::key_of(self.kind(), &self.statement()),
        }
    }

    /// The [key](Leaf::key) of a statement that is no manifest.
    #[must_use]
    pub fn key_of(kind: Kind, statement: &Digest) -> Digest {
        Digest::of(&[kind.to_string().as_bytes(), statement.as_bytes()])
    }

    /// The leaf's bytes.
    ///
    /// # Errors
    /// [`Error::TooLarge`] or [`Error::Malformed`].
    pub fn encode(&self) -> Result<Vec<u8>> {
        self.check()?;
        let bytes = encoding::to_vec(self)?;
        if bytes.len() > MAX_LEAF {
            return Err(Error::TooLarge { what: "leaf", limit: MAX_LEAF, found: bytes.len() });
        }
        Ok(bytes)
    }

    /// Reads a leaf in its one encoding.
    ///
    /// # Errors
    /// [`Error::TooLarge`]; [`Error::Malformed`], naming the type if this
    /// version does not know it.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let leaf: Self = encoding::from_slice("leaf", bytes, MAX_LEAF).map_err(|error| {
            match unknown_type(bytes) {
                Some(name) => Error::malformed(
                    "leaf",
                    format!("its type is {name:?}, which this version does not know"),
                ),
                None => error,
            }
        })?;
        leaf.check()?;
        Ok(leaf)
    }

    fn check(&self) -> Result<()> {
        self.envelope().check()?;
        if let Self::Offer(offered) = self {
            offered.evidence.check()?;
            if offered.platform.len() > MAX_PLATFORM {
                return Err(Error::malformed("leaf", "its platform's name is too long"));
            }
        }
        Ok(())
    }
}

/// The type that a leaf of a later version names.
fn unknown_type(bytes: &[u8]) -> Option<String> {
    let value: ciborium::Value =
        ciborium::de::from_reader_with_recursion_limit(bytes.get(..MAX_LEAF).unwrap_or(bytes), 16)
            .ok()?;
    let [(key, _)] = value.as_map()?.as_slice() else { return None };
    let name: String = key.as_text()?.chars().take(80).collect();
    Kind::ALL.iter().all(|kind| kind.to_string() != name).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn digest(byte: u8) -> Digest {
        Digest::new([byte; 32])
    }

    #[test]
    fn leaves_come_back_and_are_small() {
        for kind in Kind::ALL {
            for length in [0, 1, INLINE, INLINE + 1, 100_000] {
                let envelope = vec![7; length];
                let leaf = Leaf::said(kind, digest(1), &envelope)
                    .unwrap_or_else(|_| Leaf::offer(digest(1), &envelope, "nitro", &envelope));
                assert_eq!(leaf.kind(), kind);
                let bytes = leaf.encode().unwrap();
                assert!(bytes.len() < 2500, "{}", bytes.len());
                assert_eq!(Leaf::decode(&bytes).unwrap(), leaf);
                assert_eq!(leaf.envelope().object().is_some(), length > INLINE);
                if let Some(object) = leaf.envelope().object() {
                    object.expect(&envelope).unwrap();
                    assert!(object.expect(&envelope[1..]).is_err());
                }
                for end in 0..bytes.len() {
                    assert!(Leaf::decode(&bytes[..end]).is_err(), "{kind} {end}");
                }
            }
        }
    }

    #[test]
    fn the_bytes_of_a_leaf() {
        let leaf = Leaf::said(Kind::Commit, digest(0xaa), b"envelope").unwrap();
        let statement = "aa".repeat(32);
        assert_eq!(
            hex::encode(leaf.encode().unwrap()),
            format!(
                "a166636f6d6d6974a26973746174656d656e745820{statement}\
                 68656e76656c6f7065a166696e6c696e6548656e76656c6f7065"
            )
        );
    }

    #[test]
    fn a_type_of_a_later_version_is_named() {
        let mut bytes = Vec::new();
        ciborium::into_writer(&std::collections::BTreeMap::from([("withdrawal", 1)]), &mut bytes)
            .unwrap();
        let error = Leaf::decode(&bytes).unwrap_err().to_string();
        assert!(error.contains("\"withdrawal\", which this version does not know"), "{error}");
        assert!(Leaf::decode(&vec![0; MAX_LEAF + 1]).is_err());
        // A long envelope in the leaf, or a short one beside it, is another spelling.
        let long = Said { statement: digest(1), envelope: Held::Inline(vec![0; INLINE + 1]) };
        assert!(Leaf::Roster(long).encode().is_err());
        let object = Object { digest: digest(2), length: 5 };
        let short = Said { statement: digest(1), envelope: Held::Object(object) };
        let bytes = encoding::to_vec(&Leaf::Roster(short)).unwrap();
        assert!(Leaf::decode(&bytes).is_err());
    }

    #[test]
    fn a_statement_has_one_key_and_a_manifest_one_for_its_signatures() {
        let key = |kind, envelope: &[u8]| Leaf::said(kind, digest(1), envelope).unwrap().key();
        assert_eq!(key(Kind::Roster, b"a"), key(Kind::Roster, b"b"));
        assert_ne!(key(Kind::Roster, b"a"), key(Kind::Commit, b"a"));
        assert_ne!(key(Kind::Manifest, b"a"), key(Kind::Manifest, b"b"));
        let offer = |evidence: &[u8]| Leaf::offer(digest(1), b"a", "nitro", evidence).key();
        assert_eq!(offer(b"one"), offer(b"two"));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            if let Ok(leaf) = Leaf::decode(&bytes) {
                prop_assert_eq!(leaf.encode().unwrap(), bytes);
            }
        }
    }
}
