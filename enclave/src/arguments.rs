//! The command line, in the library so that a man page can be made of it
//! without a generator in the trusted binary.

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
    after_help = "In a Nitro enclave:\n  sealfold-enclave --listen vsock://4294967295:5000 --door vsock://3:5001")]
pub struct Arguments {
    /// Where requests are served.
    #[arg(long, value_name = "ENDPOINT", default_value = "vsock://4294967295:5000")]
    pub listen: Endpoint,
    /// The parent's record door.
    #[arg(long, value_name = "ENDPOINT", default_value = "vsock://3:5001", env = "SEALFOLD_DOOR")]
    pub door: Endpoint,
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
