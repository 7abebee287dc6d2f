//! How updates are combined, and in which form they travel.

use super::{expect, is_positive};
use crate::Result;
use crate::quorum::Quorum;
use sealfold_aggregation::format::Format;
use sealfold_aggregation::rule;
use serde::{Deserialize, Serialize};

/// How updates are combined into the aggregate. Which parameters are given
/// depends on the rule: exactly those that it [takes](Rule::parameters).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Aggregation {
    /// The aggregation rule.
    pub rule: Rule,
    /// `norm-clipped-mean`, `centred-clipping`: the largest Euclidean norm of
    /// an update that enters unscaled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clip: Option<f64>,
    /// `trimmed-mean`: how many of the lowest and as many of the highest values
    /// are left out at each place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trim: Option<usize>,
    /// `krum`, `multi-krum`, `bulyan`: the number of sites that may send
    /// anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub byzantine: Option<usize>,
    /// `multi-krum`: the number of updates that are averaged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep: Option<usize>,
    /// `geometric-median`: the smallest distance that is divided by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub smoothing: Option<f64>,
    /// `geometric-median`, `centred-clipping`: the number of steps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub steps: Option<usize>,
    /// `sum`: the constant that the noisy sum is divided by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub divisor: Option<f64>,
    /// Weighted rules: the largest share of the weights that one site may have,
    /// in (0, 1].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub largest_weight_share: Option<f64>,
    /// An update whose Euclidean norm is larger is refused, if given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub norm_limit: Option<f64>,
    /// How the values of an update travel.
    #[serde(default, skip_serializing_if = "UpdateType::is_default")]
    pub update_type: UpdateType,
    /// What the rule lets out and the study accepts, by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub accepts: Vec<Leak>,
}

/// The aggregation rules; `sealfold_aggregation::rule` says what each computes
/// and from which paper it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rule {
    /// The mean of the updates, weighted by their number of examples.
    WeightedMean,
    /// The same, each update scaled down to the norm `clip` if it is longer.
    NormClippedMean,
    /// At each place the median.
    Median,
    /// At each place the mean without the `trim` lowest and highest values.
    TrimmedMean,
    /// The point with the smallest weighted sum of distances to the updates.
    GeometricMedian,
    /// The mean of the updates, clipped around a centre that moves.
    CentredClipping,
    /// The one update that is closest to its neighbours.
    Krum,
    /// The mean of the `keep` updates that are closest to their neighbours.
    MultiKrum,
    /// At each place the mean of the selected values closest to their median.
    Bulyan,
    /// The sum over the roster, with the noise of `[privacy]`, divided by a
    /// constant.
    Sum,
}

/// How the values of an update travel. The aggregate is always float32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UpdateType {
    /// IEEE 754 binary32.
    #[default]
    Float32,
    /// The upper half of a binary32.
    Bfloat16,
    /// IEEE 754 binary16.
    Float16,
    /// Signed bytes, each times the `scale` of its tensor.
    Int8,
    /// Signed 32-bit integers: multiples of the privacy grid's step.
    Grid,
}

/// What a rule lets out beyond the aggregate of a whole roster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Leak {
    /// The aggregate is made of fewer updates than the roster has.
    FewerSitesThanRoster,
}

impl Leak {
    /// Its name in a manifest.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::FewerSitesThanRoster => "fewer-sites-than-roster",
        }
    }

    /// What it means, for the people who approve.
    #[must_use]
    pub fn meaning(self) -> &'static str {
        match self {
            Self::FewerSitesThanRoster => {
                "the rule publishes the mean of fewer sites than the roster has; with krum it is \
                 one hospital's update as it was sent"
            }
        }
    }
}

impl UpdateType {
    /// Its name in a manifest.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.format().name()
    }

    /// The format, as the fold knows it.
    #[must_use]
    pub fn format(self) -> Format {
        match self {
            Self::Float32 => Format::Float32,
            Self::Bfloat16 => Format::Bfloat16,
            Self::Float16 => Format::Float16,
            Self::Int8 => Format::Int8,
            Self::Grid => Format::Grid,
        }
    }

    #[allow(clippy::trivially_copy_pass_by_ref)] // as serde calls it
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl Rule {
    /// The parameters of `[aggregation]` that the rule takes, all of them.
    #[must_use]
    pub fn parameters(self) -> &'static [&'static str] {
        match self {
            Self::WeightedMean => &["largest_weight_share"],
            Self::NormClippedMean => &["clip", "largest_weight_share"],
            Self::Median => &[],
            Self::TrimmedMean => &["trim"],
            Self::GeometricMedian => &["smoothing", "steps", "largest_weight_share"],
            Self::CentredClipping => &["clip", "steps", "largest_weight_share"],
            Self::Krum | Self::Bulyan => &["byzantine"],
            Self::MultiKrum => &["byzantine", "keep"],
            Self::Sum => &["divisor"],
        }
    }

    /// The rule's name in a manifest.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::WeightedMean => "weighted-mean",
            Self::NormClippedMean => "norm-clipped-mean",
            Self::Median => "median",
            Self::TrimmedMean => "trimmed-mean",
            Self::GeometricMedian => "geometric-median",
            Self::CentredClipping => "centred-clipping",
            Self::Krum => "krum",
            Self::MultiKrum => "multi-krum",
            Self::Bulyan => "bulyan",
            Self::Sum => "sum",
        }
    }
}

