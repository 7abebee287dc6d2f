//! `privacy`: what noise buys, and what a claim costs.

use super::Context;
use clap::{Args, Subcommand};
use sealfold::{Error, Result};
use sealfold_aggregation::privacy::calibrate::{epsilon_by_round, noise_multiplier_for};
use sealfold_aggregation::privacy::{Orders, SampledGaussian, pld};
use sealfold_protocol::manifest::MAX_ROUNDS;
use serde_json::json;
use std::fmt::Write;

/// The rows of a table over rounds.
const ROWS: u32 = 12;
/// The longest bar of the plot, in characters.
const BAR: f64 = 40.0;

/// `sealfold privacy`
#[derive(Debug, Subcommand)]
pub enum Privacy {
    /// The privacy loss (epsilon) of a setting, after each round.
    ///
    /// `rdp` is what the enclave accounts for, and what a manifest's epsilon has
    /// to cover: Rényi differential privacy at integer orders, which holds for
    /// the discrete noise that is drawn. `pld` is the tighter bound of
    /// privacy-loss distributions of the continuous Gaussian, for comparison.
    Cost(Cost),
    /// The noise multiplier that a wanted epsilon needs.
    Noise(Wanted),
}

/// What both questions have.
#[derive(Debug, Args)]
struct Setting {
    /// The number of rounds.
    #[arg(long, value_name = "N")]
    rounds: u32,
    /// The probability with which the loss may be more than epsilon.
    #[arg(long, value_name = "P", default_value_t = 1e-5)]
    delta: f64,
    /// The probability with which each patient takes part in a round, secretly
    /// drawn; 1 for the unit site.
    #[arg(long, value_name = "Q", default_value_t = 1.0)]
    sampling_rate: f64,
}

/// `sealfold privacy cost`
#[derive(Debug, Args)]
pub struct Cost {
    /// The standard deviation of the noise, in units of the clip.
    #[arg(long, value_name = "Z")]
    noise_multiplier: f64,
    #[command(flatten)]
    setting: Setting,
}

/// `sealfold privacy noise`
#[derive(Debug, Args)]
pub struct Wanted {
    /// The privacy loss of all rounds together.
    #[arg(long, value_name = "E")]
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
        self.setting().expect_rounds()?;
        match self {
            Self::Cost(cost) => cost.setting.cost(context, cost.noise_multiplier),
            Self::Noise(wanted) => {
                let Setting { rounds, delta, sampling_rate } = wanted.setting;
                let noise = noise_multiplier_for(
                    wanted.epsilon,
                    delta,
                    sampling_rate,
                    rounds.into(),
                    &Orders::integer(),
                );
                // Rounded up to the digits that are printed, so that a manifest with
                // the printed number holds.
                let noise = (noise.map_err(refused)? * 1e6).ceil() / 1e6;
                wanted.setting.cost(context, noise)
            }
        }
    }
}

/// What the accounting refuses.
fn refused(error: sealfold_aggregation::Error) -> Error {
    Error::input("privacy", "a setting that can be accounted for", error)
        .next("sealfold privacy --help explains the numbers")
}

impl Setting {
    /// Whether a manifest could have so many rounds; each of them is accounted for.
    fn expect_rounds(&self) -> Result<()> {
        if (1..=MAX_ROUNDS).contains(&self.rounds) {
            return Ok(());
        }
        let expected = format!("1 to {MAX_ROUNDS}, as in a manifest");
        Err(Error::input("rounds", expected, self.rounds).next("give another --rounds"))
    }

    fn cost(&self, context: &Context, noise_multiplier: f64) -> Result<u8> {
        let Self { rounds, delta, sampling_rate } = *self;
        let gaussian =
            SampledGaussian::new(noise_multiplier, 1.0, sampling_rate).map_err(refused)?;
        let rdp = epsilon_by_round(&gaussian.into(), rounds, delta, &Orders::integer())
            .map_err(refused)?;
        let step = rounds.div_ceil(ROWS).max(1);
        let mut shown: Vec<u32> = (1..=rounds).filter(|round| round % step == 0).collect();
        if shown.last() != Some(&rounds) {
            shown.push(rounds);
        }
        let tight = pld::epsilon(&gaussian, rounds.into(), delta).map_err(refused)?;
        let of = |round: u32| rdp[round as usize - 1];
        let last = of(rounds);
        let mut text = format!(
            "noise multiplier {noise_multiplier:.6}, {rounds} rounds, delta {delta}, sampling rate \
             {sampling_rate}\n\n round  epsilon\n"
        );
        for round in &shown {
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // at most 40
            let bar = "#".repeat((of(*round) / last * BAR).max(0.0) as usize);
            let _ = writeln!(text, "{round:>6} {:>8.3}  {bar}", of(*round));
        }
        let _ = write!(
            text,
            "\nepsilon {last:.4} by rdp, which a manifest's epsilon has to cover;\n\
             epsilon {tight:.4} by pld, the tighter bound"
        );
        let machine = json!({
            "noise_multiplier": noise_multiplier, "sampling_rate": sampling_rate,
            "rounds": rounds, "delta": delta, "epsilon": { "rdp": last, "pld": tight },
            "epsilon_by_round": rdp,
        });
        context.voice.result(&machine, &text);
        Ok(0)
    }
}
