//! Replays a log and says what holds.
//!
//! An auditor comes years later, to a copy of the log, with a policy of his
//! own, offline. He asks: does every release follow from an approved manifest,
//! genuine evidence and the commits of a known set of sites, and is this the
//! history that everybody saw? [`replay`] answers from the leaves alone.
//!
//! - [`copy`]: the copy on disk, which may be cut, changed or huge; [`given`]: what
//!   the auditor brings;
//! - `opening`: from a leaf's bytes to its statement;
//! - [`replay`], [`study`], [`round`], [`agreement`]: what must follow from what;
//! - [`privacy`]: what was spent of the budget;
//! - [`finding`]: what is wrong, or missing, by name, and where to look;
//! - [`report`], [`summary`], [`text`], [`html`]: what is said about it;
//! - [`explain`]: one leaf in words;
//! - [`lineage`]: where a model comes from, and its card.

pub mod agreement;
pub mod copy;
pub mod explain;
pub mod finding;
pub mod given;
pub mod html;
pub mod lineage;
mod opening;
pub mod privacy;
pub mod replay;
pub mod report;
pub mod round;
pub mod study;
pub mod summary;
pub mod text;

/// Version and commit.
pub const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " (", env!("SEALFOLD_COMMIT"), ")");
