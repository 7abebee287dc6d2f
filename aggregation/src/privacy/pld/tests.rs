use super::*;
use crate::Error;
use crate::privacy::{Orders, epsilon as by_renyi};

fn gaussian(noise_multiplier: f64, q: f64) -> SampledGaussian {
    SampledGaussian::new(noise_multiplier, 1.0, q).unwrap()
}

/// Delta of the Gaussian mechanism (Balle and Wang 2018, theorem 8).
fn exact_delta(noise_multiplier: f64, epsilon: f64) -> f64 {
    let mu = 1.0 / noise_multiplier;
    let phi = |x: f64| 0.5 * erfc(-x / std::f64::consts::SQRT_2);
    phi(mu / 2.0 - epsilon / mu) - exp(epsilon) * phi(-mu / 2.0 - epsilon / mu)
}

/// n rounds with noise s are one round with noise s / sqrt(n).
#[test]
fn without_sampling_the_closed_form_is_met_from_above() {
    for (s, rounds, delta) in
        [(1.0, 1, 1e-6), (0.3, 10, 1e-9), (50.0, 1, 1e-6), (20.0, 1000, 1e-3), (80.0, 10_000, 1e-5)]
    {
        let found = epsilon(&gaussian(s, 1.0), rounds, delta).unwrap();
        let together = s / (rounds as f64).sqrt();
        assert!(exact_delta(together, found) <= delta, "{s} {rounds} {found}");
        assert!(exact_delta(together, found * 0.999) > delta, "{s} {rounds} {found}");
    }
}

#[test]
fn it_is_at_most_what_renyi_dp_says() {
    for (s, q, rounds) in [(0.6, 0.01, 1), (1.0, 0.1, 300), (5.0, 0.5, 3000), (0.8, 1e-4, 50_000)] {
        for delta in [1e-9, 1e-4] {
            let gaussian = gaussian(s, q);
            let found = epsilon(&gaussian, rounds, delta).unwrap();
            let by_renyi = by_renyi(&gaussian.into(), rounds, delta, &Orders::default()).unwrap();
            assert!(found <= by_renyi, "{s} {q} {rounds} {delta}: {found} {by_renyi}");
        }
    }
}

#[test]
fn one_round_on_the_grid_keeps_its_masses() {
    let gaussian = gaussian(0.8, 0.2);
    for direction in [Direction::Removed, Direction::Added] {
        let question = Question {
            gaussian: &gaussian,
            direction,
            rounds: 1.0,
            delta: 1e-9,
            rough: (1.0, 2.0),
        };
        let losses = question.losses(1e-3);
        // All mass under P, and all under Q but for what the ends cost.
        assert!(losses.infinite < 1e-14 && losses.log_mean(0.0).abs() < 1e-12);
        let under_q = losses.log_mean(-1.0);
        assert!(under_q < 1e-12 && under_q > -1e-9, "{under_q}");
    }
}

#[test]
fn the_ends_are_defined() {
    assert_eq!(epsilon(&gaussian(1.0, 0.0), 10, 1e-6), Ok(0.0));
    assert_eq!(epsilon(&gaussian(1e-200, 0.5), 10, 1e-6), Ok(f64::INFINITY));
    assert_eq!(epsilon(&gaussian(1e4, 1e-3), 1, 1e-3), Ok(0.0));
    // Mean 1,250 and standard deviation 50: 4.75 of these above at 1e-6.
    let large = epsilon(&gaussian(0.02, 1.0), 1, 1e-6).unwrap();
    assert!((1487.0..1489.0).contains(&large), "{large}");
    // Beyond the digits it is what Rényi DP says.
    for (s, rounds) in [(1e-100, 10), (1e7, u64::MAX / 1000)] {
        let (gaussian, orders) = (gaussian(s, 0.5), Orders::default());
        let renyi = by_renyi(&gaussian.into(), rounds, 1e-6, &orders).unwrap();
        assert!(renyi > 10.0);
        assert_eq!(epsilon(&gaussian, rounds, 1e-6), Ok(renyi));
    }
    let (none, delta) = (Error::Empty { what: "rounds" }, Error::Delta { found: 1.0 });
    assert_eq!(epsilon(&gaussian(1.0, 0.5), 0, 1e-6), Err(none));
    assert_eq!(epsilon(&gaussian(1.0, 0.5), 1, 1.0), Err(delta));
}
