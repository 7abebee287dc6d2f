//! `verify`: a table of checks, each passed, failed or not made.

use super::Context;
use clap::Args;
use jiff::Timestamp;
use sealfold::agent::{Agent, Assignment};
use sealfold::error::SiteRefusal;
use sealfold::home::{read_file, read_text};
use sealfold::{Error, Result};
use sealfold_attestation::{Evidence, Outcome, Policy, State, Verdict, verify_document};
use sealfold_protocol::Digest;
use serde_json::json;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// `sealfold verify`
#[derive(Debug, Args)]
#[command(after_help = "A live enclave, against the site's policy:\n  sealfold verify --host URL \
    STUDY\nA bare attestation document, at the time when it was signed:\n  sealfold verify --evidence \
    document.bin --policy policy.toml --at 2025-12-25T13:15:37Z")]
pub struct Verify {
    /// The host's URL.
    #[arg(long, env = "SEALFOLD_HOST", value_name = "URL", requires = "study")]
    host: Option<String>,
    /// The study's identity.
    #[arg(conflicts_with = "evidence")]
    study: Option<Digest>,
    /// A bare attestation document; checks that need an offer are not made.
    #[arg(long, value_name = "FILE", requires = "policy")]
    evidence: Option<PathBuf>,
    /// The policy for --evidence.
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// The time for --evidence, RFC 3339; now by default.
    #[arg(long, value_name = "TIME")]
    at: Option<Timestamp>,
    /// The nonce that the document must carry, hex.
    #[arg(long, value_name = "HEX")]
    nonce: Option<String>,
}

impl Verify {
    /// Verifies; 0 accepted, 1 refused, 2 could not tell.
    pub fn run(&self, context: &Context) -> Result<u8> {
        let verdict = match (&self.evidence, &self.policy) {
            (Some(evidence), Some(policy)) => self.document(evidence, policy)?,
            _ => self.live(context)?,
        };
        let text = table(&verdict);
        let machine = serde_json::to_value(&verdict).unwrap_or_else(|e| json!(e.to_string()));
        context.voice.result(&machine, &text);
        Ok(match verdict.outcome() {
            Outcome::Accepted => 0,
            Outcome::Refused => 1,
            Outcome::Undecided => 2,
        })
    }

    fn document(&self, evidence: &Path, policy: &Path) -> Result<Verdict> {
        let bytes = read_file(evidence)?.ok_or_else(|| Error::file(evidence, "no such file"))?;
        let policy = Policy::from_toml(&read_text(policy)?).map_err(|e| Error::file(policy, e))?;
        let nonce = match &self.nonce {
            None => None,
            Some(text) => Some(
                hex::decode(text)
                    .map_err(|_| Error::Usage(format!("--nonce {text:?} is no hex")))?,
            ),
        };
        let at = self.at.unwrap_or_else(Timestamp::now);
        Ok(verify_document(&Evidence::from_nitro(&bytes), &policy, at, nonce.as_deref()))
    }

    fn live(&self, context: &Context) -> Result<Verdict> {
        let (Some(host), Some(study)) = (&self.host, self.study) else {
            return Err(Error::Usage(
                "give --host URL STUDY, or --evidence and --policy".to_owned(),
            ));
        };
        let (keys, policy, client) = (context.keys()?, context.policy()?, context.client(host)?);
        let agent = Agent {
            home: &context.home,
            keys: &keys,
            policy: &policy,
            client: &client,
            voice: context.voice,
            stop: std::sync::Arc::default(),
        };
        let poll = Duration::from_secs(1);
        let assignment = Assignment { study, train: None, data: None, max_rounds: None, poll };
        let site = agent.join(&assignment)?;
        let status = site.status()?;
        let offer = site.offer(&status)?.ok_or_else(|| {
            Error::from(SiteRefusal::new(
                "phase",
                "an offer",
                format!("none; {}", status.waiting_for),
            ))
        })?;
        let verdict = site.verdict(&offer)?;
        if let Ok(claims) = verdict.clone().into_claims() {
            site.expect_measured(&offer, &claims)?;
        }
        Ok(verdict)
    }
}

/// The verdict as a table.
fn table(verdict: &Verdict) -> String {
    let mut text = String::new();
    for check in verdict.checks() {
        let state = match check.state {
            State::Passed => "passed",
            State::Failed => "FAILED",
            State::NotMade => "not made",
        };
        let name = check.name.to_string();
        let (expected, found) = (shorten(&check.expected), shorten(&check.found));
        text.push_str(&format!("{name:<15} {state:<9} expected {expected}; found {found}\n"));
    }
    text.push_str(match verdict.outcome() {
        Outcome::Accepted => "accepted",
        Outcome::Refused => "REFUSED",
        Outcome::Undecided => {
            "could not tell: no check failed, but some that matter could not be made"
        }
    });
    text
}

fn shorten(text: &str) -> String {
    if text.chars().count() <= 96 {
        return text.to_owned();
    }
    text.chars().take(93).chain("...".chars()).collect()
}
