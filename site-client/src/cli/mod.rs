//! The command line.

use clap::{Args, CommandFactory, Parser, Subcommand};
use sealfold::client::{Client, Network};
use sealfold::home::{Home, read_policy};
use sealfold::keys::Keys;
use sealfold::report::Voice;
use sealfold::{Error, Result, VERSION};
use sealfold_attestation::Policy;
use sealfold_protocol::Digest;
use std::path::PathBuf;
use zeroize::Zeroizing;

mod explain;
mod images;
mod operator;
mod privacy;
mod query;
mod rounds;
mod setup;
mod studies;
mod verification;

/// The site client of sealfold: what a hospital runs.
///
/// It verifies the enclave that aggregates a study's updates, encrypts to it,
/// and computes the next model from each release. It only ever dials out.
///
/// Exit codes: 0 done or accepted; 1 refused, by a named check; 2 could not be
/// done or told.
#[derive(Debug, Parser)]
#[command(name = "sealfold", version = VERSION, about, long_about, after_help = "A first study:\n  \
    sealfold init --name hospital-a            make keys; send the printed [[site]] to the study\n  \
    $EDITOR ~/.sealfold/policy.toml            which enclave images and approvers you accept\n  \
    sealfold check --study study.toml --data patients.csv\n  \
    sealfold study approve study.toml --host https://sealfold.example\n  \
    sealfold verify --host https://sealfold.example STUDY\n  \
    sealfold run --host https://sealfold.example STUDY --train 'python train.py'")]
pub struct Arguments {
    /// The site's folder: keys, policy, binding, models.
    #[arg(long, global = true, env = "SEALFOLD_HOME", value_name = "FOLDER")]
    home: Option<PathBuf>,
    /// JSON on stdout for machines.
    #[arg(long, global = true)]
    pub json: bool,
    /// A certificate authority of the hospital's own (PEM), in place of the
    /// public ones; otherwise `SSL_CERT_FILE` of the environment.
    #[arg(long, global = true, env = "SEALFOLD_CA", value_name = "FILE")]
    ca: Option<PathBuf>,
    /// A proxy; otherwise `HTTPS_PROXY` and `NO_PROXY` of the environment.
    #[arg(long, global = true, value_name = "URL")]
    proxy: Option<String>,
    /// A file with the passphrase of the keys, if they have one.
    #[arg(long, global = true, env = "SEALFOLD_PASSPHRASE_FILE", value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make the site's keys and a policy to start from.
    Init(setup::Init),
    /// Print the site's public keys again: its section of a manifest, and the key
    /// with which it cosigns checkpoints of a log.
    Keys,
    /// Check a CSV file against a study's data specification.
    Check(setup::Check),
    /// Read, approve or abandon.
    #[command(subcommand)]
    Study(studies::Study),
    /// What privacy noise buys: epsilon over rounds, or the noise for an epsilon.
    #[command(subcommand)]
    Privacy(privacy::Privacy),
    /// Statistics in place of a model: plan a query, answer it, read the result.
    #[command(subcommand)]
    Query(query::Query),
    /// Verify an enclave, or a bare attestation document; prints every check.
    Verify(verification::Verify),
    /// What the operator of a host does: its key, the studies that it lets in.
    #[command(subcommand)]
    Operator(operator::Operator),
    /// Compute the measurements of an enclave image, without running it.
    Measure(images::Measure),
    /// Seal an update to the enclave and upload it.
    Submit(rounds::Submit),
    /// Commit to the roster that stands.
    Commit(rounds::OnStudy),
    /// Verify the release, compute the next model.
    Fetch(rounds::Fetch),
    /// Where the site and the round stand.
    Status(rounds::OnStudy),
    /// What happened in a round, as this site knows it, and what to do next.
    Explain(explain::Explain),
    /// Do rounds unattended.
    Run(rounds::Run),
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

/// A study at a host.
#[derive(Debug, Clone, Args)]
pub struct Target {
    /// The host's URL.
    #[arg(long, env = "SEALFOLD_HOST", value_name = "URL")]
    host: String,
    /// The study's identity, 64 hex digits.
    study: Digest,
}

/// What commands share.
pub struct Context {
    home: Home,
    network: Network,
    passphrase: Option<Zeroizing<String>>,
    voice: Voice,
}

impl Context {
    fn keys(&self) -> Result<Keys> {
        Keys::load(&self.home, self.passphrase.as_ref().map(|p| p.as_str()))
    }

    fn policy(&self) -> Result<Policy> {
        read_policy(&self.home.path("policy.toml"))
    }

    fn client(&self, host: &str) -> Result<Client> {
        Client::new(host, &self.network, self.voice)
    }
}

/// Runs a command; its exit code.
///
/// # Errors
/// Whatever the command ends with.
pub fn run(arguments: Arguments) -> Result<u8> {
    match &arguments.command {
        Command::Completions { shell } => {
            let mut command = Arguments::command();
            clap_complete::generate(*shell, &mut command, "sealfold", &mut std::io::stdout());
            return Ok(0);
        }
        Command::Man { folder } => {
            std::fs::create_dir_all(folder).map_err(|e| Error::file(folder, e))?;
            clap_mangen::generate_to(Arguments::command(), folder)
                .map_err(|e| Error::file(folder, e))?;
            return Ok(0);
        }
        _ => {}
    }
    let default = || {
        std::env::home_dir()
            .map(|home| home.join(".sealfold"))
            .ok_or_else(|| Error::input("home", "a home folder", "none").next("give --home"))
    };
    let folder = arguments.home.map_or_else(default, Ok)?;
    let passphrase = match &arguments.passphrase_file {
        None => None,
        Some(path) => {
            let text = Zeroizing::new(sealfold::home::read_text(path)?);
            Some(Zeroizing::new(text.trim_end_matches(['\r', '\n']).to_owned()))
        }
    };
    let file = || std::env::var_os("SSL_CERT_FILE").filter(|file| !file.is_empty());
    let ca = arguments.ca.or_else(|| file().map(PathBuf::from));
    let context = Context {
        home: Home::open(&folder)?,
        network: Network { ca, proxy: arguments.proxy },
        passphrase,
        voice: Voice { json: arguments.json, quiet: false },
    };
    match arguments.command {
        Command::Init(init) => init.run(&context),
        Command::Keys => setup::keys(&context),
        Command::Check(check) => check.run(&context),
        Command::Study(study) => study.run(&context),
        Command::Privacy(privacy) => privacy.run(&context),
        Command::Query(query) => query.run(&context),
        Command::Verify(verify) => verify.run(&context),
        Command::Operator(operator) => operator.run(&context),
        Command::Measure(measure) => measure.run(&context),
        Command::Submit(submit) => submit.run(&context),
        Command::Commit(commit) => commit.commit(&context),
        Command::Fetch(fetch) => fetch.run(&context),
        Command::Status(status) => status.status(&context),
        Command::Explain(explain) => explain.run(&context),
        Command::Run(run) => run.run(&context),
        Command::Completions { .. } | Command::Man { .. } => Ok(0),
    }
}
