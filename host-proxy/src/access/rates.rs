//! How much one party may take: requests a second, requests and pieces of an
//! upload under way at a time. A bucket of tokens for each of them.

use sealfold_protocol::VerifyingKey;
use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How many seconds' worth of requests may come at once.
const BURST: f64 = 10.0;
/// Requests of one party at a time.
const PARTY: usize = 32;
/// Requests of one address without a known key at a time. Behind a reverse proxy
/// all of those have one address.
const ADDRESS: usize = 64;
/// Pieces of uploads of one site at a time; each is in memory.
const PIECES: usize = 4;
/// How long a party waits that has too much under way.
const BUSY: Duration = Duration::from_secs(1);
/// How long a party is idle until its share is a whole one again, whatever of.
const IDLE: Duration = Duration::from_mins(1);
/// Above this many parties those that are idle are forgotten.
const MANY: usize = 4096;

/// Who is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Who {
    /// A known key.
    Key(VerifyingKey),
    /// Whoever comes from an address without one.
    Address(Option<IpAddr>),
    /// The pieces of a known key.
    Pieces(VerifyingKey),
    /// The initial models that a known key sends.
    Models(VerifyingKey),
    /// The evidence that a known key asks for.
    Evidence(VerifyingKey),
}

/// What a party may take.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limits {
    /// Requests a second; none is bounded by time.
    rate: Option<f64>,
    /// How many may come at once.
    burst: f64,
    /// At a time.
    at_once: usize,
}

impl Limits {
    /// A party's, at so many requests a second.
    #[must_use]
    pub fn of_party(rate: u32) -> Self {
        Self { rate: Some(f64::from(rate)), burst: f64::from(rate) * BURST, at_once: PARTY }
    }

    /// An address's, at so many requests a second.
    #[must_use]
    pub fn of_stranger(rate: u32) -> Self {
        Self { rate: Some(f64::from(rate)), burst: f64::from(rate) * BURST, at_once: ADDRESS }
    }

    /// The initial models that a party sends: each may be on disk.
    #[must_use]
    pub const fn of_models() -> Self {
        Self { rate: None, burst: 0.0, at_once: 1 }
    }

    /// The evidence that a party asks the enclave for, so many times a minute. A
    /// platform may give few documents, to all of them and to the host's own offers.
    #[must_use]
    pub fn of_evidence(a_minute: u32) -> Self {
        let a_minute = f64::from(a_minute);
        Self { rate: Some(a_minute / 60.0), burst: a_minute, at_once: 1 }
    }

    /// The most requests that this lets through in so many seconds.
    #[must_use]
    pub fn within(&self, seconds: u64) -> usize {
        let rate = self.rate.unwrap_or(f64::INFINITY);
        // A bound of a few thousand, rounded up; beyond what an integer holds it is none.
        #[allow(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss
        )]
        let most = (rate * seconds as f64 + self.burst).ceil() as usize;
        most
    }

    /// A site's pieces.
    #[must_use]
    pub const fn of_pieces() -> Self {
        Self { rate: None, burst: 0.0, at_once: PIECES }
    }
}

impl fmt::Display for Limits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.rate {
            Some(rate) if rate < 1.0 => {
                let (a_minute, at_once) = (rate * 60.0, self.at_once);
                write!(f, "at most {a_minute} requests a minute and {at_once} at a time")
            }
            Some(rate) => {
                write!(f, "at most {rate} requests a second and {} at a time", self.at_once)
            }
            None => write!(f, "at most {} at a time", self.at_once),
        }
    }
}

#[derive(Debug)]
struct Bucket {
    tokens: f64,
    at: Instant,
    under_way: usize,
}

/// What everybody has taken.
#[derive(Debug, Clone, Default)]
pub struct Rates {
    buckets: Arc<Mutex<HashMap<Who, Bucket>>>,
}

/// A request's place; given back when it is dropped.
#[derive(Debug)]
pub struct Place {
    rates: Rates,
    who: Who,
}

