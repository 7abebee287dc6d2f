//! The kernel's randomness comes from the NSM.
//!
//! The host chooses when a machine starts and what its clock says, so nothing
//! secret may be drawn before the hardware's own generator was mixed in.

use crate::{InitError, in_time};
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::time::Duration;

/// The generator that the kernel must have chosen.
const NSM: &str = "nsm-hwrng";
/// How much is mixed in.
const SEED_BYTES: usize = 256;
/// How long the NSM may take to give it.
const TIMEOUT: Duration = Duration::from_secs(20);

/// Mixes the NSM's bytes into the kernel's pool, and waits until the kernel
/// calls its generator ready.
pub fn from_the_nsm() -> Result<(), InitError> {
    let wrong = |e: std::io::Error| InitError::new("randomness", "bytes from the NSM", e);
    let current =
        std::fs::read_to_string("/sys/class/misc/hw_random/rng_current").map_err(wrong)?;
    if current.trim() != NSM {
        return Err(InitError::new("randomness", "nsm-hwrng as the kernel's source", current));
    }
    let seed = read_in_time(|| {
        let mut seed = [0; SEED_BYTES];
        File::open("/dev/hwrng")?.read_exact(&mut seed).map(|()| seed)
    })?;
    if seed.iter().all(|byte| *byte == seed[0]) {
        return Err(InitError::new("randomness", "random bytes from the NSM", "one byte repeated"));
    }
    OpenOptions::new()
        .write(true)
        .open("/dev/urandom")
        .and_then(|mut pool| pool.write_all(&seed))
        .map_err(wrong)?;
    // /dev/random blocks until the generator is ready.
    read_in_time(|| File::open("/dev/random")?.read_exact(&mut [0; 1]))
}

fn read_in_time<T: Send + 'static>(
    read: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> Result<T, InitError> {
    in_time("randomness", "an answer of the NSM in 20 s", TIMEOUT, || {
        read().map_err(|error| InitError::new("randomness", "bytes from the NSM", error))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_read_is_named() {
        let error = read_in_time(|| File::open("/proc/nonexistent").map(|_| ())).unwrap_err();
        assert!(
            error.to_string().starts_with("randomness: expected bytes from the NSM"),
            "{error}"
        );
    }
}
