//! The aggregation rules: what becomes of the sites' updates.
//!
//! A rule is one of two kinds. Some are sums: each site has a factor, found
//! from its share, its norm, or the [`gram`] matrix of all updates, and the
//! fold multiplies and adds ([`crate::accumulate`]). The others look at the
//! values of all sites at each place ([`coordinate`]). Either way one pass over
//! the updates, record by record, makes the aggregate; a rule that needs the
//! Gram matrix has one pass before it.
//!
//! Sites are given in the roster's order, sorted by name, so the order of
//! arrival changes nothing.
//!
//! | rule | hostile sites it is meant for | shares count | passes | publishes |
//! | --- | --- | --- | --- | --- |
//! | weighted mean | none | yes | 1 | all sites |
//! | norm-clipped mean | none, but bounds each | yes | 1 | all sites |
//! | median | below n/2 | no | 1 | all sites |
//! | trimmed mean | `trim` | no | 1 | all sites |
//! | geometric median | below half of the shares | yes | 2 | all sites |
//! | centred clipping | a small share, by the radius | yes | 2 | all sites |
//! | Krum | f, n >= 2f + 3 | no | 2 | one site |
//! | multi-Krum | f, n >= 2f + 3 | no | 2 | m sites |
//! | Bulyan | f, n >= 4f + 3 | no | 2 | n - 2f sites |

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
    /// The weighted mean (`FedAvg`; `McMahan` et al., "Communication-Efficient
    /// Learning of Deep Networks from Decentralized Data", AISTATS 2017).
    WeightedMean,
    /// The weighted mean of updates that were scaled down to a Euclidean norm
    /// of at most `clip` (Sun et al., "Can You Really Backdoor Federated
    /// Learning?", 2019).
    NormClippedMean {
        /// The largest norm.
        clip: f64,
    },
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
            Self::WeightedMean => "weighted-mean",
            Self::NormClippedMean { .. } => "norm-clipped-mean",
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
            Self::WeightedMean
            | Self::NormClippedMean { .. }
            | Self::Median
            | Self::TrimmedMean { .. } => false,
            Self::GeometricMedian { .. }
            | Self::CentredClipping { .. }
            | Self::Krum { .. }
            | Self::MultiKrum { .. }
            | Self::Bulyan { .. } => true,
        }
    }

    /// Whether the aggregate is made of fewer sites' updates than the roster
    /// has: Krum publishes one site's update as it is.
    #[must_use]
    pub fn publishes_fewer_sites(&self) -> bool {
        matches!(self, Self::Krum { .. } | Self::MultiKrum { .. } | Self::Bulyan { .. })
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
            Self::NormClippedMean { clip } => positive("clip", clip)?,
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

    /// How these sites' updates become the aggregate: from each site's share
    /// and norm, and the Gram matrix where the rule needs it.
    ///
    /// # Errors
    /// As [`Rule::check`]; [`Error::Length`] if the lists differ;
    /// [`Error::Parameter`] for a share or norm that is no number or below 0;
    /// [`Error::NoGram`] if the matrix is needed and missing.
    pub fn combine(
        &self,
        shares: &[f64],
        norms: &[f64],
        gram: Option<&Gram>,
    ) -> Result<Combination> {
        let sites = shares.len();
        self.check(sites)?;
        check_numbers("norms", "norm", sites, norms)?;
        check_numbers("shares", "share", sites, shares)?;
        let gram = || {
            let gram = gram.ok_or(Error::NoGram { rule: self.name() })?;
            if gram.sites() != sites {
                let (expected, found) = (sites, gram.sites());
                return Err(Error::Length { what: "sites of the gram matrix", expected, found });
            }
            Ok(gram)
        };
        Ok(match *self {
            Self::WeightedMean => Combination::Sum(shares.to_vec()),
            Self::NormClippedMean { clip } => {
                let clipped = |(share, norm): (&f64, &f64)| {
                    if *norm > clip { share * (clip / norm) } else { *share }
                };
                Combination::Sum(shares.iter().zip(norms).map(clipped).collect())
            }
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

    /// The factors of a rule that is a sum and needs no Gram matrix.
    ///
    /// # Errors
    /// As [`Rule::combine`]; [`Error::NoSum`] if the rule is no sum.
    pub fn factors(&self, shares: &[f64], norms: &[f64]) -> Result<Vec<f64>> {
        match self.combine(shares, norms, None)? {
            Combination::Sum(factors) => Ok(factors),
            Combination::Coordinates(_) => Err(Error::NoSum { rule: self.name() }),
        }
    }
}

/// The plain mean of the selected sites: 1/m for each, 0 for the others.
fn mean_of(sites: usize, selected: &[usize]) -> Combination {
    let factor = 1.0 / selected.len() as f64;
    let of = |site| if selected.contains(&site) { factor } else { 0.0 };
    Combination::Sum((0..sites).map(of).collect())
}

fn check_numbers(
    list: &'static str,
    what: &'static str,
    expected: usize,
    numbers: &[f64],
) -> Result<()> {
    if numbers.len() != expected {
        return Err(Error::Length { what: list, expected, found: numbers.len() });
    }
    match numbers.iter().find(|number| !(number.is_finite() && **number >= 0.0)) {
        Some(found) => Err(Error::Parameter { what, found: *found }),
        None => Ok(()),
    }
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
