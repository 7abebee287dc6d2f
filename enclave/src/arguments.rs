//! The command line, in the library so that a man page can be made of it
//! without a generator in the trusted binary.

use crate::attester::confidential_space::TokenKind;
use crate::platform::{LAUNCHER, Platform};
use clap::Parser;
use sealfold_protocol::endpoint::Endpoint;

/// Version and commit.
const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " (", env!("SEALFOLD_COMMIT"), ")");

/// The trusted part of sealfold: runs inside the enclave.
///
/// It serves one round at a time over HTTP on --listen, reads sealed updates
/// and writes sealed aggregates through --door at its parent, and opens no
/// other connection.
#[derive(Debug, Parser)]
#[command(name = "sealfold-enclave", version = VERSION, about, long_about,
    after_help = "It runs on the platform that is there: in a Nitro enclave with /dev/nsm, in a\n\
    Confidential Space with the launcher's socket. With neither or both it says so and ends.\n\
    In a Nitro enclave, the defaults written out:\n  \
    sealfold-enclave --listen vsock://4294967295:5000 --door vsock://3:5001\n\
    In a Confidential Space the arguments are fixed. What an operator may set is the\n\
    environment of SEALFOLD_DOOR, SEALFOLD_AUDIENCE and SEALFOLD_TOKEN (docs/operating.md).")]
pub struct Arguments {
    /// The platform, where it is not to be known by what is there.
    #[arg(long, value_enum)]
    #[cfg_attr(feature = "simulation", arg(conflicts_with = "simulation_root"))]
    pub platform: Option<Platform>,
    /// Where requests are served: on vsock port 5000 in a Nitro enclave, on TCP
    /// port 5000 in a Confidential Space.
    #[arg(long, value_name = "ENDPOINT")]
    pub listen: Option<Endpoint>,
    /// The host's record door: the parent's vsock port 5001 in a Nitro enclave. A
    /// Confidential Space has to be told.
    #[arg(long, value_name = "ENDPOINT", env = "SEALFOLD_DOOR")]
    pub door: Option<Endpoint>,
    /// Whom the tokens of a Confidential Space are for: the audience that the
    /// sites' policies name.
    #[arg(
        long,
        value_name = "TEXT",
        env = "SEALFOLD_AUDIENCE",
        default_value = "",
        hide_default_value = true
    )]
    pub audience: String,
    /// The kind of token that a Confidential Space is asked for.
    #[arg(long, value_enum, env = "SEALFOLD_TOKEN", default_value = "pki", ignore_case = true)]
    pub token: TokenKind,
    /// The socket of a Confidential Space's launcher.
    #[arg(long, value_name = "FILE", default_value = LAUNCHER)]
    pub launcher: std::path::PathBuf,
    /// Threads that open and fold; 0 for one a core.
    #[arg(long, default_value_t = 0)]
    pub threads: usize,
    /// What only the simulation build understands.
    #[cfg(feature = "simulation")]
    #[command(flatten)]
    pub simulation: Simulation,
}

/// What only the simulation build understands.
#[cfg(feature = "simulation")]
#[derive(Debug, clap::Args)]
pub struct Simulation {
    /// SIMULATION ONLY: the throw-away root's key and certificate; made if
    /// it is not there.
    #[arg(long, value_name = "FILE")]
    pub simulation_root: std::path::PathBuf,
    /// SIMULATION ONLY: print the policy section `simulation` and the
    /// measurements of this binary as TOML, and exit.
    #[arg(long)]
    pub print_policy: bool,
    /// SIMULATION ONLY: sign what the emulated NSM of this virtual machine
    /// says, instead of this binary's own measurements.
    #[arg(long, conflicts_with = "print_policy")]
    pub simulation_over_nsm: bool,
}
