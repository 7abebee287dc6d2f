//! The model: its tensors, their layout in an update, and where it starts.

use super::{MAX_NAME, expect};
use crate::{Digest, Result};
use sealfold_aggregation::optimiser;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// The most tensors of a model.
const MAX_TENSORS: usize = 10_000;
/// The most dimensions of a tensor.
const MAX_RANK: usize = 8;
/// The most parameters of a model: 2^40.
const MAX_PARAMETERS: u64 = 1 << 40;

/// The model that the study trains.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Model {
    /// The [content digest](crate::content) of the initial model.
    pub initial: Digest,
    /// The tensors, in the order in which they lie in an update.
    pub tensors: Vec<Tensor>,
}

/// One tensor of the model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tensor {
    /// Its name in the file.
    pub name: String,
    /// Its dimensions; row-major. Empty for a scalar.
    pub shape: Vec<u64>,
    /// The type of its elements.
    pub dtype: Dtype,
    /// For values that travel as whole numbers, without noise: what one is
    /// worth, in the model's units.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<f64>,
    /// What the tensor is for.
    #[serde(default, skip_serializing_if = "TensorRole::is_default")]
    pub role: TensorRole,
}

/// What a tensor is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TensorRole {
    /// A parameter, which the optimiser moves.
    #[default]
    Parameter,
    /// A buffer, such as the mean, the variance or the counter of a batch
    /// normalisation: the aggregate is added to it, and no optimiser moves it.
    Buffer,
    /// A control variate of SCAFFOLD: what the sites' gradients are corrected
    /// by. Its update is the change of the site's own, and the optimiser adds
    /// the mean of all sites' changes to it.
    Control,
}

impl TensorRole {
    #[allow(clippy::trivially_copy_pass_by_ref)] // as serde calls it
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// The type of a tensor's elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Dtype {
    /// IEEE 754 binary32, little-endian.
    Float32,
    /// IEEE 754 binary16, little-endian.
    Float16,
    /// The upper half of a binary32, little-endian.
    Bfloat16,
    /// Signed 64-bit integers, little-endian: counters of a model's buffers.
    Int64,
    /// Signed 32-bit integers, little-endian.
    Int32,
}

impl Dtype {
    /// Its name in a manifest.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Float32 => "float32",
            Self::Float16 => "float16",
            Self::Bfloat16 => "bfloat16",
            Self::Int64 => "int64",
            Self::Int32 => "int32",
        }
    }

    /// The bytes of one element.
    #[must_use]
    pub fn width(self) -> u64 {
        match self {
            Self::Float16 | Self::Bfloat16 => 2,
            Self::Float32 | Self::Int32 => 4,
            Self::Int64 => 8,
        }
    }
}

impl From<Dtype> for optimiser::Dtype {
    fn from(dtype: Dtype) -> Self {
        match dtype {
            Dtype::Float32 => Self::Float32,
            Dtype::Float16 => Self::Float16,
            Dtype::Bfloat16 => Self::Bfloat16,
            Dtype::Int32 => Self::Int32,
            Dtype::Int64 => Self::Int64,
        }
    }
}

impl Tensor {
    /// The number of elements, if it fits.
    #[must_use]
    pub fn elements(&self) -> Option<u64> {
        self.shape.iter().try_fold(1u64, |product, side| product.checked_mul(*side))
    }
}

impl Model {
    /// The number of parameters of a checked model.
    #[must_use]
    pub fn parameters(&self) -> u64 {
        self.tensors.iter().filter_map(Tensor::elements).fold(0, u64::saturating_add)
    }

    /// The number of bytes of a model's content.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let bytes =
            |tensor: &Tensor| tensor.elements().unwrap_or(0).saturating_mul(tensor.dtype.width());
        self.tensors.iter().map(bytes).fold(0, u64::saturating_add)
    }

    pub(super) fn check(&self) -> Result<()> {
        let n = self.tensors.len();
        expect("model.tensor", (1..=MAX_TENSORS).contains(&n), "1 to 10000 tensors", n)?;
        let names: BTreeSet<_> = self.tensors.iter().map(|t| &t.name).collect();
        expect("model.tensor.name", names.len() == n, "each name once", "a name twice")?;
        let mut total = 0u64;
        for tensor in &self.tensors {
            let length = tensor.name.len();
            expect(
                "model.tensor.name",
                (1..=MAX_NAME).contains(&length),
                "1 to 128 bytes",
                length,
            )?;
            let elements = tensor.elements().filter(|_| tensor.shape.len() <= MAX_RANK);
            total = elements
                .filter(|elements| *elements > 0)
                .and_then(|elements| total.checked_add(elements))
                .filter(|total| *total <= MAX_PARAMETERS)
                .map_or_else(
                    || {
                        expect(
                            "model.tensor.shape",
                            false,
                            "1 to 2^40 parameters in all, at most 8 dimensions",
                            format!("{:?} of {:?}", tensor.shape, tensor.name),
                        )
                        .map(|()| 0)
                    },
                    Ok,
                )?;
        }
        Ok(())
    }

    /// Whether a tensor is a SCAFFOLD control variate.
    #[must_use]
    pub fn has_controls(&self) -> bool {
        self.tensors.iter().any(|tensor| tensor.role == TensorRole::Control)
    }
}
