//! Federated statistics: a study that asks for statistics in place of a model.
//!
//! [`plan`] says before anybody signs what the statistics will be good for,
//! [`answer`] computes a site's part from its patients, and [`reading`] reads
//! the statistics from the model after the round.

use crate::Result;
use crate::error::SiteRefusal;
use sealfold_protocol::terms::{Noise, Privacy};
use sealfold_study::{Manifest, query::Query};

pub mod answer;
pub mod plan;
pub mod reading;

/// The query of a study, and its noise.
///
/// # Errors
/// A refusal by `query` for a study that trains a model.
pub fn of(manifest: &Manifest) -> Result<(&Query, &Noise)> {
    match (&manifest.agreement.query, &manifest.terms.privacy) {
        (Some(query), Privacy::Patient(noise)) => Ok((query, noise)),
        _ => Err(SiteRefusal::new("query", "a study with a [query]", "one that trains a model")
            .next("give the manifest of a query: sealfold query plan")
            .into()),
    }
}
