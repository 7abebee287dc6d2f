//! How updates are combined, and in which form they travel.

use super::{Quorum, expect, expect_ordinary};
use crate::Result;
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
    /// An update whose Euclidean norm is larger is refused, if given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub norm_limit: Option<f64>,
    /// How the values of an update travel.
    pub update_type: UpdateType,
}

/// The aggregation rules; `sealfold_aggregation::rule` says what each computes
/// and from which paper it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rule {
    /// The mean of the updates, weighted by the sites' weights.
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

/// How the values of an update travel: whole numbers of grid steps for a sum or
/// a mean, which are exact, floating-point numbers for a selective rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UpdateType {
    /// IEEE 754 binary32.
    Float32,
    /// The upper half of a binary32.
    Bfloat16,
    /// IEEE 754 binary16.
    Float16,
    /// Signed bytes.
    Int8,
    /// Signed integers of 16 bits.
    Int16,
    /// Signed integers of 32 bits.
    Int32,
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
            Self::Int16 => Format::Int16,
            Self::Int32 => Format::Int32,
        }
    }

    /// The format of a channel's values: integers as wide as the model's values.
    #[must_use]
    pub fn channel_format(self) -> Format {
        match self.format().width() {
            1 => Format::Int8,
            2 => Format::Int16,
            _ => Format::Int32,
        }
    }
}

impl Rule {
    /// The parameters of `[aggregation]` that the rule takes, all of them.
    #[must_use]
    pub fn parameters(self) -> &'static [&'static str] {
        match self {
            Self::WeightedMean | Self::Median => &[],
            Self::NormClippedMean => &["clip"],
            Self::TrimmedMean => &["trim"],
            Self::GeometricMedian => &["smoothing", "steps"],
            Self::CentredClipping => &["clip", "steps"],
            Self::Krum | Self::Bulyan => &["byzantine"],
            Self::MultiKrum => &["byzantine", "keep"],
            Self::Sum => &["divisor"],
        }
    }

    /// Whether the rule is a sum or a mean with fixed weights, which is exact on
    /// a grid of whole numbers. Each site's factor depends on its own update
    /// only.
    #[must_use]
    pub fn is_exact(self) -> bool {
        matches!(self, Self::WeightedMean | Self::NormClippedMean | Self::Sum)
    }

    /// Whether the rule uses the sites' weights.
    #[must_use]
    pub fn counts_weights(self) -> bool {
        matches!(
            self,
            Self::WeightedMean
                | Self::NormClippedMean
                | Self::GeometricMedian
                | Self::CentredClipping
        )
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
    /// The selective rule with its parameters; none for a sum or a mean.
    #[must_use]
    pub fn selective(&self) -> Option<rule::Rule> {
        let byzantine = self.byzantine.unwrap_or(0);
        let steps = self.steps.unwrap_or(0);
        Some(match self.rule {
            Rule::WeightedMean | Rule::NormClippedMean | Rule::Sum => return None,
            Rule::Median => rule::Rule::Median,
            Rule::TrimmedMean => rule::Rule::TrimmedMean { trim: self.trim.unwrap_or(0) },
            Rule::GeometricMedian => {
                rule::Rule::GeometricMedian { smoothing: self.smoothing.unwrap_or(0.0), steps }
            }
            Rule::CentredClipping => {
                rule::Rule::CentredClipping { radius: self.clip.unwrap_or(0.0), steps }
            }
            Rule::Krum => rule::Rule::Krum { byzantine },
            Rule::MultiKrum => {
                rule::Rule::MultiKrum { byzantine, selected: self.keep.unwrap_or(0) }
            }
            Rule::Bulyan => rule::Rule::Bulyan { byzantine },
        })
    }

    pub(super) fn check(&self, quorum: &Quorum) -> Result<()> {
        self.check_parameters()?;
        let name = self.rule.name();
        expect(
            "aggregation.update_type",
            self.update_type.format().is_integer() == self.rule.is_exact(),
            if self.rule.is_exact() {
                format!("int32, int16 or int8 for {name}, which is exact on a grid")
            } else {
                format!("float32, bfloat16 or float16 for {name}")
            },
            self.update_type.name(),
        )?;
        for (field, value) in [
            ("aggregation.clip", self.clip),
            ("aggregation.smoothing", self.smoothing),
            ("aggregation.divisor", self.divisor),
            ("aggregation.norm_limit", self.norm_limit),
        ] {
            if let Some(value) = value {
                expect_ordinary(field, value)?;
            }
        }
        if let Some(rule) = self.selective() {
            // Conditions get easier with more sites, so the smallest roster
            // decides for all.
            let k = quorum.smallest_roster;
            rule.check(k).or_else(|error| self.expect_of_rule(&error, k))?;
        }
        Ok(())
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
