//! One tensor's step, piece by piece.

use super::dtype::{BFLOAT16, Dtype, FLOAT16, FLOAT32, Float};
use super::{Optimiser, positive};
use crate::{Error, Result};

/// How the values of a tensor move on from a release. Steps of all tensors
/// together make the next model.
#[derive(Debug, Clone, PartialEq)]
pub struct TensorStep {
    dtype: Dtype,
    optimiser: Optimiser,
    /// What the state of a value begins with.
    beginning: Vec<f32>,
}

impl TensorStep {
    /// The step of a tensor of the model.
    ///
    /// A float16 or bfloat16 value is computed in binary64 and rounded once. An
    /// integer is a count and no parameter: whatever the optimiser, it is a
    /// [`buffer`](Self::buffer).
    ///
    /// # Errors
    /// As [`Optimiser::check`].
    pub fn new(optimiser: Optimiser, dtype: Dtype) -> Result<Self> {
        optimiser.check()?;
        if dtype.is_integer() {
            return Ok(Self::buffer(dtype));
        }
        Ok(Self { dtype, optimiser, beginning: optimiser.beginning() })
    }

    /// The step of a tensor that the model carries along and does not learn,
    /// such as the running mean, variance and number of batches of a batch
    /// normalisation: base + aggregate, for an integer the aggregate rounded to
    /// the nearest, ties to even. It has neither rate nor state. An adaptive
    /// optimiser, which moves a value by about its rate whatever the aggregate,
    /// could make a variance negative.
    #[must_use]
    pub fn buffer(dtype: Dtype) -> Self {
        Self { dtype, optimiser: Optimiser::FedAvg { learning_rate: 1.0 }, beginning: vec![] }
    }

    /// The step of a control variate (SCAFFOLD; Karimireddy et al., 2020),
    /// which no optimiser moves: c ← c + (S / N) x the plain mean of the sites'
    /// changes, for the `participants` S of a round among the study's `sites`
    /// N. It has no state.
    ///
    /// # Errors
    /// [`Error::Format`] for an integer type; [`Error::Parameter`] for no
    /// participants, and [`Error::Length`] for more than there are sites.
    pub fn control(dtype: Dtype, participants: u32, sites: u32) -> Result<Self> {
        if dtype.is_integer() {
            let expected = "a floating-point type of a control variate";
            return Err(Error::Format { expected, found: dtype.name() });
        }
        if participants > sites {
            let (expected, found) = (sites as usize, participants as usize);
            return Err(Error::Length { what: "participants, at most", expected, found });
        }
        positive("participants", participants.into())?;
        let learning_rate = f64::from(participants) / f64::from(sites);
        Ok(Self { dtype, optimiser: Optimiser::FedAvg { learning_rate }, beginning: vec![] })
    }

    /// The type of the tensor's values.
    #[must_use]
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// The number of bytes of state for each value: 0, 4 or 8.
    #[must_use]
    pub fn state_width(&self) -> usize {
        4 * self.beginning.len()
    }

    /// Writes the state of whole values as it is before the first round.
    ///
    /// # Errors
    /// [`Error::Length`] if the bytes are not those of whole values.
    pub fn begin(&self, state: &mut [u8]) -> Result<()> {
        let (expected, found) = (self.state_width(), state.len());
        if !found.is_multiple_of(expected) {
            return Err(Error::Length { what: "bytes of the optimiser's state", expected, found });
        }
        let (slots, _) = state.as_chunks_mut::<4>();
        for (slot, value) in slots.iter_mut().zip(self.beginning.iter().cycle()) {
            *slot = value.to_le_bytes();
        }
        Ok(())
    }

