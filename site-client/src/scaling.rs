//! One factor for a whole update: to the norm limit, and to what the format holds.
//!
//! A site scales its update itself, so that the enclave refuses the updates of
//! cheaters only and a refusal tells nothing of an honest one. Single values are
//! never cut: a cut value is another update.

use sealfold_aggregation::exact_sum::ExactSum;
use sealfold_aggregation::format::Format;
use sealfold_protocol::terms::Terms;
use serde_json::{Value, json};

/// What the rounding of norm, factor and products may add, relatively.
const MARGIN: f64 = 1e-9;

/// What an update is like before it is scaled.
pub struct Measured {
    squares: ExactSum,
    /// The largest magnitude in steps; of floating-point values in their unit.
    largest: f64,
    /// The step of each tensor; 1 without a grid.
    steps: Vec<f64>,
}

/// How an update was scaled, and what rounding did to it.
#[derive(Debug, Clone, PartialEq)]
pub struct Scaled {
    /// What every value is multiplied by, 1 at most.
    pub factor: f64,
    /// The Euclidean norm before.
    pub norm: f64,
    /// Why the factor is below 1, and what would help.
    pub reason: Option<String>,
    error: f64,
}

impl Measured {
    /// Nothing yet, of an update under these terms.
    #[must_use]
    pub fn new(terms: &Terms) -> Self {
        let steps = terms.model.tensors.iter().map(|tensor| terms.step(tensor).unwrap_or(1.0));
        Self { squares: ExactSum::new(), largest: 0.0, steps: steps.collect() }
    }

    /// Notes finite values of a tensor.
    pub fn add(&mut self, tensor: usize, values: &[f32]) {
        let step = self.steps.get(tensor).copied().unwrap_or(1.0);
        let mut largest = 0f32;
        for block in values.chunks(512) {
            self.squares.add(block.iter().map(|value| f64::from(*value).powi(2)).sum());
            largest = block.iter().fold(largest, |most, value| most.max(value.abs()));
        }
        self.largest = self.largest.max(f64::from(largest) / step);
    }

    /// The factor: 1, or what brings the update to the norm limit, rounding
    /// included, or its largest value to the format's.
    #[must_use]
    pub fn scale(self, terms: &Terms) -> Scaled {
        let norm = self.squares.to_f64().sqrt();
        let format = terms.aggregation.update_type.format();
        let (to_limit, limit) = match terms.aggregation.norm_limit {
            Some(limit) => (within(limit, norm, terms), limit),
            None => (1.0, f64::INFINITY),
        };
        let to_fit = match format.largest() {
            Some(largest) if self.largest > 0.0 => {
                f64::from(largest) * (1.0 - MARGIN) / self.largest
            }
            _ => 1.0,
        };
        let factor = to_limit.min(to_fit).min(1.0);
        let reason = (factor < 1.0).then(|| {
            if to_limit <= to_fit {
                return format!("its norm {norm} is above the norm limit {limit}");
            }
            let step = self.steps.iter().copied().fold(0.0, f64::max) / to_fit;
            format!(
                "its largest value does not fit {}: a step of {step} would hold it",
                format.name()
            )
        });
        Scaled { factor, norm, reason, error: 0.0 }
    }
}

/// The factor with which an update of that norm is at most as long as the limit
/// after rounding.
#[allow(clippy::cast_precision_loss)] // a bound on a bound
fn within(limit: f64, norm: f64, terms: &Terms) -> f64 {
    let format = terms.aggregation.update_type.format();
    let room = match format {
        // Rounding lengthens a value by half a unit in its last place at most.
        Format::Float32 => limit * (1.0 - 2f64.powi(-23)),
        Format::Bfloat16 => limit * (1.0 - 2f64.powi(-8)),
        Format::Float16 => limit * (1.0 - 2f64.powi(-10)),
        _ => {
            let squares = terms.model.tensors.iter().map(|tensor| {
                let step = terms.step(tensor).unwrap_or(0.0);
                tensor.elements().unwrap_or(0) as f64 * step * step
            });
            limit - squares.sum::<f64>().sqrt() / 2.0
        }
    };
    let room = room * (1.0 - MARGIN);
    if norm > room { room / norm } else { 1.0 }
}

impl Scaled {
    /// Notes the squared rounding error of values, in the model's units.
    pub fn rounded(&mut self, squares: f64) {
        self.error += squares;
    }

