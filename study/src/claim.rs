//! What the noise of the terms is to buy: an epsilon at a delta, whether it does,
//! and what would.

use sealfold_aggregation::poisson::Rate;
use sealfold_aggregation::privacy::calibrate::noise_multiplier_beside;
use sealfold_aggregation::privacy::{Orders, SampledGaussian, Spent};
use sealfold_protocol::terms::{Noise, Privacy, Terms, expect, is_positive, refused};
use sealfold_protocol::text::{counted, figure};
use sealfold_protocol::{Error, Result};
use serde::{Deserialize, Serialize};

/// What the noise of all rounds is to buy.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Claim {
    /// The epsilon of all rounds together.
    pub epsilon: f64,
    /// The delta that belongs to it.
    pub delta: f64,
    /// Patients: the probability with which a site takes each of them into a
    /// round, secretly; 1 if it is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sampling_rate: Option<f64>,
}

/// The privacy spent by a study up to a round, each round counted once. What
/// an abandoned offer may have released, sites and auditors add.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PrivacySpent {
    /// Epsilon.
    pub epsilon: f64,
    /// Delta.
    pub delta: f64,
}

/// The noise of the terms with what it is to buy.
#[derive(Debug, Clone, Copy)]
pub struct Mechanism<'a> {
    /// The noise that the enclave adds.
    pub noise: &'a Noise,
    /// What it is to buy.
    pub claim: &'a Claim,
}

/// What rounds of one study cost, each like the other.
#[derive(Debug, Clone)]
pub struct Accountant {
    round: Spent,
    delta: f64,
}

impl Accountant {
    /// The epsilon of so many rounds at the claim's delta.
    ///
    /// # Errors
    /// [`Error::Manifest`] if that delta is none.
    pub fn spent(&self, rounds: u64) -> Result<f64> {
        self.round.clone().times(rounds).epsilon(self.delta).map_err(|error| uncounted(&error))
    }
}

fn uncounted(error: &sealfold_aggregation::Error) -> Error {
    refused("privacy", "a mechanism that can be accounted for", error)
}

impl Mechanism<'_> {
    /// The probability with which a patient takes part in a round.
    #[must_use]
    pub fn rate(&self) -> f64 {
        self.claim.sampling_rate.unwrap_or(1.0)
    }

    /// The epsilon of so many rounds, at the orders for which the accounting
    /// holds for discrete noise.
    ///
    /// # Errors
    /// [`Error::Manifest`] if a parameter is out of range.
    pub fn spent(&self, rounds: u32) -> Result<f64> {
        self.accountant()?.spent(rounds.into())
    }

    /// One round's cost, worked out once for whoever asks about many rounds.
    ///
    /// # Errors
    /// [`Error::Manifest`] if a parameter is out of range.
    pub fn accountant(&self) -> Result<Accountant> {
        let round = [self.sum()?].into_iter().chain(self.count()?);
        let none = Spent::new(Orders::integer());
        let round = round.fold(none, |spent, release| spent.add(&release.into(), 1));
        Ok(Accountant { round, delta: self.claim.delta })
    }

    /// The noisy sum of a round.
    fn sum(&self) -> Result<SampledGaussian> {
        SampledGaussian::new(self.noise.noise_multiplier, 1.0, self.rate())
            .map_err(|error| uncounted(&error))
    }

    /// The noisy count of a round, of the sites below an adaptive clip.
    fn count(&self) -> Result<Option<SampledGaussian>> {
        let adaptive = self.noise.adaptive_clip;
        let of = |count_noise| SampledGaussian::new(count_noise, 1.0, 1.0);
        let count = adaptive.map(|adaptive| of(adaptive.count_noise)).transpose();
        count.map_err(|error| uncounted(&error))
    }
}

impl Claim {
    /// Checks a claim against the noise of the terms.
    ///
    /// # Errors
    /// [`Error::Manifest`] naming the field.
    pub(crate) fn check(&self, terms: &Terms) -> Result<()> {
        let Some(noise) = terms.privacy.noise() else {
            return expect("privacy.epsilon", false, "none without noise", self.epsilon);
        };
        expect("privacy.epsilon", is_positive(self.epsilon), "a positive number", self.epsilon)?;
        let delta = self.delta;
        expect("privacy.delta", delta > 0.0 && delta < 1.0, "between 0 and 1", delta)?;
        if let Some(rate) = self.sampling_rate {
            let expected = "above 0 and at most 1, for the unit patient only";
            let is_patient = matches!(terms.privacy, Privacy::Patient(_));
            let holds = is_patient && rate > 0.0 && rate <= 1.0;
            expect("privacy.sampling_rate", holds, expected, rate)?;
            let drawn = Rate::new(rate).map(drop);
            drawn.map_err(|error| refused("privacy.sampling_rate", "one that is drawn", &error))?;
        }
        check(&Mechanism { noise, claim: self }, terms.last_round())
    }
}

