//! Our side of the comparison with peers: seals the updates once, then admits
//! and folds them whenever it is told to, and says how long that took and how
//! much memory it needed. `compare.py` is on the other side of its streams.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    missing_docs,
    clippy::missing_panics_doc,
    clippy::missing_errors_doc
)]

use anyhow::{Context, anyhow, bail};
use clap::Parser;
use files::Files;
use sealed_round::SealedRound;
use sealfold_enclave::door::{Doors, RecordDoor};
use sealfold_enclave::fold::{Failure, Folded};
use sealfold_enclave::round::Plan;
use sealfold_protocol::release;
use sealfold_protocol::seal::{self, InputKey, OpeningReader};
use sealfold_protocol::terms::RoundKind;
use sealfold_study::Manifest;
use sealfold_tests::site::{self, Site};
use sealfold_tests::study::{self, Options};
use serde_json::{Value, json};
use std::fs::{self, File};
use std::hint::black_box;
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Instant;

mod account;
mod files;
#[path = "../fold/sealed_round.rs"]
mod sealed_round;

/// The arguments that `compare.py` gives.
#[derive(Parser)]
struct Arguments {
    /// The manifest's aggregation section without its heading, as TOML.
    #[arg(long)]
    aggregation: String,
    /// The folder with site-00.f32 and so on: each update's values, raw.
    #[arg(long)]
    inputs: PathBuf,
    /// A folder for sealed updates and the sealed aggregate.
    #[arg(long)]
    store: PathBuf,
    /// Each site's weight.
    #[arg(long, value_delimiter = ',')]
    weights: Vec<u32>,
    /// The number of values of an update.
    #[arg(long)]
    parameters: usize,
    /// The enclave's threads.
    #[arg(long)]
    threads: usize,
    /// What cargo says to every benchmark.
    #[arg(long)]
    bench: bool,
}

/// A round whose sealed updates lie in files.
struct Bench {
    round: SealedRound,
    files: Files,
    aggregate: PathBuf,
    threads: usize,
}

impl Bench {
    /// Seals every update into a file; `None` if this build has no such rule.
    fn new(arguments: &Arguments) -> anyhow::Result<Option<Self>> {
        let sites = arguments.weights.len();
        let is_mean =
            arguments.aggregation.contains("mean\"") && !arguments.aggregation.contains("trimmed");
        let options = Options {
            sites,
            // All of them: a robust rule's conditions hold for the smallest roster.
            smallest_roster: sites,
            parameters: arguments.parameters,
            aggregation: arguments.aggregation.clone(),
            weights: if is_mean { arguments.weights.clone() } else { Vec::new() },
            accepts: if is_mean { Vec::new() } else { vec!["selective-rule"] },
            weak: sites < 4,
            ..Options::default()
        };
        let listed: Vec<_> = (0..sites).map(Site::numbered).collect();
        if let Err(error) = Manifest::from_toml(&study::toml(&options, &listed)) {
            say(&json!({ "refused": error.to_string() }))?;
            return Ok(None);
        }
        fs::create_dir_all(&arguments.store)?;
        let aggregate = arguments.store.join("aggregate");
        let mut files = Files::new(&aggregate)?;
        let read = |site: usize| {
            let bytes = fs::read(arguments.inputs.join(format!("site-{site:02}.f32")));
            site::floats(&bytes.expect("an update that compare.py made"))
        };
        let round = SealedRound::new(&options, read, |sealed| {
            let name = sealed.header.digest();
            let path = arguments.store.join(&sealed.header.statement().site);
            files.keep(*name.as_bytes(), &path, &sealed.bytes).expect("room for a sealed update");
        });
        Ok(Some(Self { round, files, aggregate, threads: arguments.threads }))
    }

