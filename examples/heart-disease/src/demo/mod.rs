//! The example study through the real system: an enclave in simulation, a host,
//! four site agents, each a process of its own.

use crate::experiment::Study;
use crate::logistic::Logistic;
use crate::report::{self, Summary};
use crate::{HOSPITALS, REPLICAS, train};
use anyhow::{Context, bail};
use indicatif::{ProgressBar, ProgressStyle};
use processes::{Binaries, Process};
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

pub mod processes;

/// What marks a folder as one that a demo may replace.
const MARK: &str = ".sealfold-demo";
/// From so many rounds on the federated model must be close to the pooled one.
const CONVERGED: u32 = 20;
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
    /// The rounds; with fewer than 20 the federated model is not expected to be
    /// as good as the pooled one.
    #[arg(long, default_value_t = 24, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub rounds: u32,
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
    let out = prepare(&options.out)?;
    let start = Instant::now();
    eprintln!("four hospitals, {} rounds; everything is in {}", options.rounds, out.display());
    let outside = match (&options.enclave, &options.door, &options.platform_policy) {
        (Some(enclave), Some(door), Some(policy)) => Some(Outside {
            enclave: enclave.clone(),
            door: door.clone(),
            policy: std::fs::read_to_string(policy)
                .with_context(|| format!("cannot read {}", policy.display()))?,
        }),
        _ => None,
    };
    let demo = Demo { binaries, out: out.clone(), data, rounds: options.rounds, outside, stop };
    let (models, bytes_uploaded) = demo.rounds()?;
    demo.stop.at_once.store(true, Ordering::Relaxed);
    let seconds = start.elapsed().as_secs_f64();
    eprintln!(
        "{} rounds in {seconds:.1} s; comparing with models trained alone and on pooled data",
        options.rounds
    );
    let summary = Summary::new(&study, &models, seconds, bytes_uploaded)?;
    println!("{}", summary.table());
    summary.write(&out.join("summary.json"))?;
    let html = out.join("report.html");
    std::fs::write(&html, report::html(&summary))
        .with_context(|| format!("cannot write {}", html.display()))?;
    println!("figures: {}\nreport:  {}", out.join("summary.json").display(), html.display());
    if options.rounds < CONVERGED {
        return Ok(());
    }
    summary.expect_close()
}

