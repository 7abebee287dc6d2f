//! The private study: the four hospitals train with noise that hides each
//! patient, and the demo says what that costs.
//!
//! [`plan`] has the numbers and the noise that they need, [`manifest`] says them
//! to everybody, [`gradients`] is what the trainer hands to the site's client,
//! [`federation`] repeats the study in memory, [`cost`] compares it with less
//! and with more noise, and [`report`] shows what came out.

pub mod cost;
pub mod federation;
pub mod gradients;
pub mod manifest;
pub mod plan;
pub mod report;