    /// The length of the rounding error beside that of the update as it is sent.
    #[must_use]
    pub fn relative_error(&self) -> f64 {
        if self.norm > 0.0 { self.error.sqrt() / (self.norm * self.factor) } else { 0.0 }
    }

    /// For the site's own log, which nobody else reads.
    #[must_use]
    pub fn event(&self, round: u32) -> Value {
        json!({
            "round": round, "factor": self.factor, "norm": self.norm,
            "relative_error": self.relative_error(), "scaled_because": self.reason,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use sealfold_aggregation::integer::sum_of_squares;
    use sealfold_aggregation::quantise::{quantise, widen};
    use sealfold_protocol::terms::UpdateType;
    use sealfold_study::Manifest;

    /// The example's terms with a norm limit of 5 for 12 values of this type.
    fn terms(update_type: &str) -> Terms {
        let text = include_str!("../../study/example.toml");
        let limit = format!("norm_limit = 5.0\nupdate_type = \"{update_type}\"");
        Manifest::from_toml(&text.replace("norm_limit = 5.0", &limit)).unwrap().terms
    }

    fn scaled(terms: &Terms, values: &[f32]) -> Scaled {
        let mut measured = Measured::new(terms);
        measured.add(0, values);
        measured.scale(terms)
    }

    proptest! {
        /// What the enclave measures of an honest update is never above the limit,
        /// and no value is cut.
        #[test]
        fn an_honest_update_is_never_too_long(
            values in prop::collection::vec(-3f32..3.0, 12), scale in -20i32..60,
        ) {
            let values: Vec<_> = values.iter().map(|value| value * 2f32.powi(scale)).collect();
            for name in ["int8", "int16", "int32"] {
                let terms = terms(name);
                let format = terms.aggregation.update_type.format();
                let step = terms.smallest_step().unwrap();
                let mut scaled = scaled(&terms, &values);
                let mut bytes = vec![0; 12 * format.width()];
                let multiplier = scaled.factor / step;
                let error = quantise(format, multiplier, &values, &mut bytes).unwrap();
                let squares = sum_of_squares(format, &bytes).unwrap();
                #[allow(clippy::cast_precision_loss)] // as the enclave rounds it
                let norm = (step * step * squares as f64).sqrt();
                prop_assert!(norm <= 5.0);
                // Rounded to nearest, and that is the error that is told.
                let mut whole = vec![0; 12];
                widen(format, &bytes, &mut whole).unwrap();
                let mut found = 0.0;
                for (whole, value) in whole.iter().zip(&values) {
                    let off = f64::from(*whole) - f64::from(*value) * multiplier;
                    prop_assert!(off.abs() <= 0.5);
                    found += off * off;
                }
                prop_assert!((found - error).abs() <= 1e-9);
                scaled.rounded(error * step * step);
                prop_assert!(scaled.relative_error().is_finite());
            }
        }

        #[test]
        fn floats_are_scaled_to_the_limit_as_well(
            values in prop::collection::vec(-3f32..3.0, 12), scale in 0i32..60,
        ) {
            let mut terms = terms("int32");
            let values: Vec<_> = values.iter().map(|value| value * 2f32.powi(scale)).collect();
            for (update_type, relative) in [
                (UpdateType::Float32, 2f64.powi(-24)),
                (UpdateType::Bfloat16, 2f64.powi(-9)),
                (UpdateType::Float16, 2f64.powi(-11)),
            ] {
                terms.aggregation.update_type = update_type;
                terms.model.tensors[0].step = None;
                let scaled = scaled(&terms, &values);
                prop_assert!(scaled.norm * scaled.factor * (1.0 + relative) <= 5.0);
            }
        }
    }

    #[test]
    fn why_an_update_is_scaled_is_said() {
        let terms = terms("int8");
        let fine = scaled(&terms, &[0.5; 12]);
        assert_eq!((fine.factor.to_bits(), fine.reason.clone()), (1f64.to_bits(), None));
        let long = scaled(&terms, &[2.0; 12]);
        assert!(long.factor < 0.73 && long.reason.unwrap().contains("above the norm limit 5"));
        // Short enough, but all in one value: int8 has 127 steps.
        let mut peak = [0.0; 12];
        peak[3] = 4.5;
        let peak = scaled(&terms, &peak);
        let reason = peak.reason.unwrap();
        assert!(peak.factor < 1.0 && reason.contains("does not fit int8: a step of"), "{reason}");
        assert_eq!(scaled(&terms, &[0.0; 12]).factor.to_bits(), 1f64.to_bits());
    }
}