/// Refuses an epsilon that so many rounds exceed: with what each kind of noise
/// costs alone, and the least of each that would do beside the other as it is.
///
/// # Errors
/// [`Error::Manifest`].
fn check(noise: &Mechanism<'_>, rounds: u32) -> Result<()> {
    let spent = noise.spent(rounds)?;
    if spent <= noise.claim.epsilon {
        return Ok(());
    }
    let least_multiplier = || {
        let rate = noise.rate();
        let least = least(&Spent::new(Orders::integer()), noise, rate, rounds);
        least.map_or(String::new(), |z| format!(", or noise_multiplier {z} or more"))
    };
    let (sources, next) = if let Some(count) = noise.count()? {
        let next =
            "sealfold privacy noise --count-noise finds a noise_multiplier for a count_noise";
        (shares(noise, &count, rounds)?, next)
    } else {
        let sources = format!(
            " with noise_multiplier {}{}",
            noise.noise.noise_multiplier,
            least_multiplier()
        );
        (sources, "sealfold privacy noise finds a noise_multiplier for an epsilon")
    };
    let cost = figure(up(spent), 4);
    let expected = format!(
        "at least {cost}, which {} cost at delta {}{sources}",
        counted(rounds.into(), "round"),
        noise.claim.delta
    );
    Err(Error::Manifest {
        field: "privacy.epsilon".to_owned(),
        expected,
        found: noise.claim.epsilon.to_string(),
        next: Some(next),
    })
}

/// What sum and count cost, each alone, and what would do: more of one noise
/// beside the other as it is, or more of both.
fn shares(noise: &Mechanism<'_>, count: &SampledGaussian, rounds: u32) -> Result<String> {
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
    let cost =
        |spent: &Spent| figure(spent.epsilon(noise.claim.delta).map_or(f64::INFINITY, up), 4);
    Ok(format!(
        ": {} by the sum with noise_multiplier {} alone, {} by the count with count_noise {} \
         alone; {ways}",
        cost(&sum),
        noise.noise.noise_multiplier,
        cost(&count),
        noise.noise.adaptive_clip.map_or(0.0, |adaptive| adaptive.count_noise)
    ))
}

/// What so many rounds of one release cost.
fn alone(release: &SampledGaussian, rounds: u32) -> Spent {
    Spent::new(Orders::integer()).add(&(*release).into(), rounds.into())
}

/// The least noise that meets the claim beside what others cost, if there is
/// any, in four decimals.
fn least(beside: &Spent, noise: &Mechanism<'_>, rate: f64, rounds: u32) -> Option<f64> {
    let found = noise_multiplier_beside(
        beside,
        noise.claim.epsilon,
        noise.claim.delta,
        rate,
        rounds.into(),
    );
    found.ok().map(up)
}

/// Four decimals, never less than it is.
fn up(value: f64) -> f64 {
    (value * 1e4).ceil() / 1e4
}

#[cfg(test)]
mod tests {
    use super::*;
    use sealfold_protocol::terms::AdaptiveClip;

    fn refused(epsilon: f64, noise_multiplier: f64, count_noise: Option<f64>) -> String {
        checked(epsilon, noise_multiplier, count_noise).unwrap_err().to_string()
    }

    fn checked(epsilon: f64, noise_multiplier: f64, count_noise: Option<f64>) -> Result<()> {
        let adaptive =
            |count_noise| AdaptiveClip { quantile: 0.5, learning_rate: 0.2, count_noise };
        let noise = Noise {
            clip: 1.0,
            step: 1.0 / 65536.0,
            noise_multiplier,
            adaptive_clip: count_noise.map(adaptive),
        };
        let claim = Claim { epsilon, delta: 1e-5, sampling_rate: None };
        check(&Mechanism { noise: &noise, claim: &claim }, 16)
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
        assert!(checked(3.0, least, None).is_ok(), "{text}");
        assert!(checked(3.0, least - 1e-3, None).is_err(), "{text}");
        assert!(!text.contains("count"), "{text}");
    }

    #[test]
    fn a_count_that_costs_too_much_is_named_with_its_share() {
        let text = refused(3.0, 5.9864, Some(1.0));
        assert!(text.contains("noise_multiplier 5.9864 alone, 26."), "{text}");
        assert!(text.contains("by the count with count_noise 1 alone"), "{text}");
        // Almost nothing is left beside this multiplier, but what is said holds.
        let least = after(&text, "or count_noise ");
        assert!(checked(3.0, 5.9864, Some(least)).is_ok(), "{text}");
        // No multiplier would do beside this count, and none is named.
        assert!(!text.contains("with this count_noise"), "{text}");
        let either = refused(3.0, 6.5, Some(7.0));
        let (s, z) = (after(&either, "or count_noise "), after(&either, "or noise_multiplier "));
        for (z, s) in [(6.5, s), (z, 7.0)] {
            assert!(checked(3.0, z, Some(s)).is_ok(), "{either}");
        }
        assert!(checked(3.0, 6.5, Some(s - 1e-3)).is_err(), "{either}");
        let neither = refused(3.0, 5.0, Some(1.0));
        assert!(neither.contains("both have to be larger"), "{neither}");
    }
}
