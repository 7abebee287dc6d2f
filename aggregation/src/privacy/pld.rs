//! Epsilon from the whole distribution of the privacy loss.
//!
//! The loss of one round is ln(P(z) / Q(z)) for an output z drawn from P, P and
//! Q being the outputs with and without the unit. The loss of n rounds is a sum
//! of n such variables, and delta at epsilon is the mean of (1 - e^(epsilon -
//! loss))+ (Sommer, Meiser and Mohammadi 2019). Rényi DP keeps only moments of
//! that distribution; keeping all of it gives a smaller epsilon, often by a
//! tenth. Which steps are taken, and why none makes the result too small:
//!
//! - *Grid.* A stretch of outputs whose loss lies between two grid points is
//!   replaced by two atoms at these points, with the same mass under P and the
//!   same under Q (Doroshenko, Ghazi, Kamath, Kumar and Manurangsi 2022,
//!   "Connect the Dots"). Merging back gives the original, so the replacement
//!   costs at least as much. Outputs above the grid count as an infinite loss.
//! - *Tilt.* Masses are multiplied by e^(t loss), which moves the bulk of the sum
//!   to the tail that is asked for (Esscher 1932), so that the digits of the
//!   Fourier transform go there; the result is multiplied back.
//! - *Ring.* The transform sums around a ring (Koskela, Jälkö and Honkela 2020).
//!   What wraps around only adds mass. What lies above the ring is bounded by
//!   Chernoff's inequality and counts as an infinite loss.
//! - *Rounding.* A millionth of delta is set aside for it.
//!
//! Both directions are computed, the unit added and the unit removed, and the
//! larger epsilon is the result. **The noise is the continuous Gaussian.** For
//! the enclave's discrete noise this is a figure and no proof: see
//! [`orders`](super::orders).

use super::fft::Sequence;
use super::golden;
use super::log_space::log_add;
use super::{SampledGaussian, Spent, checked_delta, checked_rounds};
use crate::Result;
use libm::{ceil, erfc, exp, expm1, floor, log, log1p, sqrt};

/// The grid may add this part of epsilon, to first order.
const GRID_SHARE: f64 = 1e-4;

/// The parts of delta for what lies above the grid in any round, for what lies
/// above the ring, and for rounding.
const SET_ASIDE: f64 = 1e-6;

/// The longest ring, and the finest grid for one round, in points. Beyond, the
/// grid grows coarser and the result larger.
const LONGEST: f64 = 262_144.0;

/// A larger epsilon stays as Rényi DP gives it: e^epsilon has too few digits.
const LARGEST: f64 = 1e5;

/// Refinements of the grid, at most.
const PASSES: u32 = 5;

/// Which data set has the unit.
#[derive(Debug, Clone, Copy)]
enum Direction {
    /// P has it, Q has not.
    Removed,
    /// Q has it, P has not.
    Added,
}

/// Epsilon at `delta` of `rounds` rounds, to within about a thousandth from
/// above, and never more than by Rényi DP. Infinite where that gives no bound,
/// and equal to it beyond 100,000 and for so many rounds that rounding shows.
///
/// # Errors
/// [`Error::Empty`](crate::Error::Empty) for no rounds,
/// [`Error::Delta`](crate::Error::Delta) for a delta outside (0, 1).
pub fn epsilon(gaussian: &SampledGaussian, rounds: u64, delta: f64) -> Result<f64> {
    checked_rounds(rounds)?;
    checked_delta(delta)?;
    // Rényi DP says roughly where to look.
    let rough = Spent::default().add(&(*gaussian).into(), rounds).epsilon_and_order(delta)?;
    if rough.0 == 0.0 || rough.0 > LARGEST {
        return Ok(rough.0);
    }
    let of = |direction| Question { gaussian, direction, rounds: rounds as f64, delta, rough };
    Ok(of(Direction::Removed).epsilon(rounds).max(of(Direction::Added).epsilon(rounds)))
}

/// The loss of one round on the grid: point `lowest + i` times `step` has mass
/// e^`log_masses[i]`; the loss is infinite with probability `infinite`.
struct Losses {
    step: f64,
    lowest: f64,
    log_masses: Vec<f64>,
    infinite: f64,
}

impl Losses {
    /// Pairs of a loss and the logarithm of its mass.
    fn atoms(&self) -> impl Iterator<Item = (f64, f64)> {
        let loss = |i| (self.lowest + i as f64) * self.step;
        self.log_masses.iter().enumerate().map(move |(i, log_mass)| (loss(i), *log_mass))
    }

    /// ln of the mean of e^(`tilt` loss), over the finite losses.
    fn log_mean(&self, tilt: f64) -> f64 {
        let exponent = |(loss, log_mass): (f64, f64)| tilt * loss + log_mass;
        let highest = self.atoms().map(exponent).fold(f64::NEG_INFINITY, f64::max);
        highest + log(self.atoms().map(|atom| exp(exponent(atom) - highest)).sum())
    }

