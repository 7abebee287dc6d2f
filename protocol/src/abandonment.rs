//! The abandonment: the approvers give up what an offer began.
//!
//! It counts as *possibly released* and as spent: nobody can know whether the
//! host that lost the instance has seen its release.

use crate::terms::Terms;
use crate::{Digest, Error, MultiSigned, Result, Statement};
use serde::{Deserialize, Serialize};

/// The statement that lets sites which committed under an offer go on without
/// its release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Abandonment {
    /// The study's identity.
    pub study: Digest,
    /// The round.
    pub round: u32,
    /// The digest of the offer that is given up.
    pub offer: Digest,
    /// Why, for people.
    pub reason: String,
}

impl Statement for Abandonment {
    const NAME: &'static str = "abandonment";
    const CONTENT_TYPE: &'static str = "application/vnd.sealfold.abandonment.v1+cbor";
    const LIMIT: usize = 4 << 10;
}

impl Abandonment {
    /// Opens an abandonment that the manifest's approvers signed.
    ///
    /// # Errors
    /// If it does not verify, is of another study, or too few approvers signed.
    pub fn open(envelope: &[u8], study: &Digest, terms: &Terms) -> Result<MultiSigned<Self>> {
        let signed = MultiSigned::<Self>::open(envelope)?;
        if signed.statement().study != *study {
            return Err(Error::link("abandonment's study", study, &signed.statement().study));
        }
        let approval = &terms.approval;
        signed.expect_approvals(&approval.approvers, approval.required)?;
        Ok(signed)
    }
}
