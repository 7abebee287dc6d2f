//! What lies where in an update and in an aggregate.
//!
//! Both are a preamble and then values, one *place* after the other: the
//! model's tensors in the manifest's order, and behind them the counts of the
//! evaluation. The preamble takes the first 4,096 places of either, so that
//! place i of an update is place i of the aggregate, however many bytes wide
//! the update's values are.

use super::{Aggregation, Dtype, Manifest, Rule, Tensor, TensorRole, UpdateType, expect};
use crate::seal::CHUNK;
use crate::{Digest, Result};
use serde::{Deserialize, Serialize};
use std::ops::Range;

/// The places that a preamble takes.
pub const PREAMBLE_PLACES: u64 = (CHUNK / 4) as u64;
/// The name of the evaluation's counts in an update's file.
pub const EVALUATION: &str = "evaluation";
/// The most bins of an evaluation.
const MAX_BINS: u32 = 1_000;

/// What is measured of the base model at each site: how many held-out patients
/// with and without the outcome have a score in each of `bins` bins of equal
/// width from 0 to 1. The counts are folded, and noised, with the update.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Evaluation {
    /// The number of bins.
    pub bins: u32,
    /// Whether each site has counts of its own in the aggregate, for the spread
    /// over sites. Only under privacy noise.
    #[serde(default, skip_serializing_if = "is_false")]
    pub per_site: bool,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // as serde calls it
fn is_false(value: &bool) -> bool {
    !value
}

/// Whether every signed byte times a scale is a number in float32, as the enclave
/// demands of an update that it decodes.
fn is_scale(scale: f32) -> bool {
    scale.is_normal() && scale > 0.0 && (scale * 128.0).is_finite()
}

impl Evaluation {
    /// The number of counts for a study of so many sites: by site if they are
    /// kept apart, then by bin, then without and with the outcome.
    #[must_use]
    pub fn counts(&self, sites: usize) -> u64 {
        2 * u64::from(self.bins) * if self.per_site { sites as u64 } else { 1 }
    }
}

impl Manifest {
    /// The number of values of an update and of an aggregate, the preamble's
    /// places not counted.
    #[must_use]
    pub fn values(&self) -> u64 {
        let counts = self.evaluation.map_or(0, |evaluation| evaluation.counts(self.sites.len()));
        self.model.parameters().saturating_add(counts)
    }

    /// The tensors of an update's file, in the order of its values: the model's,
    /// and `evaluation`, `[bins, 2]`. They are float32, whatever the model's are
    /// and however they travel.
    #[must_use]
    pub fn update_tensors(&self) -> Vec<Tensor> {
        let mut tensors = self.model.tensors.clone();
        tensors.iter_mut().for_each(|tensor| tensor.dtype = Dtype::Float32);
        if let Some(evaluation) = &self.evaluation {
            let shape = vec![u64::from(evaluation.bins), 2];
            let name = EVALUATION.to_owned();
            let (dtype, role) = (Dtype::Float32, TensorRole::default());
            tensors.push(Tensor { name, shape, dtype, scale: None, role });
        }
        tensors
    }

    /// Where among an update's values a site's counts of the evaluation begin.
    #[must_use]
    pub fn evaluation_place(&self, site: &str) -> u64 {
        let of_site = self.sites.iter().take_while(|listed| listed.name != site).count() as u64;
        let before = match self.evaluation {
            Some(Evaluation { bins, per_site: true }) => 2 * u64::from(bins) * of_site,
            _ => 0,
        };
        self.model.parameters().saturating_add(before)
    }

    /// The places among an update's values that are other sites' parts of the
    /// evaluation: those before its own, and those behind. Both are empty where
    /// all sites count in the same places.
    #[must_use]
    pub fn evaluation_of_others(&self, site: &str) -> [Range<u64>; 2] {
        let Some(Evaluation { bins, per_site: true }) = self.evaluation else {
            return [0..0, 0..0];
        };
        let own = self.evaluation_place(site);
        let behind = own.saturating_add(2 * u64::from(bins)).min(self.values());
        [self.model.parameters()..own, behind..self.values()]
    }

