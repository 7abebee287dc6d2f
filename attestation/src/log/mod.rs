//! The append-only log, in the formats of C2SP.
//!
//! A site believes nothing because its host said so, but it cannot see what the
//! host tells others. The log makes that visible: whatever a round consists of
//! is a leaf of one Merkle tree (RFC 9162, section 2.1), and a *checkpoint*
//! fixes the whole history in one hash. Two parties with the same checkpoint
//! have seen the same history; a host that shows two histories signs two
//! checkpoints that no proof can join, and either one convicts it.
//!
//! The formats are those of [tlog-tiles], [tlog-checkpoint], [signed-note] and
//! [tlog-cosignature], so that other people's tools read the log:
//!
//! - [`tree`]: hashes, and the verification of inclusion and consistency;
//! - [`tile`]: how the tree is cut into files, and how these are named;
//! - [`edge`]: what is needed to append;
//! - [`proof`]: proofs, made from tiles;
//! - [`note`], [`checkpoint`], [`cosignature`]: who vouches for which tree.
//!
//! Everything here is a function of its arguments. Files and networks are the
//! business of whoever implements [`TileReader`].
//!
//! [tlog-tiles]: https://c2sp.org/tlog-tiles
//! [tlog-checkpoint]: https://c2sp.org/tlog-checkpoint
//! [signed-note]: https://c2sp.org/signed-note
//! [tlog-cosignature]: https://c2sp.org/tlog-cosignature

pub mod checkpoint;
pub mod cosignature;
pub mod edge;
pub mod note;
pub mod proof;
pub mod tile;
pub mod tree;

pub use checkpoint::{Checkpoint, SignedCheckpoint};
pub use edge::Edge;
pub use note::{NoteKey, NoteSigner};
pub use tile::{Tile, TileReader};
pub use tree::Hash;

/// What can be wrong with a log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    /// A resource of the log cannot be had.
    #[error("{path} cannot be read: {reason}")]
    Unreadable {
        /// Its path in the log.
        path: String,
        /// Why.
        reason: String,
    },
    /// A resource is not what its name says.
    #[error("{what}: expected {expected}, found {found}")]
    Malformed {
        /// Which one.
        what: String,
        /// What it must be.
        expected: String,
        /// What it is.
        found: String,
    },
    /// A proof does not lead to the root.
    #[error("{what} is not proven: expected root {expected}, found {found}")]
    NotProven {
        /// What was to be proven.
        what: &'static str,
        /// The root that the proof has to lead to.
        expected: Hash,
        /// Where it leads.
        found: Hash,
    },
    /// A signature is missing or does not verify.
    #[error("{what}: expected a signature of {expected}, found {found}")]
    Signature {
        /// What is to be signed.
        what: &'static str,
        /// By whom.
        expected: String,
        /// What is there.
        found: String,
    },
}

impl LogError {
    pub(crate) fn malformed(
        what: impl Into<String>,
        expected: impl Into<String>,
        found: impl ToString,
    ) -> Self {
        Self::Malformed { what: what.into(), expected: expected.into(), found: found.to_string() }
    }
}

/// A result of this module.
pub type Result<T> = std::result::Result<T, LogError>;
