//! A site's sum over its patients, each clipped, on the integer grid.
//!
//! Patient-level privacy rests on one number: by how much a patient can change
//! the sum. Here it is exact. Each gradient is clipped and rounded to integers
//! so that the *integer* vector is no longer than [`ClippedSum::bound`], which
//! is checked in integers, and integers are added without rounding. A gradient
//! that is clipped first and rounded afterwards could be longer by
//! sqrt(dimension) / 2 steps, and the sums of many patients by more still
//! (Kairouz, Liu and Steinke, 2021).

use crate::exact_sum::ExactSum;
use crate::{Error, Result};
use zeroize::{Zeroize, ZeroizeOnDrop};

/// Squares that are added in binary64 before the exact sum takes over. The
/// norm errs by a relative 2^-43 at most.
const BLOCK: usize = 512;
/// How often a gradient is scaled down and rounded to nearest.
const ATTEMPTS: usize = 4;
/// What a gradient is scaled by, at most, before it is rounded toward zero: so
/// much below 1 that the rounding of norm, factor and products cannot lengthen
/// it beyond the bound.
const MARGIN: f64 = 1.0 - 1.0 / (1u64 << 40) as f64;

/// The sum of the patients' clipped gradients, in steps of the grid. Erased at
/// the end.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct ClippedSum {
    clip: f64,
    step: f64,
    bound: u32,
    patients: u32,
    sums: Vec<i64>,
    /// The gradient of one patient, in steps.
    steps: Vec<i32>,
}

impl ClippedSum {
    /// An empty sum for gradients of so many values.
    ///
    /// `clip` is the largest Euclidean norm of a patient's gradient and `step`
    /// the spacing of the grid, both in units of the model. Keep the clip at
    /// sqrt(`dimension`) steps or more, or little is left of a gradient.
    ///
    /// # Errors
    /// [`Error::Empty`] for no values; [`Error::Parameter`] for a clip or a
    /// step that is not a positive number, or a clip of less than one or of
    /// 2^31 steps and more.
    pub fn new(clip: f64, step: f64, dimension: usize) -> Result<Self> {
        if dimension == 0 {
            return Err(Error::Empty { what: "values of a gradient" });
        }
        for (what, found) in [("clip", clip), ("step", step), ("1 / step", 1.0 / step)] {
            if !(found.is_finite() && found > 0.0) {
                return Err(Error::Parameter { what, found });
            }
        }
        let bound = (clip / step).floor();
        if !(1.0..=f64::from(i32::MAX)).contains(&bound) {
            let what = "clip in steps, which is to be 1 to 2147483647,";
            return Err(Error::Parameter { what, found: bound });
        }
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // checked above
        let bound = bound as u32;
        let (sums, steps) = (vec![0; dimension], vec![0; dimension]);
        Ok(Self { clip, step, bound, patients: 0, sums, steps })
    }

    /// The largest norm of a patient's integer gradient: clip / step, a
    /// quotient in binary64, rounded down. This is the sensitivity of the sum,
    /// in steps, to one patient who is added or taken away.
    #[must_use]
    pub fn bound(&self) -> u32 {
        self.bound
    }

    /// Adds the gradient of one patient, clipped and rounded.
    ///
    /// A gradient of at most the bound is rounded to nearest, ties to even. A
    /// longer one is first scaled to the bound. If rounding made it longer, as
    /// it does to most gradients that were scaled, it is scaled down by that
    /// and rounded again; if that does not help a few times, as on a coarse
    /// grid, it is rounded toward zero, which lengthens nothing. The same
    /// gradient gives the same integers everywhere.
    ///
    /// # Errors
    /// [`Error::Length`] for a gradient of another dimension;
    /// [`Error::Gradient`] naming patient and coordinate of a value that is not
    /// finite; [`Error::TooMany`] after 2^32 - 1 patients. The sum is then
    /// unchanged.
    pub fn add(&mut self, gradient: &[f32]) -> Result<()> {
        if gradient.len() != self.sums.len() {
            let (expected, found) = (self.sums.len(), gradient.len());
            return Err(Error::Length { what: "values of the gradient", expected, found });
        }
        // A sum of 2^32 values below 2^31 fits 64 bits.
        let too_many = Error::TooMany { what: "patients of one sum", most: u32::MAX };
        let patient = self.patients.checked_add(1).ok_or(too_many)?;
        if let Some(coordinate) = gradient.iter().position(|value| !value.is_finite()) {
            return Err(Error::Gradient { patient, coordinate, found: gradient[coordinate] });
        }
        self.clip_to_grid(gradient);
        for (sum, steps) in self.sums.iter_mut().zip(&self.steps) {
            *sum += i64::from(*steps);
        }
        self.patients = patient;
        Ok(())
    }

