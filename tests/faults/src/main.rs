//! `soak`: schedules of faults until told to stop, or the one of a seed.
//!
//! Exit codes: 0 if every invariant held in every schedule, 1 if not.

use clap::Parser;
use sealfold_faults::run::{Verdict, follow, run};
use sealfold_faults::sabotage::Sabotage;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Runs enclave, host and sites through generated schedules of faults (crashes,
/// lost, doubled and late requests, full disks, several instances), and checks
/// after each that nothing was released twice, lost, doubled or left unexplained.
///
/// A schedule that fails is printed with its seed; `--seed` plays it again.
#[derive(Debug, Parser)]
#[command(name = "soak", max_term_width = 100)]
struct Options {
    /// Play this one schedule and print what happened in it.
    #[arg(long, value_name = "NUMBER")]
    seed: Option<u64>,
    /// The first seed; otherwise the clock decides, so that each soak is another.
    #[arg(long, value_name = "NUMBER", conflicts_with = "seed")]
    from: Option<u64>,
    /// Stop after so many schedules.
    #[arg(long, value_name = "NUMBER", conflicts_with = "seed")]
    count: Option<u64>,
    /// How many run at a time; the number of processors otherwise.
    #[arg(long, value_name = "NUMBER")]
    threads: Option<usize>,
    /// Break a rule on purpose, to see that it is noticed: sites-forget, disks-lie,
    /// doubled, foreign or log-forgets.
    #[arg(long, value_name = "RULE", value_parser = sabotage)]
    sabotage: Option<Sabotage>,
}

fn sabotage(name: &str) -> Result<Sabotage, String> {
    let known = Sabotage::ALL.into_iter().find(|sabotage| sabotage.name() == name);
    let names = Sabotage::ALL.map(Sabotage::name).join(", ");
    known.ok_or_else(|| format!("expected one of {names}, found {name:?}"))
}

fn main() -> ExitCode {
    let options = Options::parse();
    match options.seed {
        Some(seed) => replay(seed, options.sabotage),
        None => soak(&options),
    }
}

fn replay(seed: u64, sabotage: Option<Sabotage>) -> ExitCode {
    tracing_subscriber::fmt().with_writer(std::io::stdout).without_time().init();
    let verdict = follow(seed, sabotage);
    println!("{} releases of all instances", verdict.releases);
    report(&verdict);
    if verdict.violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn report(verdict: &Verdict) {
    let seed = verdict.seed;
    match verdict.violations.len() {
        0 => println!("seed {seed}: every invariant held"),
        n => println!("seed {seed}: {n} violations; `make soak SEED={seed}` plays it again"),
    }
    verdict.violations.iter().for_each(|violation| println!("  {violation}"));
}

fn soak(options: &Options) -> ExitCode {
    let stop = std::sync::Arc::new(AtomicBool::new(false));
    let stopped = stop.clone();
    if let Err(error) = ctrlc::set_handler(move || stopped.store(true, Ordering::Relaxed)) {
        eprintln!("Ctrl-C will end it without a summary: {error}");
    }
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let from = options.from.unwrap_or_else(|| now.map_or(0, |now| now.as_secs() << 20));
    let threads = options
        .threads
        .unwrap_or_else(|| std::thread::available_parallelism().map_or(1, std::num::NonZero::get));
    let (next, done, releases) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let failed = Mutex::new(Vec::new());
    let start = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if options.count.is_some_and(|count| number >= count) {
                        return;
                    }
                    let verdict = run(from + number, options.sabotage);
                    releases.fetch_add(verdict.releases as u64, Ordering::Relaxed);
                    done.fetch_add(1, Ordering::Relaxed);
                    if !verdict.violations.is_empty() {
                        report(&verdict);
                        if let Ok(mut failed) = failed.lock() {
                            failed.push(verdict.seed);
                        }
                    }
                }
            });
        }
        let is_seen = std::io::stderr().is_terminal();
        let pause = Duration::from_secs(if is_seen { 1 } else { 60 });
        let is_over = || {
            stop.load(Ordering::Relaxed)
                || options.count.is_some_and(|count| done.load(Ordering::Relaxed) >= count)
        };
        let mut said = Instant::now();
        while !is_over() {
            std::thread::sleep(Duration::from_millis(100));
            if said.elapsed() >= pause {
                said = Instant::now();
                let (done, seconds) = (done.load(Ordering::Relaxed), start.elapsed().as_secs());
                eprint!("{done} schedules in {seconds} s{}", if is_seen { "\r" } else { "\n" });
                let _ = std::io::stderr().flush();
            }
        }
    });
    let failed = failed.into_inner().unwrap_or_default();
    println!(
        "{} schedules from seed {from} in {} s, {} releases, {} failed {failed:?}",
        done.into_inner(),
        start.elapsed().as_secs(),
        releases.into_inner(),
        failed.len(),
    );
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
