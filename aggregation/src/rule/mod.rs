//! The rules that select: what becomes of the sites' updates where some of them
//! may be hostile. (Means of all updates are made of integers: see
//! [`crate::integer`].)
//!
//! A rule is one of two kinds. Some are sums: each site has a factor, found
//! from its share and the [`gram`] matrix of all updates, and the fold
//! multiplies and adds ([`crate::accumulate`]). The others look at the values of
//! all sites at each place ([`coordinate`]). Either way one pass over the
//! updates, record by record, makes the aggregate; a rule that needs the Gram
//! matrix has one pass before it.
//!
//! Sites are given in the roster's order, sorted by name, so the order of
//! arrival changes nothing.
//!
//! | rule | hostile sites it is meant for | shares count | passes | sites behind a value |
//! | --- | --- | --- | --- | --- |
//! | median | below n/2 | no | 1 | 1; of an even roster 2 |
//! | trimmed mean | `trim` | no | 1 | n - 2 `trim` |
//! | geometric median | below half of the shares | yes | 2 | n |
//! | centred clipping | a small share, by the radius | yes | 2 | n |
//! | Krum | f, n >= 2f + 3 | no | 2 | 1 |
//! | multi-Krum | f, n >= 2f + 3 | no | 2 | m |
//! | Bulyan | f, n >= 4f + 3 | no | 2 | n - 4f |

mod centred_clipping;
pub mod coordinate;
mod geometric_median;
pub mod gram;
mod krum;
mod sorting_network;

use crate::{Error, Result};
use coordinate::CoordinateRule;
use gram::Gram;

/// The most steps of a rule that takes some. A hundred are enough for any; this many,
/// for 200 sites, take a second, so that no study holds an enclave up.
pub const MOST_STEPS: u32 = 1000;

/// An aggregation rule with its parameters.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Rule {
    /// The median of each coordinate, unweighted (Yin et al.,
    /// "Byzantine-Robust Distributed Learning: Towards Optimal Statistical
    /// Rates", ICML 2018).
    Median,
    /// The mean of each coordinate without its smallest and largest values,
    /// unweighted (Yin et al., 2018). Needs n > 2 x `trim`.
    TrimmedMean {
        /// How many are left out at each end.
        trim: usize,
    },
    /// The geometric median, weighted by the shares (RFA; Pillutla, Kakade and
    /// Harchaoui, "Robust Aggregation for Federated Learning", IEEE
    /// Transactions on Signal Processing 70, 2022).
    GeometricMedian {
        /// The distance below which an update pulls no harder.
        smoothing: f64,
        /// The steps of the smoothed Weiszfeld algorithm.
        steps: usize,
    },
    /// Centred clipping from the base model, weighted by the shares
    /// (Karimireddy, He and Jaggi, "Learning from History for Byzantine Robust
    /// Optimization", ICML 2021).
    CentredClipping {
        /// The longest pull of an update in one step.
        radius: f64,
        /// The steps.
        steps: usize,
    },
    /// The update that is closest to its n - f - 2 closest others, alone
    /// (Blanchard et al., "Machine Learning with Adversaries", NIPS 2017).
    /// Needs n >= 2f + 3.
    Krum {
        /// f, the hostile sites to withstand.
        byzantine: usize,
    },
    /// The plain mean of the updates with the best scores of Krum (Blanchard
    /// et al., 2017). Needs n >= 2f + 3 and 1 <= `selected` <= n - f - 2 (El
    /// Mhamdi et al., 2018).
    MultiKrum {
        /// f, the hostile sites to withstand.
        byzantine: usize,
        /// How many updates are averaged.
        selected: usize,
    },
    /// n - 2f updates are selected by Krum one after the other; of their values
    /// at each coordinate, the n - 4f closest to the median are averaged (El
    /// Mhamdi, Guerraoui and Rouault, "The Hidden Vulnerability of Distributed
    /// Learning in Byzantium", ICML 2018). Needs n >= 4f + 3.
    Bulyan {
        /// f, the hostile sites to withstand.
        byzantine: usize,
    },
}