    /// The update: the exact sum of all patients.
    ///
    /// # Errors
    /// [`Error::GridSum`] if a coordinate does not fit an int32, saying which
    /// number of patients and which step are sure to fit. The sums stay secret
    /// but for that one, so the message belongs into the site's own log.
    pub fn finish(self) -> Result<Vec<i32>> {
        let fits = |(coordinate, sum): (usize, &i64)| {
            i32::try_from(*sum).map_err(|_| self.too_large(coordinate, *sum))
        };
        self.sums.iter().enumerate().map(fits).collect()
    }

    fn too_large(&self, coordinate: usize, sum: i64) -> Error {
        let most = i32::MAX.unsigned_abs() / self.bound;
        // With a larger step the bound is at most what fits so many patients.
        let fitting = i32::MAX.unsigned_abs() / self.patients.max(1);
        let step = self.clip / f64::from(fitting.max(1));
        Error::GridSum { coordinate, sum, patients: self.patients, most, step }
    }

    /// Fills `steps` with the gradient as integers of norm `bound` at most.
    fn clip_to_grid(&mut self, gradient: &[f32]) {
        let bound = f64::from(self.bound);
        let norm = norm(gradient);
        // A gradient of 0 has an infinite quotient, which the other undercuts.
        let clipped = (1.0 / self.step).min(bound / norm);
        let mut multiplier = clipped;
        for _ in 0..ATTEMPTS {
            let squares = self.round(gradient, multiplier, f64::round_ties_even);
            if squares <= self.largest_square() {
                return;
            }
            multiplier *= bound / (squares as f64).sqrt();
        }
        multiplier = clipped * MARGIN;
        while self.round(gradient, multiplier, f64::trunc) > self.largest_square() {
            // By the argument of MARGIN not reached; the check is what counts.
            multiplier *= MARGIN;
        }
    }

    fn largest_square(&self) -> u128 {
        u128::from(self.bound).pow(2)
    }

    /// Fills `steps` with the rounded products, and says the exact sum of
    /// their squares.
    fn round(&mut self, gradient: &[f32], multiplier: f64, round: fn(f64) -> f64) -> u128 {
        let mut squares = 0;
        for (steps, value) in self.steps.iter_mut().zip(gradient) {
            // No product is beyond the bound by more than its own rounding, so
            // the conversion is exact.
            #[allow(clippy::cast_possible_truncation)]
            let rounded = round(f64::from(*value) * multiplier) as i32;
            *steps = rounded;
            squares += u128::from(rounded.unsigned_abs()).pow(2);
        }
        squares
    }
}

