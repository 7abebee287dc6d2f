//! The agreement: what sites and auditors hold each other to, beside what the
//! enclave enforces.

use crate::claim::Claim;
use crate::data::DataSpecification;
use crate::log::LogTerms;
use crate::measured::{Evaluation, Metric};
use crate::measurements::Measurements;
use crate::optimiser::ServerStep;
use crate::query::Query;
use jiff::Timestamp;
use sealfold_protocol::Result;
use sealfold_protocol::terms::{expect, expect_readable};
use serde::{Deserialize, Serialize};

/// The part of a manifest that an enclave does not read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Agreement {
    /// What the study is for, and when it may run.
    pub study: Purpose,
    /// What every site's data is checked against before it may submit.
    pub data: DataSpecification,
    /// What the sites make of an aggregate.
    pub server: ServerStep,
    /// What the noise is to buy; none without noise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claim: Option<Claim>,
    /// What the channel of the evaluation counts, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evaluation: Option<Evaluation>,
    /// The metrics that the other channels sum, in their order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub metrics: Vec<Metric>,
    /// The statistics that are asked for, in a study that trains no model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub query: Option<Query>,
    /// The log in which the study's history stands.
    pub log: LogTerms,
    /// The enclave images that may run the study.
    pub measurements: Measurements,
}

/// What a study is for, and when it may run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Purpose {
    /// The study's name, for people; not its identity.
    pub name: String,
    /// Why the study is done.
    pub purpose: String,
    /// What the model may be used for.
    pub intended_use: String,
    /// No site takes part before this time.
    pub valid_from: Timestamp,
    /// No site takes part after this time.
    pub valid_until: Timestamp,
}

impl Agreement {
    /// Checks every rule that the agreement keeps by itself.
    ///
    /// # Errors
    /// [`sealfold_protocol::Error::Manifest`] naming the field.
    pub(crate) fn check(&self) -> Result<()> {
        self.check_texts()?;
        let (from, until) = (self.study.valid_from, self.study.valid_until);
        expect("study.valid_until", from < until, format!("a time after {from}"), until)?;
        self.data.check()?;
        self.server.check()?;
        self.log.check()?;
        self.measurements.check()
    }

    /// Whether people can read everything that is written in words.
    fn check_texts(&self) -> Result<()> {
        let (study, data) = (&self.study, &self.data);
        let texts = [
            ("study.name", &study.name),
            ("study.purpose", &study.purpose),
            ("study.intended_use", &study.intended_use),
            ("data.cohort", &data.cohort),
            ("data.outcome.column", &data.outcome.column),
            ("log.origin", &self.log.origin),
        ];
        let features = data.features.iter().flat_map(|feature| {
            [("data.feature.name", &feature.name), ("data.feature.unit", &feature.unit)]
        });
        for (field, text) in texts.into_iter().chain(features) {
            expect_readable(field, text)?;
        }
        for (field, text) in &texts[..3] {
            expect(field, !text.trim().is_empty(), "a text", "an empty one")?;
        }
        Ok(())
    }
}
