//! `verify`: a table of checks, each passed, failed or not made.

use super::Context;
use clap::Args;
use jiff::Timestamp;
use sealfold::error::SiteRefusal;
use sealfold::home::{read_file, read_policy};
use sealfold::round::Site;
use sealfold::study::Joined;
use sealfold::{Error, Result};
use sealfold_attestation::{Evidence, Outcome, State, Verdict, verify_document};
use sealfold_protocol::Digest;
use sealfold_protocol::access::Role;
use sealfold_protocol::refusal::Check;
use sealfold_protocol::text::shown;
use serde::Serialize;
use serde_json::json;
use std::path::{Path, PathBuf};

/// `sealfold verify`
#[derive(Debug, Args)]
#[command(after_help = "A live enclave, against the site's policy, also of a study that the site \
    has not approved yet:\n  sealfold verify --host URL STUDY\nA bare attestation document or \
    token, at the time when it was signed:\n  sealfold verify --evidence document.bin --policy \
    policy.toml --at 2025-12-25T13:15:37Z\n  sealfold verify --evidence token.jwt --policy \
    policy.toml --at 2025-09-05T08:17:30Z\nExit codes: 0 accepted, 1 refused, 2 could not tell.")]
pub struct Verify {
    /// The host's URL.
    #[arg(long, env = "SEALFOLD_HOST", value_name = "URL", requires = "study")]
    host: Option<String>,
    /// The study's identity.
    #[arg(conflicts_with = "evidence")]
    study: Option<Digest>,
    /// A bare attestation document of a Nitro enclave, or a token of a
    /// Confidential Space; checks that need an offer are not made.
    #[arg(long, value_name = "FILE", requires = "policy")]
    evidence: Option<PathBuf>,
    /// The policy for --evidence.
    #[arg(long, value_name = "FILE", requires = "evidence", conflicts_with = "study")]
    policy: Option<PathBuf>,
    /// The time for --evidence, RFC 3339; now by default.
    #[arg(long, value_name = "TIME", requires = "evidence", conflicts_with = "study")]
    at: Option<Timestamp>,
    /// What must stand in the nonce's place in --evidence, hex.
    #[arg(long, value_name = "HEX", requires = "evidence", conflicts_with = "study")]
    nonce: Option<String>,
}

impl Verify {
    /// Verifies; 0 accepted, 1 refused, 2 could not tell.
    pub fn run(&self, context: &Context) -> Result<u8> {
        let table = match (&self.evidence, &self.policy) {
            (Some(evidence), Some(policy)) => Table::of(&self.document(evidence, policy)?),
            _ => self.live(context)?,
        };
        let machine = serde_json::to_value(&table).unwrap_or_else(|e| json!(e.to_string()));
        context.voice.result(&machine, &table.to_string());
        Ok(match table.outcome {
            Outcome::Accepted => 0,
            Outcome::Refused => 1,
            Outcome::Undecided => 2,
        })
    }

    fn document(&self, evidence: &Path, policy: &Path) -> Result<Verdict> {
        let bytes = read_file(evidence)?.ok_or_else(|| Error::file(evidence, "no such file"))?;
        let policy = read_policy(policy)?;
        let nonce = self.nonce.as_deref().map(|text| {
            hex::decode(text).map_err(|_| {
                Error::input("nonce", "hex digits", format!("{text:?}")).next("correct --nonce")
            })
        });
        let at = self.at.unwrap_or_else(Timestamp::now);
        // A text in a file ends with a newline, which is no part of a token.
        let bytes = if bytes.starts_with(b"e") { bytes.trim_ascii_end() } else { &bytes };
        Ok(verify_document(&Evidence::recognise(bytes), &policy, at, nonce.transpose()?.as_deref()))
    }

