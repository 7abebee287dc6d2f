//! `sealfold-audit`: parses arguments and wires the parts.

use anyhow::Context;
use clap::{Args, CommandFactory, Parser, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use jiff::Timestamp;
use sealfold_attestation::log::SignedCheckpoint;
use sealfold_attestation::{Policy, policy::MAX_POLICY};
use sealfold_audit::copy::{LogCopy, MAX_CHECKPOINT};
use sealfold_audit::given::{CannotTell, Kept, cosigned, log_key};
use sealfold_audit::replay::{ROUNDS_KEPT, Replay};
use sealfold_audit::{VERSION, explain, html, lineage, text};
use sealfold_protocol::Digest;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Replays the log of sealfold studies and says what holds.
///
/// LOG is a folder: the `log` folder of a host's store, or a copy of what the
/// host serves under /log/. Nothing is fetched; the copy is believed in nothing.
///
/// Every leaf is read from the first to the last: that the leaves lead to the
/// signed checkpoint, that every signature verifies, that the evidence behind
/// every offer holds at its own time, and that each release follows from an
/// approved manifest, a roster and the commits of all its sites. Findings are of
/// two kinds: safety (something happened that must not have happened) and
/// liveness (something is late or missing).
///
/// Exit codes: 0 nothing is wrong; 1 findings; 2 could not be told.
#[derive(Debug, Parser)]
#[command(name = "sealfold-audit", version = VERSION, about, long_about, after_help = "An audit:\n  \
    rsync -a host:/var/lib/sealfold/store/log/ log/\n  \
    $EDITOR policy.toml            roots, accepted images, approvers, and [log] key = \"...\"\n  \
    sealfold-audit replay log --policy policy.toml --checkpoint kept-by-a-site --html report.html\n  \
    sealfold-audit explain log 42 --policy policy.toml\n  \
    sealfold-audit card log DIGEST --policy policy.toml > MODEL_CARD.md")]
struct Arguments {
    /// JSON on stdout for machines.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Replay the whole log; report what holds and what does not.
    Replay {
        #[command(flatten)]
        log: LogArguments,
        /// Write the report as one file of HTML too.
        #[arg(long, value_name = "FILE")]
        html: Option<PathBuf>,
    },
    /// One leaf in words.
    Explain {
        /// The folder of the log.
        log: PathBuf,
        /// The leaf's number, from 0.
        leaf: u64,
        /// The policy, whose log key must have signed the checkpoint.
        #[arg(long, value_name = "FILE")]
        policy: Option<PathBuf>,
    },
    /// Where a model comes from: every release that led to it.
    Model {
        #[command(flatten)]
        log: LogArguments,
        /// The model's digest, or that of the release that leads to it.
        #[arg(value_name = "DIGEST")]
        model: Digest,
    },
    /// A model card, in Markdown or with --json in JSON.
    Card {
        #[command(flatten)]
        log: LogArguments,
        /// The model's digest, or that of the release that leads to it.
        #[arg(value_name = "DIGEST")]
        model: Digest,
    },
    /// Print completions for a shell.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Write man pages into a folder.
    Man {
        /// The folder.
        folder: PathBuf,
    },
}

#[derive(Debug, Args)]
struct LogArguments {
    /// The folder of the log.
    log: PathBuf,
    /// The auditor's policy: roots, images, approvers, quorum, the log's key.
    #[arg(long, value_name = "FILE")]
    policy: PathBuf,
    /// A checkpoint that a site or a witness kept: shows that nothing before it is
    /// hidden, changed or forked. May be given several times.
    #[arg(long = "checkpoint", value_name = "FILE")]
    checkpoints: Vec<PathBuf>,
    /// The time of the audit, for what is late; now by default.
    #[arg(long, value_name = "TIME")]
    at: Option<Timestamp>,
}

impl LogArguments {
    /// The copy, the policy, what others kept, and the time.
    fn open(&self) -> anyhow::Result<(LogCopy, Policy, Vec<Kept>, Timestamp)> {
        let (copy, policy) = (LogCopy::new(&self.log), policy(&self.policy)?);
        anyhow::ensure!(
            self.log.is_dir(),
            "expected a folder with a log, found none: {}",
            self.log.display()
        );
        let mut kept = kept(&self.checkpoints, &policy)?;
        kept.extend(cosigned(&copy, &policy)?);
        Ok((copy, policy, kept, self.at.unwrap_or_else(Timestamp::now)))
    }
}