impl Aggregation {
    /// The rule with its parameters, as the fold knows it; none for `sum`,
    /// which `[privacy]` completes.
    #[must_use]
    pub fn rule(&self) -> Option<rule::Rule> {
        let (clip, byzantine) = (self.clip.unwrap_or(0.0), self.byzantine.unwrap_or(0));
        let steps = self.steps.unwrap_or(0);
        Some(match self.rule {
            Rule::WeightedMean => rule::Rule::WeightedMean,
            Rule::NormClippedMean => rule::Rule::NormClippedMean { clip },
            Rule::Median => rule::Rule::Median,
            Rule::TrimmedMean => rule::Rule::TrimmedMean { trim: self.trim.unwrap_or(0) },
            Rule::GeometricMedian => {
                rule::Rule::GeometricMedian { smoothing: self.smoothing.unwrap_or(0.0), steps }
            }
            Rule::CentredClipping => rule::Rule::CentredClipping { radius: clip, steps },
            Rule::Krum => rule::Rule::Krum { byzantine },
            Rule::MultiKrum => {
                rule::Rule::MultiKrum { byzantine, selected: self.keep.unwrap_or(0) }
            }
            Rule::Bulyan => rule::Rule::Bulyan { byzantine },
            Rule::Sum => return None,
        })
    }

    /// The largest share of one site; 1 for the rules without weights.
    #[must_use]
    pub fn largest_share(&self) -> f64 {
        self.largest_weight_share.unwrap_or(1.0)
    }

    pub(super) fn check(&self, quorum: &Quorum) -> Result<()> {
        self.check_parameters()?;
        if let Some(share) = self.largest_weight_share {
            #[allow(clippy::cast_precision_loss)]
            let least = 1.0 / quorum.smallest_roster.max(1) as f64;
            // A site says itself how many examples it has: one that has half of all
            // shares for the asking has the median.
            let is_median = self.rule == Rule::GeometricMedian;
            let most = if is_median { "below 0.5 for geometric-median" } else { "to 1" };
            expect(
                "aggregation.largest_weight_share",
                share >= least && share <= 1.0 && !(is_median && share >= 0.5),
                format!("from 1 / smallest_roster = {least}, {most}"),
                share,
            )?;
        }
        for (field, value) in [
            ("aggregation.clip", self.clip),
            ("aggregation.smoothing", self.smoothing),
            ("aggregation.divisor", self.divisor),
            ("aggregation.norm_limit", self.norm_limit),
        ] {
            if let Some(value) = value {
                expect(field, is_positive(value), "a positive number", value)?;
            }
        }
        let rule = self.rule();
        if let Some(rule) = rule {
            // Conditions get easier with more sites, so the smallest roster
            // decides for all.
            let k = quorum.smallest_roster;
            rule.check(k).or_else(|error| self.expect_of_rule(&error, k))?;
        }
        let leaks: &[Leak] = match rule {
            Some(rule) if rule.publishes_fewer_sites() => &[Leak::FewerSitesThanRoster],
            _ => &[],
        };
        expect(
            "aggregation.accepts",
            self.accepts == leaks,
            match leaks {
                [leak, ..] => format!(
                    "accepts = [\"fewer-sites-than-roster\"] for {}: {}",
                    self.rule.name(),
                    leak.meaning()
                ),
                [] => format!("none for {}, which lets nothing out", self.rule.name()),
            },
            match self.accepts.as_slice() {
                [] => "none".to_owned(),
                named => named.iter().map(|leak| leak.name()).collect::<Vec<_>>().join(", "),
            },
        )
    }

    /// What a rule takes, in the words of the manifest.
    fn expect_of_rule(&self, error: &sealfold_aggregation::Error, k: usize) -> Result<()> {
        use sealfold_aggregation::Error as Of;
        let rule = self.rule.name();
        match *error {
            Of::Sites { condition, expected, .. } => expect(
                "quorum.smallest_roster",
                false,
                format!("at least {expected} for {rule} ({condition})"),
                k,
            ),
            Of::Empty { what } => {
                let field = if what == "steps" { "steps" } else { "keep" };
                expect(&format!("aggregation.{field}"), false, format!("at least 1 for {rule}"), 0)
            }
            Of::OutOfRange { what, found, smallest, largest } => {
                let expected = format!("{smallest} to {largest} for {rule}");
                expect(&format!("aggregation.{what}"), false, expected, found)
            }
            Of::Parameter { what, found } => {
                let field = if what == "radius" { "clip" } else { what };
                let expected = format!("a positive number for {rule}, of ordinary size");
                expect(&format!("aggregation.{field}"), false, expected, found)
            }
            ref other => {
                expect("aggregation.rule", false, format!("{rule} that can be run"), other)
            }
        }
    }

    /// Whether the parameters that are given are those that the rule takes.
    fn check_parameters(&self) -> Result<()> {
        let given = [
            ("clip", self.clip.is_some()),
            ("trim", self.trim.is_some()),
            ("byzantine", self.byzantine.is_some()),
            ("keep", self.keep.is_some()),
            ("smoothing", self.smoothing.is_some()),
            ("steps", self.steps.is_some()),
            ("divisor", self.divisor.is_some()),
            ("largest_weight_share", self.largest_weight_share.is_some()),
        ];
        let rule = self.rule.name();
        for (parameter, given) in given {
            let taken = self.rule.parameters().contains(&parameter);
            expect(
                &format!("aggregation.{parameter}"),
                given == taken,
                if taken { format!("a value for {rule}") } else { format!("none for {rule}") },
                if given { "one" } else { "none" },
            )?;
        }
        Ok(())
    }
}
