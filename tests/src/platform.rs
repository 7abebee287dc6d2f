//! Where a test's enclave runs: a process, a virtual machine, a Confidential Space.

use crate::launcher::Launcher;
use crate::machine::{self, Devices, Image, Sockets};
use crate::process::{self, Server};
use crate::space::Space;
use sealfold_protocol::endpoint::Endpoint;
use std::path::Path;

/// Where a system's enclave runs.
#[derive(Debug, Clone)]
pub enum Platform {
    /// As a process, in simulation.
    Process,
    /// In a virtual machine.
    Machine(Image),
    /// In a Confidential Space, which is simulated.
    Space(Space),
}

/// What an enclave does not run without.
pub enum Company {
    /// A virtual machine's devices.
    Devices(Devices),
    /// A Confidential Space's launcher.
    Launcher(Launcher),
}

impl Platform {
    /// Starts the enclave.
    pub(crate) fn boot(&self, folder: &Path) -> (Server, Option<Company>) {
        match self {
            Self::Process => (process::enclave(folder, "enclave", &self.door(folder)).0, None),
            Self::Machine(image) => {
                let (server, devices) = machine::boot(folder, image);
                (server, Some(Company::Devices(devices)))
            }
            Self::Space(space) => {
                let (server, launcher) = space.boot(folder);
                (server, Some(Company::Launcher(launcher)))
            }
        }
    }

    /// The record door, as the host knows it.
    pub(crate) fn door(&self, folder: &Path) -> Endpoint {
        match self {
            Self::Process => Endpoint::Unix(folder.join("door.sock")),
            Self::Machine(_) => Sockets::new(folder).door(),
            Self::Space(space) => space.door(),
        }
    }

    /// The enclave, as the host knows it.
    pub(crate) fn enclave(&self, folder: &Path) -> Endpoint {
        match self {
            Self::Process => Endpoint::Unix(folder.join("enclave.sock")),
            Self::Machine(_) => Sockets::new(folder).enclave(),
            Self::Space(space) => space.enclave(),
        }
    }

    /// The policy section that accepts the enclave.
    #[must_use]
    pub fn policy(&self, folder: &Path) -> String {
        match self {
            Self::Process => process::simulation_policy(folder),
            Self::Machine(image) => image.simulation_policy(),
            Self::Space(space) => space.policy(folder),
        }
    }
}