/// Makes the folder anew; a folder that is no demo's is left alone.
fn prepare(out: &Path) -> anyhow::Result<PathBuf> {
    if out.exists() {
        if !out.join(MARK).exists() && out.read_dir()?.next().is_some() {
            bail!("{} is not the folder of an earlier demo; give another --out", out.display());
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

    /// Runs all rounds; the models after each (the first is the initial one)
    /// and the bytes that were uploaded.
    fn rounds(&self) -> anyhow::Result<(Vec<Vec<Logistic>>, u64)> {
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
        host.args(["--door", &door, "--data"]).arg(self.out.join("host"));
        let mut host = self.start("host", host)?;
        let url = host.listening()?;
        eprintln!("the host's status page: {url}");
        let study = self.approve(&url, &policy)?;
        let mut agents = HOSPITALS
            .iter()
            .map(|site| self.agent(site, &url, &study))
            .collect::<anyhow::Result<Vec<_>>>()?;
        self.watch(enclave.as_mut(), &mut host, &mut agents, &study)?;
        let models = self.models(&study)?;
        Ok((models, uploaded(&url)?))
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

    /// Makes keys, writes the study, and has every site approve it.
    fn approve(&self, url: &str, simulation: &str) -> anyhow::Result<String> {
        let (mut listings, mut approvers) = (String::new(), Vec::new());
        for site in HOSPITALS {
            let keys = self.sealfold(site, &["init", "--name", site])?;
            let text = |field: &str| keys[field].as_str().unwrap_or_default().to_owned();
            approvers.push(format!("\"{}\"", text("signing_key")));
            listings.push_str(&format!(
                "[[site]]\nname = \"{site}\"\nsigning_key = \"{}\"\nrelease_key = \"{}\"\n\n",
                text("signing_key"),
                text("release_key")
            ));
        }
        let approvers = approvers.join(", ");
        let measurements: Vec<_> =
            simulation.lines().filter(|line| line.starts_with("pcr")).collect();
        let initial = self.out.join("initial.safetensors");
        train::write_model(&initial, &vec![Logistic::default(); REPLICAS])?;
        let initial = initial.to_str().context("the folder's name is no UTF-8")?;
        let path = self.out.join("study.toml");
        let manifest = path.to_str().context("the folder's name is no UTF-8")?;
        let fill = |digest: &str| {
            include_str!("../../study.template.toml")
                .replace("ROUNDS", &self.rounds.to_string())
                .replace("INITIAL", digest)
                .replace("APPROVERS", &approvers)
                .replace("MEASUREMENTS", &measurements.join("\n"))
                .replace("SITES", listings.trim_end())
        };
        std::fs::write(&path, fill(&"0".repeat(64)))?;
        let digest =
            self.sealfold(HOSPITALS[0], &["study", "digest-model", initial, "--study", manifest])?;
        std::fs::write(&path, fill(digest["initial"].as_str().unwrap_or_default()))?;
        let policy = format!(
            "[evidence]\nmax_age_seconds = 300\n\n[approval]\nrequired = 3\napprovers = [{approvers}]\n\n\
             [round]\nsmallest_roster = 4\ncolluders = 1\n\n# A demo: a real site has [nitro] here \
             and no [simulation].\n{simulation}"
        );
        let mut study = String::new();
        for (place, site) in HOSPITALS.iter().enumerate() {
            std::fs::write(self.home(site).join("policy.toml"), &policy)?;
            let mut arguments = vec!["study", "approve", manifest, "--host", url, "--yes"];
            if place == HOSPITALS.len() - 1 {
                arguments.extend(["--model", initial]);
            }
            let approved = self.sealfold(site, &arguments)?;
            approved["study"].as_str().unwrap_or_default().clone_into(&mut study);
        }
        Ok(study)
    }

    fn agent(&self, site: &str, url: &str, study: &str) -> anyhow::Result<Process> {
        let data = self.data.join(format!("{site}.csv"));
        let own = std::env::current_exe()?;
        let train =
            format!("'{}' train --hospital {site} --data '{}'", own.display(), data.display());
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
        let bar = ProgressBar::new(self.rounds.into());
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
                eprintln!("round {round} of {} is released", self.rounds);
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

    fn model(&self, site: &str, study: &str, round: u32) -> PathBuf {
        let name = format!("round-{round:04}.safetensors");
        self.home(site).join("studies").join(study).join("models").join(name)
    }

    /// The last round that every site has.
    fn released(&self, study: &str) -> u32 {
        let has =
            |round: &u32| HOSPITALS.iter().all(|site| self.model(site, study, *round).exists());
        (1..=self.rounds).take_while(has).last().unwrap_or(0)
    }

    /// The models of all rounds; every site must have the same bytes.
    fn models(&self, study: &str) -> anyhow::Result<Vec<Vec<Logistic>>> {
        let mut models = Vec::new();
        for round in 0..=self.rounds {
            let path = self.model(HOSPITALS[0], study, round);
            let bytes = std::fs::read(&path)?;
            for site in &HOSPITALS[1..] {
                if std::fs::read(self.model(site, study, round))? != bytes {
                    bail!("{site} has another model than {} after round {round}", HOSPITALS[0]);
                }
            }
            models.push(train::read_model(&path)?);
        }
        Ok(models)
    }
}

/// The sealed bytes that the host took, by its own count.
fn uploaded(url: &str) -> anyhow::Result<u64> {
    use std::io::{Read, Write};
    let address = url.strip_prefix("http://").context("the host's URL is no http://")?;
    let mut stream = std::net::TcpStream::connect(address)?;
    stream.write_all(b"GET /metrics HTTP/1.0\r\nhost: localhost\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let line = text.lines().find(|line| line.starts_with("sealfold_upload_bytes_total "));
    let count = line.and_then(|line| line.split(' ').nth(1)?.parse().ok());
    count.context("the host's metrics have no sealfold_upload_bytes_total")
}
