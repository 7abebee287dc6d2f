//! What chance decides, from one seed, and the trace of what it decided.

use std::sync::{Arc, Mutex};

/// How often things go wrong, in percent of the occasions.
#[derive(Debug, Clone, Copy, Default)]
pub struct Weather {
    /// A request is lost on its way.
    pub lost: u8,
    /// An answer is lost: the request was carried out, its sender does not know.
    pub unanswered: u8,
    /// A request arrives twice.
    pub doubled: u8,
    /// A request arrives when its sender has given up, after later ones.
    pub late: u8,
    /// The store fails at an operation.
    pub store: u8,
}

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Passage {
    /// It arrives, and its answer too.
    Delivered,
    /// It does not arrive.
    Lost,
    /// It arrives, its answer does not.
    Unanswered,
    /// It arrives twice; the second answer counts.
    Doubled,
    /// It arrives later, when its sender has given up.
    Late,
}

/// Chance.
#[derive(Debug, Clone)]
pub struct Fate {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug)]
struct Inner {
    random: fastrand::Rng,
    weather: Weather,
    trace: Vec<String>,
    is_followed: bool,
}

impl Fate {
    /// The fate of a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let random = fastrand::Rng::with_seed(seed);
        let inner =
            Inner { random, weather: Weather::default(), trace: Vec::new(), is_followed: false };
        Self { inner: Arc::new(Mutex::new(inner)) }
    }

    /// From now on prints what happens.
    pub fn follow(&self) {
        self.inner.lock().unwrap().is_followed = true;
    }

    /// Changes the weather.
    pub fn set(&self, weather: Weather) {
        self.inner.lock().unwrap().weather = weather;
    }

    /// A number below `end`.
    #[must_use]
    pub fn below(&self, end: u64) -> u64 {
        self.inner.lock().unwrap().random.u64(0..end)
    }

    /// A place in a list of that length.
    #[must_use]
    pub fn place(&self, length: usize) -> usize {
        self.inner.lock().unwrap().random.usize(0..length)
    }

    /// Whether something happens that does in so many percent of the cases.
    #[must_use]
    pub fn happens(&self, percent: u8) -> bool {
        percent > 0 && self.below(100) < u64::from(percent)
    }

    /// What becomes of a request.
    #[must_use]
    pub fn passage(&self) -> Passage {
        let weather = self.inner.lock().unwrap().weather;
        let mut drawn = self.below(100);
        for (share, passage) in [
            (weather.lost, Passage::Lost),
            (weather.unanswered, Passage::Unanswered),
            (weather.doubled, Passage::Doubled),
            (weather.late, Passage::Late),
        ] {
            if drawn < u64::from(share) {
                return passage;
            }
            drawn -= u64::from(share);
        }
        Passage::Delivered
    }

    /// Whether the store fails now; and if so, whether what was asked for came
    /// about nevertheless.
    #[must_use]
    pub fn store_fails(&self) -> Option<bool> {
        let share = self.inner.lock().unwrap().weather.store;
        self.happens(share).then(|| self.happens(50))
    }

    /// Notes what happened, in words that do not depend on keys or digests.
    pub fn note(&self, what: impl Into<String>) {
        let (mut inner, what) = (self.inner.lock().unwrap(), what.into());
        if inner.is_followed {
            println!("{what}");
        }
        inner.trace.push(what);
    }

    /// What happened.
    #[must_use]
    pub fn trace(&self) -> Vec<String> {
        self.inner.lock().unwrap().trace.clone()
    }
}
