//! `measure`: what an enclave image is, without believing its operator.

use super::Context;
use clap::Args;
use sealfold::{Error, Result};
use sealfold_attestation::confidential_space::oci::{self, Workload};
use sealfold_attestation::eif;
use serde_json::{Value, json};
use std::fs::File;
use std::io::BufReader;
use std::path::PathBuf;

/// `sealfold measure`
#[derive(Debug, Args)]
#[command(
    after_help = "Build the image yourself (make eif, make image) or take the operator's, and compare:\n  \
    sealfold measure sealfold.eif >> ~/.sealfold/policy.toml       accept a Nitro image\n  \
    sealfold measure --manifest sealfold.eif                       for a study's manifest\n  \
    sealfold measure target/oci/image                              an image in a Confidential Space: \
    goes below the policy's own\n                                                                 \
    [confidential-space], which says audience, roots and hardware"
)]
pub struct Measure {
    /// The image: a file (EIF), or the folder of an OCI layout.
    #[arg(value_name = "IMAGE")]
    image: PathBuf,
    /// What to call the image in the policy.
    #[arg(long)]
    name: Option<String>,
    /// Print the section for a study's manifest instead of a site's policy.
    #[arg(long)]
    manifest: bool,
}

impl Measure {
    /// Prints the measurements; fails for what is no whole image.
    pub fn run(&self, context: &Context) -> Result<u8> {
        let default = self.image.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let name = self.name.clone().unwrap_or(default);
        let (machine, text) = if self.image.is_dir() {
            let found = oci::measure(&self.image).map_err(|error| self.wrong(&error))?;
            self.confidential_space(&name, &found)
        } else {
            self.nitro(&name)?
        };
        context.voice.result(&machine, &text);
        Ok(0)
    }

    fn wrong(&self, error: &dyn std::fmt::Display) -> Error {
        Error::file(&self.image, error)
    }

    fn nitro(&self, name: &str) -> Result<(Value, String)> {
        let file = File::open(&self.image).map_err(|error| self.wrong(&error))?;
        let found = eif::measure(BufReader::new(file)).map_err(|error| self.wrong(&error))?;
        let mut pcrs = vec![("pcr0", found.pcr0), ("pcr1", found.pcr1), ("pcr2", found.pcr2)];
        if !self.manifest {
            pcrs.extend(found.pcr8.map(|pcr8| ("pcr8", pcr8)));
        }
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
        Ok((machine, text))
    }

    fn confidential_space(&self, name: &str, found: &Workload) -> (Value, String) {
        let digest = hex::encode(found.image_digest);
        let machine = json!({
            "name": name, "image_digest": digest, "args": found.args, "env": found.env,
            "operator_env": found.operator_env,
        });
        if self.manifest {
            let text = format!("[[measurements.confidential-space]]\nimage_digest = \"{digest}\"");
            return (machine, text);
        }
        let env =
            found.env.iter().map(|(name, value)| format!("{} = {}", json!(name), json!(value)));
        let text = format!(
            "[[confidential-space.measurements]]\nname = {}\nimage_digest = \"{digest}\"\n\
             args = {}\nenv = {{ {} }}\noperator_env = {}",
            json!(name),
            json!(found.args),
            env.collect::<Vec<_>>().join(", "),
            json!(found.operator_env),
        );
        (machine, text)
    }
}
