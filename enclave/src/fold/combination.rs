//! What the fold makes of a roster's updates: the rule of the terms, for these
//! weights, norms and distances.

use super::exact::Exact;
use super::pass::Pass;
use super::values::Values;
use super::{Failure, panicked_failure};
use crate::door::Doors;
use crate::round::{Plan, Subject};
use sealfold_aggregation::rule;
use sealfold_aggregation::rule::coordinate::CoordinateRule;
use sealfold_aggregation::rule::gram::{Gram, PartialGram};
use sealfold_aggregation::weights;
use sealfold_protocol::refusal::{Check, Refusal};
use sealfold_protocol::terms::RoundKind;
use zeroize::Zeroizing;

/// How a row is made.
pub enum Combination {
    /// Exact sums on the grid.
    Exact(Exact),
    /// The sum of the sites' values, each times its site's factor.
    Factors(Zeroizing<Vec<f64>>),
    /// A comparison of the sites' values at each place.
    Coordinates(CoordinateRule),
}

impl Combination {
    /// What the rule comes to for a roster; reads all updates once if the rule
    /// needs their distances. In an evaluation round only channels are summed.
    ///
    /// # Errors
    /// A refusal by `manifest` if the rule's conditions do not hold; as a pass.
    pub fn of<D: Doors>(
        subject: &Subject,
        plan: &Plan,
        values: &Values,
        door: &D,
        threads: usize,
    ) -> Result<Self, Failure> {
        let terms = &subject.terms;
        let rule = match subject.kind() {
            RoundKind::Training => terms.aggregation.selective(),
            RoundKind::Evaluation => None,
        };
        let Some(rule) = rule else {
            return Ok(Self::Exact(Exact::of(subject, plan, values)?));
        };
        let weight = |member: &std::sync::Arc<crate::admission::Admitted>| {
            terms.site(&member.header.statement().site).map(|site| site.weight)
        };
        let weights: Vec<_> = plan.members.iter().map(weight).collect::<Result<_, _>>()?;
        let shares = weights::shares(&weights).map_err(|e| refused("weights", &e))?;
        let gram = if rule.needs_gram() { Some(gram(plan, values, door, threads)?) } else { None };
        let combination = rule
            .combine(&shares, gram.as_ref())
            .map_err(|e| refused("the agreed rule's conditions", &e))?;
        Ok(match combination {
            rule::Combination::Sum(factors) => Self::Factors(Zeroizing::new(factors)),
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
                let split = values.split(record, offset, chunks.first().map_or(0, |c| c.len()));
                let floats = values.decode_all(&split, chunks, &mut decoded)?;
                gram.add(&floats).map_err(|e| refused("values of all sites", &e))
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
