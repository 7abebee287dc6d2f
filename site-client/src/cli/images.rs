//! `measure`: what an enclave image file is, without believing its operator.

use super::Context;
use clap::Args;
use sealfold::{Error, Result};
use sealfold_attestation::eif;
use serde_json::json;
use std::fs::File;
use std::io::BufReader;
use std::path::PathBuf;

/// `sealfold measure`
#[derive(Debug, Args)]
#[command(
    after_help = "Build the image yourself (make eif) or take the operator's file, and compare:\n  \
    sealfold measure sealfold.eif >> ~/.sealfold/policy.toml   accept this image\n  \
    sealfold measure --manifest sealfold.eif                   for a study's manifest"
)]
pub struct Measure {
    /// The image file (EIF).
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// What to call the image in the policy.
    #[arg(long)]
    name: Option<String>,
    /// Print the section for a study's manifest instead of a site's policy.
    #[arg(long)]
    manifest: bool,
}

impl Measure {
    /// Prints the measurements; fails for a file that is no whole image.
    pub fn run(&self, context: &Context) -> Result<u8> {
        let wrong = |error: &dyn std::fmt::Display| Error::file(&self.file, error);
        let file = File::open(&self.file).map_err(|error| wrong(&error))?;
        let found = eif::measure(BufReader::new(file)).map_err(|error| wrong(&error))?;
        let mut pcrs = vec![("pcr0", found.pcr0), ("pcr1", found.pcr1), ("pcr2", found.pcr2)];
        if !self.manifest {
            pcrs.extend(found.pcr8.map(|pcr8| ("pcr8", pcr8)));
        }
        let default = self.file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let name = self.name.clone().unwrap_or(default);
        let mut text = if self.manifest {
            "[[measurements.nitro]]".to_owned()
        } else {
            format!("[[nitro.measurements]]\nname = {}", json!(name))
        };
        let mut machine = json!({ "name": name });
        for (register, value) in pcrs {
            let value = hex::encode(value.0);
            text.push_str(&format!("\n{register} = \"{value}\""));
            machine[register] = json!(value);
        }
        context.voice.result(&machine, &text);
        Ok(0)
    }
}
