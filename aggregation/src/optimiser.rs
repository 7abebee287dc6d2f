//! Server optimisers: from the base model and the aggregate to the next model.
//!
//! A release is public to all sites of a study, so an optimiser needs no
//! secret: every site runs it after the release, from the chain of releases,
//! and arrives at the same bytes. Each operation is a binary64 addition,
//! product, quotient or square root, which IEEE 754 rounds alike on every
//! processor, in the order that is written here; none is fused, and there are
//! no powers, logarithms or sums over tensors.
//!
//! With the aggregate d, the base x and the learning rate r:
//!
//! | optimiser | state | next model |
//! | --- | --- | --- |
//! | `FedAvg` (`McMahan` et al., 2017) | none | x + r d |
//! | `FedAvgM` (Hsu, Qi and Brown, 2019) | m ← momentum m + d | x + r m |
//! | `FedAdagrad` (Reddi et al., 2021) | m, and v ← v + d² | x + (r m) / (√v + tau) |
//! | `FedYogi` (the same) | m, and v ← v - ((1 - beta2) d²) sign(v - d²) | as above |
//! | `FedAdam` (the same) | m, and v ← beta2 v + (1 - beta2) d² | as above |
//!
//! where m ← beta1 m + (1 - beta1) d in the last three. As in Algorithm 2 of
//! Reddi et al. there is no bias correction, m begins at 0 and v at tau².
//! `FedAdagrad` with beta1 = 0 has no momentum.
//!
//! The state is binary32, like the model: m and v are rounded when they were
//! computed, and the step uses the rounded numbers. For each value of the model
//! the state has m and then v, little-endian, so that a model that is larger
//! than memory is stepped piece by piece, its state beside it; a digest of
//! these bytes is the state's identity. A site that lost them replays the
//! releases.
//!
//! `FedProx` (Li et al., 2020) is no server optimiser: each site adds
//! mu / 2 |w - x|² to its local loss, that is mu (w - x) to its gradients, and
//! sends w - x as ever. A tensor that is not learned, of floating-point numbers
//! or integers, is a [buffer](TensorStep::buffer). SCAFFOLD (Karimireddy et al., 2020) sends two tensors
//! for one, the second being the change of the site's control variate; see
//! [`TensorStep::control`].

mod dtype;
mod step;
#[cfg(test)]
mod vectors;

use crate::{Error, Result};

pub use dtype::Dtype;
pub use step::TensorStep;

/// A server optimiser and its parameters, as the manifest fixes them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Optimiser {
    /// The aggregate is added.
    FedAvg {
        /// What the aggregate is multiplied by.
        learning_rate: f64,
    },
    /// Momentum.
    FedAvgM {
        /// What the momentum is multiplied by.
        learning_rate: f64,
        /// The share of the last momentum that is kept.
        momentum: f64,
    },
    /// Each value has its own rate, which only falls.
    FedAdagrad(Adaptive),
    /// Each value has its own rate, which moves by as much as the aggregate is
    /// long.
    FedYogi(Adaptive),
    /// Each value has its own rate, by a moving average.
    FedAdam(Adaptive),
}

/// The parameters of an optimiser with a rate for each value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Adaptive {
    /// What the momentum is multiplied by.
    pub learning_rate: f64,
    /// The share of the last momentum that is kept.
    pub beta1: f64,
    /// The share of the last second moment that is kept; `FedAdagrad`, which
    /// keeps all of it, does not use it.
    pub beta2: f64,
    /// The degree of adaptivity: added to the divisor, which it keeps from 0.
    pub tau: f64,
}

impl Optimiser {
    /// Whether the parameters are usable.
    ///
    /// # Errors
    /// [`Error::Parameter`] for a learning rate or tau that is not a positive
    /// number; [`Error::Fraction`] for a momentum or a beta outside 0..1.
    pub fn check(&self) -> Result<()> {
        let learning_rate = match self {
            Self::FedAvg { learning_rate } => *learning_rate,
            Self::FedAvgM { learning_rate, momentum } => {
                fraction("momentum", *momentum)?;
                *learning_rate
            }
            Self::FedAdagrad(adaptive) | Self::FedYogi(adaptive) | Self::FedAdam(adaptive) => {
                fraction("beta1", adaptive.beta1)?;
                fraction("beta2", adaptive.beta2)?;
                positive("tau", adaptive.tau)?;
                // The state begins at its square.
                positive("square of tau in float32", f64::from(adaptive.second_moment()))?;
                adaptive.learning_rate
            }
        };
        positive("learning rate", learning_rate)
    }

    /// What the state of a value begins with.
    fn beginning(&self) -> Vec<f32> {
        match self {
            Self::FedAvg { .. } => vec![],
            Self::FedAvgM { .. } => vec![0.0],
            Self::FedAdagrad(adaptive) | Self::FedYogi(adaptive) | Self::FedAdam(adaptive) => {
                vec![0.0, adaptive.second_moment()]
            }
        }
    }

