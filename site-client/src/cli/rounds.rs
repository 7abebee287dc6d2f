//! `submit`, `commit`, `fetch`, `status`, `run`: what a site does in a round.

use super::{Context, Target};
use clap::Args;
use sealfold::agent::{Agent, Assignment};
use sealfold::binding::Binding;
use sealfold::client::Client;
use sealfold::error::SiteRefusal;
use sealfold::explain::explain;
use sealfold::keys::Keys;
use sealfold::metrics::Metrics;
use sealfold::round::Site;
use sealfold::study::LocalStudy;
use sealfold::{Error, Result};
use sealfold_attestation::Policy;
use sealfold_protocol::Signed;
use sealfold_protocol::access::Role;
use sealfold_protocol::api::{RoundStatus, UploadState};
use sealfold_protocol::offer::Offer;
use sealfold_protocol::terms::RoundKind;
use sealfold_protocol::text::shown;
use serde_json::json;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// A command on a study.
#[derive(Debug, Args)]
pub struct OnStudy {
    #[command(flatten)]
    target: Target,
}

/// `sealfold submit`
#[derive(Debug, Args)]
pub struct Submit {
    #[command(flatten)]
    target: Target,
    /// The update (trained minus global), safetensors or npz, float32, bfloat16 or
    /// float16. Once it is admitted, the same file again is fine and another one is
    /// refused. In the round that measures the last model: the counts of the
    /// evaluation, or no file.
    #[arg(long, value_name = "FILE")]
    update: Option<PathBuf>,
    /// Its metrics by name, JSON: {"loss": 0.5}. Those that the manifest declares
    /// go into the release's sums; the others stay here.
    #[arg(long, value_name = "FILE")]
    metrics: Option<PathBuf>,
}

/// `sealfold fetch`
#[derive(Debug, Args)]
pub struct Fetch {
    #[command(flatten)]
    target: Target,
    /// Where the newest model is copied to, safetensors.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

/// `sealfold run`
#[derive(Debug, Args)]
pub struct Run {
    #[command(flatten)]
    target: Target,
    /// The training command, for `sh -c`. It reads `$SEALFOLD_MODEL` and writes
    /// `$SEALFOLD_UPDATE` and, if it has any, `$SEALFOLD_METRICS`. `$SEALFOLD_TASK`
    /// is `train`, or `evaluate` in the round that measures the last model. A
    /// failure is tried again, up to five times in a row.
    #[arg(long, value_name = "COMMAND")]
    train: String,
    /// The site's data (CSV), checked against the study before anything else.
    #[arg(long, value_name = "FILE")]
    data: Option<PathBuf>,
    /// End after so many rounds; otherwise with the study.
    #[arg(long, value_name = "N")]
    max_rounds: Option<u32>,
    /// How often to look, in seconds.
    #[arg(long, default_value_t = 5.0, value_name = "SECONDS")]
    poll_seconds: f64,
}

/// What the parts of a command borrow from.
struct Parts {
    keys: Keys,
    policy: Policy,
    client: Client,
}

impl Parts {
    fn load(context: &Context, target: &Target) -> Result<Self> {
        let client = context.client(&target.host)?;
        let keys = context.keys()?;
        let client = client.signed(&keys.signing, Role::Party)?;
        Ok(Self { keys, policy: context.policy()?, client })
    }

    fn agent<'a>(&'a self, context: &'a Context, stop: &Arc<AtomicBool>) -> Agent<'a> {
        Agent {
            home: &context.home,
            keys: &self.keys,
            policy: &self.policy,
            client: &self.client,
            voice: context.voice,
            stop: stop.clone(),
        }
    }
}

fn assignment(target: &Target) -> Assignment {
    let poll = Duration::from_secs(1);
    Assignment { study: target.study, train: None, data: None, max_rounds: None, poll }
}

fn offer(site: &Site<'_>, status: &RoundStatus) -> Result<Signed<Offer>> {
    if status.release.is_some() {
        let refusal = SiteRefusal::new("phase", "a round under way", "one that is released");
        return Err(refusal.next("sealfold fetch, then the next round").into());
    }
    site.offer(status)?.ok_or_else(|| {
        SiteRefusal::new("phase", "an offer", format!("none; {}", status.waiting_for)).into()
    })
}

impl Submit {
    /// Verifies the enclave, seals, uploads, and waits for the receipt.
    pub fn run(&self, context: &Context) -> Result<u8> {
        let parts = Parts::load(context, &self.target)?;
        let stop = Arc::default();
        let agent = parts.agent(context, &stop);
        let local = LocalStudy::new(&context.home, self.target.study);
        let mut binding = Binding::open(&context.home, &local)?;
        let site = agent.join(&assignment(&self.target))?;
        let status = site.status()?;
        site.notice(&mut binding, &status)?;
        let offer = offer(&site, &status)?;
        binding.allows(offer.statement().round, &offer.digest())?;
        site.verify(&offer)?;
        for path in self.update.iter().chain(&self.metrics) {
            std::fs::metadata(path).map_err(|e| Error::file(path, e))?;
        }
        let metrics = self.metrics.as_deref().map_or(Ok(Metrics::default()), Metrics::read)?;
        let update = self.update.as_deref().unwrap_or(Path::new(""));
        let update = site.seal_once(&binding, &status, &offer, update, &metrics)?;
        let uploaded = site.upload(&offer, &update)?;
        match site.outcome(&offer, &update, uploaded)? {
            UploadState::Admitted(_) => {
                let header = update.header.digest();
                let machine = json!({ "header": header, "state": "admitted" });
                context.voice.result(&machine, &format!("admitted: {header}"));
                Ok(0)
            }
            UploadState::Refused(refusal) => {
                Err(site.take_refusal(&binding, &offer, &update, &refusal)?)
            }
            state => Err(Error::Usage(format!("the upload ended as {state:?}"))),
        }
    }
}

impl OnStudy {
    /// Commits to the roster that stands.
    pub fn commit(&self, context: &Context) -> Result<u8> {
        let parts = Parts::load(context, &self.target)?;
        let stop = Arc::default();
        let agent = parts.agent(context, &stop);
        let local = LocalStudy::new(&context.home, self.target.study);
        let mut binding = Binding::open(&context.home, &local)?;
        let site = agent.join(&assignment(&self.target))?;
        let status = site.status()?;
        site.notice(&mut binding, &status)?;
        let offer = offer(&site, &status)?;
        let update = site.sealed(&offer)?.ok_or_else(|| {
            SiteRefusal::new("update", "an update that is sealed to this offer", "none")
                .next("sealfold submit")
        })?;
        let roster = status.roster.as_ref().ok_or_else(|| {
            SiteRefusal::new("phase", "a roster", format!("none; {}", status.waiting_for))
        })?;
        let roster = site.roster(&offer, &roster.0)?;
        let leaf = status.roster_leaf.ok_or_else(|| {
            SiteRefusal::new("phase", "a roster that stands in the log", "one that does not yet")
                .next("ask again in a moment")
        })?;
        site.commit(&mut binding, &offer, &roster, leaf, &update.header.digest())?;
        let sites: Vec<_> = roster.statement().sites().into_iter().map(str::to_owned).collect();
        let machine = json!({ "roster": roster.digest(), "sites": sites });
        context.voice.result(&machine, &format!("committed to a roster of {}", sites.join(", ")));
        Ok(0)
    }

