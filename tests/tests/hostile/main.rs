//! The hostile host: every attack of the design, and those that were thought of
//! while it was built, played against the real binaries by a host that really
//! does it. Each ends in the named refusal and in no aggregate.
//!
//! `docs/threat-model.md` has a table of the attacks with remedy, code and test;
//! [`table`] fails if a row has no test, or a test no row.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod abandonment;
mod evidence;
mod logs;
mod manifests;
mod models;
mod releases;
mod rounds;
mod sites;
mod table;
mod two_enclaves;
mod updates;
mod words;
