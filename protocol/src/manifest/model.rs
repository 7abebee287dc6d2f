//! The model: its tensors, their layout in an update, and where it starts.

use super::{MAX_NAME, expect};
use crate::{Digest, Result};
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
    /// The server's learning rate: next = base + rate x aggregate.
    pub learning_rate: f64,
    /// The tensors, in the order in which they lie in an update.
    #[serde(rename = "tensor")]
    pub tensors: Vec<Tensor>,
}

/// One tensor of the model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tensor {
    /// Its name in the file.
    pub name: String,
    /// Its dimensions; row-major. Empty for a scalar.
    pub shape: Vec<u64>,
    /// The type of its elements.
    pub dtype: Dtype,
}

/// The type of a tensor's elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Dtype {
    /// IEEE 754 binary32, little-endian.
    Float32,
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

    /// The number of bytes of a model, an update's tensors or an aggregate.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.parameters().saturating_mul(4)
    }

    /// A digest of the layout: names, shapes and types in their order.
    ///
    /// # Errors
    /// Only if the layout has no encoding, which a checked one has.
    pub fn layout_digest(&self) -> Result<Digest> {
        let layout = crate::encoding::to_vec(&self.tensors)?;
        Ok(Digest::of(&[b"sealfold/v1/layout\0", &layout]))
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
        let rate = self.learning_rate;
        expect("model.learning_rate", rate.is_finite() && rate > 0.0, "a positive number", rate)
    }
}
