//! The site client: what a hospital runs.
//!
//! It verifies an enclave before it encrypts to it, keeps the memory that the
//! enclave cannot have (which offer the site is bound to), and computes the
//! next model from each release. It only ever dials out.
//!
//! From the ground up: [`home`] (files), [`keys`], [`tensors`] (updates and
//! models), [`data`] (the check of a site's data), [`client`] (HTTP),
//! [`study`] (what the site approved and where its chain stands), [`binding`]
//! (the one offer of a round), [`plaintext`], [`scaling`] and [`metrics`] (what an
//! update says), [`step`] and [`evaluation`] (what a release says), [`round`],
//! [`update`] and [`release`] (the steps of a round), [`training`] and [`agent`]
//! (rounds unattended), [`query`] (statistics in place of a model).

pub mod agent;
mod attempts;
pub mod binding;
pub mod client;
pub mod data;
pub mod error;
pub mod evaluation;
pub mod explain;
pub mod home;
pub mod keys;
pub mod ledger;
pub mod log;
pub mod measured;
pub mod metrics;
pub mod patients;
pub mod plaintext;
pub mod query;
pub mod release;
pub mod report;
pub mod round;
pub mod sampling;
pub mod scaling;
pub mod step;
pub mod study;
pub mod tensors;
pub mod training;
pub mod update;

pub use error::{Error, Result};

/// Version and commit.
pub const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " (", env!("SEALFOLD_COMMIT"), ")");
