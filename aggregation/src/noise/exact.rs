//! The samplers of Canonne, Kamath and Steinke 2020, "The discrete Gaussian
//! for differential privacy", section 5: whole numbers and coin flips only, and
//! no error at all beyond that of the generator.
//!
//! The fast samplers are tested against this one. It is slow, and the time that
//! it takes tells about the noise (a larger magnitude takes more coin flips),
//! so it is for places where nobody holds a watch.

use super::law::Law;
use super::seed::{KeyStream, Label, Seed, Use};
use crate::{Error, Result};
use num_bigint::BigUint;
use zeroize::Zeroize;

/// An exact sampler of a discrete Gaussian or a discrete Laplace.
#[derive(Debug, Clone)]
pub struct Exact(Law);

impl Exact {
    /// The law of [`Gaussian::new`](super::Gaussian::new).
    ///
    /// # Errors
    /// The same.
    pub fn gaussian(sigma: f64) -> Result<Self> {
        Ok(Self(Law::gaussian(sigma)?))
    }

    /// The law of [`DiscreteLaplace::new`](super::DiscreteLaplace::new).
    ///
    /// # Errors
    /// The same.
    pub fn laplace(sensitivity: u32, epsilon: f64) -> Result<Self> {
        Ok(Self(Law::laplace(sensitivity, epsilon)?))
    }

    /// Adds one sample to each of `out`, the values of row `row`. The samples
    /// are others than those of the fast samplers.
    ///
    /// # Errors
    /// As in [`Gaussian::add`](super::Gaussian::add).
    pub fn add(&self, seed: &Seed, label: Label, row: u64, out: &mut [i64]) -> Result<()> {
        let mut coins = Coins::new(KeyStream::new(seed, label, row, Use::Samples));
        let mut added = Ok(());
        for value in &mut *out {
            added = self.sample(&mut coins).and_then(|noise| {
                *value = noise
                    .and_then(|noise| value.checked_add(noise))
                    .ok_or(Error::NoiseOverflow { row })?;
                Ok(())
            });
            if added.is_err() {
                break;
            }
        }
        if added.is_err() {
            out.zeroize();
        }
        added
    }

    /// One sample; none if it does not fit into 64 bits.
    fn sample(&self, coins: &mut Coins) -> Result<Option<i64>> {
        let Law { degree, numerator, denominator } = &self.0;
        let (magnitude, minus) = match degree {
            2 => loop {
                // Algorithm 3: a Laplace of scale t, the whole part of sigma
                // plus 1, kept with exp(-(|y| - sigma^2 / t)^2 / (2 sigma^2));
                // here 1 / (2 sigma^2) is numerator / denominator.
                let t = self.0.width() + 1u32;
                let (magnitude, minus) = laplace(coins, &1u32.into(), &t)?;
                let unit = (numerator << 1u32) * &t;
                let (center, found) = (denominator, &magnitude * &unit);
                let distance = if &found > center { found - center } else { center - found };
                let over = distance.pow(2) * numerator;
                if coins.exp(&over, &(unit.pow(2) * denominator))? {
                    break (magnitude, minus);
                }
            },
            _ => laplace(coins, numerator, denominator)?,
        };
        let sample = i64::try_from(magnitude).ok();
        Ok(sample.map(|magnitude| if minus { -magnitude } else { magnitude }))
    }
}

/// Algorithm 2: magnitude and sign of a Laplace, z with a probability in
/// proportion to exp(-|z| s / t).
fn laplace(coins: &mut Coins, s: &BigUint, t: &BigUint) -> Result<(BigUint, bool)> {
    let one = BigUint::from(1u32);
    loop {
        let low = coins.below(t)?;
        if !coins.exp(&low, t)? {
            continue;
        }
        let mut whole = BigUint::ZERO;
        while coins.exp(&one, &one)? {
            whole += 1u32;
        }
        let magnitude = (low + t * whole) / s;
        let minus = coins.below(&2u32.into())? == one;
        if !(minus && magnitude == BigUint::ZERO) {
            return Ok((magnitude, minus));
        }
    }
}

/// Uniform bits and the coins made of them.
struct Coins {
    stream: KeyStream,
}

impl Coins {
    fn new(stream: KeyStream) -> Self {
        Self { stream }
    }

    /// A uniform number below `bound`, which is not 0: as many bits as the
    /// largest needs, anew until they are below the bound.
    fn below(&mut self, bound: &BigUint) -> Result<BigUint> {
        let bits = (bound - 1u32).bits();
        let mut bytes = vec![0; usize::try_from(bits.div_ceil(8)).unwrap_or(usize::MAX)];
        loop {
            self.stream.fill(&mut bytes)?;
            let number = BigUint::from_bytes_le(&bytes) >> (8 * bytes.len() as u64 - bits);
            if &number < bound {
                bytes.zeroize();
                return Ok(number);
            }
        }
    }

    /// Algorithm 1: heads with probability e^(-numerator / denominator).
    fn exp(&mut self, numerator: &BigUint, denominator: &BigUint) -> Result<bool> {
        let mut rest = numerator.clone();
        while &rest > denominator {
            if !self.exp_of_part(denominator, denominator)? {
                return Ok(false);
            }
            rest -= denominator;
        }
        self.exp_of_part(&rest, denominator)
    }

    /// The same for an exponent of at most 1: flips coins of probability
    /// exponent / 1, exponent / 2, ... up to the first tails; heads if that was
    /// the first, the third, and so on.
    fn exp_of_part(&mut self, numerator: &BigUint, denominator: &BigUint) -> Result<bool> {
        let mut flips = 1u64;
        while &self.below(&(denominator * flips))? < numerator {
            flips += 1;
        }
        Ok(flips % 2 == 1)
    }
}