    /// Says where the site and the round stand.
    pub fn status(&self, context: &Context) -> Result<u8> {
        let parts = Parts::load(context, &self.target)?;
        let stop = Arc::default();
        let agent = parts.agent(context, &stop);
        let site = agent.join(&assignment(&self.target))?;
        let next = site.joined.next()?;
        let terms = &site.joined.manifest().terms;
        let rounds = terms.last_round();
        if next.round > rounds {
            let machine = json!({ "round": rounds, "rounds": rounds, "done": true });
            context.voice.result(&machine, &format!("all {rounds} rounds are done"));
            return Ok(0);
        }
        let status = site.status()?;
        let phase = serde_json::to_value(status.phase).unwrap_or_default();
        let told = explain(&context.home, &parts.keys, &site.joined, Some(&status), next.round)?;
        let kind = terms.kind(next.round);
        let purpose = match kind {
            RoundKind::Training => "",
            RoundKind::Evaluation => ", which measures the last model",
        };
        let machine = json!({
            "kind": kind, "standing": told.standing, "bound_to": told.bound_to, "next": told.next,
            "round": next.round, "rounds": rounds, "done": false, "base": next.base, "phase": phase,
            "uploads": status.uploaded.len(), "commits": status.commits.len(),
            "waiting_for": status.waiting_for,
        });
        let text = format!(
            "round {} of {rounds}{purpose}: {}, {} uploads, {} commits; waits for {}\nthis site is {}\n\
             next: {}",
            next.round,
            phase.as_str().unwrap_or_default(),
            status.uploaded.len(),
            status.commits.len(),
            shown(&status.waiting_for),
            told.standing.in_words(),
            told.next
        );
        context.voice.result(&machine, &text);
        Ok(0)
    }
}

impl Fetch {
    /// Applies every release that is there, and copies the newest model.
    pub fn run(&self, context: &Context) -> Result<u8> {
        let parts = Parts::load(context, &self.target)?;
        let stop = Arc::default();
        let agent = parts.agent(context, &stop);
        let local = LocalStudy::new(&context.home, self.target.study);
        let mut binding = Binding::open(&context.home, &local)?;
        let site = agent.join(&assignment(&self.target))?;
        site.fetch_initial()?;
        let rounds = site.joined.manifest().terms.last_round();
        while site.joined.next()?.round <= rounds {
            let status = site.status()?;
            site.notice(&mut binding, &status)?;
            if site.finish(&binding, &status)?.is_none() {
                break;
            }
        }
        let head = site.joined.local.head(site.joined.manifest())?;
        let model = site.joined.local.model(head.round - 1);
        std::fs::copy(&model, &self.out).map_err(|e| Error::file(&self.out, e))?;
        let machine = json!({ "round": head.round - 1, "model": head.base, "out": self.out });
        let text = format!("the model after round {} is in {}", head.round - 1, self.out.display());
        context.voice.result(&machine, &text);
        Ok(0)
    }
}

impl Run {
    /// Runs the agent.
    pub fn run(&self, context: &Context) -> Result<u8> {
        let poll = Duration::try_from_secs_f64(self.poll_seconds)
            .ok()
            .filter(|poll| *poll >= Duration::from_millis(10))
            .ok_or_else(|| Error::Usage("--poll-seconds: expected 0.01 or more".to_owned()))?;
        let parts = Parts::load(context, &self.target)?;
        let stop = Arc::new(AtomicBool::new(false));
        let told = stop.clone();
        ctrlc::set_handler(move || told.store(true, Ordering::Relaxed))
            .map_err(|error| Error::Usage(error.to_string()))?;
        let assignment = Assignment {
            study: self.target.study,
            train: Some(self.train.clone()),
            data: self.data.clone(),
            max_rounds: self.max_rounds,
            poll,
        };
        let rounds = parts.agent(context, &stop).run(&assignment)?;
        context.voice.event("done", json!({ "rounds": rounds }));
        Ok(0)
    }
}