    /// Chernoff's bound: a loss that the sum of `rounds` exceeds with a
    /// probability of at most e^`log_tail`, and the tilt that gives it. Any
    /// tilt is valid; golden-section search finds nearly the best one within a
    /// factor of 100 of `near`.
    fn chernoff(&self, rounds: f64, log_tail: f64, near: f64) -> (f64, f64) {
        let at = |log_tilt: f64| (rounds * self.log_mean(exp(log_tilt)) - log_tail) / exp(log_tilt);
        let tilt = golden::least(log(near / 100.0)..log(near * 100.0), 20, at);
        (at(tilt), exp(tilt))
    }
}

/// The noise multiplier's normal distribution: its mass between two outputs,
/// from the tail that is nearer, so that small masses keep their digits.
fn normal_mass(sigma: f64, mean: f64, from: f64, to: f64) -> f64 {
    let width = sigma * std::f64::consts::SQRT_2;
    let (a, b) = ((from - mean) / width, (to - mean) / width);
    let (near, far) = if a + b > 0.0 { (a, b) } else { (-b, -a) };
    (0.5 * (erfc(near) - erfc(far))).max(0.0)
}

struct Question<'a> {
    gaussian: &'a SampledGaussian,
    direction: Direction,
    rounds: f64,
    delta: f64,
    /// Epsilon by Rényi DP, and the order that gave it.
    rough: (f64, f64),
}

