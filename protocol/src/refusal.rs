//! Refusals: what was checked, what was expected, what was found.
//!
//! A refusal is a code and public facts. A value that was derived from an
//! update's plaintext (its norm) never stands in it for
//! all to read; it goes to the update's own site only, sealed to that site's
//! release key, so that a host that watches error replies learns no more than
//! that an update was refused.

use crate::seal::SealedMessage;
use serde::{Deserialize, Serialize};
use std::fmt;

/// What a refusal is about. The names are part of the protocol: they appear in
/// replies, logs and reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Check {
    /// The request is not one.
    Request,
    /// The request has to be signed and is not, or its signature does not hold.
    Access,
    /// The request was signed at another time than the host's clock shows.
    Clock,
    /// The very same request came before.
    Replay,
    /// Who signed the request may not do this.
    Right,
    /// More requests than one party may make.
    Rate,
    /// A size is above its cap.
    Size,
    /// The manifest does not verify, is not approved or not valid.
    Manifest,
    /// There is no such study, round, upload or object.
    NotFound,
    /// The request does not fit the phase of the round.
    Phase,
    /// The instance has made its offer for this (study, round).
    OneOffer,
    /// The round is not the one that is open.
    Round,
    /// The statement names another offer.
    Offer,
    /// A link of the study's chain does not point where it must.
    Chain,
    /// The site is not listed.
    Site,
    /// The site has not approved the manifest.
    SiteApproval,
    /// A signature does not verify.
    Signature,
    /// A statement does not decode.
    Encoding,
    /// The site has another update in this round.
    OneUpdate,
    /// The update's layout is not the agreed one.
    Layout,
    /// The encapsulation or the sealed bytes' key commitment is foreign.
    Encapsulation,
    /// A record does not open.
    Record,
    /// A value is NaN or infinite.
    Finite,
    /// A channel has a value out of its range, or in another site's part.
    Channel,
    /// The update's norm is beyond the limit.
    NormLimit,
    /// The update's bytes are not those that were admitted.
    Admission,
    /// The roster is not the one that is open for commit.
    Roster,
    /// There are fewer updates than the smallest roster.
    SmallestRoster,
    /// A site on the roster has not committed.
    Commits,
    /// The commit names another checkpoint than the roster's, or there is none.
    Checkpoint,
    /// The round's deadline has passed and its keys are erased.
    Deadline,
    /// The record door does not answer, or not what was asked.
    Door,
    /// The platform gives no evidence.
    Evidence,
    /// The upload's offset is not where it stopped.
    UploadOffset,
    /// The upload is not complete.
    Upload,
    /// The store failed.
    Storage,
    /// The enclave cannot be reached.
    Enclave,
    /// The study has no round left.
    Rounds,
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

/// What to do about a statement in another version of its format.
const OTHER_VERSION: &str = "another version of sealfold made it, and formats change until the \
first release: make it anew with this version";

/// A named refusal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("refused by check {check}: expected {expected}, found {found}{}", .next.as_ref().map(|n| format!("; {n}")).unwrap_or_default())]
pub struct Refusal {
    /// The check that failed.
    pub check: Check,
    /// What was expected.
    pub expected: String,
    /// What was found; no value that is derived from plaintext.
    pub found: String,
    /// What to do next, where there is something to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
    /// What was found, sealed to the update's own site.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sealed: Option<SealedMessage>,
}

impl Refusal {
    /// A refusal of public facts.
    #[must_use]
    pub fn new(check: Check, expected: impl ToString, found: impl ToString) -> Self {
        Self {
            check,
            expected: expected.to_string(),
            found: found.to_string(),
            next: None,
            sealed: None,
        }
    }

    /// Adds what to do next.
    #[must_use]
    pub fn next(mut self, next: impl ToString) -> Self {
        self.next = Some(next.to_string());
        self
    }

    /// The `info` under which a finding is sealed to an update's own site.
    #[must_use]
    pub fn seal_info(header: &crate::Digest) -> Vec<u8> {
        [b"sealfold/v1/finding\0".as_slice(), header.as_bytes()].concat()
    }

    /// The HTTP status that goes with the refusal.
    #[must_use]
    pub fn http_status(&self) -> u16 {
        match self.check {
            Check::Access | Check::Clock | Check::Replay => 401,
            Check::NotFound => 404,
            Check::Size => 413,
            Check::Right | Check::Signature | Check::Site | Check::SiteApproval => 403,
            Check::Rate => 429,
            Check::Door | Check::Enclave | Check::Storage | Check::Evidence => 503,
            Check::Request | Check::Encoding | Check::Manifest => 400,
            _ => 409,
        }
    }

    /// Whether trying again later, unchanged, can help.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        matches!(
            self.check,
            Check::Door
                | Check::Enclave
                | Check::Storage
                | Check::Evidence
                | Check::Clock
                | Check::Replay
                | Check::Rate
        )
    }
}

impl From<crate::Error> for Refusal {
    fn from(error: crate::Error) -> Self {
        Self::from(&error)
    }
}

impl From<&crate::Error> for Refusal {
    fn from(error: &crate::Error) -> Self {
        use crate::Error;
        match error {
            Error::TooLarge { what, limit, found } => {
                Self::new(Check::Size, format!("at most {limit} bytes of {what}"), found)
            }
            Error::Malformed { what, reason } => {
                Self::new(Check::Encoding, format!("{what} that decodes"), reason)
            }
            Error::ContentType { expected, found } => {
                let refusal =
                    Self::new(Check::Encoding, format!("content type {expected:?}"), found);
                match crate::envelope::other_version(expected, found) {
                    Some(_) => refusal.next(OTHER_VERSION),
                    None => refusal,
                }
            }
            Error::Signature { what, key } => Self::new(
                Check::Signature,
                format!("{what} signed by key {key}"),
                "another signature",
            ),
            Error::Signer { what, expected, found } => {
                Self::new(Check::Site, format!("{what} by {expected}"), found)
            }
            Error::Approvals { what, required, found } => {
                let expected = format!("{what} with {required} approvals of listed approvers");
                Self::new(Check::Manifest, expected, found)
            }
            Error::Manifest { field, expected, found, next } => {
                let refusal = Self::new(Check::Manifest, format!("{field}: {expected}"), found);
                Self { next: next.map(str::to_owned), ..refusal }
            }
            Error::Link { what, expected, found } => {
                Self::new(Check::Chain, format!("{what} {expected}"), found)
            }
            Error::Endpoint { .. } => Self::new(Check::Encoding, "an endpoint", error),
            Error::Key { what, reason } => {
                Self::new(Check::Encoding, format!("a usable {what}"), reason)
            }
            Error::Seal(error) => Self::new(Check::Encapsulation, "a seal that opens", error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_check_expected_and_found() {
        let refusal = Refusal::new(Check::OneUpdate, "one update a site", "a second").next("wait");
        assert_eq!(
            refusal.to_string(),
            "refused by check one-update: expected one update a site, found a second; wait"
        );
        let json = serde_json::to_string(&refusal).unwrap();
        assert_eq!(serde_json::from_str::<Refusal>(&json).unwrap(), refusal);
    }
}
