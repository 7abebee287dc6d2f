//! `explain`: a round in words.

use super::{Context, Target};
use clap::Args;
use sealfold::explain::explain;
use sealfold::study::Joined;
use sealfold::{Error, Result};
use sealfold_protocol::access::Role;
use sealfold_protocol::refusal::Check;

/// `sealfold explain`
///
/// Changes nothing, and can be asked while the agent runs. Of what the host says
/// only what verifies is repeated; whether the site is bound, and to what, comes
/// from the site's own memory.
#[derive(Debug, Args)]
pub struct Explain {
    #[command(flatten)]
    target: Target,
    /// The round.
    round: u32,
}

impl Explain {
    /// Tells the round.
    pub fn run(&self, context: &Context) -> Result<u8> {
        let keys = context.keys()?;
        let client = context.client(&self.target.host)?.signed(&keys.signing, Role::Party)?;
        let id = self.target.study;
        let joined = Joined::open(&context.home, id, &client.study(&id)?)?;
        // A round that the host does not know of is one that has not begun.
        let status = match client.round(&id, self.round) {
            Err(Error::Host(refusal)) if refusal.check == Check::NotFound => None,
            status => Some(status?),
        };
        let told = explain(&context.home, &keys, &joined, status.as_ref(), self.round)?;
        let machine = serde_json::to_value(&told).unwrap_or_default();
        context.voice.result(&machine, &told.text());
        Ok(0)
    }
}
