//! Whether samples follow their law: chi-square, tails, moments, and the fast
//! samplers against the exact one. Seeds are fixed, so nothing here is chance.

use super::exact::Exact;
use super::{DiscreteLaplace, Gaussian, Label, Seed};

const SEED: u8 = 1;

fn draw(row: u64, count: usize, add: impl Fn(&Seed, u64, &mut [i64])) -> Vec<i64> {
    let mut samples = vec![0; count];
    add(&Seed::new([SEED; 32]), row, &mut samples);
    samples
}

fn gaussian(sigma: f64, row: u64, count: usize) -> Vec<i64> {
    let sampler = Gaussian::new(sigma).unwrap();
    draw(row, count, |seed, row, out| sampler.add(seed, Label::Aggregate, row, out).unwrap())
}

fn laplace(epsilon: f64, row: u64, count: usize) -> Vec<i64> {
    let sampler = DiscreteLaplace::new(1, epsilon).unwrap();
    draw(row, count, |seed, row, out| sampler.add(seed, Label::Aggregate, row, out).unwrap())
}

/// The probability of each bin, in which `width` integers lie: bin b holds the
/// integers from b * width - width / 2 on, b from -`bins` to `bins`, the outer
/// two without end. Computed in binary64, whose error is far below what so many
/// samples can show.
fn probabilities(log_density: impl Fn(f64) -> f64, width: i64, bins: i64) -> Vec<f64> {
    let mass = |z: i64| log_density(z as f64).exp();
    let first = |bin: i64| bin * width - width / 2;
    let far = 4 * first(bins + 1);
    let ends = |bin: i64| {
        let from = if bin == -bins { -far } else { first(bin) };
        let to = if bin == bins { far } else { first(bin + 1) };
        from..to
    };
    let masses: Vec<f64> = (-bins..=bins).map(|bin| ends(bin).map(mass).sum()).collect();
    let total: f64 = masses.iter().sum();
    masses.iter().map(|mass| mass / total).collect()
}

fn counts(samples: &[i64], width: i64, bins: i64) -> Vec<f64> {
    let mut counts = vec![0.0; usize::try_from(2 * bins + 1).unwrap()];
    for sample in samples {
        let bin = (sample + width / 2).div_euclid(width).clamp(-bins, bins);
        counts[usize::try_from(bin + bins).unwrap()] += 1.0;
    }
    counts
}

/// How many standard deviations chi-square lies above its mean.
fn excess(samples: &[i64], width: i64, probabilities: &[f64]) -> f64 {
    let bins = i64::try_from(probabilities.len() / 2).unwrap();
    let count = samples.len() as f64;
    let cells = counts(samples, width, bins);
    let square = |(found, p): (f64, &f64)| {
        let expected = p * count;
        assert!(expected >= 10.0, "a bin with {expected} expected");
        (found - expected).powi(2) / expected
    };
    let chi_square: f64 = cells.into_iter().zip(probabilities).map(square).sum();
    let freedom = probabilities.len() as f64 - 1.0;
    (chi_square - freedom) / (2.0 * freedom).sqrt()
}

const COUNT: usize = 2_000_000;

/// Sigma, width of a bin, bins on each side: bins reach to 3.5 or 4 sigma.
const GAUSSIANS: [(f64, i64, i64); 9] = [
    (0.3, 1, 1),
    (0.5, 1, 2),
    (1.0, 1, 4),
    (3.7, 1, 14),
    (4.0, 1, 16),
    (10.0, 1, 40),
    (1000.0, 20, 175),
    (3e4, 1000, 105),
    (1e6, 20_000, 175),
];

fn log_gaussian(sigma: f64) -> impl Fn(f64) -> f64 {
    move |z| -z * z / (2.0 * sigma * sigma)
}

#[test]
fn gaussians_fit_their_probabilities() {
    for (row, (sigma, width, bins)) in (0..).zip(GAUSSIANS) {
        let probabilities = probabilities(log_gaussian(sigma), width, bins);
        let excess = excess(&gaussian(sigma, row, COUNT), width, &probabilities);
        assert!(excess.abs() < 4.0, "sigma {sigma}: {excess}");
    }
}

