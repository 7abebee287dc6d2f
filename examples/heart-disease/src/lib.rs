//! The example study: four hospitals, heart disease, a logistic regression.
//!
//! [`cohort`] reads a hospital's table and turns patients into numbers,
//! [`split`] decides who is held out, [`logistic`] is the model, [`measures`]
//! say how good it is, [`train`] is the trainer that a site's agent calls,
//! [`experiment`] compares the federated model with models that are trained
//! alone or on pooled data, [`demo`] runs all of it through the real system,
//! [`report`] shows what came out, [`robustness`] lets hostile hospitals attack the
//! aggregation rules, and [`refusal`] tells what was refused from what failed.

// Counts of patients become numbers to calculate with.
#![allow(clippy::cast_precision_loss)]
#![cfg_attr(test, allow(clippy::float_cmp))]

pub mod cohort;
pub mod demo;
pub mod drift;
pub mod experiment;
pub mod logistic;
pub mod measures;
pub mod private;
pub mod refusal;
pub mod report;
pub mod robustness;
pub mod split;
pub mod train;

/// The splits that are trained side by side: so many replicas of the model.
pub const REPLICAS: usize = 20;
/// The hospitals, by the names of their files and of their sites.
pub const HOSPITALS: [&str; 4] = ["cleveland", "hungarian", "switzerland", "va-long-beach"];