    /// Steps a piece of the tensor and of its state, in place. `first` is the
    /// index of its first value, which is added to the places in errors. Pieces
    /// may be of any size and come in any order.
    ///
    /// # Errors
    /// [`Error::Length`] if base, aggregate and state are not of the same
    /// number of whole values; [`Error::NotFinite`] or [`Error::IntegerOverflow`]
    /// naming the first value that overflows. The piece is changed up to there,
    /// so step copies, and put them in place when all went well.
    pub fn apply(
        &self,
        first: usize,
        base: &mut [u8],
        aggregate: &[u8],
        state: &mut [u8],
    ) -> Result<()> {
        let (width, count) = (self.dtype.width(), base.len() / self.dtype.width());
        for (what, found, width) in [
            ("bytes of the base", base.len(), width),
            ("bytes of the aggregate", aggregate.len(), 4),
            ("bytes of the optimiser's state", state.len(), self.state_width()),
        ] {
            let expected = count.saturating_mul(width);
            if found != expected {
                return Err(Error::Length { what, expected, found });
            }
        }
        let (aggregate, _) = aggregate.as_chunks::<4>();
        match self.dtype {
            Dtype::Float32 => self.floats(&FLOAT32, base, aggregate, state),
            Dtype::Float16 => self.floats(&FLOAT16, base, aggregate, state),
            Dtype::Bfloat16 => self.floats(&BFLOAT16, base, aggregate, state),
            Dtype::Int32 => integers(base, aggregate, |value, delta| {
                let value = i64::from(i32::from_le_bytes(value)).checked_add(delta)?;
                i32::try_from(value).ok().map(i32::to_le_bytes)
            }),
            Dtype::Int64 => integers(base, aggregate, |value, delta| {
                i64::from_le_bytes(value).checked_add(delta).map(i64::to_le_bytes)
            }),
        }
        .map_err(|index| {
            let index = first.saturating_add(index);
            if self.dtype.is_integer() {
                Error::IntegerOverflow { index, dtype: self.dtype.name() }
            } else {
                Error::NotFinite { index }
            }
        })
    }

    /// An error is the place of the first value that is not finite.
    fn floats<const W: usize>(
        &self,
        float: &Float<W>,
        base: &mut [u8],
        aggregate: &[[u8; 4]],
        state: &mut [u8],
    ) -> std::result::Result<(), usize> {
        let (base, _) = base.as_chunks_mut::<W>();
        let (slots, _) = state.as_chunks_mut::<4>();
        let width = self.beginning.len();
        for (index, (value, delta)) in base.iter_mut().zip(aggregate).enumerate() {
            let delta = f64::from(f32::from_le_bytes(*delta));
            let state = &mut slots[index * width..][..width];
            let movement = self.optimiser.movement(delta, state).ok_or(index)?;
            *value = (float.store)((float.load)(*value) + movement).ok_or(index)?;
        }
        Ok(())
    }
}

