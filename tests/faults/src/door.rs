//! The record door between enclave and host: real connections, of which the
//! next may be cut or carry a wrong byte.

use sealfold_host::door::converse;
use sealfold_host::staging::Staging;
use sealfold_protocol::endpoint::{Endpoint, Listener, Stream};
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

/// What happens to the bytes that the host sends on one connection.
#[derive(Debug, Clone, Copy)]
pub enum Trouble {
    /// They end after so many.
    Cut(u64),
    /// That one is flipped.
    Flip(u64),
}

#[derive(Default)]
struct Inner {
    /// The host that answers; none while it is down.
    staging: Mutex<Option<Staging>>,
    trouble: Mutex<Option<Trouble>>,
    stop: AtomicBool,
}

/// The door of one world.
pub struct Door {
    /// Where it is.
    pub endpoint: Endpoint,
    inner: Arc<Inner>,
    thread: Option<JoinHandle<()>>,
}

impl Door {
    /// Opens a door in a folder.
    #[must_use]
    pub fn open(folder: &Path) -> Self {
        let endpoint = Endpoint::Unix(folder.join("door.sock"));
        let listener = endpoint.listen().unwrap();
        let inner = Arc::<Inner>::default();
        let answering = inner.clone();
        let thread = std::thread::spawn(move || answer(&listener, &answering));
        Self { endpoint, inner, thread: Some(thread) }
    }

    /// From now on this host's staging folder is behind it, or none.
    pub fn behind(&self, staging: Option<Staging>) {
        *self.inner.staging.lock().unwrap() = staging;
    }

    /// Troubles the next connection.
    pub fn trouble(&self, trouble: Option<Trouble>) {
        *self.inner.trouble.lock().unwrap() = trouble;
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.inner.stop.store(true, Ordering::Relaxed);
        let _ = self.endpoint.connect();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn answer(listener: &Listener, inner: &Inner) {
    while let Ok(stream) = listener.accept() {
        if inner.stop.load(Ordering::Relaxed) {
            return;
        }
        let Some(staging) = inner.staging.lock().unwrap().clone() else { continue };
        let trouble = inner.trouble.lock().unwrap().take();
        std::thread::spawn(move || match (trouble, stream) {
            (Some(trouble), Stream::Unix(enclave)) => relay(staging, enclave, trouble),
            (_, stream) => _ = converse(staging, stream),
        });
    }
}

/// Stands between the enclave and the host.
fn relay(staging: Staging, enclave: UnixStream, trouble: Trouble) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    std::thread::spawn(move || converse(staging, Stream::Unix(theirs)));
    let (mut from_enclave, mut to_host) = (enclave.try_clone().unwrap(), ours.try_clone().unwrap());
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut from_enclave, &mut to_host);
        let _ = to_host.shutdown(Shutdown::Both);
    });
    let (mut from_host, mut to_enclave, mut passed) = (&ours, &enclave, 0u64);
    let mut buffer = [0; 4096];
    while let Ok(read @ 1..) = from_host.read(&mut buffer) {
        let place = |at: u64| at.checked_sub(passed).and_then(|at| usize::try_from(at).ok());
        let mut piece = &mut buffer[..read];
        let mut is_cut = false;
        match trouble {
            Trouble::Cut(after) => {
                let left = place(after).unwrap_or(0).min(read);
                is_cut = left < read;
                piece = &mut piece[..left];
            }
            Trouble::Flip(at) => {
                if let Some(byte) = place(at).and_then(|place| piece.get_mut(place)) {
                    *byte ^= 1;
                }
            }
        }
        passed += read as u64;
        if to_enclave.write_all(piece).is_err() || is_cut {
            break;
        }
    }
    let _ = (ours.shutdown(Shutdown::Both), enclave.shutdown(Shutdown::Both));
}
