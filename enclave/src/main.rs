//! `sealfold-enclave`: parses arguments and wires the parts.

use anyhow::Context as _;
use clap::Parser;
use sealfold_enclave::attester::Attester;
use sealfold_enclave::engine::Engine;
use sealfold_enclave::server;
use sealfold_protocol::endpoint::Endpoint;
use std::sync::Arc;

/// The trusted part of sealfold: runs inside the enclave.
///
/// It serves one round at a time over HTTP on --listen, reads sealed updates
/// and writes sealed aggregates through --door at its parent, and opens no
/// other connection.
#[derive(Debug, Parser)]
#[command(name = "sealfold-enclave", version = VERSION, about, long_about,
    after_help = "In a Nitro enclave:\n  sealfold-enclave --listen vsock://4294967295:5000 --door vsock://3:5001")]
struct Arguments {
    /// Where requests are served.
    #[arg(long, value_name = "ENDPOINT", default_value = "vsock://4294967295:5000")]
    listen: Endpoint,
    /// The parent's record door.
    #[arg(long, value_name = "ENDPOINT", default_value = "vsock://3:5001", env = "SEALFOLD_DOOR")]
    door: Endpoint,
    /// Threads that open and fold; 0 for one a core.
    #[arg(long, default_value_t = 0)]
    threads: usize,
    #[cfg(feature = "simulation")]
    #[command(flatten)]
    simulation: simulation::Arguments,
}

/// Version and commit.
const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " (", env!("SEALFOLD_COMMIT"), ")");

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    #[cfg(feature = "simulation")]
    if arguments.simulation.answer()? {
        return Ok(());
    }
    let attester = attester(&arguments)?;
    let engine = Arc::new(Engine::new(attester, arguments.door, arguments.threads)?);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("the runtime does not start")?;
    runtime.block_on(server::serve(engine, &arguments.listen))?;
    Ok(())
}

#[cfg(not(feature = "simulation"))]
fn attester(_: &Arguments) -> anyhow::Result<Box<dyn Attester>> {
    Ok(Box::new(sealfold_enclave::attester::nsm::Nsm::open()?))
}

#[cfg(feature = "simulation")]
fn attester(arguments: &Arguments) -> anyhow::Result<Box<dyn Attester>> {
    arguments.simulation.attester()
}

#[cfg(feature = "simulation")]
mod simulation {
    //! Arguments of the simulation build.

    use anyhow::Context as _;
    use sealfold_enclave::attester::Attester;
    use sealfold_enclave::attester::simulated::Simulated;
    use std::path::PathBuf;

    /// What only the simulation build understands.
    #[derive(Debug, clap::Args)]
    pub struct Arguments {
        /// SIMULATION ONLY: the throw-away root's key and certificate; made if
        /// it is not there.
        #[arg(long, value_name = "FILE")]
        simulation_root: PathBuf,
        /// SIMULATION ONLY: print the [simulation] section of a policy and the
        /// measurements of this binary as TOML, and exit.
        #[arg(long)]
        print_policy: bool,
        /// SIMULATION ONLY: sign what the emulated NSM of this virtual machine
        /// says, instead of this binary's own measurements.
        #[arg(long, conflicts_with = "print_policy")]
        simulation_over_nsm: bool,
    }

    impl Arguments {
        /// Answers what needs no enclave; whether it did.
        pub fn answer(&self) -> anyhow::Result<bool> {
            if self.print_policy {
                print!("{}", self.simulated()?.policy_section());
            }
            Ok(self.print_policy)
        }

        /// The simulated source of evidence.
        pub fn attester(&self) -> anyhow::Result<Box<dyn Attester>> {
            Ok(Box::new(self.simulated()?))
        }

        fn simulated(&self) -> anyhow::Result<Simulated> {
            let root = &self.simulation_root;
            if self.simulation_over_nsm { Simulated::over_nsm(root) } else { Simulated::open(root) }
                .context("the simulated NSM does not start")
        }
    }
}
