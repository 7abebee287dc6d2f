//! The example study through the real system: an enclave in simulation, a host,
//! four site agents, each a process of its own.

use crate::HOSPITALS;
use crate::experiment::Study;
use crate::private::cost::Cost;
use crate::private::plan::{EPSILON, Plan, ROUNDS};
use crate::private::report::PrivateSummary;
use crate::refusal::refused;
use crate::report::{self, Summary};
use anyhow::{Context, bail};
use course::Course;
use indicatif::{ProgressBar, ProgressStyle};
use outcome::uploaded;
use processes::{Binaries, Process};
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

mod approval;
mod course;
mod outcome;
pub mod processes;

pub use outcome::Outcome;

/// What marks a folder as one that a demo may replace.
const MARK: &str = ".sealfold-demo";
/// From so many rounds on the federated model must be close to the pooled one.
const CONVERGED: u32 = 20;
/// The rounds of the plain demo.
const PLAIN_ROUNDS: u32 = 24;
/// The exit code after Ctrl-C, as of a shell.
const INTERRUPTED: i32 = 130;
/// Longer than this, something is wrong.
const PATIENCE: Duration = Duration::from_secs(170);

/// What `heart-disease demo` was asked for.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// The folder for everything that the demo makes; one of an earlier demo
    /// is replaced.
    #[arg(long, default_value = "target/demo", value_name = "FOLDER")]
    pub out: PathBuf,
    /// Train with noise that hides each patient, and say what that costs.
    #[arg(long)]
    pub private: bool,
    /// With --private, the privacy loss of a patient over all rounds: the noise
    /// follows from it.
    #[arg(long, value_name = "E", default_value_t = EPSILON, requires = "private")]
    pub epsilon: f64,
    /// The rounds: 24, or 16 of the private study. With fewer than 20 the
    /// federated model is not expected to be as good as the pooled one.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub rounds: Option<u32>,
    /// An enclave that runs already, in a virtual machine for example, instead
    /// of a simulated one.
    #[arg(long, value_name = "ENDPOINT", requires = "door", requires = "platform_policy")]
    pub enclave: Option<String>,
    /// Where that enclave looks for the host's record door.
    #[arg(long, value_name = "ENDPOINT", requires = "enclave")]
    pub door: Option<String>,
    /// The section of the sites' policy that accepts that enclave, TOML.
    #[arg(long, value_name = "FILE", requires = "enclave")]
    pub platform_policy: Option<PathBuf>,
    /// The hospitals' tables.
    #[arg(long, value_name = "FOLDER")]
    pub data: Option<PathBuf>,
    /// Where the binaries of sealfold are; beside this one by default.
    #[arg(long, value_name = "FOLDER")]
    pub bin_dir: Option<PathBuf>,
}

/// Runs the demo.
///
/// # Errors
/// If something does not start, ends early or does not add up. All processes
/// have ended when this returns.
pub fn run(options: &Options) -> anyhow::Result<()> {
    let stop = Arc::new(Stop::default());
    let told = stop.clone();
    ctrlc::set_handler(move || told.tell())?;
    let binaries = Binaries::find(options.bin_dir.clone())?;
    let data = match &options.data {
        Some(data) => data.clone(),
        None => PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("data"),
    };
    let data = data.canonicalize().with_context(|| format!("no tables in {}", data.display()))?;
    let study = Study::read(&data)?;
    let rounds = options.rounds.unwrap_or(if options.private { ROUNDS } else { PLAIN_ROUNDS });
    let plan = options.private.then(|| Plan::new(rounds, options.epsilon)).transpose();
    let plan = plan.map_err(|error| refused(format!("{error}; give another --epsilon")))?;
    // Only now: what was refused leaves the earlier demo as it is.
    let out = prepare(&options.out)?;
    let course = plan.as_ref().map_or_else(|| Ok(Course::plain()), Course::private)?;
    let start = Instant::now();
    eprintln!("four hospitals, {rounds} rounds; everything is in {}", out.display());
    let outside = match (&options.enclave, &options.door, &options.platform_policy) {
        (Some(enclave), Some(door), Some(policy)) => Some(Outside {
            enclave: enclave.clone(),
            door: door.clone(),
            policy: std::fs::read_to_string(policy)
                .with_context(|| format!("cannot read {}", policy.display()))?,
        }),
        _ => None,
    };
    let demo = Demo { binaries, out: out.clone(), data, rounds, outside, course, stop };
    let outcome = demo.rounds()?;
    demo.stop.at_once.store(true, Ordering::Relaxed);
    let seconds = start.elapsed().as_secs_f64();
    match plan {
        Some(plan) => report_private(&study, plan, &outcome, seconds, &out),
        None => report_plain(&study, &outcome, seconds, &out),
    }
}

