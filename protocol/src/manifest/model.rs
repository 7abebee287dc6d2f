//! The model: its tensors, their layout in an update, and where it starts.

use super::{MAX_NAME, expect, is_positive, refused};
use crate::{Digest, Result};
use sealfold_aggregation::optimiser::{self, Adaptive, TensorStep};
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
    /// The server's learning rate: next = base + rate x aggregate, or what the
    /// optimiser makes of it.
    pub learning_rate: f64,
    /// The server's optimiser; plain federated averaging if it is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub optimiser: Option<Optimiser>,
    /// The tensors, in the order in which they lie in an update.
    #[serde(rename = "tensor")]
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
    /// For updates that travel as int8: what a step of one is worth.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scale: Option<f32>,
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

/// What the sites, all alike, make of an aggregate
/// (`sealfold_aggregation::optimiser` has the formulas and their papers).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Optimiser {
    /// Federated averaging with server momentum.
    #[serde(rename = "fed-avg-m")]
    FedAvgM {
        /// The share of the last step that is carried on.
        momentum: f64,
    },
    /// Adam over aggregates.
    FedAdam {
        /// The decay of the first moment.
        beta1: f64,
        /// The decay of the second moment.
        beta2: f64,
        /// What is added to the root of the second moment.
        tau: f64,
    },
    /// Yogi over aggregates.
    FedYogi {
        /// The decay of the first moment.
        beta1: f64,
        /// The decay of the second moment.
        beta2: f64,
        /// What is added to the root of the second moment.
        tau: f64,
    },
    /// Adagrad over aggregates.
    FedAdagrad {
        /// The decay of the first moment.
        beta1: f64,
        /// What is added to the root of the second moment.
        tau: f64,
    },
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

impl Optimiser {
    fn check(&self) -> Result<()> {
        let (decays, tau): (&[(&str, f64)], _) = match self {
            Self::FedAvgM { momentum } => (&[("momentum", *momentum)], None),
            Self::FedAdam { beta1, beta2, tau } | Self::FedYogi { beta1, beta2, tau } => {
                (&[("beta1", *beta1), ("beta2", *beta2)], Some(*tau))
            }
            Self::FedAdagrad { beta1, tau } => (&[("beta1", *beta1)], Some(*tau)),
        };
        for (name, value) in decays {
            let field = format!("model.optimiser.{name}");
            expect(&field, (0.0..1.0).contains(value), "from 0, below 1", value)?;
        }
        let tau = tau.unwrap_or(1.0);
        expect("model.optimiser.tau", is_positive(tau), "a positive number", tau)
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

    /// The optimiser with its learning rate, as the numbers know it.
    #[must_use]
    pub fn server_optimiser(&self) -> optimiser::Optimiser {
        let learning_rate = self.learning_rate;
        let adaptive = |beta1, beta2, tau| Adaptive { learning_rate, beta1, beta2, tau };
        match self.optimiser {
            None => optimiser::Optimiser::FedAvg { learning_rate },
            Some(Optimiser::FedAvgM { momentum }) => {
                optimiser::Optimiser::FedAvgM { learning_rate, momentum }
            }
            Some(Optimiser::FedAdam { beta1, beta2, tau }) => {
                optimiser::Optimiser::FedAdam(adaptive(beta1, beta2, tau))
            }
            Some(Optimiser::FedYogi { beta1, beta2, tau }) => {
                optimiser::Optimiser::FedYogi(adaptive(beta1, beta2, tau))
            }
            Some(Optimiser::FedAdagrad { beta1, tau }) => {
                optimiser::Optimiser::FedAdagrad(adaptive(beta1, 0.0, tau))
            }
        }
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
            if tensor.role == TensorRole::Control {
                let step = TensorStep::control(tensor.dtype.into(), 1, 1).map(drop);
                step.map_err(|e| refused("model.tensor.dtype", "one for the role control", &e))?;
            }
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
        if let Some(optimiser) = &self.optimiser {
            optimiser.check()?;
        }
        let rate = self.learning_rate;
        expect("model.learning_rate", is_positive(rate), "a positive number", rate)?;
        // Every site would find out after the first release, which no amendment mends.
        let step = self.server_optimiser().check();
        step.map_err(|error| refused("model.optimiser", "one that can step in float32", &error))
    }
}