#[test]
fn the_fit_sees_one_percent_of_sigma_and_a_shift_of_the_center() {
    for (sigma, width, bins) in [(10.0, 1, 35), (1e6, 100_000, 35)] {
        let samples = gaussian(sigma, 0, COUNT);
        let wide = probabilities(log_gaussian(1.01 * sigma), width, bins);
        assert!(excess(&samples, width, &wide) > 20.0);
        let law = log_gaussian(sigma);
        let shifted = probabilities(|z| law(z - 0.01 * sigma), width, bins);
        assert!(excess(&samples, width, &shifted) > 8.0);
    }
}

#[test]
fn laplaces_fit_their_probabilities() {
    for (row, (epsilon, width, bins)) in
        (0..).zip([(3.0, 1, 3), (1.0, 1, 9), (0.3, 1, 30), (0.001, 50, 160)])
    {
        let probabilities = probabilities(|z| -z.abs() * epsilon, width, bins);
        let excess = excess(&laplace(epsilon, row, COUNT), width, &probabilities);
        assert!(excess.abs() < 4.0, "epsilon {epsilon}: {excess}");
    }
}

#[test]
fn exact_samples_fit_their_probabilities() {
    let sampler = Exact::gaussian(10.0).unwrap();
    let samples = draw(0, 100_000, |seed, row, out| {
        sampler.add(seed, Label::Metrics, row, out).unwrap();
    });
    let fit = excess(&samples, 1, &probabilities(log_gaussian(10.0), 1, 33));
    assert!(fit.abs() < 4.0, "{fit}");
    let sampler = Exact::laplace(3, 0.5).unwrap();
    let samples = draw(0, 100_000, |seed, row, out| {
        sampler.add(seed, Label::Metrics, row, out).unwrap();
    });
    let fit = excess(&samples, 1, &probabilities(|z| -z.abs() / 6.0, 1, 40));
    assert!(fit.abs() < 4.0, "{fit}");
}

/// Two samples of the same law: chi-square of the two rows of counts.
#[test]
fn fast_and_exact_samples_are_alike() {
    for (sigma, width, bins) in
        [(0.8, 1, 2), (5.3, 1, 14), (777.7, 100, 20), (123_456.7, 12_345, 25)]
    {
        let fast = gaussian(sigma, 77, 40_000);
        let sampler = Exact::gaussian(sigma).unwrap();
        let exact = draw(77, 40_000, |seed, row, out| {
            sampler.add(seed, Label::Metrics, row, out).unwrap();
        });
        let pairs = counts(&fast, width, bins);
        let pairs: Vec<_> = pairs.into_iter().zip(counts(&exact, width, bins)).collect();
        let chi_square: f64 = pairs.iter().map(|(a, b)| (a - b).powi(2) / (a + b)).sum();
        let freedom = pairs.len() as f64 - 1.0;
        assert!(chi_square < freedom + 4.0 * (2.0 * freedom).sqrt(), "{sigma}: {chi_square}");
    }
}

#[test]
fn tails_are_as_long_as_they_should_be() {
    // Two-sided tail probabilities of the normal law, beyond 3, 4 and 5 sigma.
    let tails = [(3.0, 2.699_796e-3), (4.0, 6.334_25e-5), (5.0, 5.733_0e-7)];
    for sigma in [1e4, 1e6, 1e9] {
        let samples = gaussian(sigma, 5, 8_000_000);
        for (far, probability) in tails {
            let found = samples.iter().filter(|z| (**z as f64).abs() > far * sigma).count() as f64;
            let expected = probability * samples.len() as f64;
            let deviations = (found - expected) / expected.sqrt();
            assert!(deviations.abs() < 4.0, "{sigma} beyond {far}: {found}, {expected}");
        }
    }
}

