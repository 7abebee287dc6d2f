//! What the sites, all alike, make of an aggregate: the step from a base model
//! to the next.

use sealfold_aggregation::optimiser::{self, Adaptive};
use sealfold_protocol::Result;
use sealfold_protocol::terms::{expect, is_positive, refused};
use serde::{Deserialize, Serialize};

/// The step from a base model to the next.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServerStep {
    /// The server's learning rate: next = base + rate x aggregate, or what the
    /// optimiser makes of it.
    pub learning_rate: f64,
    /// The server's optimiser; plain federated averaging if it is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub optimiser: Option<Optimiser>,
}

/// The optimiser of a step (`sealfold_aggregation::optimiser` has the formulas and their papers).
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

impl ServerStep {
    /// The optimiser with its learning rate, as the numbers know it.
    #[must_use]
    pub fn optimiser(&self) -> optimiser::Optimiser {
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

    pub(crate) fn check(&self) -> Result<()> {
        if let Some(optimiser) = &self.optimiser {
            optimiser.check()?;
        }
        let rate = self.learning_rate;
        expect("model.learning_rate", is_positive(rate), "a positive number", rate)?;
        // Every site would find out after the first release, which no amendment repairs.
        let step = self.optimiser().check();
        step.map_err(|error| refused("model.optimiser", "one that can step in float32", &error))
    }
}
