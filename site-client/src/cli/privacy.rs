//! `privacy`: what noise buys, and what a claim costs.

use super::Context;
use clap::{Args, Subcommand};
use sealfold::{Error, Result};
use sealfold_aggregation::Error as Numbers;
use sealfold_aggregation::privacy::calibrate::noise_multiplier_beside;
use sealfold_aggregation::privacy::{Orders, SampledGaussian, Spent, pld};
use sealfold_protocol::terms::MAX_ROUNDS;
use sealfold_protocol::text::{counted, figure};
use serde_json::json;
use std::fmt::Write;

/// The rows of a table over rounds.
const ROWS: u32 = 12;
/// The longest bar of the plot, in characters.
const BAR: f64 = 40.0;

/// What the two figures are.
const BOUNDS: &str = "\
rdp: what the enclave accounts for, and what a manifest's epsilon has to cover: Rényi
differential privacy at integer orders, which holds for the discrete noise that is drawn.
pld: the tighter bound of privacy-loss distributions of the continuous Gaussian, for comparison.";

/// `sealfold privacy`
#[derive(Debug, Subcommand)]
pub enum Privacy {
    /// The privacy loss (epsilon) of a setting, after each round.
    #[command(after_long_help = BOUNDS)]
    Cost(Cost),
    /// The noise multiplier that a wanted epsilon needs.
    #[command(after_long_help = BOUNDS)]
    Noise(Wanted),
}

/// What both questions have.
#[derive(Debug, Args)]
struct Setting {
    /// The number of rounds.
    #[arg(long, value_name = "N")]
    rounds: u32,
    /// The probability with which the loss may be more than epsilon.
    #[arg(long, value_name = "P", default_value_t = 1e-5, allow_negative_numbers = true)]
    delta: f64,
    /// The probability with which each patient takes part in a round, secretly
    /// drawn; 1 for the unit site.
    #[arg(long, value_name = "Q", default_value_t = 1.0, allow_negative_numbers = true)]
    sampling_rate: f64,
    /// For the unit site with an adaptive clip: the standard deviation of the
    /// noise of its counts, in sites (`privacy.adaptive_clip.count_noise`). The
    /// counts of all rounds are charged to the same epsilon.
    #[arg(long, value_name = "S", conflicts_with = "sampling_rate", allow_negative_numbers = true)]
    count_noise: Option<f64>,
}

/// `sealfold privacy cost`
#[derive(Debug, Args)]
pub struct Cost {
    /// The standard deviation of the noise, in units of the clip.
    #[arg(long, value_name = "Z", allow_negative_numbers = true)]
    noise_multiplier: f64,
    #[command(flatten)]
    setting: Setting,
}

/// `sealfold privacy noise`
#[derive(Debug, Args)]
pub struct Wanted {
    /// The privacy loss of all rounds together.
    #[arg(long, value_name = "E", allow_negative_numbers = true)]
    epsilon: f64,
    #[command(flatten)]
    setting: Setting,
}

impl Privacy {
    fn setting(&self) -> &Setting {
        match self {
            Self::Cost(cost) => &cost.setting,
            Self::Noise(wanted) => &wanted.setting,
        }
    }

    /// Runs the command.
    pub fn run(&self, context: &Context) -> Result<u8> {
        self.setting().expect_usable()?;
        match self {
            Self::Cost(cost) => cost.setting.cost(context, cost.noise_multiplier),
            Self::Noise(wanted) => {
                let noise = wanted.setting.noise(wanted.epsilon)?;
                wanted.setting.cost(context, noise)
            }
        }
    }
}

/// A positive number that was given.
fn expect_positive(what: &str, value: f64, next: &'static str) -> Result<()> {
    if value.is_finite() && value > 0.0 {
        return Ok(());
    }
    Err(Error::input("privacy", format!("a positive {what}"), value).next(next))
}

impl Setting {
    /// Whether a manifest could have so many rounds, each of which is accounted
    /// for, and such counts.
    fn expect_usable(&self) -> Result<()> {
        if !(1..=MAX_ROUNDS).contains(&self.rounds) {
            let expected = format!("1 to {MAX_ROUNDS}, as in a manifest");
            return Err(Error::input("rounds", expected, self.rounds).next("give another --rounds"));
        }
        let count = self.count_noise.unwrap_or(1.0);
        expect_positive("noise of the count", count, "give another --count-noise")
    }

    /// What all rounds' releases of one kind cost.
    fn alone(&self, release: SampledGaussian) -> Spent {
        Spent::new(Orders::integer()).add(&release.into(), self.rounds.into())
    }

