//! `sealfold-enclave`: parses arguments and wires the parts.

use anyhow::Context as _;
use clap::Parser;
use sealfold_enclave::arguments::Arguments;
use sealfold_enclave::attester::Attester;
use sealfold_enclave::engine::Engine;
use sealfold_enclave::server;
use std::sync::Arc;

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    #[cfg(feature = "simulation")]
    if arguments.simulation.print_policy {
        print!("{}", simulated(&arguments)?.policy_section());
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
    Ok(Box::new(simulated(arguments)?))
}

/// The simulated source of evidence.
#[cfg(feature = "simulation")]
fn simulated(
    arguments: &Arguments,
) -> anyhow::Result<sealfold_enclave::attester::simulated::Simulated> {
    use sealfold_enclave::attester::simulated::Simulated;
    let simulation = &arguments.simulation;
    let root = &simulation.simulation_root;
    if simulation.simulation_over_nsm { Simulated::over_nsm(root) } else { Simulated::open(root) }
        .context("the simulated NSM does not start")
}
