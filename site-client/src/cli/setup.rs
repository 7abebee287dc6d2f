//! `init` and `check`: what a site does before its first study.

use super::Context;
use clap::Args;
use sealfold::home::{read_text, write_file};
use sealfold::keys::Keys;
use sealfold::{Error, Result, data};
use sealfold_attestation::Policy;
use sealfold_attestation::log::NoteKey;
use sealfold_attestation::log::note::KeyKind;
use sealfold_protocol::terms::MAX_NAME;
use sealfold_study::Manifest;
use serde_json::json;
use std::path::PathBuf;

/// `sealfold init`
#[derive(Debug, Args)]
pub struct Init {
    /// The site's name in studies: lower-case letters, digits and hyphens.
    #[arg(long)]
    name: String,
}

impl Init {
    /// Makes keys and a policy.
    pub fn run(&self, context: &Context) -> Result<u8> {
        let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if self.name.is_empty() || self.name.len() > MAX_NAME || !self.name.chars().all(fits) {
            return Err(Error::input(
                "name",
                format!("lower-case letters, digits and hyphens, at most {MAX_NAME}"),
                format!("{:?}", self.name),
            )
            .next("give another --name"));
        }
        let passphrase = context.passphrase.as_ref().map(|p| p.as_str());
        let keys = Keys::create(&context.home, &self.name, passphrase)?;
        let policy = context.home.path("policy.toml");
        if !policy.exists() {
            write_file(&policy, Policy::example().as_bytes())?;
        }
        let listing = keys.listing()?;
        context.voice.result(
            &json!({
                "site": self.name,
                "signing_key": keys.signing.verifying_key(),
                "release_key": keys.release_key()?,
                "policy": policy,
            }),
            &format!(
                "keys made, for their owner only. Give this to whoever writes the study:\n\n{listing}\n\
                 Then say in {} which enclave images and approvers you accept.",
                policy.display()
            ),
        );
        Ok(0)
    }
}

/// `sealfold keys`
pub fn keys(context: &Context) -> Result<u8> {
    let keys = context.keys()?;
    let public = *keys.signing.verifying_key().as_bytes();
    let witness = NoteKey::new(&keys.site, KeyKind::CosignatureV1, public);
    let witness = witness.map_err(|error| Error::input("name", "the name of a key", error))?;
    context.voice.result(
        &json!({
            "site": keys.site,
            "signing_key": keys.signing.verifying_key(),
            "release_key": keys.release_key()?,
            "witness_key": witness.to_string(),
        }),
        &format!(
            "{}\nAs a witness of a log ([log] witnesses of a policy):\n\n{witness}",
            keys.listing()?
        ),
    );
    Ok(0)
}

/// `sealfold check`
#[derive(Debug, Args)]
pub struct Check {
    /// The study's manifest, TOML.
    #[arg(long, value_name = "FILE")]
    study: PathBuf,
    /// The site's data, CSV with a header line.
    #[arg(long, value_name = "FILE")]
    data: PathBuf,
}

impl Check {
    /// Checks; 1 if the data does not meet the specification.
    pub fn run(&self, context: &Context) -> Result<u8> {
        let manifest = Manifest::from_toml(&read_text(&self.study)?)?;
        let report = data::check(&self.data, &manifest.agreement.data)?;
        let mut text = format!(
            "{} rows, {} with the outcome, {} features",
            report.rows,
            report.with_outcome,
            manifest.agreement.data.features.len()
        );
        for violation in &report.violations {
            text.push_str(&format!("\nviolation  {violation}"));
        }
        let good = report.violations.is_empty();
        text.push_str(if good {
            "\nthe data meets the study's specification"
        } else {
            "\nthe data does not meet the study's specification"
        });
        let machine = json!({ "accepted": good, "report": report });
        context.voice.result(&machine, &text);
        Ok(u8::from(!good))
    }
}