/// The Euclidean norm of finite values.
fn norm(gradient: &[f32]) -> f64 {
    let mut sum = ExactSum::new();
    for block in gradient.chunks(BLOCK) {
        sum.add(block.iter().map(|value| f64::from(*value).powi(2)).sum());
    }
    sum.to_f64().sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn clip(gradient: &[f32], clip: f64, step: f64) -> (Vec<i32>, u128) {
        let mut sum = ClippedSum::new(clip, step, gradient.len()).unwrap();
        let bound = u128::from(sum.bound()).pow(2);
        sum.add(gradient).unwrap();
        (sum.finish().unwrap(), bound)
    }

    fn squares(integers: &[i32]) -> u128 {
        integers.iter().map(|value| u128::from(value.unsigned_abs()).pow(2)).sum()
    }

    /// Any finite value: zeros, subnormals, and the largest.
    fn gradient() -> impl Strategy<Value = Vec<f32>> {
        let finite = any::<f32>().prop_filter("finite", |value| value.is_finite());
        prop_oneof![
            prop::collection::vec(finite, 1..60),
            prop::collection::vec(-1f32..1.0, 1..2000),
            prop::collection::vec(
                prop::sample::select(vec![0.0f32, -0.5, 0.5, 1e-40, 1e38]),
                1..60
            ),
        ]
    }

    proptest! {
        #[test]
        fn no_patient_is_longer_than_the_bound(
            gradient in gradient(), bound in 1.0f64..3e4, step in prop::sample::select(vec![1e-6, 0.25, 1.0, 3e7]),
        ) {
            let (integers, largest) = clip(&gradient, bound * step, step);
            prop_assert!(squares(&integers) <= largest);
        }

        #[test]
        fn a_short_gradient_is_only_rounded(gradient in prop::collection::vec(-1f32..1.0, 1..100)) {
            let step = 2f64.powi(-10);
            let (integers, _) = clip(&gradient, 20.0, step);
            let expected: Vec<_> =
                gradient.iter().map(|v| (f64::from(*v) / step).round_ties_even() as i32).collect();
            prop_assert_eq!(integers, expected);
        }

        #[test]
        fn a_long_gradient_keeps_its_direction_and_nearly_the_bound(
            gradient in prop::collection::vec(-1f32..1.0, 50..300),
        ) {
            // 2^20 steps for some hundred coordinates: as fine as is advised.
            let step = 2f64.powi(-20);
            let length = norm(&gradient);
            prop_assume!(length > 1.0);
            let (integers, largest) = clip(&gradient, 1.0, step);
            let found = (squares(&integers) as f64).sqrt();
            prop_assert!(found > (largest as f64).sqrt() * (1.0 - 1e-4));
            for (integer, value) in integers.iter().zip(&gradient) {
                let expected = f64::from(*value) / length / step;
                prop_assert!((f64::from(*integer) - expected).abs() <= 1.0 + expected.abs() * 1e-4);
            }
        }

        #[test]
        fn patients_are_added_exactly(
            patients in prop::collection::vec(prop::collection::vec(-10f32..10.0, 20), 1..20),
        ) {
            let mut sum = ClippedSum::new(4.0, 1e-3, 20).unwrap();
            let mut expected = vec![0i64; 20];
            for patient in &patients {
                sum.add(patient).unwrap();
                let (integers, _) = clip(patient, 4.0, 1e-3);
                expected.iter_mut().zip(integers).for_each(|(sum, value)| *sum += i64::from(value));
            }
            let found: Vec<_> = sum.finish().unwrap().into_iter().map(i64::from).collect();
            prop_assert_eq!(found, expected);
        }
    }

    #[test]
    fn extremes_are_clipped_like_the_rest() {
        assert_eq!(clip(&[0.0, -0.0], 1.0, 0.1).0, [0, 0]);
        assert_eq!(clip(&[f32::from_bits(1), 1e-40], 1.0, 1e-3).0, [0, 0]);
        assert_eq!(clip(&[1e38, 0.0, 0.0], 1.0, 0.125).0, [8, 0, 0]);
        assert_eq!(clip(&[-f32::MAX; 4], 8.0, 1.0).0, [-4; 4]);
        assert_eq!(clip(&[f32::from_bits(1), 0.0], 1e-44, 1e-45).0, [1, 0]);
        // The bound may be the whole range of an update.
        assert_eq!(clip(&[5.0], 2_147_483_647.0, 1.0).0, [5]);
        assert_eq!(clip(&[1e38], 2_147_483_647.0, 1.0).0, [i32::MAX]);
    }

    #[test]
    fn on_a_coarse_grid_the_bound_holds_too() {
        // Each of 10,000 coordinates is 0.6 of a step: to nearest 100 steps long.
        let (integers, largest) = clip(&vec![0.6; 10_000], 60.0, 1.0);
        assert!(squares(&integers) <= largest);
        // 124 coordinates stay too long four times: their squares are 132, 114, 114
        // and 109. Rounded toward zero only the first is left.
        let gradient = [&[3.2][..], &[0.9; 105], &[0.501; 18]].concat();
        let (integers, largest) = clip(&gradient, 10.0, 1.0);
        assert_eq!(largest, 100);
        assert_eq!((integers[0], squares(&integers)), (3, 9));
    }

    #[test]
    fn what_cannot_be_added_is_named_and_changes_nothing() {
        let mut sum = ClippedSum::new(1.0, 0.25, 3).unwrap();
        sum.add(&[1.0, 0.0, 0.0]).unwrap();
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let error = sum.add(&[1.0, 1.0, bad]).unwrap_err();
            assert!(matches!(error, Error::Gradient { patient: 2, coordinate: 2, .. }), "{error}");
        }
        let error = sum.add(&[1.0; 4]).unwrap_err();
        let expected = Error::Length { what: "values of the gradient", expected: 3, found: 4 };
        assert_eq!(error, expected);
        assert_eq!(sum.finish().unwrap(), [4, 0, 0]);
    }

    #[test]
    fn a_sum_that_does_not_fit_says_what_does() {
        let add = |clip: f64, step: f64, patients: u32| {
            let mut sum = ClippedSum::new(clip, step, 2).unwrap();
            (0..patients).for_each(|_| sum.add(&[0.0, 1e30]).unwrap());
            sum.finish()
        };
        let error = add(1.0, 2f64.powi(-29), 5).unwrap_err();
        let Error::GridSum { coordinate, sum, patients, most, step } = error else {
            panic!("{error}");
        };
        assert_eq!((coordinate, sum, patients, most), (1, 5 << 29, 5, 3));
        assert_eq!(add(1.0, 2f64.powi(-29), most).unwrap(), [0, 3 << 29]);
        assert!(add(1.0, step, 5).unwrap()[1] > i32::MAX - 5);
    }

    #[test]
    fn parameters_that_cannot_be_are_refused() {
        let bad = [
            (0.0, 1.0),
            (1.0, 0.0),
            (-1.0, 1.0),
            (f64::NAN, 1.0),
            (1.0, f64::INFINITY),
            (1.0, 1.1),
            (1.0, 1e-10),
            (1e-310, 1e-320),
        ];
        for (clip, step) in bad {
            let error = ClippedSum::new(clip, step, 3).err();
            assert!(matches!(error, Some(Error::Parameter { .. })), "{clip} {step} {error:?}");
        }
        assert!(matches!(ClippedSum::new(1.0, 0.1, 0), Err(Error::Empty { .. })));
    }
}
