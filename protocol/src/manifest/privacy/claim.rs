//! Whether the noise buys the epsilon that a manifest claims, and what would.

use super::Noise;
use crate::text::{counted, figure};
use crate::{Error, Result};
use sealfold_aggregation::privacy::calibrate::noise_multiplier_beside;
use sealfold_aggregation::privacy::{Orders, SampledGaussian, Spent};

/// Refuses an epsilon that so many rounds exceed: with what each kind of noise
/// costs alone, and the least of each that would do beside the other as it is.
///
/// # Errors
/// [`Error::Manifest`].
pub(super) fn check(noise: &Noise, rounds: u32) -> Result<()> {
    let spent = noise.spent(rounds)?;
    if spent <= noise.epsilon {
        return Ok(());
    }
    let least_multiplier = || {
        let rate = noise.sampling_rate.unwrap_or(1.0);
        let least = least(&Spent::new(Orders::integer()), noise, rate, rounds);
        least.map_or(String::new(), |z| format!(", or noise_multiplier {z} or more"))
    };
    let (sources, next) = if let Some(count) = noise.count()? {
        let next =
            "sealfold privacy noise --count-noise finds a noise_multiplier for a count_noise";
        (shares(noise, &count, rounds)?, next)
    } else {
        let sources =
            format!(" with noise_multiplier {}{}", noise.noise_multiplier, least_multiplier());
        (sources, "sealfold privacy noise finds a noise_multiplier for an epsilon")
    };
    let cost = figure(up(spent), 4);
    let expected = format!(
        "at least {cost}, which {} cost at delta {}{sources}",
        counted(rounds.into(), "round"),
        noise.delta
    );
    Err(Error::Manifest {
        field: "privacy.epsilon".to_owned(),
        expected,
        found: noise.epsilon.to_string(),
        next: Some(next),
    })
}

/// What sum and count cost, each alone, and what would do: more of one noise
/// beside the other as it is, or more of both.
fn shares(noise: &Noise, count: &SampledGaussian, rounds: u32) -> Result<String> {
    let (sum, count) = (alone(&noise.sum()?, rounds), alone(count, rounds));
    let ways = [
        least(&sum, noise, 1.0, rounds).map(|s| {
            format!(
                "or count_noise {s} or more with this noise_multiplier (a larger one needs less)"
            )
        }),
        least(&count, noise, 1.0, rounds)
            .map(|z| format!("or noise_multiplier {z} or more with this count_noise")),
    ];
    let ways: Vec<_> = ways.into_iter().flatten().collect();
    let ways = match ways.as_slice() {
        [] => "either alone is more, so both have to be larger".to_owned(),
        ways => ways.join(", "),
    };
    let cost = |spent: &Spent| figure(spent.epsilon(noise.delta).map_or(f64::INFINITY, up), 4);
    Ok(format!(
        ": {} by the sum with noise_multiplier {} alone, {} by the count with count_noise {} \
         alone; {ways}",
        cost(&sum),
        noise.noise_multiplier,
        cost(&count),
        noise.adaptive_clip.map_or(0.0, |adaptive| adaptive.count_noise)
    ))
}

/// What so many rounds of one release cost.
fn alone(release: &SampledGaussian, rounds: u32) -> Spent {
    Spent::new(Orders::integer()).add(&(*release).into(), rounds.into())
}

/// The least noise that meets the claim beside what others cost, if there is
/// any, in four decimals.
fn least(beside: &Spent, noise: &Noise, rate: f64, rounds: u32) -> Option<f64> {
    let found = noise_multiplier_beside(beside, noise.epsilon, noise.delta, rate, rounds.into());
    found.ok().map(up)
}

/// Four decimals, never less than it is.
fn up(value: f64) -> f64 {
    (value * 1e4).ceil() / 1e4
}

#[cfg(test)]
mod tests {
    use super::super::AdaptiveClip;
    use super::*;

    fn refused(epsilon: f64, noise_multiplier: f64, count_noise: Option<f64>) -> String {
        check(&noise(epsilon, noise_multiplier, count_noise), 16).unwrap_err().to_string()
    }

    fn noise(epsilon: f64, noise_multiplier: f64, count_noise: Option<f64>) -> Noise {
        let adaptive =
            |count_noise| AdaptiveClip { quantile: 0.5, learning_rate: 0.2, count_noise };
        Noise {
            clip: 1.0,
            step: 1.0 / 65536.0,
            noise_multiplier,
            sampling_rate: None,
            adaptive_clip: count_noise.map(adaptive),
            epsilon,
            delta: 1e-5,
        }
    }

    /// The number that stands before a word.
    fn after(text: &str, word: &str) -> f64 {
        let rest = text.split(word).nth(1).unwrap_or_else(|| panic!("{word}: {text}"));
        rest.split_whitespace().next().unwrap().parse().unwrap()
    }

    #[test]
    fn a_sum_that_costs_too_much_is_told_the_noise_that_would_do() {
        let text = refused(3.0, 5.0, None);
        let least = after(&text, "or noise_multiplier ");
        assert!(check(&noise(3.0, least, None), 16).is_ok(), "{text}");
        assert!(check(&noise(3.0, least - 1e-3, None), 16).is_err(), "{text}");
        assert!(!text.contains("count"), "{text}");
    }

    #[test]
    fn a_count_that_costs_too_much_is_named_with_its_share() {
        let text = refused(3.0, 5.9864, Some(1.0));
        assert!(text.contains("noise_multiplier 5.9864 alone, 26."), "{text}");
        assert!(text.contains("by the count with count_noise 1 alone"), "{text}");
        // Almost nothing is left beside this multiplier, but what is said holds.
        let least = after(&text, "or count_noise ");
        assert!(check(&noise(3.0, 5.9864, Some(least)), 16).is_ok(), "{text}");
        // No multiplier would do beside this count, and none is named.
        assert!(!text.contains("with this count_noise"), "{text}");
        let either = refused(3.0, 6.5, Some(7.0));
        let (s, z) = (after(&either, "or count_noise "), after(&either, "or noise_multiplier "));
        for (z, s) in [(6.5, s), (z, 7.0)] {
            assert!(check(&noise(3.0, z, Some(s)), 16).is_ok(), "{either}");
        }
        assert!(check(&noise(3.0, 6.5, Some(s - 1e-3)), 16).is_err(), "{either}");
        let neither = refused(3.0, 5.0, Some(1.0));
        assert!(neither.contains("both have to be larger"), "{neither}");
    }
}