fn report_plain(study: &Study, outcome: &Outcome, seconds: f64, out: &Path) -> anyhow::Result<()> {
    let rounds = outcome.models.len() - 1;
    eprintln!(
        "{rounds} rounds in {seconds:.1} s; comparing with models trained alone and on pooled data"
    );
    let summary = Summary::new(study, &outcome.models, seconds, outcome.bytes_uploaded)?;
    println!("{}", summary.table());
    summary.write(&out.join("summary.json"))?;
    write_report(&out.join("report.html"), &report::html(&summary))?;
    println!(
        "figures: {}\nreport:  {}",
        out.join("summary.json").display(),
        out.join("report.html").display()
    );
    if rounds < CONVERGED as usize {
        return Ok(());
    }
    summary.expect_close()
}

fn report_private(
    study: &Study,
    plan: Plan,
    outcome: &Outcome,
    seconds: f64,
    out: &Path,
) -> anyhow::Result<()> {
    eprintln!(
        "{} rounds in {seconds:.1} s; repeating them in memory, with less and more noise",
        plan.rounds
    );
    let cost = Cost::new(study, &plan)?;
    let summary = PrivateSummary::new(study, plan, cost, outcome, seconds)?;
    println!("{}", summary.table());
    summary.write(&out.join("private.json"))?;
    write_report(&out.join("private.html"), &summary.html())?;
    println!(
        "figures: {}\nreport:  {}",
        out.join("private.json").display(),
        out.join("private.html").display()
    );
    Ok(())
}

fn write_report(path: &Path, html: &str) -> anyhow::Result<()> {
    std::fs::write(path, html).with_context(|| format!("cannot write {}", path.display()))
}

/// Makes the folder anew; a folder that is no demo's is left alone.
fn prepare(out: &Path) -> anyhow::Result<PathBuf> {
    if out.exists() {
        if !out.join(MARK).exists() && out.read_dir()?.next().is_some() {
            let out = out.display();
            let message = format!("{out} is not the folder of an earlier demo; give another --out");
            return Err(refused(message));
        }
        std::fs::remove_dir_all(out)?;
    }
    std::fs::create_dir_all(out).with_context(|| format!("cannot make {}", out.display()))?;
    std::fs::write(out.join(MARK), b"")?;
    Ok(out.canonicalize()?)
}

/// Ctrl-C. While processes run they are ended first; afterwards the demo just
/// ends.
#[derive(Default)]
struct Stop {
    wanted: AtomicBool,
    at_once: AtomicBool,
}

impl Stop {
    fn tell(&self) {
        if self.at_once.load(Ordering::Relaxed) {
            eprintln!("stopped");
            std::process::exit(INTERRUPTED);
        }
        self.wanted.store(true, Ordering::Relaxed);
    }
}

/// An enclave that the demo did not start.
struct Outside {
    enclave: String,
    door: String,
    policy: String,
}

struct Demo {
    course: Course,
    binaries: Binaries,
    outside: Option<Outside>,
    out: PathBuf,
    data: PathBuf,
    rounds: u32,
    stop: Arc<Stop>,
}

impl Demo {
    fn home(&self, site: &str) -> PathBuf {
        self.out.join("sites").join(site)
    }

    fn sealfold(&self, site: &str, arguments: &[&str]) -> anyhow::Result<serde_json::Value> {
        let home = self.home(site);
        let home = home.to_str().context("the folder's name is no UTF-8")?;
        let all = [&["--home", home, "--json"], arguments].concat();
        Ok(serde_json::from_str(&self.binaries.run("sealfold", &all)?)?)
    }