    /// The enclave behind the offer that stands. Each question is a row of its
    /// own: the evidence, the image, the manifest, this site's approval.
    fn live(&self, context: &Context) -> Result<Table> {
        let (Some(host), Some(study)) = (&self.host, self.study) else {
            return Err(Error::input("arguments", "what to verify", "nothing")
                .next("give --host URL STUDY, or --evidence FILE --policy FILE"));
        };
        let (keys, policy) = (context.keys()?, context.policy()?);
        let client = context.client(host)?.signed(&keys.signing, Role::Party)?;
        let mut table = Table { outcome: Outcome::Undecided, simulated: false, checks: Vec::new() };
        let joined = match Joined::open(&context.home, study, &client.study(&study)?) {
            // Nobody makes an offer for a study that lacks approvals.
            Err(Error::Protocol(error @ sealfold_protocol::Error::Approvals { .. })) => {
                table.add("manifest", "", Err(error.into()), State::NotMade)?;
                return Ok(table);
            }
            joined => joined?,
        };
        let terms = joined.expect_acceptable(&keys, &policy, Timestamp::now());
        let approval = joined.expect_approved(&keys);
        let (keys, policy, client, voice) = (&keys, &policy, &client, context.voice);
        let site = Site { keys, policy, client, voice, joined };
        let rounds = site.joined.manifest().terms.last_round();
        let (offer, waits) = if site.joined.next()?.round > rounds {
            (None, format!("all {rounds} rounds are done"))
        } else {
            let status = site.status()?;
            (site.offer(&status)?, status.waiting_for)
        };
        // The offer that the host shows may be one whose enclave is gone.
        let verdict = match offer.map(|offer| (site.verdict(&offer), offer)) {
            None => None,
            Some((Err(Error::Host(refusal)), _)) if refusal.check == Check::Phase => None,
            Some((verdict, offer)) => Some((verdict?, offer)),
        };
        if let Some((verdict, offer)) = verdict {
            table = Table::of(&verdict);
            let (measured, otherwise) = match verdict.into_claims() {
                Ok(claims) => (site.expect_measured(&offer, &claims), State::Failed),
                Err(refused) => (Err(refused.into()), State::NotMade),
            };
            table.add("measurements", "an image that the manifest lists", measured, otherwise)?;
        } else {
            let none = SiteRefusal::new("phase", "an offer", format!("none; {waits}"));
            table.add("phase", "", Err(none.into()), State::NotMade)?;
        }
        table.add("manifest", "a manifest that the policy accepts", terms, State::Failed)?;
        // A careful site verifies before it approves.
        let expected = "a manifest that this site signed";
        table.add("not-approved", expected, approval, State::NotMade)?;
        Ok(table)
    }
}

/// The checks of the evidence, and those of this site.
#[derive(Debug, Serialize)]
struct Table {
    outcome: Outcome,
    /// Whether what was accepted is a simulation's.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    simulated: bool,
    checks: Vec<Row>,
}

/// One check and its result.
#[derive(Debug, Serialize)]
struct Row {
    name: String,
    state: State,
    expected: String,
    found: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

impl Table {
    fn of(verdict: &Verdict) -> Self {
        let row = |check: &sealfold_attestation::Check| Row {
            name: check.name.to_string(),
            state: check.state,
            expected: check.expected.clone(),
            found: check.found.clone(),
            next: None,
        };
        let checks = verdict.checks().iter().map(row).collect();
        Self { outcome: verdict.outcome(), simulated: verdict.is_simulated(), checks }
    }

    /// Adds a check of this site; `otherwise` is its state if it does not hold.
    ///
    /// # Errors
    /// What is no refusal.
    fn add(
        &mut self,
        name: &str,
        expected: &str,
        result: Result<()>,
        otherwise: State,
    ) -> Result<()> {
        let mut row = Row {
            name: name.to_owned(),
            state: State::Passed,
            expected: expected.to_owned(),
            found: "one".to_owned(),
            next: None,
        };
        match result {
            Ok(()) => {}
            Err(
                error @ (Error::Refused(_)
                | Error::Unsigned(_)
                | Error::Protocol(_)
                | Error::Evidence(_)),
            ) => {
                row.state = otherwise;
                if let Some(refusal) = error.refusal() {
                    let other = refusal.check != name;
                    let check = if other { format!("{}: ", refusal.check) } else { String::new() };
                    row.expected = format!("{check}{}", refusal.expected);
                    (row.found, row.next) = (refusal.found, refusal.next);
                }
            }
            Err(error) => return Err(error),
        }
        if row.state == State::Failed {
            self.outcome = Outcome::Refused;
        }
        self.checks.push(row);
        Ok(())
    }
}

impl std::fmt::Display for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for row in &self.checks {
            let state = match row.state {
                State::Passed => "passed",
                State::Failed => "FAILED",
                State::NotMade => "not made",
            };
            let (name, expected, found) = (&row.name, shorten(&row.expected), shorten(&row.found));
            let next =
                row.next.as_ref().map(|next| format!("; {}", shown(next))).unwrap_or_default();
            writeln!(f, "{name:<15} {state:<9} expected {expected}; found {found}{next}")?;
        }
        f.write_str(match self.outcome {
            Outcome::Accepted if self.simulated => {
                "accepted, as SIMULATED evidence: no hardware vouches for it"
            }
            Outcome::Accepted => "accepted",
            Outcome::Refused => "REFUSED",
            Outcome::Undecided => {
                "could not tell: no check failed, but some that matter could not be made"
            }
        })
    }
}

/// Foreign text for one line.
fn shorten(text: &str) -> String {
    let text = shown(text);
    if text.chars().count() <= 96 {
        return text;
    }
    text.chars().take(93).chain("...".chars()).collect()
}
