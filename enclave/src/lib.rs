//! The trusted part: decrypts updates, folds them, releases one aggregate.
//!
//! It is small on purpose, and everything that it is told by its host is
//! checked or goes into a statement that the sites check:
//!
//! - [`attester`]: evidence that binds an offer, from the platform;
//! - [`round`]: the state machine of a round, as types;
//! - [`admission`]: the pass over an update that earns a receipt;
//! - [`fold`]: the pass over all updates that makes the aggregate;
//! - [`keyed_hash`]: what ties the two passes together;
//! - [`door`]: the one connection that the enclave ever opens;
//! - [`erasure`]: what is left of it all in memory;
//! - [`platform`], [`privileges`]: where it runs, and what it gives up there;
//! - [`arguments`], [`engine`], [`server`]: one round at a time, served over HTTP.

pub mod admission;
pub mod arguments;
pub mod attester;
pub mod door;
pub mod engine;
pub mod erasure;
pub mod fold;
pub mod keyed_hash;
pub mod platform;
pub mod privileges;
pub mod round;
pub mod server;
