//! One factor for a whole update: to the norm limit, and to what the format holds.
//!
//! A site scales its update itself, so that the enclave refuses the updates of
//! cheaters only and a refusal tells nothing of an honest one. Single values are
//! never cut: a cut value is another update.

use sealfold_aggregation::exact_sum::ExactSum;
use sealfold_aggregation::format::{Codec, Format};
use sealfold_aggregation::quantise::quantise;
use sealfold_protocol::terms::Terms;
use serde_json::{Value, json};

/// What the rounding of norm, factor and products may add, relatively.
const MARGIN: f64 = 1e-9;

/// What an update is like before it is scaled.
pub struct Measured {
    squares: ExactSum,
    /// The largest magnitude in steps; of floating-point values in their unit.
    largest: f64,
    /// The step of the tensor that has it.
    step_of_largest: f64,
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
        let (squares, steps) = (ExactSum::new(), steps.collect());
        Self { squares, largest: 0.0, step_of_largest: 1.0, steps }
    }

    /// Notes finite values of a tensor.
    pub fn add(&mut self, tensor: usize, values: &[f32]) {
        let step = self.steps.get(tensor).copied().unwrap_or(1.0);
        let mut largest = 0f32;
        for block in values.chunks(512) {
            self.squares.add(block.iter().map(|value| f64::from(*value).powi(2)).sum());
            largest = block.iter().fold(largest, |most, value| most.max(value.abs()));
        }
        let largest = f64::from(largest) / step;
        if largest > self.largest {
            (self.largest, self.step_of_largest) = (largest, step);
        }
    }

    /// The factor: 1, or what brings the update to the norm limit, rounding
    /// included, or its largest value to the format's.
    #[must_use]
    pub fn scale(self, terms: &Terms) -> Scaled {
        let norm = self.squares.to_f64().sqrt();
        let format = terms.aggregation.update_type.format();
        let to_limit = match terms.aggregation.norm_limit {
            Some(limit) => (room(limit, terms) / norm).min(1.0),
            None => 1.0,
        };
        let to_fit = match largest(format) {
            Some(largest) if self.largest > 0.0 => largest * (1.0 - MARGIN) / self.largest,
            _ => 1.0,
        };
        let factor = to_limit.min(to_fit).min(1.0);
        let reason = (factor < 1.0).then(|| {
            if to_limit <= to_fit {
                let limit = terms.aggregation.norm_limit.unwrap_or(f64::INFINITY);
                // What rounding takes of the limit, and a little more.
                let needed = (norm + limit - room(limit, terms)) * (1.0 + 2f64.powi(-7));
                return format!(
                    "its norm {norm}, with its rounding, is above the norm limit {limit}: fewer \
                     local steps or a smaller learning rate would help, and so would a norm_limit \
                     of {needed}"
                );
            }
            let name = format.name();
            if !format.is_integer() {
                return format!(
                    "its largest value does not fit {name}: an update_type of float32 would hold it"
                );
            }
            let step = self.step_of_largest / to_fit;
            format!("its largest value does not fit {name}: a step of {step} would hold it")
        });
        Scaled { factor, norm, reason, error: 0.0 }
    }
}

/// The largest magnitude that a format holds; none for float32, which is what
/// updates are read as.
fn largest(format: Format) -> Option<f64> {
    match format {
        Format::Float16 => Some(65504.0),
        // The upper half of the largest binary32.
        Format::Bfloat16 => Some(f64::from(f32::from_bits(0x7f7f_0000))),
        _ => format.largest().map(f64::from),
    }
}

/// The longest that an update may be so that rounding leaves it within the limit.
#[allow(clippy::cast_precision_loss)] // a bound on a bound
fn room(limit: f64, terms: &Terms) -> f64 {
    let values = (terms.model.parameters() as f64).sqrt();
    let room = match terms.aggregation.update_type.format() {
        // A value is rounded by half a unit in its last place at most: twice, to
        // binary32 and to the format. Below 2^-14 a binary16 has steps of 2^-24.
        Format::Float32 => limit * (1.0 - 2f64.powi(-23)),
        Format::Bfloat16 => limit * (1.0 - 2f64.powi(-8)),
        Format::Float16 => (limit - values * 2f64.powi(-25)) * (1.0 - 2f64.powi(-10)),
        _ => {
            let squares = terms.model.tensors.iter().map(|tensor| {
                let step = terms.step(tensor).unwrap_or(0.0);
                tensor.elements().unwrap_or(0) as f64 * step * step
            });
            limit - squares.sum::<f64>().sqrt() / 2.0
        }
    };
    // A limit so small that float16 has no values for it leaves nothing to send.
    (room * (1.0 - MARGIN)).max(f64::MIN_POSITIVE)
}