    /// Admits and folds all updates. Where `opened` names a file, the aggregate
    /// is opened into it afterwards, as a site would open it.
    fn run(&self, opened: Option<&Path>) -> anyhow::Result<Value> {
        self.files.empty_aggregate()?;
        let before = account::resident()?;
        account::reset_peak()?;
        let processors = account::processor_seconds()?;
        let start = Instant::now();
        let admitted: Result<Vec<_>, _> = (0..self.round.headers.len())
            .map(|site| self.round.admit(site, &&self.files, self.threads))
            .collect();
        let plan = self.round.plan(admitted.map_err(|refusal| anyhow!("{refusal:?}"))?);
        let admission = start.elapsed();
        let start = Instant::now();
        let folded = self.round.fold(&plan, &&self.files, self.threads);
        let fold = start.elapsed();
        let processors = account::processor_seconds()? - processors;
        let peak = account::peak()?;
        let folded = match folded {
            Ok(folded) => folded,
            Err(Failure::Sites(_, refusal) | Failure::Passing(refusal)) => bail!("{refusal:?}"),
        };
        if let Some(path) = opened {
            self.open(&plan, &folded, path)?;
        }
        Ok(json!({
            "limit_seconds": self.limit(&plan)?,
            "seconds": (admission + fold).as_secs_f64(),
            "admission_seconds": admission.as_secs_f64(),
            "fold_seconds": fold.as_secs_f64(),
            "processor_seconds": processors,
            "resident_bytes": before,
            "peak_bytes": peak,
        }))
    }

    /// The seconds that it takes to read and open every byte once and do nothing
    /// else: no pass over the updates can be faster.
    fn limit(&self, plan: &Plan) -> anyhow::Result<f64> {
        let length = self.round.subject.terms.update_length(RoundKind::Training);
        let part = |first: usize| -> anyhow::Result<()> {
            let (mut door, mut sealed) = ((&self.files).open()?, Vec::new());
            for record in (first as u64..seal::record_count(length)).step_by(self.threads) {
                let range = seal::record_range(length, record);
                for member in &plan.members {
                    let object = member.header.digest();
                    door.ask(
                        object.as_bytes(),
                        range.start,
                        (range.end - range.start).try_into()?,
                    )?;
                    door.take(&mut sealed)?;
                    member
                        .opener
                        .open_record(record, &mut sealed, |_, chunk| _ = black_box(chunk))?;
                }
            }
            Ok(())
        };
        let start = Instant::now();
        thread::scope(|scope| {
            let threads: Vec<_> =
                (0..self.threads).map(|first| scope.spawn(move || part(first))).collect();
            threads.into_iter().try_for_each(|thread| thread.join().expect("no panic"))
        })?;
        Ok(start.elapsed().as_secs_f64())
    }

    fn open(&self, plan: &Plan, folded: &Folded, path: &Path) -> anyhow::Result<()> {
        let context =
            release::seal_context(&self.round.subject.offer.digest(), &plan.roster.digest());
        let key = InputKey::new(*folded.opening.key.as_bytes());
        let sealed = BufReader::new(File::open(&self.aggregate)?);
        let mut plain = OpeningReader::new(&key, &context, folded.plain_length, sealed)
            .context("the aggregate does not open")?;
        let mut words = Vec::new();
        io::Read::read_to_end(&mut plain, &mut words)?;
        let roster = plan.roster.statement().sites();
        let values = site::mean(&self.round.subject.terms, roster, &words);
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        fs::write(path, bytes)?;
        Ok(())
    }
}

/// One line to `compare.py`.
fn say(value: &Value) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{value}")?;
    out.flush()
}

fn main() -> anyhow::Result<()> {
    // `cargo test --benches` only asks whether it runs.
    if std::env::args().any(|argument| argument == "--test") {
        return Ok(());
    }
    if std::env::args().len() < 3 {
        eprintln!("this is one part of a comparison: run `make bench-peers`");
        return Ok(());
    }
    let Some(bench) = Bench::new(&Arguments::parse())? else { return Ok(()) };
    say(&json!({ "ready": true, "received_bytes": 0 }))?;
    for line in io::stdin().lock().lines() {
        let line = line?;
        let reply = match line.split_once(' ') {
            None if line == "run" => bench.run(None)?,
            Some(("run", path)) => bench.run(Some(Path::new(path)))?,
            _ => bail!("expected `run` or `run FILE`, found {line:?}"),
        };
        say(&reply)?;
    }
    Ok(())
}
