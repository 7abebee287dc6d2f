//! From a leaf's bytes to its statement, or to a finding.

use crate::finding::{Check, Finding};
use sealfold_attestation::log::LogError;
use sealfold_protocol::leaf::Leaf;
use sealfold_protocol::{Digest, Error, Signed, Statement};

pub fn object(error: &LogError) -> Finding {
    let check = match error {
        LogError::Unreadable { .. } => Check::ObjectMissing,
        _ => Check::Object,
    };
    Finding::new(check, "the object that the leaf names", error)
}

pub fn unknown_study(id: &Digest) -> Error {
    let expected = "one whose approved manifest stands before it in the log".to_owned();
    Error::Link { what: "statement's study", expected, found: id.to_string() }
}

/// The value, or a finding.
pub fn note<T>(result: Result<T, Error>, findings: &mut Vec<Finding>) -> Option<T> {
    result
        .map_err(|error| {
            findings.push(Finding::new(Check::Statement, "a statement that verifies", error));
        })
        .ok()
}

/// The statement, if it verifies and is the one that the leaf says.
pub fn opened<T: Statement>(
    leaf: &Leaf,
    result: Result<Signed<T>, Error>,
    findings: &mut Vec<Finding>,
) -> Option<Signed<T>> {
    let signed = note(result, findings)?;
    said(leaf, signed.digest(), findings)?;
    Some(signed)
}

pub fn said(leaf: &Leaf, digest: Digest, findings: &mut Vec<Finding>) -> Option<()> {
    if leaf.statement() == digest {
        return Some(());
    }
    let expected = format!("the statement {} that the leaf names", leaf.statement());
    findings.push(Finding::new(Check::Statement, expected, digest));
    None
}
