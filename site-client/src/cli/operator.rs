//! `operator`: the key of a host's operator, and what is done with it.

use super::{Context, Target};
use clap::Subcommand;
use sealfold::Result;
use sealfold::keys::{create_operator, load_operator};
use sealfold_protocol::access::Role;
use serde_json::json;

/// `sealfold operator`
#[derive(Debug, Subcommand)]
pub enum Operator {
    /// Make the operator's key, in the folder (--home), for its owner only; or
    /// print the public half of the one that is there.
    #[command(
        after_help = "The public key goes to the host:\n  sealfold-host serve --operator KEY ...\n\
        The key itself stays on the operator's own machine. It is not a site's: with it a host lets \
        studies in and tells where rounds stand, and no more."
    )]
    Key,
    /// Let a study in: from now on the host takes its manifest from its parties.
    Introduce(Target),
}

impl Operator {
    /// Runs the command.
    pub fn run(&self, context: &Context) -> Result<u8> {
        let passphrase = context.passphrase.as_ref().map(|p| p.as_str());
        match self {
            Self::Key => {
                let path = context.home.path("keys/operator.json");
                let is_new = !path.exists();
                let key = if is_new {
                    create_operator(&context.home, passphrase)?
                } else {
                    load_operator(&context.home, passphrase)?
                };
                let public = key.verifying_key();
                context.voice.result(
                    &json!({ "operator": public, "made": is_new, "file": path }),
                    &format!("sealfold-host serve --operator {public}"),
                );
            }
            Self::Introduce(target) => {
                let key = load_operator(&context.home, passphrase)?;
                let client = context.client(&target.host)?.signed(&key, Role::Operator)?;
                client.introduce(&target.study)?;
                let machine = json!({ "study": target.study, "introduced": true });
                let text = format!("the host serves study {} from now on", target.study);
                context.voice.result(&machine, &text);
            }
        }
        Ok(0)
    }
}
