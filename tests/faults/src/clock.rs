//! The simulated time: it moves when the schedule says so, and never by itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A clock that all instances of a world read.
#[derive(Debug, Clone)]
pub struct Clock {
    start: Instant,
    milliseconds: Arc<AtomicU64>,
}

impl Clock {
    /// A clock at its beginning.
    #[must_use]
    pub fn new() -> Self {
        Self { start: Instant::now(), milliseconds: Arc::default() }
    }

    /// What the enclave reads.
    #[must_use]
    pub fn now(&self) -> Instant {
        self.start + Duration::from_millis(self.milliseconds.load(Ordering::Relaxed))
    }

    /// Moves on.
    pub fn advance(&self, milliseconds: u64) {
        self.milliseconds.fetch_add(milliseconds, Ordering::Relaxed);
    }

    /// Milliseconds since the beginning.
    #[must_use]
    pub fn elapsed(&self) -> u64 {
        self.milliseconds.load(Ordering::Relaxed)
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::new()
    }
}
