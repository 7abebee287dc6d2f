//! `heart-disease`: parses arguments and wires the parts.

use clap::{Parser, Subcommand};
use sealfold_heart_disease::logistic::Logistic;
use sealfold_heart_disease::{REPLICAS, demo, refusal, robustness, train};
use std::path::PathBuf;
use std::process::ExitCode;

/// The example study of sealfold: four hospitals' real data.
#[derive(Debug, Parser)]
#[command(name = "heart-disease", version = VERSION, about, after_help = EXIT_CODES)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

/// What every command ends with.
const EXIT_CODES: &str = "Exit codes: 0 done; 1 refused, by a program of sealfold or because what was \
    given or came out is not what it has to be; 2 could not be done; 130 stopped by Ctrl-C.";
/// Version and commit.
const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " (", env!("SEALFOLD_COMMIT"), ")");

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the whole study through the real system and report on it.
    Demo(demo::Options),
    /// Let hostile hospitals attack each aggregation rule, and say what AUC is
    /// left.
    Robustness(robustness::Options),
    /// Train one round; called by a site's agent.
    Train(train::Options),
    /// Write the initial model.
    InitModel {
        /// Where to, safetensors.
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
        /// With SCAFFOLD's control variates, all 0.
        #[arg(long)]
        controls: bool,
    },
}

fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Demo(options) => demo::run(&options),
        Command::Robustness(options) => robustness::run(&options),
        Command::Train(options) => train::run(&options),
        Command::InitModel { out, controls } => {
            let models = vec![Logistic::default(); REPLICAS];
            if controls {
                train::write_controlled(&out, &models, &models)
            } else {
                train::write_model(&out, &models)
            }
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(refusal::exit_code(&error))
        }
    }
}
