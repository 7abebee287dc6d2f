//! What noised sums over patients say of them: counts, means, variances,
//! quantiles, each with the standard error that the noise gives it.
//!
//! A patient adds to each statistic a vector of numbers that are at least 0 and
//! sum to 1: a one among zeros for a count, and for a moment the value's
//! position in its range, shared out by Bernstein polynomials ([`line()`],
//! [`parabola`]). The Euclidean norm of such a vector is at most 1, the sum of a
//! statistic's cells counts its patients, and no count of patients has to be
//! known besides. Everything here is computed from the noised cells alone, so
//! it costs no further privacy.

/// A number of patients below so many standard deviations of its noise is not
/// told from none.
pub const TELLING: f64 = 3.0;

/// A figure and the standard error that the noise gives it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Estimate {
    /// The figure.
    pub value: f64,
    /// The standard deviation that it has by noise. That of the patients, who
    /// are a sample of others, is not in it.
    pub standard_error: f64,
}

impl Estimate {
    /// The figure, unless the noise alone could be it.
    #[must_use]
    pub fn told(self) -> Option<Self> {
        (self.value >= TELLING * self.standard_error).then_some(self)
    }

    /// The figure and its error in another unit.
    #[must_use]
    pub fn times(self, unit: f64) -> Self {
        Self { value: self.value * unit, standard_error: self.standard_error * unit.abs() }
    }
}

/// A position in [0, 1] shared between the ends.
#[must_use]
pub fn line(position: f64) -> [f64; 2] {
    [1.0 - position, position]
}

/// A position in [0, 1] shared among the ends and the middle: the Bernstein
/// polynomials of degree 2.
#[must_use]
pub fn parabola(position: f64) -> [f64; 3] {
    let [low, high] = line(position);
    [low * low, 2.0 * low * high, high * high]
}

/// The patients of these cells, each of which has noise of that deviation.
#[must_use]
pub fn patients(cells: &[f64], deviation: f64) -> Estimate {
    let standard_error = deviation * (cells.len() as f64).sqrt();
    Estimate { value: cells.iter().sum(), standard_error }
}

/// The mean of positions from the sums of their [`line()`]s; none if the patients
/// are not told from none.
#[must_use]
pub fn mean(cells: [f64; 2], deviation: f64) -> Option<Estimate> {
    let total = patients(&cells, deviation).told()?.value;
    let value = (cells[1] / total).clamp(0.0, 1.0);
    // The quotient's derivatives by the two cells are -value and 1 - value.
    Some(Estimate { value, standard_error: deviation * value.hypot(1.0 - value) / total })
}

/// Mean and variance (of the patients themselves: divided by their number) of
/// positions, from the sums of their [`parabola`]s; none if the patients are
/// not told from none.
#[must_use]
pub fn mean_and_variance(cells: [f64; 3], deviation: f64) -> Option<[Estimate; 2]> {
    let total = patients(&cells, deviation).told()?.value;
    let (mean, square) = ((cells[2] + cells[1] / 2.0) / total, cells[2] / total);
    let error = |derivatives: [f64; 3]| {
        let squares: f64 = derivatives.iter().map(|derivative| derivative.powi(2)).sum();
        deviation * squares.sqrt() / total
    };
    let rest = square - 2.0 * mean * mean;
    Some([
        Estimate {
            value: mean.clamp(0.0, 1.0),
            standard_error: error([-mean, 0.5 - mean, 1.0 - mean]),
        },
        // No variance within [0, 1] is above 1/4 (Popoviciu, 1935).
        Estimate {
            value: (square - mean * mean).clamp(0.0, 0.25),
            standard_error: error([-rest, -mean - rest, 1.0 - 2.0 * mean - rest]),
        },
    ])
}

/// The position below which that share of the patients lies, from counts in
/// cells of equal width over [0, 1]; none if the patients are not told from
/// none.
///
/// The cumulative counts are made to rise by isotonic regression, which uses
/// that true ones do (Hay et al., 2010), and patients are taken as evenly
/// spread within a cell; what that is off by is not in the standard error.
#[must_use]
pub fn quantile(cells: &[f64], deviation: f64, share: f64) -> Option<Estimate> {
    let _ = patients(cells, deviation).told()?;
    let mut below = 0.0;
    let cumulative: Vec<f64> = cells
        .iter()
        .map(|count| {
            below += count;
            below
        })
        .collect();
    let rising = isotonic(&cumulative);
    let target = share * rising.last()?;
    let value = crossing(&rising, target);
    // The rank's error: cells below count with 1 - share, those above with share.
    let (width, all) = (value * cells.len() as f64, cells.len() as f64);
    let rank = deviation * (width * (1.0 - share).powi(2) + (all - width) * share.powi(2)).sqrt();
    let spread = crossing(&rising, target + rank) - crossing(&rising, target - rank);
    Some(Estimate { value, standard_error: spread / 2.0 })
}

/// The closest sequence in squares that never falls (pool adjacent violators,
/// Barlow et al., 1972).
fn isotonic(values: &[f64]) -> Vec<f64> {
    let mut pools: Vec<(f64, usize)> = Vec::new();
    for value in values {
        let mut pool = (*value, 1);
        while let Some((before, count)) = pools.pop_if(|(before, _)| *before >= pool.0) {
            let (mean, more) = pool;
            let all = count + more;
            pool = ((before * count as f64 + mean * more as f64) / all as f64, all);
        }
        pools.push(pool);
    }
    pools.into_iter().flat_map(|(mean, count)| std::iter::repeat_n(mean, count)).collect()
}

