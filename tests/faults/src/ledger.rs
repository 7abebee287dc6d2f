//! What the world saw: every release of any instance, and every acknowledgement.

use sealfold_protocol::offer::Offer;
use sealfold_protocol::release::Release;
use sealfold_protocol::roster::Roster;
use sealfold_protocol::{Digest, Signed};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

/// A release, with all that belongs to it.
#[derive(Clone)]
pub struct Observed {
    /// The release.
    pub release: Signed<Release>,
    /// The offer behind it.
    pub offer: Signed<Offer>,
    /// The roster that was folded.
    pub roster: Signed<Roster>,
    /// The sealed aggregate, as it lay at the host.
    pub aggregate: Option<Vec<u8>>,
}

/// What must not be lost or doubled.
#[derive(Default)]
pub struct Seen {
    /// Every release that left any instance, by its digest.
    pub releases: BTreeMap<Digest, Observed>,
    /// Commits that the host acknowledged, by the name under which it keeps them.
    pub commits: BTreeMap<String, Vec<u8>>,
    /// Bytes of uploads that the host acknowledged, by header.
    pub uploads: BTreeMap<Digest, u64>,
    /// Releases that a site has seen at the host, by round.
    pub served: BTreeMap<u32, Digest>,
    /// What was found to be wrong on the way.
    pub violations: Vec<String>,
}

/// Shared by all that see something.
pub type Ledger = Arc<Mutex<Seen>>;
