//! `sealfold-enclave`: parses arguments and wires the parts.

use anyhow::Context as _;
use clap::Parser;
use sealfold_enclave::arguments::Arguments;
use sealfold_enclave::attester::Attester;
use sealfold_enclave::engine::Engine;
use sealfold_enclave::platform::Platform;
use sealfold_enclave::{privileges, server};
#[cfg(not(feature = "simulation"))]
use std::path::Path;
use std::sync::Arc;

fn main() -> anyhow::Result<()> {
    privileges::give_up().context("the process cannot give up its privileges")?;
    let arguments = Arguments::parse();
    #[cfg(feature = "simulation")]
    if arguments.simulation.print_policy {
        print!("{}", simulated(&arguments)?.policy_section());
        return Ok(());
    }
    let platform = platform(&arguments)?;
    let attester = attester(&arguments, platform)?;
    let door = platform.door(arguments.door)?;
    let listen = arguments.listen.unwrap_or_else(|| platform.listen());
    let engine = Arc::new(Engine::new(attester, door, arguments.threads)?);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("the runtime does not start")?;
    runtime.block_on(server::serve(engine, &listen))?;
    Ok(())
}

#[cfg(not(feature = "simulation"))]
fn platform(arguments: &Arguments) -> anyhow::Result<Platform> {
    let nsm = Path::new(sealfold_enclave::platform::NSM);
    Ok(Platform::choose(arguments.platform, nsm, &arguments.launcher)?)
}

#[cfg(not(feature = "simulation"))]
fn attester(arguments: &Arguments, platform: Platform) -> anyhow::Result<Box<dyn Attester>> {
    use sealfold_enclave::attester::{confidential_space::Launcher, nsm::Nsm};
    Ok(match platform {
        Platform::Nitro => Box::new(Nsm::open()?),
        Platform::ConfidentialSpace => {
            let Arguments { launcher, audience, token, .. } = arguments;
            Box::new(Launcher::open(launcher, audience, *token)?)
        }
    })
}

/// Simulated is a Nitro enclave.
#[cfg(feature = "simulation")]
#[allow(clippy::unnecessary_wraps)]
fn platform(_: &Arguments) -> anyhow::Result<Platform> {
    Ok(Platform::Nitro)
}

#[cfg(feature = "simulation")]
fn attester(arguments: &Arguments, _: Platform) -> anyhow::Result<Box<dyn Attester>> {
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