/// Adds the rounded aggregate; an error is the place of the first value that
/// does not fit.
fn integers<const W: usize>(
    base: &mut [u8],
    aggregate: &[[u8; 4]],
    add: impl Fn([u8; W], i64) -> Option<[u8; W]>,
) -> std::result::Result<(), usize> {
    let (base, _) = base.as_chunks_mut::<W>();
    for (index, (value, delta)) in base.iter_mut().zip(aggregate).enumerate() {
        let delta = f32::from_le_bytes(*delta).round_ties_even();
        // -2^63 is a binary32 and an int64, 2^63 only the former. False for NaN.
        let limit = 2f32.powi(63);
        let fits = -limit <= delta && delta < limit;
        #[allow(clippy::cast_possible_truncation)] // an integer in range
        let delta = fits.then_some(delta as i64).ok_or(index)?;
        *value = add(*value, delta).ok_or(index)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::Adaptive;
    use super::*;
    use half::{bf16, f16};
    use proptest::prelude::*;

    const ADAM: Optimiser =
        Optimiser::FedAdam(Adaptive { learning_rate: 0.1, beta1: 0.9, beta2: 0.99, tau: 1e-3 });
    const PLAIN: Optimiser = Optimiser::FedAvg { learning_rate: 1.0 };

    fn bytes(values: &[f32]) -> Vec<u8> {
        values.iter().flat_map(|value| value.to_le_bytes()).collect()
    }

    #[test]
    fn a_step_is_added() {
        let step =
            TensorStep::new(Optimiser::FedAvg { learning_rate: 2.0 }, Dtype::Float32).unwrap();
        let mut base = bytes(&[1.0, -2.0, 0.0]);
        step.apply(0, &mut base, &bytes(&[0.5, 1.0, -1.0]), &mut []).unwrap();
        assert_eq!(base, bytes(&[2.0, 0.0, -2.0]));
    }

    proptest! {
        #[test]
        fn pieces_do_not_matter(
            values in prop::collection::vec((-10f32..10.0, -1f32..1.0, -1f32..1.0), 30), cut in 0usize..30,
        ) {
            for dtype in [Dtype::Float32, Dtype::Float16, Dtype::Bfloat16] {
                let step = TensorStep::new(ADAM, dtype).unwrap();
                let width = dtype.width();
                let mut whole: Vec<u8> = match dtype {
                    Dtype::Float16 => values.iter().flat_map(|v| f16::from_f32(v.0).to_le_bytes()).collect(),
                    Dtype::Bfloat16 => values.iter().flat_map(|v| bf16::from_f32(v.0).to_le_bytes()).collect(),
                    _ => values.iter().flat_map(|v| v.0.to_le_bytes()).collect(),
                };
                let mut pieces = whole.clone();
                let mut state = vec![0; 30 * step.state_width()];
                step.begin(&mut state).unwrap();
                let mut states = state.clone();
                for round in 0..2 {
                    let delta: Vec<u8> = values.iter()
                        .flat_map(|v| if round == 0 { v.1 } else { v.2 }.to_le_bytes()).collect();
                    step.apply(0, &mut whole, &delta, &mut state).unwrap();
                    let (head, tail) = pieces.split_at_mut(cut * width);
                    let (first, last) = states.split_at_mut(cut * step.state_width());
                    step.apply(cut, tail, &delta[4 * cut..], last).unwrap();
                    step.apply(0, head, &delta[..4 * cut], first).unwrap();
                }
                prop_assert_eq!(&whole, &pieces);
                prop_assert_eq!(&state, &states);
            }
        }

        #[test]
        fn narrow_values_are_rounded_once(base in -60000f32..60000.0, delta: f32, small in -1f32..1.0) {
            for delta in [small, delta.clamp(-1e3, 1e3)].into_iter().filter(|d| d.is_finite()) {
                let base = f16::from_f32(base);
                let step = TensorStep::new(PLAIN, Dtype::Float16).unwrap();
                let mut next = base.to_le_bytes();
                step.apply(0, &mut next, &delta.to_le_bytes(), &mut []).unwrap();
                let next = f16::from_le_bytes(next).to_f64();
                // Exact to 2^-52 of it: no neighbour is nearer to the sum.
                let sum = base.to_f64() + f64::from(delta);
                for neighbour in [-1i32, 1] {
                    let bits = i32::from(f16::from_f64(next).to_bits()) + neighbour;
                    let other = f16::from_bits(bits.rem_euclid(1 << 16) as u16).to_f64();
                    prop_assert!(other.is_nan() || (next - sum).abs() <= (other - sum).abs());
                }
            }
        }

        #[test]
        fn integers_take_the_rounded_aggregate(base in any::<i32>(), delta in -1e6f32..1e6) {
            // Neither rate nor state: a count is not optimised.
            let step = TensorStep::new(ADAM, Dtype::Int64).unwrap();
            prop_assert_eq!(&step, &TensorStep::buffer(Dtype::Int64));
            let mut next = i64::from(base).to_le_bytes();
            step.apply(0, &mut next, &delta.to_le_bytes(), &mut []).unwrap();
            let expected = i64::from(base) + f64::from(delta).round_ties_even() as i64;
            prop_assert_eq!(i64::from_le_bytes(next), expected);
            let step = TensorStep::new(ADAM, Dtype::Int32).unwrap();
            let mut next = base.to_le_bytes();
            let result = step.apply(5, &mut next, &delta.to_le_bytes(), &mut []);
            if let Ok(expected) = i32::try_from(expected) {
                prop_assert_eq!(i32::from_le_bytes(next), expected);
            } else {
                prop_assert_eq!(result, Err(Error::IntegerOverflow { index: 5, dtype: "int32" }));
            }
        }
    }

    #[test]
    fn a_buffer_is_added_to() {
        let step = TensorStep::buffer(Dtype::Float32);
        assert_eq!(step.state_width(), 0);
        let mut base = bytes(&[0.25, 2.0]);
        step.apply(0, &mut base, &bytes(&[-0.125, 0.5]), &mut []).unwrap();
        assert_eq!(base, bytes(&[0.125, 2.5]));
    }

    #[test]
    fn a_control_variate_moves_by_its_share() {
        let step = TensorStep::control(Dtype::Float32, 3, 4).unwrap();
        assert_eq!(step.state_width(), 0);
        let mut base = bytes(&[1.0, 2.0]);
        step.apply(0, &mut base, &bytes(&[4.0, -8.0]), &mut []).unwrap();
        assert_eq!(base, bytes(&[4.0, -4.0]));
        assert!(TensorStep::control(Dtype::Int64, 3, 4).is_err());
        assert!(TensorStep::control(Dtype::Float32, 5, 4).is_err());
        assert!(TensorStep::control(Dtype::Float32, 0, 4).is_err());
    }

    #[test]
    fn overflow_is_refused_with_its_place() {
        let refused = |optimiser, dtype, base: &[u8], delta: f32| {
            let step = TensorStep::new(optimiser, dtype).unwrap();
            let mut base = [&vec![0; dtype.width()][..], base].concat();
            let mut state = vec![0; 2 * step.state_width()];
            step.begin(&mut state).unwrap();
            step.apply(40, &mut base, &bytes(&[0.0, delta]), &mut state).unwrap_err()
        };
        let infinite = Error::NotFinite { index: 41 };
        let max = f32::MAX.to_le_bytes();
        assert_eq!(refused(PLAIN, Dtype::Float32, &max, f32::MAX), infinite);
        assert_eq!(refused(PLAIN, Dtype::Float32, &max, f32::NAN), infinite);
        assert_eq!(refused(PLAIN, Dtype::Float16, &f16::MAX.to_le_bytes(), 16.0), infinite);
        assert_eq!(refused(PLAIN, Dtype::Bfloat16, &bf16::MAX.to_le_bytes(), 1e37), infinite);
        // The second moment overflows; the step by it would be 0.
        assert_eq!(refused(ADAM, Dtype::Float32, &[0; 4], 1e30), infinite);
        let range = |dtype: Dtype| Error::IntegerOverflow { index: 41, dtype: dtype.name() };
        for (base, delta) in [(i64::MAX, 1.0), (i64::MIN, -1.0), (0, 2f32.powi(63)), (0, f32::NAN)]
        {
            let error = refused(PLAIN, Dtype::Int64, &base.to_le_bytes(), delta);
            assert_eq!(error, range(Dtype::Int64));
        }
        assert_eq!(refused(PLAIN, Dtype::Int32, &[0; 4], -3e9), range(Dtype::Int32));
    }

    #[test]
    fn foreign_lengths_are_refused() {
        let step = TensorStep::new(ADAM, Dtype::Float32).unwrap();
        assert_eq!(step.state_width(), 8);
        let mut state = [0; 16];
        assert!(step.apply(0, &mut [0; 8], &[0; 8], &mut state).is_ok());
        assert!(step.apply(0, &mut [0; 7], &[0; 8], &mut state).is_err());
        assert!(step.apply(0, &mut [0; 8], &[0; 4], &mut state).is_err());
        assert!(step.apply(0, &mut [0; 8], &[0; 8], &mut state[..8]).is_err());
        assert!(step.begin(&mut state[..12]).is_err());
        let plain = TensorStep::new(PLAIN, Dtype::Float32).unwrap();
        assert!(plain.begin(&mut []).is_ok());
        assert!(plain.begin(&mut [0]).is_err());
    }
}
