//! A man in the middle of the record door: between a real enclave and a real
//! host, who can hold the bytes so that a test knows what is under way.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

/// How long a test waits for something that must happen.
const PATIENCE: Duration = Duration::from_mins(1);

#[derive(Default)]
struct Gate {
    /// How many bytes still pass to the enclave; all of them without a number.
    left: Option<usize>,
    /// Whether somebody waits at the gate.
    is_held: bool,
}

/// The man in the middle.
pub struct Middle {
    gate: Arc<(Mutex<Gate>, Condvar)>,
    front: PathBuf,
}

impl Middle {
    /// Takes the place of a host's record door; what the enclave connects to
    /// from now on leads through here.
    #[must_use]
    pub fn before(door: &Path) -> Self {
        let behind = door.with_extension("behind");
        std::fs::rename(door, &behind).unwrap();
        let listener = UnixListener::bind(door).unwrap();
        let gate: Arc<(Mutex<Gate>, Condvar)> = Arc::default();
        let passing = gate.clone();
        std::thread::spawn(move || {
            for enclave in listener.incoming() {
                let (enclave, Ok(host)) = (enclave.unwrap(), UnixStream::connect(&behind)) else {
                    continue;
                };
                let (back, forth) = (enclave.try_clone().unwrap(), host.try_clone().unwrap());
                let gate = passing.clone();
                std::thread::spawn(move || pass(enclave, host, |_| ()));
                std::thread::spawn(move || pass(forth, back, |bytes| wait_at(&gate, bytes)));
            }
        });
        Self { gate, front: door.to_owned() }
    }

    /// Lets so many bytes more pass to the enclave, and holds the rest.
    pub fn hold_after(&self, bytes: usize) {
        *self.gate.0.lock().unwrap() = Gate { left: Some(bytes), is_held: false };
    }

    /// Waits until a pass over records is under way and held.
    pub fn wait_until_held(&self) {
        let gate = self.gate.0.lock().unwrap();
        let (gate, _) = self.gate.1.wait_timeout_while(gate, PATIENCE, |g| !g.is_held).unwrap();
        assert!(gate.is_held, "nothing was read through the door");
    }

    /// Lets everything pass.
    pub fn let_through(&self) {
        *self.gate.0.lock().unwrap() = Gate::default();
        self.gate.1.notify_all();
    }

    /// Gives the place back, so that a new host may listen there.
    pub fn step_aside(&self) {
        std::fs::remove_file(&self.front).unwrap();
    }
}

fn pass(mut from: UnixStream, mut to: UnixStream, before: impl Fn(usize)) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        before(read);
        if to.write_all(&buffer[..read]).is_err() {
            break;
        }
    }
    let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
}

fn wait_at(gate: &(Mutex<Gate>, Condvar), bytes: usize) {
    let mut state = gate.0.lock().unwrap();
    while state.left.is_some_and(|left| left < bytes) {
        state.is_held = true;
        gate.1.notify_all();
        state = gate.1.wait(state).unwrap();
    }
    state.left = state.left.map(|left| left - bytes);
}
