//! The model report: a site tells the host which model a release led to.
//!
//! The host asks an enclave to offer the next round on a base model, and where
//! releases are for the sites only it cannot compute that model. So the sites
//! report its digest. Nobody believes it: a host that proposes another base is
//! refused by every site, which compares an offer with the model it computed
//! itself. The signature keeps strangers from stalling a study.

use crate::{Digest, Statement};
use serde::{Deserialize, Serialize};

/// The digest of the model that a site computed from a release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelReport {
    /// The study's identity.
    pub study: Digest,
    /// The round of the release.
    pub round: u32,
    /// The digest of the release.
    pub release: Digest,
    /// The site's name.
    pub site: String,
    /// The content digest of the next model.
    pub model: Digest,
}

impl Statement for ModelReport {
    const NAME: &'static str = "model report";
    const CONTENT_TYPE: &'static str = "application/vnd.sealfold.model-report.v1+cbor";
    const LIMIT: usize = 1 << 10;
}