/// How the updates become the aggregate.
#[derive(Debug, Clone, PartialEq)]
pub enum Combination {
    /// The sum of the updates, each times its site's factor.
    Sum(Vec<f64>),
    /// A rule for the values at each place.
    Coordinates(CoordinateRule),
}

impl Rule {
    /// The rule's name, as manifests write it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Median => "median",
            Self::TrimmedMean { .. } => "trimmed-mean",
            Self::GeometricMedian { .. } => "geometric-median",
            Self::CentredClipping { .. } => "centred-clipping",
            Self::Krum { .. } => "krum",
            Self::MultiKrum { .. } => "multi-krum",
            Self::Bulyan { .. } => "bulyan",
        }
    }

    /// Whether the rule needs the [`Gram`] matrix, and so a pass more.
    #[must_use]
    pub fn needs_gram(&self) -> bool {
        match self {
            Self::Median | Self::TrimmedMean { .. } => false,
            Self::GeometricMedian { .. }
            | Self::CentredClipping { .. }
            | Self::Krum { .. }
            | Self::MultiKrum { .. }
            | Self::Bulyan { .. } => true,
        }
    }

    /// How many sites' values stand behind a value of the aggregate, of so many
    /// in all: Krum publishes one site's update as it is. Which sites they are
    /// may differ from place to place.
    #[must_use]
    pub fn sites_behind_a_value(&self, sites: usize) -> usize {
        match *self {
            Self::Median => sites.min(2 - sites % 2),
            Self::TrimmedMean { trim } => sites.saturating_sub(trim.saturating_mul(2)),
            Self::GeometricMedian { .. } | Self::CentredClipping { .. } => sites,
            Self::Krum { .. } => sites.min(1),
            Self::MultiKrum { selected, .. } => sites.min(selected),
            Self::Bulyan { byzantine } => sites.saturating_sub(byzantine.saturating_mul(4)),
        }
    }

    /// The smallest roster, and the condition in the paper's letters.
    #[must_use]
    pub fn least_sites(&self) -> (usize, &'static str) {
        let times_plus = |factor: usize, f: usize, plus: usize| {
            f.checked_mul(factor)
                .and_then(|product| product.checked_add(plus))
                .unwrap_or(usize::MAX)
        };
        match *self {
            Self::TrimmedMean { trim } => (times_plus(2, trim, 1), "n > 2 trim"),
            Self::Krum { byzantine } => (times_plus(2, byzantine, 3), "n >= 2f + 3"),
            Self::MultiKrum { byzantine, selected } => {
                let scores = times_plus(2, byzantine, 3);
                let averaged = times_plus(1, byzantine, selected.saturating_add(2));
                if averaged > scores {
                    (averaged, "n >= m + f + 2")
                } else {
                    (scores, "n >= 2f + 3")
                }
            }
            Self::Bulyan { byzantine } => (times_plus(4, byzantine, 3), "n >= 4f + 3"),
            _ => (1, "n >= 1"),
        }
    }

    /// Checks the parameters, and the rule's conditions for so many sites.
    ///
    /// # Errors
    /// [`Error::Parameter`] or [`Error::Empty`] for a parameter that cannot be;
    /// [`Error::OutOfRange`] for more than [`MOST_STEPS`]; [`Error::Sites`] if the
    /// sites are too few.
    pub fn check(&self, sites: usize) -> Result<()> {
        // 1 / smoothing has to be finite, so a subnormal number is refused too.
        let positive = |what, found: f64| {
            let fits = found.is_normal() && found > 0.0;
            if fits { Ok(()) } else { Err(Error::Parameter { what, found }) }
        };
        let some = |what, count| if count > 0 { Ok(()) } else { Err(Error::Empty { what }) };
        let some_steps = |steps: usize| {
            some("steps", steps)?;
            let (found, largest) = (steps as f64, f64::from(MOST_STEPS));
            let too_many = Error::OutOfRange { what: "steps", found, smallest: 1.0, largest };
            if found <= largest { Ok(()) } else { Err(too_many) }
        };
        match *self {
            Self::GeometricMedian { smoothing, steps } => {
                positive("smoothing", smoothing)?;
                some_steps(steps)?;
            }
            Self::CentredClipping { radius, steps } => {
                positive("radius", radius)?;
                some_steps(steps)?;
            }
            Self::MultiKrum { selected, .. } => some("selected updates", selected)?,
            _ => {}
        }
        let (expected, condition) = self.least_sites();
        if sites < expected {
            let rule = self.name();
            return Err(Error::Sites { rule, condition, expected, found: sites });
        }
        Ok(())
    }

    /// How these sites' updates become the aggregate: from each site's share,
    /// and the Gram matrix where the rule needs it.
    ///
    /// # Errors
    /// As [`Rule::check`]; [`Error::Parameter`] for a share that is no number or
    /// below 0; [`Error::NoGram`] if the matrix is needed and missing;
    /// [`Error::Length`] if it is of other sites.
    pub fn combine(&self, shares: &[f64], gram: Option<&Gram>) -> Result<Combination> {
        let sites = shares.len();
        self.check(sites)?;
        let no_share = |share: &&f64| !(share.is_finite() && **share >= 0.0);
        if let Some(found) = shares.iter().find(no_share) {
            return Err(Error::Parameter { what: "share", found: *found });
        }
        let gram = || {
            let gram = gram.ok_or(Error::NoGram { rule: self.name() })?;
            if gram.sites() != sites {
                let (expected, found) = (sites, gram.sites());
                return Err(Error::Length { what: "sites of the gram matrix", expected, found });
            }
            Ok(gram)
        };
        Ok(match *self {
            Self::Median => Combination::Coordinates(CoordinateRule::median(sites)),
            Self::TrimmedMean { trim } => {
                Combination::Coordinates(CoordinateRule::trimmed_mean(sites, trim))
            }
            Self::GeometricMedian { smoothing, steps } => {
                Combination::Sum(geometric_median::factors(gram()?, shares, smoothing, steps))
            }
            Self::CentredClipping { radius, steps } => {
                Combination::Sum(centred_clipping::factors(gram()?, shares, radius, steps))
            }
            Self::Krum { byzantine } => mean_of(sites, &krum::select(gram()?, byzantine, 1)),
            Self::MultiKrum { byzantine, selected } => {
                mean_of(sites, &krum::select(gram()?, byzantine, selected))
            }
            Self::Bulyan { byzantine } => {
                let selected = krum::select_for_bulyan(gram()?, byzantine);
                let kept = sites - 4 * byzantine;
                Combination::Coordinates(CoordinateRule::around_median(sites, selected, kept))
            }
        })
    }
}

/// The plain mean of the selected sites: 1/m for each, 0 for the others.
fn mean_of(sites: usize, selected: &[usize]) -> Combination {
    let factor = 1.0 / selected.len() as f64;
    let of = |site| if selected.contains(&site) { factor } else { 0.0 };
    Combination::Sum((0..sites).map(of).collect())
}

/// The Gram matrix of updates that are at hand as numbers.
#[cfg(test)]
pub(crate) fn reference_gram(updates: &[Vec<f32>]) -> Gram {
    let bytes: Vec<Vec<u8>> =
        updates.iter().map(|u| u.iter().flat_map(|v| v.to_le_bytes()).collect()).collect();
    let rows: Vec<_> = bytes.iter().map(Vec::as_slice).collect();
    let mut partial = gram::PartialGram::new(updates.len());
    partial.add(&rows).unwrap();
    partial.finish()
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod vectors;
