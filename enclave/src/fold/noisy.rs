//! The noisy sum: exact integers on the privacy grid, and discrete Gaussian
//! noise, drawn once for the whole roster.

use super::Failure;
use super::combination::refused;
use super::values::Values;
use crate::round::{Plan, Secrets, Terms};
use sealfold_aggregation::integer::IntegerRow;
use sealfold_aggregation::noise::{Gaussian, Label, Seed};
use sealfold_protocol::manifest::Privacy;
use sealfold_protocol::refusal::{Check, Refusal};
use std::sync::Arc;
use zeroize::Zeroizing;

/// What makes a row of a noisy sum.
pub struct Noisy {
    gaussian: Gaussian,
    secrets: Arc<Secrets>,
    /// For each site the factor that clips its update; none where the sites
    /// have clipped their patients.
    factors: Option<Zeroizing<Vec<f64>>>,
    step: f64,
    scale: f64,
}

impl Noisy {
    /// As a manifest has it.
    pub fn of(terms: &Terms, plan: &Plan) -> Result<Self, Failure> {
        let manifest = &terms.manifest;
        let (Some(noise), Some(divisor)) = (manifest.privacy.noise(), manifest.aggregation.divisor)
        else {
            let (expected, found) = ("a sum with noise and a divisor", "none");
            return Err(Refusal::new(Check::Manifest, expected, found).into());
        };
        let clip = terms.clip();
        let sigma = noise.sigma(manifest.sensitivity(noise, clip));
        let gaussian = Gaussian::new(sigma).map_err(|e| refused("noise that can be drawn", &e))?;
        let factors = match &manifest.privacy {
            Privacy::Site(_) => {
                let factor = |norm: f64| if norm > clip { clip / norm } else { 1.0 };
                let factors = plan.members.iter().map(|member| factor(member.norm)).collect();
                Some(Zeroizing::new(factors))
            }
            _ => None,
        };
        Ok(Self {
            gaussian,
            secrets: plan.secrets.clone(),
            factors,
            step: noise.step,
            scale: noise.step / divisor,
        })
    }

    /// Adds the values of one site's chunk.
    ///
    /// # Errors
    /// A refusal by `manifest` for numbers that a checked one does not have.
    pub fn add(
        &self,
        row: &mut IntegerRow,
        site: usize,
        values: &Values,
        (record, offset, chunk): (u64, usize, &[u8]),
        scratch: &mut Vec<u8>,
    ) -> Result<(), Failure> {
        let added = match &self.factors {
            None => values
                .behind_preamble(record, offset, chunk)
                .map(|(at, grid)| row.add_grid(at, grid)),
            Some(factors) => values
                .decode(record, offset, chunk, scratch)?
                .map(|(at, floats)| row.add_clipped(at, factors[site], self.step, floats)),
        };
        added.unwrap_or(Ok(())).map_err(|e| refused("a sum that fits", &e))
    }

    /// Adds the noise of a row and writes it as float32.
    pub fn finish(&self, row: &mut IntegerRow, record: u64, out: &mut [u8]) -> Result<(), Failure> {
        self.gaussian
            .add(seed(&self.secrets)?, Label::Aggregate, record, row.values_mut())
            .map_err(|e| refused("a sum that fits", &e))?;
        row.write_f32(self.scale, out);
        Ok(())
    }
}

/// The seed that an offer of a study with noise has.
fn seed(secrets: &Secrets) -> Result<&Seed, Failure> {
    let missing = || Refusal::new(Check::Manifest, "a seed of the privacy noise", "none");
    secrets.noise.as_ref().ok_or_else(|| missing().into())
}

/// The noisy count of the sites below an adaptive clip, if the manifest has
/// one: 1 for each below or at it, -1 for each above.
pub fn below_clip(terms: &Terms, plan: &Plan) -> Result<Option<i64>, Failure> {
    let noise = terms.manifest.privacy.noise();
    let Some(adaptive) = noise.and_then(|noise| noise.adaptive_clip) else { return Ok(None) };
    let (clip, seed) = (terms.clip(), seed(&plan.secrets)?);
    let below = |norm: f64| if norm <= clip { 1 } else { -1 };
    let mut count = [plan.members.iter().map(|member| below(member.norm)).sum::<i64>()];
    Gaussian::new(adaptive.count_noise)
        .and_then(|gaussian| gaussian.add(seed, Label::Metrics, 0, &mut count))
        .map_err(|e| refused("noise that can be drawn", &e))?;
    Ok(Some(count[0]))
}
