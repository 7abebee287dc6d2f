//! `query`: statistics over the sites' patients.

use super::Context;
use super::studies::from_file;
use clap::{Args, Subcommand};
use sealfold::error::SiteRefusal;
use sealfold::home::read_text;
use sealfold::query::{answer, plan, reading};
use sealfold::{Error, Result, tensors};
use sealfold_protocol::Digest;
use sealfold_study::in_words::weaker_noise;
use sealfold_study::{Manifest, query::Draft};
use serde_json::json;
use std::io::Read;
use std::path::{Path, PathBuf};

/// `sealfold query`
#[derive(Debug, Subcommand)]
pub enum Query {
    /// What a query needs and what it will be good for, before anybody signs.
    ///
    /// Prints the manifest's sections [model], [aggregation] and [privacy] that
    /// follow from a file's [data] and [query], and as comments the standard
    /// error that the noise gives each statistic.
    Plan(Plan),
    /// Compute this site's part: what each patient contributes.
    ///
    /// Made to be an agent's training command, which names study and files in
    /// the environment:
    /// `sealfold run --host URL STUDY --data patients.csv
    /// --train 'sealfold query answer --study study.toml --data patients.csv'`
    Answer(Answer),
    /// Read the statistics from the model after the round.
    ///
    /// Each with its standard error by noise. What the noise alone could be, is
    /// suppressed; only noised numbers are looked at.
    Read(ReadOut),
}

/// `sealfold query plan`
#[derive(Debug, Args)]
pub struct Plan {
    /// A manifest or its draft, TOML, with [data] and [query].
    draft: PathBuf,
    /// The privacy loss of a patient.
    #[arg(long, value_name = "E", allow_negative_numbers = true)]
    epsilon: f64,
    /// The probability with which it may be more.
    #[arg(long, value_name = "P", default_value_t = 1e-5, allow_negative_numbers = true)]
    delta: f64,
    /// The number of patients at all sites together, about.
    #[arg(long, value_name = "N")]
    patients: u32,
    /// Write the initial model of zeros, safetensors, for study approve --model.
    #[arg(long, value_name = "FILE")]
    model: Option<PathBuf>,
}

/// `sealfold query answer`
#[derive(Debug, Args)]
pub struct Answer {
    /// The study's manifest, TOML.
    #[arg(long, value_name = "FILE")]
    study: PathBuf,
    /// The site's data, CSV with a header line.
    #[arg(long, value_name = "FILE")]
    data: PathBuf,
    /// Where the contributions go, safetensors, a row for each patient.
    #[arg(long, env = "SEALFOLD_UPDATE", value_name = "FILE")]
    out: PathBuf,
    /// The digest of the round's manifest, 64 hex digits, which an agent gives:
    /// the file must be that manifest, with whatever amended it before.
    #[arg(long, env = "SEALFOLD_MANIFEST", value_name = "DIGEST")]
    expect: Option<Digest>,
}

/// `sealfold query read`
#[derive(Debug, Args)]
pub struct ReadOut {
    /// The study's manifest, TOML.
    #[arg(long, value_name = "FILE")]
    study: PathBuf,
    /// The model after the round, as sealfold fetch writes it.
    #[arg(long, value_name = "FILE")]
    model: PathBuf,
}

impl Query {
    /// Runs the command.
    pub fn run(&self, context: &Context) -> Result<u8> {
        match self {
            Self::Plan(plan) => plan.run(context),
            Self::Answer(answer) => answer.run(context),
            Self::Read(read) => read.run(context),
        }
    }
}

/// A path whose folder has a name.
fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).map_err(|e| Error::file(path, e))
}

impl Plan {
    fn run(&self, context: &Context) -> Result<u8> {
        let draft = Draft::from_toml(&read_text(&self.draft)?)?;
        let patients = f64::from(self.patients);
        let plan = plan::plan(&draft, self.epsilon, self.delta, patients)?;
        if let Some(path) = &self.model {
            let mut zeros = std::io::repeat(0).take(plan.model.bytes());
            tensors::write_content(&absolute(path)?, &plan.model, &mut zeros)?;
        }
        let sections = plan.sections();
        let (noise, claim) = (&plan.noise, &plan.claim);
        let privacy = json!({
            "unit": "patient", "clip": noise.clip, "step": noise.step,
            "noise_multiplier": noise.noise_multiplier, "epsilon": claim.epsilon,
            "delta": claim.delta,
        });
        let machine = json!({
            "sections": sections, "privacy": privacy, "patients": self.patients,
            "noise_of_a_count": plan.deviation, "expected": plan.readings,
            "weaker": weaker_noise(claim),
        });
        context.voice.result(&machine, &format!("{}\n{sections}", plan.accuracy(self.patients)));
        Ok(0)
    }
}

impl Answer {
    fn run(&self, context: &Context) -> Result<u8> {
        let (digest, manifest) = from_file(&self.study)?;
        if let Some(expected) = self.expect.filter(|expected| *expected != digest) {
            return Err(SiteRefusal::new("manifest", expected, digest)
                .next("give the manifest that the round began under: sealfold study show prints the last")
                .into());
        }
        let rows = answer::answer(&manifest, &self.data, &self.out)?;
        let machine = json!({ "patients": rows, "out": self.out });
        let text = format!("the contributions of {rows} patients are in {}", self.out.display());
        context.voice.result(&machine, &text);
        Ok(0)
    }
}

impl ReadOut {
    fn run(&self, context: &Context) -> Result<u8> {
        let manifest = Manifest::from_toml(&read_text(&self.study)?)?;
        let readings = reading::read(&manifest, &self.model)?;
        let text = reading::table(&readings);
        context.voice.result(&json!({ "statistics": readings }), text.trim_end());
        Ok(0)
    }
}