impl Question<'_> {
    fn epsilon(&self, rounds: u64) -> f64 {
        let near = self.rough.1 - 1.0;
        let mut best = Answer { epsilon: self.rough.0, slope: near };
        let mut used = f64::INFINITY;
        // Every pass is valid; each knows better than the one before how fine
        // the grid has to be.
        for _ in 0..PASSES {
            // A grid of step h adds up to h^2 / 4 to the variance of a loss,
            // and half of that to its mean: epsilon moves by about this share.
            let step = sqrt(8.0 * GRID_SHARE * best.epsilon / (self.rounds * (1.0 + best.slope)));
            if used <= 2.0 * step {
                break;
            }
            let (mut losses, mut ring) = self.on_grid(step, near);
            if ring.points > LONGEST {
                let coarser = losses.step * ring.points / LONGEST;
                (losses, ring) = self.on_grid(coarser, near);
            }
            // So many rounds that a coarse grid's own cost outgrows it.
            if losses.step >= used || ring.points > 2.0 * LONGEST {
                break;
            }
            used = losses.step;
            let answer = self.search(&losses, &ring, rounds);
            if answer.epsilon < best.epsilon {
                best = answer;
            }
            if best.epsilon == 0.0 {
                break;
            }
        }
        best.epsilon
    }

    fn on_grid(&self, step: f64, near: f64) -> (Losses, Ring) {
        let losses = self.losses(step);
        let ring = self.ring(&losses, near);
        (losses, ring)
    }

    /// The loss at output `z`: ln((1 - q) + q e^((2z - 1) / (2 s^2))), which
    /// rises with z.
    fn loss_at(&self, z: f64) -> f64 {
        let (s, q) = (self.gaussian.noise_multiplier(), self.gaussian.sampling_rate());
        log_add(log1p(-q), log(q) + (2.0 * z - 1.0) / (2.0 * s * s))
    }

    /// The output at which that loss is `loss`, or minus infinity.
    fn output_at(&self, loss: f64) -> f64 {
        let (s, q) = (self.gaussian.noise_multiplier(), self.gaussian.sampling_rate());
        let log_weight = if loss < 1.0 {
            let weight = expm1(loss) + q;
            if weight <= 0.0 {
                return f64::NEG_INFINITY;
            }
            log(weight)
        } else {
            loss + log1p(-(1.0 - q) * exp(-loss))
        };
        s * s * (log_weight - log(q)) + 0.5
    }

    /// Masses of the outputs from `from` to `to` under P and under Q.
    fn masses(&self, from: f64, to: f64) -> (f64, f64) {
        let (s, q) = (self.gaussian.noise_multiplier(), self.gaussian.sampling_rate());
        let without = normal_mass(s, 0.0, from, to);
        let with = (1.0 - q) * without + q * normal_mass(s, 1.0, from, to);
        match self.direction {
            Direction::Removed => (with, without),
            Direction::Added => (without, with),
        }
    }

    /// One round on a grid of `step`, or a coarser one.
    fn losses(&self, step: f64) -> Losses {
        let s = self.gaussian.noise_multiplier();
        // Outputs further out have a mass below e^(-reach^2 / 2).
        let reach = sqrt(-2.0 * log(SET_ASIDE * self.delta / self.rounds));
        let ends = (self.loss_at(-reach * s), self.loss_at(1.0 + reach * s));
        let step = step.max((ends.1 - ends.0) / LONGEST);
        let (lowest, highest) = match self.direction {
            Direction::Removed => (floor(ends.0 / step), ceil(ends.1 / step)),
            Direction::Added => (floor(-ends.1 / step), ceil(-ends.0 / step)),
        };
        // Outputs with a loss between two losses; of the loss of P over Q.
        let between = |low: f64, high: f64| match self.direction {
            Direction::Removed => self.masses(self.output_at(low), self.output_at(high)),
            Direction::Added => self.masses(self.output_at(-high), self.output_at(-low)),
        };
        let mut masses = vec![between(f64::NEG_INFINITY, lowest * step).0];
        let mut point = lowest;
        while point < highest {
            let loss = point * step;
            let (p, q) = between(loss, (point + 1.0) * step);
            // Two atoms u and p - u such that (p - u) e^-loss + u e^-(loss +
            // step) is q.
            // Where e^loss is too large for a number, all mass goes up.
            let upper =
                if loss < 700.0 { ((p - q * exp(loss)) / -expm1(-step)).clamp(0.0, p) } else { p };
            if let Some(last) = masses.last_mut() {
                *last += p - upper;
            }
            masses.push(upper);
            point += 1.0;
        }
        let infinite = between(highest * step, f64::INFINITY).0;
        Losses { step, lowest, log_masses: masses.into_iter().map(log).collect(), infinite }
    }

    /// Chernoff's bound for what may be left out above the ring, T = (n K(t') -
    /// ln(tail)) / t' with K the logarithm of a mean, sets all of it: the tilt
    /// t is t' / 2 and the width W is 2 T. Then neither way around the ring
    /// brings more than `tail`. Upwards, mass shrinks by e^(-t W) = e^(-t' T) <=
    /// tail, K not being negative. Downwards it grows by e^(t W), but only losses
    /// above W get above 0, and these weigh at most e^(n K(t') - t' W) =
    /// e^(-t W) tail.
    fn ring(&self, losses: &Losses, near: f64) -> Ring {
        let (top, tilt) = losses.chernoff(self.rounds, log(SET_ASIDE * self.delta), near);
        let points = ceil(2.0 * top / losses.step) + 1.0;
        Ring { tilt: tilt / 2.0, top: ceil(top / losses.step), points }
    }

    /// Sums the losses and goes down from the top of the ring until the tail
    /// weighs delta.
    fn search(&self, losses: &Losses, ring: &Ring, rounds: u64) -> Answer {
        let step = losses.step;
        let log_mean = losses.log_mean(ring.tilt);
        let mut sequence = Sequence::zeros(whole(ring.points).next_power_of_two());
        let len = sequence.real.len();
        let place = |point: f64| whole(point - floor(point / len as f64) * len as f64) % len;
        for (i, (loss, log_mass)) in losses.atoms().enumerate() {
            let tilted = exp(ring.tilt * loss + log_mass - log_mean);
            sequence.real[place(losses.lowest + i as f64)] += tilted;
        }
        let sum = sequence.self_convolved(rounds).real;
        // Tilted masses make 1, unless rounding has eaten them.
        let off = (sum.iter().sum::<f64>() - 1.0).abs();
        if off.is_nan() || off > SET_ASIDE / 2.0 {
            return Answer { epsilon: f64::INFINITY, slope: 0.0 };
        }
        let allowed = self.delta * (1.0 - SET_ASIDE);
        // Delta at the point, and the sum of mass e^(point - loss) above it.
        let mut delta = self.rounds * losses.infinite + SET_ASIDE * self.delta;
        let mut above = 0.0;
        let mut point = ring.top;
        for _ in 0..len {
            if point <= 0.0 {
                return Answer { epsilon: 0.0, slope: 0.0 };
            }
            let untilt = self.rounds * log_mean - ring.tilt * point * step;
            above += sum[place(point)].max(0.0) * exp(untilt);
            let lower = delta - above * expm1(-step);
            if lower > allowed {
                let epsilon = point * step + log1p((delta - allowed) / above);
                return Answer { epsilon: epsilon.max(0.0), slope: above / allowed };
            }
            (delta, above) = (lower, above * exp(-step));
            point -= 1.0;
        }
        // Delta holds at the bottom of the ring, so epsilon is at most that.
        Answer { epsilon: (point * step).max(0.0), slope: above / allowed }
    }
}

/// An epsilon that is valid, and the slope of ln delta there, downwards.
struct Answer {
    epsilon: f64,
    slope: f64,
}

/// Where the sum of the losses is looked at: `points` grid points up to `top`.
struct Ring {
    tilt: f64,
    top: f64,
    points: f64,
}

/// A count of points, which is not negative and below 2^53.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn whole(points: f64) -> usize {
    points as usize
}

#[cfg(test)]
mod tests;