/// Where a rising cumulative count reaches a target, as a position in [0, 1].
fn crossing(rising: &[f64], target: f64) -> f64 {
    let cell = rising.partition_point(|count| *count < target);
    let Some(reached) = rising.get(cell) else { return 1.0 };
    let before = if cell == 0 { 0.0 } else { rising[cell - 1] };
    let within = if *reached > before { (target - before) / (reached - before) } else { 0.0 };
    (cell as f64 + within.clamp(0.0, 1.0)) / rising.len() as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn close(found: f64, expected: f64) -> bool {
        (found - expected).abs() < 1e-9
    }

    fn sums<const N: usize>(positions: &[f64], share: fn(f64) -> [f64; N]) -> [f64; N] {
        positions.iter().fold([0.0; N], |mut sums, position| {
            sums.iter_mut().zip(share(*position)).for_each(|(sum, part)| *sum += part);
            sums
        })
    }

    proptest! {
        #[test]
        fn a_contribution_is_a_share_of_one(position in 0.0f64..=1.0) {
            for part in [&line(position)[..], &parabola(position)] {
                prop_assert!(part.iter().all(|value| *value >= 0.0));
                prop_assert!(close(part.iter().sum(), 1.0));
                prop_assert!(part.iter().map(|value| value * value).sum::<f64>() <= 1.0 + 1e-12);
            }
        }

        #[test]
        fn without_noise_the_moments_are_the_positions(
            positions in prop::collection::vec(0.0f64..=1.0, 1..50),
        ) {
            let n = positions.len() as f64;
            let expected = positions.iter().sum::<f64>() / n;
            let spread = positions.iter().map(|p| (p - expected).powi(2)).sum::<f64>() / n;
            let found = mean(sums(&positions, line), 0.0).unwrap();
            prop_assert!(close(found.value, expected));
            let [found, variance] = mean_and_variance(sums(&positions, parabola), 0.0).unwrap();
            prop_assert!(close(found.value, expected) && close(variance.value, spread));
        }

        #[test]
        fn errors_are_those_of_small_changes(
            positions in prop::collection::vec(0.01f64..=0.99, 2..50),
        ) {
            // A cell's derivative by difference, against the formulas.
            let [lines, parabolas] = [
                sums(&positions, line).to_vec(), sums(&positions, parabola).to_vec(),
            ];
            let change = 1e-6;
            let numeric = |cells: &[f64], figure: &dyn Fn(&[f64]) -> f64| {
                let derivatives = (0..cells.len()).map(|cell| {
                    let mut moved = cells.to_vec();
                    moved[cell] += change;
                    (figure(&moved) - figure(cells)) / change
                });
                derivatives.map(|derivative| derivative.powi(2)).sum::<f64>().sqrt()
            };
            let of_two = |cells: &[f64]| mean(cells.try_into().unwrap(), 1e-9).unwrap();
            let of_three =
                |cells: &[f64]| mean_and_variance(cells.try_into().unwrap(), 1e-9).unwrap();
            let expected = numeric(&lines, &|cells| of_two(cells).value);
            prop_assert!((of_two(&lines).standard_error * 1e9 - expected).abs() < 1e-4);
            for figure in 0..2 {
                let expected = numeric(&parabolas, &|cells| of_three(cells)[figure].value);
                let found = of_three(&parabolas)[figure].standard_error * 1e9;
                prop_assert!((found - expected).abs() < 1e-4, "{figure} {found} {expected}");
            }
        }

        #[test]
        fn an_isotonic_sequence_rises_and_keeps_the_sum(
            values in prop::collection::vec(-5.0f64..5.0, 1..30),
        ) {
            let rising = isotonic(&values);
            prop_assert!(rising.windows(2).all(|pair| pair[0] <= pair[1]));
            prop_assert!(close(rising.iter().sum(), values.iter().sum()));
        }
    }

    #[test]
    fn patients_that_are_not_told_from_none_give_no_figure() {
        assert!(mean([2.0, 2.0], 1.0).is_none());
        assert!(mean([3.0, 3.0], 1.0).is_some());
        assert!(mean([-20.0, 3.0], 0.1).is_none());
        assert!(mean_and_variance([1.0, 1.0, 1.0], 1.0).is_none());
        assert!(quantile(&[1.0; 4], 1.0, 0.5).is_none());
        assert_eq!(patients(&[4.0; 4], 2.0), Estimate { value: 16.0, standard_error: 4.0 });
    }

    #[test]
    fn quantiles_are_interpolated() {
        let of = |cells: &[f64], share| quantile(cells, 0.1, share).unwrap();
        for share in [0.1, 0.25, 0.5, 0.9] {
            assert!(close(of(&[10.0; 5], share).value, share));
        }
        assert!(close(of(&[0.0, 10.0, 0.0, 30.0], 0.25).value, 0.5));
        assert!(close(of(&[0.0, 10.0, 0.0, 30.0], 0.5).value, 0.75 + 0.25 / 3.0));
        // A cell below zero is noise: counts of 20, 25, 22, 42 rise as 20, 23.5,
        // 23.5, 42.
        assert!(close(of(&[20.0, 5.0, -3.0, 20.0], 0.5).value, 0.25 + 0.25 / 3.5));
        // Ranks are known to 0.1 x sqrt(4 x 1/4) patients of 10 a cell.
        assert!(close(of(&[10.0; 4], 0.5).standard_error, 0.1 / 40.0));
    }
}
