//! The one error type of this library.

use crate::Digest;

/// What can be wrong with something that another party sent.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The bytes are larger than anything genuine; nothing was parsed.
    #[error("{what} is {found} bytes long, expected at most {limit}")]
    TooLarge {
        /// What was being read.
        what: &'static str,
        /// The cap in bytes.
        limit: usize,
        /// The size that was met.
        found: usize,
    },
    /// The bytes are no such object, or not in its one encoding.
    #[error("{what} does not decode: {reason}")]
    Malformed {
        /// What was being read.
        what: &'static str,
        /// Why it was refused; carries no secret.
        reason: String,
    },
    /// A statement of one kind was given where another was expected.
    #[error(
        "content type is {found:?}, expected {expected:?}{}",
        of_other_version(expected, found)
    )]
    ContentType {
        /// The content type that belongs here.
        expected: &'static str,
        /// The content type that the envelope names.
        found: String,
    },
    /// A signature does not verify under the key that must have made it.
    #[error("signature of the {what} does not verify under key {key}")]
    Signature {
        /// The kind of statement.
        what: &'static str,
        /// The verifying key, in hex.
        key: String,
    },
    /// The statement's signer is not one that may make it.
    #[error("{what} names signer {found:?}, expected {expected}")]
    Signer {
        /// The kind of statement.
        what: &'static str,
        /// Who may sign it.
        expected: String,
        /// Who it says signed it.
        found: String,
    },
    /// A multi-signed statement has fewer valid approvals than are required.
    #[error("{what} has {found} approvals of listed approvers, expected at least {required}")]
    Approvals {
        /// The kind of statement.
        what: &'static str,
        /// How many the manifest asks for.
        required: usize,
        /// How many there are.
        found: usize,
    },
    /// A field of a manifest breaks a rule that every manifest keeps.
    #[error("manifest field {field}: expected {expected}, found {found}")]
    Manifest {
        /// The field, as a dotted path.
        field: String,
        /// What it must be.
        expected: String,
        /// What it is.
        found: String,
        /// What to do next, where it is more than to correct the field.
        next: Option<&'static str>,
    },
    /// A link of a study's chain does not point where it must.
    #[error("{what} names {found}, expected {expected}")]
    Link {
        /// Which link.
        what: &'static str,
        /// The digest or number that continues the chain.
        expected: String,
        /// The one that the statement names.
        found: String,
    },
    /// An endpoint's URI cannot be read.
    #[error(
        "endpoint {found:?} is not one of vsock://CID:PORT, tcp://HOST:PORT, unix:///PATH, hybrid-vsock:///PATH:PORT"
    )]
    Endpoint {
        /// The text that was given.
        found: String,
    },
    /// A key cannot be read or made.
    #[error("{what}: {reason}")]
    Key {
        /// Which key.
        what: &'static str,
        /// Why; carries no secret.
        reason: &'static str,
    },
    /// Sealing or opening failed.
    #[error(transparent)]
    Seal(#[from] crate::seal::SealError),
}

/// That a content type is of another version, if it is.
fn of_other_version(expected: &str, found: &str) -> String {
    crate::envelope::other_version(expected, found).map_or_else(String::new, |version| {
        format!(": format version {version} is not one that this version of sealfold reads")
    })
}

impl Error {
    /// A [`Error::Link`] between two digests.
    #[must_use]
    pub fn link(what: &'static str, expected: &Digest, found: &Digest) -> Self {
        Self::Link { what, expected: expected.to_string(), found: found.to_string() }
    }

    /// A [`Error::Malformed`] with any reason that can be displayed.
    #[must_use]
    pub fn malformed(what: &'static str, reason: impl ToString) -> Self {
        Self::Malformed { what, reason: reason.to_string() }
    }
}

/// A result of this library.
pub type Result<T> = std::result::Result<T, Error>;