fn main() -> ExitCode {
    // What is piped into `head` ends as other commands do.
    sigpipe::reset();
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            if arguments.json {
                println!("{}", serde_json::json!({ "cannot_tell": format!("{error:#}") }));
            }
            eprintln!("could not be told: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run(arguments: &Arguments) -> anyhow::Result<u8> {
    match &arguments.command {
        Command::Replay { log, html } => {
            let (copy, policy, kept, at) = log.open()?;
            let bar = progress();
            let replay = Replay::new(&copy, &policy, ROUNDS_KEPT);
            let report = replay.run(&kept, at, &mut |done, all| advance(&bar, done, all))?;
            bar.finish_and_clear();
            if let Some(path) = html {
                std::fs::write(path, html::html(&report))
                    .with_context(|| format!("cannot write {}", path.display()))?;
            }
            if arguments.json {
                println!("{}", serde_json::to_string_pretty(&report)?);
            } else {
                print!("{}", text::text(&report));
            }
            Ok(report.code())
        }
        Command::Explain { log, leaf, policy } => {
            let policy = policy.as_deref().map(self::policy).transpose()?;
            let told = explain::leaf(&LogCopy::new(log), *leaf, policy.as_ref())?;
            if arguments.json {
                println!("{}", serde_json::to_string_pretty(&told)?);
            } else {
                print!("{}", told.text());
            }
            Ok(0)
        }
        Command::Model { log, model } => {
            let lineage = lineage(log, *model)?;
            if arguments.json {
                println!("{}", serde_json::to_string_pretty(&lineage)?);
            } else {
                print!("{}", lineage.text());
            }
            Ok(u8::from(lineage.safety + lineage.liveness > 0))
        }
        Command::Card { log, model } => {
            let lineage = lineage(log, *model)?;
            if arguments.json {
                println!("{}", serde_json::to_string_pretty(&lineage.card()?)?);
            } else {
                print!("{}", lineage.markdown()?);
            }
            Ok(u8::from(lineage.safety + lineage.liveness > 0))
        }
        Command::Completions { shell } => {
            let mut command = Arguments::command();
            clap_complete::generate(*shell, &mut command, "sealfold-audit", &mut std::io::stdout());
            Ok(0)
        }
        Command::Man { folder } => {
            std::fs::create_dir_all(folder)?;
            clap_mangen::generate_to(Arguments::command(), folder)?;
            Ok(0)
        }
    }
}

fn lineage(log: &LogArguments, model: Digest) -> anyhow::Result<lineage::Lineage> {
    let (copy, policy, kept, at) = log.open()?;
    let bar = progress();
    let mut told = |done, all| advance(&bar, done, all);
    let lineage = lineage::of(&copy, &policy, model, &kept, at, &mut told);
    bar.finish_and_clear();
    Ok(lineage?)
}

fn policy(path: &Path) -> anyhow::Result<Policy> {
    let bytes = read(path, MAX_POLICY)?;
    let text = String::from_utf8(bytes).with_context(|| format!("{}", path.display()))?;
    // The key set that it may name lies beside it.
    let beside = |name: &str| {
        let path = path.parent().unwrap_or(Path::new(".")).join(name);
        read(&path, MAX_POLICY).map_err(|error| format!("{error:#}"))
    };
    Policy::from_toml_with(&text, &beside).with_context(|| format!("{}", path.display()))
}

fn kept(paths: &[PathBuf], policy: &Policy) -> anyhow::Result<Vec<Kept>> {
    let key = log_key(policy)?;
    let mut kept = Vec::new();
    for path in paths {
        let name = path.display().to_string();
        let checkpoint =
            SignedCheckpoint::open(&read(path, MAX_CHECKPOINT)?, key).map_err(|error| {
                CannotTell::new(format!("in {name} a checkpoint of this log"), error)
            })?;
        kept.push(Kept { name, checkpoint });
    }
    Ok(kept)
}

fn read(path: &Path, limit: usize) -> anyhow::Result<Vec<u8>> {
    let at = || format!("cannot read {}", path.display());
    let mut bytes = Vec::new();
    File::open(path).with_context(at)?.take(limit as u64 + 1).read_to_end(&mut bytes)?;
    anyhow::ensure!(bytes.len() <= limit, "{}: longer than {limit} bytes", at());
    Ok(bytes)
}

fn progress() -> ProgressBar {
    // On stderr, and only if that is a terminal.
    let bar = ProgressBar::new(0);
    let style = "{bar:40} {human_pos} of {human_len} leaves, {per_sec}, {eta} left";
    ProgressStyle::with_template(style).map_or(bar.clone(), |style| bar.with_style(style))
}

fn advance(bar: &ProgressBar, done: u64, all: u64) {
    bar.set_length(all);
    bar.set_position(done);
}