#[test]
fn moments_are_those_of_the_law() {
    let count = COUNT as f64;
    for sigma in [4.0, 10.0, 1e3, 3e4, 2.5e5, 1e6, 1e9, 40f64.exp2()] {
        let samples = gaussian(sigma, 3, COUNT);
        let moment = |k| samples.iter().map(|z| (*z as f64 / sigma).powi(k)).sum::<f64>() / count;
        // Means and standard deviations of the moments of a normal law.
        for (k, mean, deviation) in [(1, 0.0, 1.0), (2, 1.0, 2.0), (3, 0.0, 15.0), (4, 3.0, 96.0)] {
            let error = (moment(k) - mean) / (f64::sqrt(deviation) / count.sqrt());
            assert!(error.abs() < 4.0, "{sigma}, moment {k}: {error} deviations");
        }
    }
}

/// The correlation of two lists, in standard deviations.
fn correlation(a: &[i64], b: &[i64], sigma: f64) -> f64 {
    let sum: f64 = a.iter().zip(b).map(|(a, b)| (*a as f64 / sigma) * (*b as f64 / sigma)).sum();
    sum / (a.len() as f64).sqrt()
}

#[test]
fn rows_and_neighbours_are_independent() {
    let sigma = 4e5;
    let row = gaussian(sigma, 0, COUNT);
    for other in [1, 2, 1 << 32] {
        let other = gaussian(sigma, other, COUNT);
        assert!(correlation(&row, &other, sigma).abs() < 4.0);
    }
    for distance in [1, 2, 16, 256] {
        assert!(correlation(&row, &row[distance..], sigma).abs() < 4.0, "{distance}");
    }
}

#[test]
fn a_row_is_the_same_whoever_draws_it_and_however_long_it_is() {
    let sampler = Gaussian::new(4e5).unwrap();
    let rows = 8;
    let length = 3000;
    let add = |row: u64, out: &mut [i64]| {
        sampler.add(&Seed::new([2; 32]), Label::Statistics, row, out).unwrap();
    };
    let mut one = vec![0; rows * length];
    one.chunks_mut(length).zip(0..).for_each(|(out, row)| add(row, out));
    let mut many = vec![0; rows * length];
    std::thread::scope(|scope| {
        for (out, row) in many.chunks_mut(length).zip(0..8u32).rev() {
            scope.spawn(move || add(row.into(), out));
        }
    });
    assert_eq!(one, many);
    for shorter in [0, 1, 255, 257, 2999] {
        let mut start = vec![0; shorter];
        add(0, &mut start);
        assert_eq!(start, one[..shorter]);
    }
    assert_ne!(one[..length], one[length..2 * length]);
}

#[test]
fn noise_is_added_to_what_is_there() {
    let sampler = DiscreteLaplace::new(7, 0.5).unwrap();
    let seed = Seed::new([3; 32]);
    let mut noise = vec![0; 1000];
    sampler.add(&seed, Label::Statistics, 0, &mut noise).unwrap();
    let mut sums: Vec<i64> = (0..1000).map(|i| i * 1000 - 500_000).collect();
    let before = sums.clone();
    sampler.add(&seed, Label::Statistics, 0, &mut sums).unwrap();
    let difference: Vec<_> =
        sums.iter().zip(before).map(|(after, before)| after - before).collect();
    assert_eq!(difference, noise);
}

#[test]
fn a_sum_beyond_64_bits_is_refused_and_nothing_is_left_without_noise() {
    for end in [i64::MAX, i64::MIN] {
        let expected = Err(crate::Error::NoiseOverflow { row: 6 });
        // Half of so many samples go over the end.
        let mut sums = vec![end; 100];
        let seed = Seed::new([4; 32]);
        let sampler = Gaussian::new(1e6).unwrap();
        assert_eq!(sampler.add(&seed, Label::Aggregate, 6, &mut sums), expected);
        assert_eq!(sums, [0; 100]);
        let mut sums = vec![end; 100];
        let exact = Exact::gaussian(1e6).unwrap();
        assert_eq!(exact.add(&seed, Label::Aggregate, 6, &mut sums), expected);
        assert_eq!(sums, [0; 100]);
        // With room there is no refusal.
        let mut sums = vec![end / 2; 100];
        sampler.add(&seed, Label::Aggregate, 6, &mut sums).unwrap();
    }
}
