//! The untrusted host: relays to the enclave, stores sealed bytes, serves sites.
//!
//! Untrusted by construction: what it keeps is sealed, signed or public, and
//! the worst that it can do is stop. Its duties are to be reachable, durable
//! and observable. Nothing in the protocol rests on what it checks.

pub mod access;
pub mod amendments;
pub mod candidates;
pub mod conductor;
pub mod cosigned;
pub mod disk;
pub mod door;
pub mod enclave;
pub mod entries;
pub mod host;
pub mod index;
pub mod limits;
pub mod log;
pub mod log_key;
pub mod openapi;
pub mod page;
pub mod relay;
pub mod routes;
pub mod serve;
pub mod staging;
pub mod state;
pub mod store;
pub mod study;
pub mod witness;

/// Version and commit.
pub const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " (", env!("SEALFOLD_COMMIT"), ")");