    /// Runs all rounds.
    fn rounds(&self) -> anyhow::Result<Outcome> {
        std::fs::create_dir_all(self.out.join("sites"))?;
        std::fs::create_dir_all(self.out.join("logs"))?;
        let sockets = tempfile::tempdir()?;
        let socket = |name: &str| format!("unix://{}", sockets.path().join(name).display());
        let (mut enclave, at, door, policy) = if let Some(outside) = &self.outside {
            (None, outside.enclave.clone(), outside.door.clone(), outside.policy.clone())
        } else {
            let (at, door) = (socket("enclave"), socket("door"));
            let (process, policy) = self.simulate(&at, &door)?;
            (Some(process), at, door, policy)
        };
        let mut host = self.binaries.command("sealfold-host");
        host.args(["serve", "--listen", "tcp://127.0.0.1:0", "--enclave", &at]);
        host.args(["--any-study", "--door", &door, "--data"]).arg(self.out.join("host"));
        // Rounds of a second or two: evidence is asked for more often than by day.
        host.args(["--evidence-rate", "6000", "--metrics", &socket("metrics")]);
        let mut host = self.start("host", host)?;
        let url = host.listening()?;
        eprintln!("the host's status page: {url}");
        let study = self.approve(&url, &policy)?;
        let mut agents = HOSPITALS
            .iter()
            .map(|site| self.agent(site, &url, &study))
            .collect::<anyhow::Result<Vec<_>>>()?;
        self.watch(enclave.as_mut(), &mut host, &mut agents, &study)?;
        Ok(Outcome {
            models: self.models(&study)?,
            evaluations: self.evaluations(&study)?,
            bytes_uploaded: uploaded(&sockets.path().join("metrics"))?,
        })
    }

    /// Starts an enclave in simulation; with the policy that accepts it.
    fn simulate(&self, at: &str, door: &str) -> anyhow::Result<(Process, String)> {
        let root = self.out.join("simulation-root.pem");
        let root = root.to_str().context("the folder's name is no UTF-8")?;
        let mut enclave = self.binaries.command("sealfold-enclave");
        enclave.args(["--simulation-root", root, "--listen", at, "--door", door]);
        let mut enclave = self.start("enclave", enclave)?;
        enclave.listening()?;
        let ask = ["--simulation-root", root, "--print-policy"];
        Ok((enclave, self.binaries.run("sealfold-enclave", &ask)?))
    }

    fn start(&self, name: &str, command: std::process::Command) -> anyhow::Result<Process> {
        Process::start(name, command, &self.out.join("logs").join(format!("{name}.log")))
    }

    fn agent(&self, site: &str, url: &str, study: &str) -> anyhow::Result<Process> {
        let data = self.data.join(format!("{site}.csv"));
        let own = std::env::current_exe()?;
        let train = format!(
            "'{}' train --hospital {site} --data '{}'{}",
            own.display(),
            data.display(),
            self.course.trainer
        );
        let mut command = self.binaries.command("sealfold");
        command.arg("--home").arg(self.home(site)).args(["--json", "run", "--host", url, study]);
        command.args(["--train", &train, "--poll-seconds", "0.05", "--data"]).arg(&data);
        self.start(site, command)
    }

    /// Shows progress until every agent is done.
    fn watch(
        &self,
        mut enclave: Option<&mut Process>,
        host: &mut Process,
        agents: &mut [Process],
        study: &str,
    ) -> anyhow::Result<()> {
        let last = self.rounds + u32::from(self.course.is_evaluated);
        let bar = ProgressBar::new(last.into());
        if let Ok(style) = ProgressStyle::with_template("round {pos}/{len} {bar:40} {elapsed}") {
            bar.set_style(style);
        }
        let is_terminal = std::io::stderr().is_terminal();
        let (start, mut seen) = (Instant::now(), 0);
        loop {
            let mut done = true;
            for agent in agents.iter_mut() {
                done &= agent.is_done()?;
            }
            let round = self.released(study);
            bar.set_position(round.into());
            if !is_terminal && round != seen {
                if round > self.rounds {
                    eprintln!("the last model is measured");
                } else {
                    eprintln!("round {round} of {} is released", self.rounds);
                }
                seen = round;
            }
            if done {
                bar.finish_and_clear();
                return Ok(());
            }
            if let Some(enclave) = enclave.as_deref_mut() {
                enclave.expect_running()?;
            }
            host.expect_running()?;
            if self.stop.wanted.load(Ordering::Relaxed) {
                bail!("stopped");
            }
            if start.elapsed() > PATIENCE {
                bail!(
                    "round {} takes too long; the logs are in {}",
                    round + 1,
                    self.out.join("logs").display()
                );
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}