impl Rates {
    /// A place for a request that comes now.
    ///
    /// # Errors
    /// How long to wait, if there is none.
    pub fn enter(&self, who: Who, limits: Limits, now: Instant) -> Result<Place, Duration> {
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() > MANY {
            buckets
                .retain(|_, bucket| bucket.under_way > 0 || now.duration_since(bucket.at) < IDLE);
        }
        let full = limits.burst;
        let bucket = buckets.entry(who).or_insert(Bucket { tokens: full, at: now, under_way: 0 });
        if let Some(rate) = limits.rate {
            let since = now.duration_since(bucket.at).as_secs_f64();
            bucket.tokens = (bucket.tokens + since * rate).min(full);
            bucket.at = now;
            if bucket.tokens < 1.0 {
                return Err(Duration::from_secs_f64((1.0 - bucket.tokens) / rate));
            }
        }
        if bucket.under_way >= limits.at_once {
            return Err(BUSY);
        }
        if limits.rate.is_some() {
            bucket.tokens -= 1.0;
        }
        bucket.under_way += 1;
        drop(buckets);
        Ok(Place { rates: self.clone(), who })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut buckets = self.rates.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bucket) = buckets.get_mut(&self.who) {
            bucket.under_way = bucket.under_way.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Who = Who::Key(VerifyingKey::new([1; 32]));
    const B: Who = Who::Key(VerifyingKey::new([2; 32]));

    #[test]
    fn one_party_cannot_take_anothers_share() {
        let (rates, now) = (Rates::default(), Instant::now());
        let limits = Limits::of_party(2);
        for _ in 0..20 {
            drop(rates.enter(A, limits, now).unwrap());
        }
        let wait = rates.enter(A, limits, now).unwrap_err();
        assert!(
            wait <= Duration::from_millis(500) && wait > Duration::from_millis(490),
            "{wait:?}"
        );
        drop(rates.enter(B, limits, now).unwrap());
        // After that time there is one more, and only one.
        let later = now + Duration::from_millis(500);
        drop(rates.enter(A, limits, later).unwrap());
        assert!(rates.enter(A, limits, later).is_err());
    }

    #[test]
    fn evidence_has_a_share_of_its_own() {
        let (rates, now) = (Rates::default(), Instant::now());
        let limits = Limits::of_evidence(4);
        let ask = |now| rates.enter(Who::Evidence(VerifyingKey::new([1; 32])), limits, now);
        assert_eq!(limits.to_string(), "at most 4 requests a minute and 1 at a time");
        let first = ask(now).unwrap();
        assert_eq!(ask(now).unwrap_err(), BUSY);
        drop(first);
        (0..3).for_each(|_| drop(ask(now).unwrap()));
        assert_eq!(ask(now).unwrap_err(), Duration::from_secs(15));
        drop(ask(now + Duration::from_secs(15)).unwrap());
        assert!(ask(now + Duration::from_secs(16)).is_err());
        // Its other requests are served meanwhile.
        assert!(rates.enter(A, Limits::of_party(2), now).is_ok());
    }

    #[test]
    fn what_is_under_way_is_bounded_and_given_back() {
        let (rates, now) = (Rates::default(), Instant::now());
        let pieces = |who| rates.enter(who, Limits::of_pieces(), now);
        let mut places: Vec<_> = (0..PIECES).map(|_| pieces(A).unwrap()).collect();
        assert_eq!(pieces(A).unwrap_err(), BUSY);
        assert!(pieces(B).is_ok());
        places.pop();
        assert!(pieces(A).is_ok());
    }

    #[test]
    fn those_that_are_idle_are_forgotten() {
        let (rates, now) = (Rates::default(), Instant::now());
        for byte in 0..=MANY {
            let mut address = [0; 16];
            address[..8].copy_from_slice(&byte.to_be_bytes());
            let who = Who::Address(Some(IpAddr::from(address)));
            drop(rates.enter(who, Limits::of_stranger(1), now).unwrap());
        }
        let later = now + Duration::from_secs(61);
        drop(rates.enter(A, Limits::of_party(1), later).unwrap());
        assert_eq!(rates.buckets.lock().unwrap().len(), 1);
    }
}
