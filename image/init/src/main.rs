//! `init`: the first process of the enclave image.
//!
//! In this order: mounts what the enclave needs, checks that the kernel's
//! randomness comes from the NSM, tells the hypervisor that the image is up,
//! brings up the loopback interface, gives away what is not needed, starts the
//! enclave as an ordinary user, reaps, and powers the machine off when the
//! enclave ends. Each step that fails says what was expected, and the machine
//! powers off: nothing runs half prepared.

mod application;
mod heartbeat;
mod machine;
mod randomness;

use application::Application;
use std::process::ExitCode;
use std::sync::mpsc;
use std::time::Duration;

/// Where the application's ramdisk puts its command: a line an argument.
const COMMAND: &str = "/app/command";

/// A step that failed.
#[derive(Debug, thiserror::Error)]
#[error("{step}: expected {expected}, found: {found}")]
pub struct InitError {
    /// What was being done.
    pub step: &'static str,
    /// What should have been.
    pub expected: &'static str,
    /// What was.
    pub found: String,
}

impl InitError {
    fn new(step: &'static str, expected: &'static str, found: impl ToString) -> Self {
        Self { step, expected, found: found.to_string() }
    }
}

/// Does what may never return, and waits for it so long at most.
fn in_time<T: Send + 'static>(
    step: &'static str,
    expected: &'static str,
    patience: Duration,
    work: impl FnOnce() -> Result<T, InitError> + Send + 'static,
) -> Result<T, InitError> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        // Nobody listens any more after the time is over.
        let _ = sender.send(work());
    });
    receiver.recv_timeout(patience).map_err(|_| InitError::new(step, expected, "no answer"))?
}

fn main() -> ExitCode {
    if std::process::id() != 1 {
        eprintln!(
            "init {}: this is the first process of an enclave image and does nothing elsewhere",
            env!("CARGO_PKG_VERSION")
        );
        return ExitCode::from(2);
    }
    match run() {
        Ok(outcome) => println!("init: the enclave ended: {outcome}; powering off"),
        Err(error) => println!("init: {error}; powering off"),
    }
    machine::power_off()
}

fn run() -> Result<String, InitError> {
    println!("init {}: starting", env!("CARGO_PKG_VERSION"));
    machine::mount_file_systems()?;
    randomness::from_the_nsm()?;
    heartbeat::tell_the_hypervisor()?;
    machine::bring_up_loopback()?;
    let application = Application::read(COMMAND.as_ref())?;
    machine::give_away_privileges()?;
    println!("init: starting {}", application.program());
    application.run()
}
