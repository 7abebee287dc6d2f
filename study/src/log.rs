//! The log that a study's history stands in.

use sealfold_protocol::terms::expect;
use sealfold_protocol::{Result, VerifyingKey};
use serde::{Deserialize, Serialize};

/// The longest origin of a log, in bytes.
const MAX_ORIGIN: usize = 128;

/// Under which name and key the study's log signs its checkpoints. One study
/// has one history: no amendment changes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogTerms {
    /// The log's name, the first line of its checkpoints and the name of its
    /// key ([C2SP tlog-checkpoint](https://c2sp.org/tlog-checkpoint)).
    pub origin: String,
    /// Its Ed25519 key.
    pub key: VerifyingKey,
}

impl LogTerms {
    pub(crate) fn check(&self) -> Result<()> {
        let origin = &self.origin;
        expect(
            "log.origin",
            !origin.is_empty()
                && origin.len() <= MAX_ORIGIN
                && !origin.contains(|c: char| c.is_whitespace() || c.is_control() || c == '+'),
            "a name without spaces and plus signs, at most 128 bytes",
            format!("{:?}", origin.chars().take(MAX_ORIGIN).collect::<String>()),
        )
    }
}
