//! The manifest as sites, auditors and people read it.
//!
//! A manifest has two parts under one digest and the same signatures: the
//! *terms*, which the enclave enforces (`sealfold_protocol::terms`), and the
//! *agreement*, which only sites, auditors and people act on and which is a
//! string of bytes to the enclave. People write both in one TOML file.
//!
//! - [`Manifest`]: both parts, read from TOML or from a signed envelope, and
//!   checked: each by itself, and that they do not contradict each other;
//! - [`Agreement`]: purpose, validity, data, optimiser, epsilon, what the
//!   channels mean, log, images;
//! - [`in_words`]: what a person reads before signing;
//! - [`query`]: statistics in place of a model.
//!
//! ```
//! let text = include_str!("../example.toml");
//! let manifest = sealfold_study::Manifest::from_toml(text)?;
//! assert_eq!(manifest.terms.last_round(), 20);
//! println!("{}", manifest.to_toml()?);
//! # Ok::<(), sealfold_protocol::Error>(())
//! ```

// Steps are compared exactly: they are powers of two.
#![cfg_attr(test, allow(clippy::float_cmp))]

mod agreement;
mod claim;
mod data;
mod file;
mod grid;
pub mod in_words;
mod log;
mod manifest;
mod measured;
mod measurements;
mod misread;
mod optimiser;
pub mod query;

pub use agreement::{Agreement, Purpose};
pub use claim::{Accountant, Claim, Mechanism, PrivacySpent};
pub use data::{Comparison, DataSpecification, Feature, FeatureType, Outcome};
pub use log::LogTerms;
pub use manifest::{Manifest, Study};
pub use measured::{EVALUATION, Evaluation, Metric, presence_of};
pub use measurements::{ConfidentialSpaceMeasurement, Measurements, NitroMeasurement};
pub use optimiser::{Optimiser, ServerStep};

#[cfg(test)]
pub(crate) mod tests;
#[cfg(test)]
mod vectors;