    /// The length of an update's preamble in bytes.
    #[must_use]
    pub fn preamble_length(&self) -> usize {
        CHUNK / 4 * self.aggregation.update_type.format().width()
    }

    /// The length of an update's plaintext in bytes.
    #[must_use]
    pub fn update_length(&self) -> u64 {
        let width = self.aggregation.update_type.format().width() as u64;
        self.values().saturating_add(PREAMBLE_PLACES).saturating_mul(width)
    }

    /// The length of an aggregate's plaintext in bytes.
    #[must_use]
    pub fn aggregate_length(&self) -> u64 {
        self.values().saturating_add(PREAMBLE_PLACES).saturating_mul(4)
    }

    /// For each tensor whose update travels as int8: its first value, and the
    /// scale of its values.
    #[must_use]
    pub fn scales(&self) -> Vec<(u64, f32)> {
        let mut first = 0;
        let mut scales = Vec::new();
        for tensor in &self.model.tensors {
            scales.extend(tensor.scale.map(|scale| (first, scale)));
            first += tensor.elements().unwrap_or(0);
        }
        scales
    }

    /// A digest of the layout: the tensors' names, shapes and types in their
    /// order, then, where they are not the plain ones, evaluation and update
    /// type, each as CBOR.
    ///
    /// # Errors
    /// Only if the layout has no encoding, which a checked one has.
    pub fn layout_digest(&self) -> Result<Digest> {
        let mut layout = crate::encoding::to_vec(&self.model.tensors)?;
        let update_type = self.aggregation.update_type;
        if self.evaluation.is_some() || update_type != UpdateType::default() {
            crate::encoding::write(&self.evaluation, &mut layout)?;
            crate::encoding::write(&update_type, &mut layout)?;
        }
        Ok(Digest::of(&[b"sealfold/v1/layout\0", &layout]))
    }

    pub(super) fn check_layout(&self) -> Result<()> {
        let Aggregation { rule, update_type, .. } = self.aggregation;
        for tensor in &self.model.tensors {
            let scale = tensor.scale.map_or("none".to_owned(), |scale| scale.to_string());
            let is_int8 = update_type == UpdateType::Int8;
            expect(
                &format!("model.tensor {:?} scale", tensor.name),
                tensor.scale.is_some() == is_int8 && tensor.scale.is_none_or(is_scale),
                if is_int8 {
                    "a positive number for int8, of which 128 times is one in float32"
                } else {
                    "none but for int8"
                },
                scale,
            )?;
        }
        let Some(evaluation) = &self.evaluation else { return Ok(()) };
        expect(
            "model.tensor.name",
            self.model.tensors.iter().all(|tensor| tensor.name != EVALUATION),
            "no tensor of the evaluation's name",
            EVALUATION,
        )?;
        expect(
            "evaluation.bins",
            (1..=MAX_BINS).contains(&evaluation.bins),
            format!("1 to {MAX_BINS}"),
            evaluation.bins,
        )?;
        // A median of counts is no count of anything, and a site's counts are
        // far longer than the update that they would be clipped with.
        expect(
            "evaluation",
            matches!(
                (rule, update_type),
                (Rule::WeightedMean, UpdateType::Float32) | (Rule::Sum, UpdateType::Grid)
            ),
            "rule weighted-mean with update_type float32, or the privacy unit patient",
            format!("rule {} with update_type {}", rule.name(), update_type.name()),
        )?;
        expect(
            "evaluation.per_site",
            !evaluation.per_site || self.privacy.noise().is_some(),
            "false without privacy noise: it would publish each site's own counts",
            evaluation.per_site,
        )
    }

    /// Whether a tensor of the model is a SCAFFOLD control variate.
    #[must_use]
    pub fn has_controls(&self) -> bool {
        self.model.tensors.iter().any(|tensor| tensor.role == TensorRole::Control)
    }
}
