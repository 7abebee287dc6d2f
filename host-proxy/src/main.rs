//! `sealfold-host`: parses arguments and wires the parts.

use clap::{CommandFactory, Parser, Subcommand};
use sealfold_host::{VERSION, log_key, relay, serve};
use sealfold_protocol::endpoint::Endpoint;
use std::io::IsTerminal;
use std::path::PathBuf;
use tracing_subscriber::EnvFilter;

/// The untrusted host of a sealfold enclave: relays to it, stores sealed bytes,
/// serves sites.
///
/// Endpoints are tcp://HOST:PORT, unix:///PATH, vsock://CID:PORT or
/// hybrid-vsock:///PATH:PORT. The log goes to stderr; `RUST_LOG` chooses what.
// The doc comments are the help texts, where links would be in the way.
#[allow(rustdoc::bare_urls, clippy::doc_markdown)]
#[derive(Debug, Parser)]
#[command(name = "sealfold-host", version = VERSION, about, long_about)]
struct Arguments {
    /// The log as text for people or as JSON for machines.
    #[arg(long, global = true, value_parser = ["text", "json"], default_value = "text")]
    log_format: String,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve sites, drive the enclave, keep what is sealed, signed or public.
    #[command(after_help = "On an EC2 instance with an enclave of CID 16:\n  sealfold-host serve \
        --listen tcp://0.0.0.0:443 --tls-cert chain.pem --tls-key key.pem \\\n    --enclave \
        vsock://16:5000 --door vsock://4294967295:5001 --data /var/lib/sealfold")]
    Serve(Box<serve::Options>),
    /// Print the log's key, as a manifest or a policy names it; makes it first if
    /// there is none.
    ///
    /// A study's manifest fixes the log that its history stands in, so the key is
    /// there before the first study is, and before the host has ever run.
    LogKey(log_key::Print),
    /// Relay bytes between two endpoints and do nothing else.
    Relay {
        /// Where to listen.
        #[arg(long, value_name = "ENDPOINT")]
        from: Endpoint,
        /// Where to connect to.
        #[arg(long, value_name = "ENDPOINT")]
        to: Endpoint,
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

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    if arguments.log_format == "json" {
        log.json().init();
    } else {
        log.init();
    }
    match arguments.command {
        Command::Serve(options) => serve::serve(*options).await,
        Command::LogKey(print) => {
            print!("{}", print.section()?);
            Ok(())
        }
        Command::Relay { from, to } => Ok(relay::relay(&from, &to).await?),
        Command::Completions { shell } => {
            let mut command = Arguments::command();
            clap_complete::generate(shell, &mut command, "sealfold-host", &mut std::io::stdout());
            Ok(())
        }
        Command::Man { folder } => {
            std::fs::create_dir_all(&folder)?;
            Ok(clap_mangen::generate_to(Arguments::command(), folder)?)
        }
    }
}
