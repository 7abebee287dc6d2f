//! What the fold makes of a roster's updates: the manifest's rule, for these
//! shares, norms and distances.

use super::noisy::Noisy;
use super::pass::Pass;
use super::values::Values;
use super::{Failure, panicked_failure};
use crate::door::Doors;
use crate::round::{Plan, Terms};
use sealfold_aggregation::rule;
use sealfold_aggregation::rule::coordinate::CoordinateRule;
use sealfold_aggregation::rule::gram::{Gram, PartialGram};
use sealfold_aggregation::weights;
use sealfold_protocol::refusal::{Check, Refusal};
use zeroize::Zeroizing;

/// How a row is made.
pub enum Combination {
    /// The sum of the sites' values, each times its site's factor.
    Sum(Zeroizing<Vec<f64>>),
    /// A comparison of the sites' values at each place.
    Coordinates(CoordinateRule),
    /// A sum on the privacy grid, with noise.
    Noisy(Noisy),
}

impl Combination {
    /// What the manifest's rule comes to for a roster; reads all updates once
    /// if the rule needs their distances.
    ///
    /// # Errors
    /// A refusal by `manifest` if the rule's conditions do not hold; as a pass.
    pub fn of<D: Doors>(
        terms: &Terms,
        plan: &Plan,
        values: &Values,
        door: &D,
        threads: usize,
    ) -> Result<Self, Failure> {
        let aggregation = &terms.manifest.aggregation;
        let Some(rule) = aggregation.rule() else {
            return Ok(Self::Noisy(Noisy::of(terms, plan)?));
        };
        let examples: Zeroizing<Vec<_>> =
            Zeroizing::new(plan.members.iter().map(|member| member.examples).collect());
        let norms: Zeroizing<Vec<_>> =
            Zeroizing::new(plan.members.iter().map(|member| member.norm).collect());
        let shares = weights::bounded(&examples, aggregation.largest_share());
        let shares =
            Zeroizing::new(shares.map_err(|e| refused("weights in the agreed share", &e))?);
        let gram = if rule.needs_gram() { Some(gram(plan, values, door, threads)?) } else { None };
        let combination = rule
            .combine(&shares, &norms, gram.as_ref())
            .map_err(|e| refused("the agreed rule's conditions", &e))?;
        Ok(match combination {
            rule::Combination::Sum(factors) => Self::Sum(Zeroizing::new(factors)),
            rule::Combination::Coordinates(rule) => Self::Coordinates(rule),
        })
    }
}

pub(super) fn refused(expected: &str, error: &sealfold_aggregation::Error) -> Failure {
    Failure::Passing(Refusal::new(Check::Manifest, expected, error))
}

/// The pass that compares every update with every other.
fn gram<D: Doors>(plan: &Plan, values: &Values, door: &D, threads: usize) -> Result<Gram, Failure> {
    let records = (0..values.records()).map(|record| (record, ()));
    let pass = Pass::new(&plan.members, &plan.secrets.hash, values.length(), records);
    let parts = pass.run(door, threads, |reader| {
        let mut gram = PartialGram::new(reader.sites());
        let mut decoded: Vec<_> = (0..reader.sites()).map(|_| values.scratch()).collect();
        while let Some((record, ())) = reader.next() {
            reader.open(record, |offset, chunks| {
                let floats = values.decode_all(record, offset, chunks, &mut decoded)?;
                let added = floats.map(|(_, floats)| gram.add(&floats));
                added.unwrap_or(Ok(())).map_err(|e| refused("values of all sites", &e))
            })?;
        }
        Ok(gram)
    })?;
    let mut parts = parts.into_iter();
    let mut all = parts.next().ok_or_else(panicked_failure)?;
    for part in parts {
        all.merge(&part).map_err(|e| refused("values of all sites", &e))?;
    }
    Ok(all.finish())
}