impl Scaled {
    /// Writes values of a tensor as they travel, scaled, and notes what rounding
    /// does to them.
    ///
    /// # Errors
    /// As [`quantise`] and [`Codec::encode`]: never for values that were measured
    /// before.
    pub fn encode(
        &mut self,
        terms: &Terms,
        tensor: usize,
        values: &[f32],
        bytes: &mut Vec<u8>,
    ) -> sealfold_aggregation::Result<()> {
        let format = terms.aggregation.update_type.format();
        bytes.resize(values.len() * format.width(), 0);
        if let Some(step) = terms.model.tensors.get(tensor).and_then(|tensor| terms.step(tensor)) {
            let squares = quantise(format, self.factor / step, values, bytes)?;
            self.error += squares * step * step;
            return Ok(());
        }
        let codec = Codec::new(format)?;
        let scaled = values.iter().map(|value| f64::from(*value) * self.factor);
        #[allow(clippy::cast_possible_truncation)] // scaled values travel as float32
        let narrow: Vec<f32> = scaled.clone().map(|value| value as f32).collect();
        codec.encode(0, &narrow, bytes)?;
        let mut sent = vec![0; values.len() * 4];
        codec.decode(bytes, &mut sent)?;
        let sent = sent.as_chunks::<4>().0.iter().map(|four| f64::from(f32::from_le_bytes(*four)));
        self.error += scaled.zip(sent).map(|(value, sent)| (value - sent).powi(2)).sum::<f64>();
        Ok(())
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
    use sealfold_aggregation::norm::inspect;
    use sealfold_aggregation::quantise::widen;
    use sealfold_protocol::terms::UpdateType;
    use sealfold_study::Manifest;

    /// The example's terms with a norm limit of 5 for 12 values of this type.
    fn terms(update_type: &str) -> Terms {
        let text = include_str!("../../study/example.toml");
        let limit = format!("norm_limit = 5.0\nupdate_type = \"{update_type}\"");
        Manifest::from_toml(&text.replace("norm_limit = 5.0", &limit)).unwrap().terms
    }

    /// The same for values that travel as floating-point numbers.
    fn floating(update_type: UpdateType) -> Terms {
        let mut terms = terms("int32");
        terms.aggregation.update_type = update_type;
        terms.model.tensors[0].step = None;
        terms
    }

    const FLOATING: [UpdateType; 3] =
        [UpdateType::Float32, UpdateType::Bfloat16, UpdateType::Float16];

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
                let mut bytes = Vec::new();
                scaled.encode(&terms, 0, &values, &mut bytes).unwrap();
                let squares = sum_of_squares(format, &bytes).unwrap();
                #[allow(clippy::cast_precision_loss)] // as the enclave rounds it
                let norm = (step * step * squares as f64).sqrt();
                prop_assert!(norm <= 5.0);
                // Rounded to nearest, and that is the error that is told.
                let mut whole = vec![0; 12];
                widen(format, &bytes, &mut whole).unwrap();
                let mut error = 0.0;
                for (whole, value) in whole.iter().zip(&values) {
                    let off = f64::from(*whole) - f64::from(*value) * (scaled.factor / step);
                    prop_assert!(off.abs() <= 0.5);
                    error += off * off * step * step;
                }
                let relative = error.sqrt() / (scaled.norm * scaled.factor);
                prop_assert!((scaled.relative_error() - relative).abs() <= 1e-9 * relative);
            }
        }

        #[test]
        fn floats_are_scaled_to_the_limit_as_well(
            values in prop::collection::vec(-3f32..3.0, 12), scale in 0i32..120,
        ) {
            let values: Vec<_> = values.iter().map(|value| value * 2f32.powi(scale)).collect();
            for update_type in FLOATING {
                let terms = floating(update_type);
                let mut scaled = scaled(&terms, &values);
                let mut bytes = Vec::new();
                scaled.encode(&terms, 0, &values, &mut bytes).unwrap();
                let mut sent = vec![0; 48];
                let codec = Codec::new(update_type.format()).unwrap();
                codec.decode(&bytes, &mut sent).unwrap();
                prop_assert!(inspect(&sent).sum_of_squares.sqrt() <= 5.0);
                let bound = if update_type == UpdateType::Float32 { 2f64.powi(-23) } else { 2f64.powi(-8) };
                prop_assert!(scaled.relative_error() <= bound);
            }
        }

        /// The norm limit that is named is one with which nothing is scaled.
        #[test]
        fn the_limit_that_would_help_helps(value in 1.5f32..1e6) {
            let integers = ["int16", "int32"].map(terms);
            for mut terms in integers.into_iter().chain(FLOATING.map(floating)) {
                let reason = scaled(&terms, &[value; 12]).reason.unwrap();
                let Some((_, limit)) = reason.split_once("a norm_limit of ") else {
                    prop_assert!(reason.contains("does not fit"), "{}", reason);
                    continue;
                };
                terms.aggregation.norm_limit = Some(limit.parse().unwrap());
                let again = scaled(&terms, &[value; 12]).reason.unwrap_or_default();
                prop_assert!(again.is_empty() || again.contains("does not fit"), "{}", again);
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

    /// A study without a norm limit: float16 ends at 65504.
    #[test]
    fn floats_are_scaled_to_fit() {
        let mut terms = floating(UpdateType::Float16);
        terms.aggregation.norm_limit = None;
        let values = [1e6, -3.0, 0.0, 0.5];
        let mut scaled = scaled(&terms, &values);
        assert!(scaled.reason.as_ref().unwrap().contains("does not fit float16"));
        scaled.encode(&terms, 0, &values, &mut Vec::new()).unwrap();
        assert!(scaled.factor > 0.0655 && scaled.relative_error() < 1e-3);
    }
}