    /// What is added to a value for the aggregate `delta`, and the value's next
    /// state; none if the state is not finite any more.
    fn movement(&self, delta: f64, state: &mut [[u8; 4]]) -> Option<f64> {
        match (self, state) {
            (Self::FedAvg { learning_rate }, []) => Some(learning_rate * delta),
            (Self::FedAvgM { learning_rate, momentum }, [m]) => {
                Some(learning_rate * keep(m, momentum * load(*m) + delta)?)
            }
            (Self::FedAdagrad(adaptive), [m, v]) => {
                adaptive.movement(delta, m, v, |v, square| v + square)
            }
            (Self::FedYogi(adaptive), [m, v]) => {
                let rest = 1.0 - adaptive.beta2;
                adaptive.movement(delta, m, v, |v, square| {
                    if v > square {
                        v - rest * square
                    } else if v < square {
                        v + rest * square
                    } else {
                        v
                    }
                })
            }
            (Self::FedAdam(adaptive), [m, v]) => {
                let rest = 1.0 - adaptive.beta2;
                adaptive.movement(delta, m, v, |v, square| adaptive.beta2 * v + rest * square)
            }
            // `TensorStep` cuts the state by `beginning`.
            _ => None,
        }
    }
}

impl Adaptive {
    /// The second moment before the first round.
    #[allow(clippy::cast_possible_truncation)] // rounding to binary32 is the purpose
    fn second_moment(&self) -> f32 {
        (self.tau * self.tau) as f32
    }

    fn movement(
        &self,
        delta: f64,
        m: &mut [u8; 4],
        v: &mut [u8; 4],
        next: impl Fn(f64, f64) -> f64,
    ) -> Option<f64> {
        // Exact: a binary32 squared.
        let square = delta * delta;
        let m = keep(m, self.beta1 * load(*m) + (1.0 - self.beta1) * delta)?;
        let v = keep(v, next(load(*v), square))?;
        Some((self.learning_rate * m) / (v.sqrt() + self.tau))
    }
}

fn load(slot: [u8; 4]) -> f64 {
    f32::from_le_bytes(slot).into()
}

/// Rounds a value into the state, and says what the state then holds.
#[allow(clippy::cast_possible_truncation)] // rounding to binary32 is the purpose
fn keep(slot: &mut [u8; 4], value: f64) -> Option<f64> {
    let rounded = value as f32;
    *slot = rounded.to_le_bytes();
    rounded.is_finite().then(|| rounded.into())
}

fn positive(what: &'static str, found: f64) -> Result<()> {
    let positive = found.is_finite() && found > 0.0;
    positive.then_some(()).ok_or(Error::Parameter { what, found })
}

fn fraction(what: &'static str, found: f64) -> Result<()> {
    (0.0..1.0).contains(&found).then_some(()).ok_or(Error::Fraction { what, found })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADAPTIVE: Adaptive = Adaptive { learning_rate: 0.5, beta1: 0.5, beta2: 0.75, tau: 1.0 };

    #[test]
    fn movements_by_hand() {
        // Numbers that binary64 holds: m = 1.5, and v such that its root is whole.
        let step = |optimiser: Optimiser, v: f32| {
            let mut state = [1f32.to_le_bytes(), v.to_le_bytes()];
            let movement = optimiser.movement(2.0, &mut state).unwrap();
            (movement, state.map(f32::from_le_bytes))
        };
        assert_eq!(step(Optimiser::FedAdagrad(ADAPTIVE), 5.0), (0.75 / 4.0, [1.5, 9.0]));
        assert_eq!(step(Optimiser::FedYogi(ADAPTIVE), 3.0), (0.75 / 3.0, [1.5, 4.0]));
        assert_eq!(step(Optimiser::FedYogi(ADAPTIVE), 5.0), (0.75 / 3.0, [1.5, 4.0]));
        assert_eq!(step(Optimiser::FedYogi(ADAPTIVE), 4.0), (0.75 / 3.0, [1.5, 4.0]));
        assert_eq!(step(Optimiser::FedAdam(ADAPTIVE), 20.0), (0.75 / 5.0, [1.5, 16.0]));
        let mut state = [4f32.to_le_bytes()];
        let momentum = Optimiser::FedAvgM { learning_rate: 0.5, momentum: 0.25 };
        assert_eq!(momentum.movement(2.0, &mut state), Some(1.5));
        assert_eq!(state, [3f32.to_le_bytes()]);
        let plain = Optimiser::FedAvg { learning_rate: 0.5 };
        assert_eq!(plain.movement(2.0, &mut []), Some(1.0));
    }

    #[test]
    fn parameters_that_cannot_be_are_named() {
        let refused = |optimiser: Optimiser, name: &str| {
            let text = optimiser.check().unwrap_err().to_string();
            assert!(text.starts_with(&format!("{name} is ")), "{text}");
        };
        for bad in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            refused(Optimiser::FedAvg { learning_rate: bad }, "learning rate");
            refused(Optimiser::FedAvgM { learning_rate: bad, momentum: 0.5 }, "learning rate");
            refused(
                Optimiser::FedAdam(Adaptive { learning_rate: bad, ..ADAPTIVE }),
                "learning rate",
            );
            refused(Optimiser::FedYogi(Adaptive { tau: bad, ..ADAPTIVE }), "tau");
        }
        for bad in [-0.1, 1.0, f64::NAN] {
            refused(Optimiser::FedAvgM { learning_rate: 1.0, momentum: bad }, "momentum");
            refused(Optimiser::FedAdagrad(Adaptive { beta1: bad, ..ADAPTIVE }), "beta1");
            refused(Optimiser::FedAdam(Adaptive { beta2: bad, ..ADAPTIVE }), "beta2");
        }
        for bad in [1e-30, 1e30] {
            let adaptive = Adaptive { tau: bad, ..ADAPTIVE };
            refused(Optimiser::FedAdagrad(adaptive), "square of tau in float32");
        }
        Optimiser::FedAdagrad(Adaptive { beta1: 0.0, ..ADAPTIVE }).check().unwrap();
    }
}