    /// The counts of an adaptive clip, one a round.
    fn count(&self) -> Result<Option<SampledGaussian>> {
        let of = |noise| SampledGaussian::new(noise, 1.0, 1.0);
        self.count_noise.map(of).transpose().map_err(Error::unaccounted)
    }

    /// The least noise multiplier for an epsilon, rounded up to the digits that
    /// are printed, so that a manifest with the printed number holds.
    fn noise(&self, epsilon: f64) -> Result<f64> {
        let Self { rounds, delta, sampling_rate, .. } = *self;
        let least = |beside: &Spent| {
            noise_multiplier_beside(beside, epsilon, delta, sampling_rate, rounds.into())
        };
        let nothing = Spent::new(Orders::integer());
        let count = self.count()?;
        let beside = count.map_or(nothing.clone(), |count| self.alone(count));
        let noise = match (least(&beside), self.count_noise) {
            // The counts alone cost more: they are a release like the sum.
            (Err(Numbers::OutOfReach { .. }), Some(count_noise)) => {
                let most = (least(&nothing).map_err(Error::unaccounted)? * 1e4).ceil() / 1e4;
                let spent = beside.epsilon(delta).map_err(Error::unaccounted)?;
                let expected = format!(
                    "a count noise above {most}, which alone costs all of epsilon {epsilon}"
                );
                let found = format!("{count_noise}, whose counts alone cost {}", figure(spent, 4));
                return Err(Error::input("privacy", expected, found)
                    .next("give a larger --count-noise or a larger --epsilon"));
            }
            (noise, _) => noise.map_err(Error::unaccounted)?,
        };
        Ok((noise * 1e6).ceil() / 1e6)
    }

    fn cost(&self, context: &Context, noise_multiplier: f64) -> Result<u8> {
        let Self { rounds, delta, sampling_rate, count_noise } = *self;
        expect_positive("noise multiplier", noise_multiplier, "give another --noise-multiplier")?;
        let sum = SampledGaussian::new(noise_multiplier, 1.0, sampling_rate)
            .map_err(Error::unaccounted)?;
        let count = self.count()?;
        let round = Spent::new(Orders::integer()).add(&sum.into(), 1);
        let round = count.iter().fold(round, |spent, count| spent.add(&(*count).into(), 1));
        let rdp = round.by_round(rounds, delta).map_err(Error::unaccounted)?;
        let step = rounds.div_ceil(ROWS).max(1);
        let mut shown: Vec<u32> = (1..=rounds).filter(|round| round % step == 0).collect();
        if shown.last() != Some(&rounds) {
            shown.push(rounds);
        }
        // Sum and count are one Gaussian release of both together.
        let both = count_noise.map_or(noise_multiplier, |count| {
            (noise_multiplier.powi(-2) + count.powi(-2)).sqrt().recip()
        });
        let both = SampledGaussian::new(both, 1.0, sampling_rate).map_err(Error::unaccounted)?;
        let tight = pld::epsilon(&both, rounds.into(), delta).map_err(Error::unaccounted)?;
        let of = |round: u32| rdp[round as usize - 1];
        let last = of(rounds);
        let counts = count_noise.map_or(String::new(), |noise| format!(", count noise {noise}"));
        let mut text = format!(
            "noise multiplier {}{counts}, {}, delta {delta}, sampling rate {sampling_rate}\n\n \
             round  epsilon\n",
            figure(noise_multiplier, 6),
            counted(rounds.into(), "round"),
        );
        for round in &shown {
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // at most 40
            let bar = "#".repeat((of(*round) / last * BAR).max(0.0) as usize);
            let _ = writeln!(text, "{round:>6} {:>8}  {bar}", figure(of(*round), 3));
        }
        let mut alone = serde_json::Value::Null;
        if let Some(count) = count {
            let cost = |release| self.alone(release).epsilon(delta).map_err(Error::unaccounted);
            let (sum, count) = (cost(sum)?, cost(count)?);
            let _ = write!(
                text,
                "\nalone the sums cost {}, the counts of the clip {}",
                figure(sum, 4),
                figure(count, 4)
            );
            alone = json!({ "sum": sum, "count": count });
        }
        let _ = write!(
            text,
            "\nepsilon {} by rdp, which a manifest's epsilon has to cover;\n\
             epsilon {} by pld, the tighter bound",
            figure(last, 4),
            figure(tight, 4)
        );
        let machine = json!({
            "noise_multiplier": noise_multiplier, "sampling_rate": sampling_rate,
            "count_noise": count_noise, "rounds": rounds, "delta": delta,
            "epsilon": { "rdp": last, "pld": tight }, "alone": alone, "epsilon_by_round": rdp,
        });
        context.voice.result(&machine, &text);
        Ok(0)
    }
}
