//! `heart-disease`: parses arguments and wires the parts.

use clap::{Parser, Subcommand};
use sealfold_heart_disease::logistic::Logistic;
use sealfold_heart_disease::{REPLICAS, demo, robustness, train};
use std::path::PathBuf;
use std::process::ExitCode;

/// The example study of sealfold: four hospitals' real data.
#[derive(Debug, Parser)]
#[command(name = "heart-disease", version = VERSION, about)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

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
    Train {
        /// The hospital, which decides the splits.
        #[arg(long)]
        hospital: String,
        /// Its table.
        #[arg(long, value_name = "FILE")]
        data: PathBuf,
    },
    /// Write the initial model.
    InitModel {
        /// Where to, safetensors.
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
}

fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Demo(options) => demo::run(&options),
        Command::Robustness(options) => robustness::run(&options),
        Command::Train { hospital, data } => train::run(&hospital, &data),
        Command::InitModel { out } => {
            train::write_model(&out, &vec![Logistic::default(); REPLICAS])
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
