//! The nonces of signed requests, so that none is taken twice.
//!
//! A nonce is taken once its key has a place for the request, so that what is
//! refused by `rate` leaves nothing here, and each key has a share of its own.
//!
//! A nonce is remembered until its signature has ended, in memory and in a file
//! beside it, so that a host that was killed does not take again what it took
//! before. The file is not synced: who cuts the power may replay what a site
//! asked for in the ten minutes before. It would be told the same again, or
//! refused by what the request is about.

use sealfold_protocol::VerifyingKey;
use sealfold_protocol::access::{NONCE, Verified};
use sealfold_protocol::refusal::{Check, Refusal};
use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// A record of the file: a key, a nonce, and when it ends, big-endian.
const RECORD: usize = 32 + NONCE + 8;
/// The most that are remembered.
const MOST: usize = 1 << 22;
/// After so many records the file is written anew, without those that have ended.
const COMPACT: usize = 1 << 16;

/// The nonces that were seen.
#[derive(Debug)]
pub struct Nonces {
    path: PathBuf,
    inner: Mutex<Inner>,
}

/// When each nonce ends, by key.
#[derive(Debug, Default)]
struct Seen {
    by_key: HashMap<VerifyingKey, HashMap<[u8; NONCE], i64>>,
    all: usize,
}

impl Seen {
    fn has(&self, verified: &Verified, now: i64) -> bool {
        let own = self.by_key.get(&verified.key);
        own.and_then(|own| own.get(&verified.nonce)).is_some_and(|end| *end > now)
    }

    fn insert(&mut self, key: VerifyingKey, nonce: [u8; NONCE], end: i64) {
        let before = self.by_key.entry(key).or_default().insert(nonce, end);
        self.all += usize::from(before.is_none());
    }

    fn of(&self, key: &VerifyingKey) -> usize {
        self.by_key.get(key).map_or(0, HashMap::len)
    }

    /// Forgets what has ended.
    fn retain(&mut self, now: i64) {
        self.by_key.values_mut().for_each(|own| own.retain(|_, end| *end > now));
        self.by_key.retain(|_, own| !own.is_empty());
        self.all = self.by_key.values().map(HashMap::len).sum();
    }
}

#[derive(Debug)]
struct Inner {
    seen: Seen,
    file: File,
    /// Records since the file was written anew.
    appended: usize,
}

impl Nonces {
    /// Opens the file, made if it is not there, and forgets what has ended.
    ///
    /// # Errors
    /// As the system gives them.
    pub fn open(path: &Path, now: i64) -> std::io::Result<Self> {
        let mut bytes = Vec::new();
        match File::open(path) {
            Ok(file) => _ = file.take((MOST * RECORD) as u64).read_to_end(&mut bytes)?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let mut seen = Seen::default();
        // A record that a crash cut is that of a request that was not answered.
        for record in bytes.as_chunks::<RECORD>().0 {
            let (mut key, mut nonce, mut end) = ([0; 32], [0; NONCE], [0; 8]);
            key.copy_from_slice(&record[..32]);
            nonce.copy_from_slice(&record[32..32 + NONCE]);
            end.copy_from_slice(&record[32 + NONCE..]);
            seen.insert(VerifyingKey::new(key), nonce, i64::from_be_bytes(end));
        }
        seen.retain(now);
        let file = write(path, &seen)?;
        let inner = Mutex::new(Inner { seen, file, appended: 0 });
        Ok(Self { path: path.to_owned(), inner })
    }

    /// Whether a request was not seen before; takes nothing.
    ///
    /// # Errors
    /// A refusal by `replay`.
    pub fn expect_new(&self, verified: &Verified, now: i64) -> Result<(), Refusal> {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if inner.seen.has(verified, now) { Err(replayed()) } else { Ok(()) }
    }

    /// Takes a nonce, unless it was taken before; of one key at most so many.
    ///
    /// # Errors
    /// A refusal by `replay`, by `rate` if there are too many, by `storage`.
    pub fn take(&self, verified: &Verified, now: i64, most: usize) -> Result<(), Refusal> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if inner.seen.has(verified, now) {
            return Err(replayed());
        }
        let is_full =
            |inner: &Inner| inner.seen.of(&verified.key) >= most || inner.seen.all >= MOST;
        if inner.appended >= COMPACT || is_full(&inner) {
            inner.seen.retain(now);
        }
        if inner.appended >= COMPACT {
            inner.file = write(&self.path, &inner.seen).map_err(crate::store::failed)?;
            inner.appended = 0;
        }
        if is_full(&inner) {
            let expected = format!("at most {most} requests of a key until their signatures end");
            return Err(Refusal::new(Check::Rate, expected, "more"));
        }
        let end = verified.expires.to_be_bytes();
        let record = [verified.key.as_bytes().as_slice(), &verified.nonce, &end].concat();
        inner.file.write_all(&record).map_err(crate::store::failed)?;
        inner.seen.insert(verified.key, verified.nonce, verified.expires);
        inner.appended += 1;
        Ok(())
    }
}

fn replayed() -> Refusal {
    Refusal::new(Check::Replay, "a request that was not seen before", "the same again")
        .next("sign each request anew, with a new nonce; sealfold does so by itself")
}

/// Writes the file anew; what follows is appended.
fn write(path: &Path, seen: &Seen) -> std::io::Result<File> {
    let new = path.with_extension("new");
    let mut bytes = Vec::with_capacity(seen.all * RECORD);
    for (key, own) in &seen.by_key {
        for (nonce, end) in own {
            bytes.extend_from_slice(key.as_bytes());
            bytes.extend_from_slice(nonce);
            bytes.extend_from_slice(&end.to_be_bytes());
        }
    }
    std::fs::write(&new, bytes)?;
    std::fs::rename(&new, path)?;
    OpenOptions::new().append(true).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use sealfold_protocol::access::Role;

    fn request(key: u8, nonce: u8, expires: i64) -> Verified {
        Verified {
            key: VerifyingKey::new([key; 32]),
            role: Role::Party,
            created: 0,
            expires,
            nonce: [nonce; NONCE],
            content_digest: None,
        }
    }

    #[test]
    fn a_nonce_is_taken_once_for_each_key_and_also_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("nonces");
        let nonces = Nonces::open(&path, 0).unwrap();
        nonces.take(&request(1, 1, 100), 0, 9).unwrap();
        assert_eq!(nonces.take(&request(1, 1, 100), 50, 9).unwrap_err().check, Check::Replay);
        assert_eq!(nonces.expect_new(&request(1, 1, 100), 50).unwrap_err().check, Check::Replay);
        nonces.take(&request(2, 1, 200), 0, 9).unwrap();
        drop(nonces);
        // Cut in the middle of a record.
        let mut file = OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(&[9; RECORD - 1]).unwrap();
        let nonces = Nonces::open(&path, 100).unwrap();
        assert_eq!(nonces.expect_new(&request(2, 1, 200), 100).unwrap_err().check, Check::Replay);
        nonces.take(&request(1, 1, 300), 100, 9).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 2 * RECORD as u64);
    }

    #[test]
    fn one_key_takes_no_place_of_anothers() {
        let folder = tempfile::tempdir().unwrap();
        let nonces = Nonces::open(&folder.path().join("nonces"), 0).unwrap();
        for nonce in 0..3 {
            nonces.take(&request(1, nonce, 100), 0, 3).unwrap();
        }
        assert_eq!(nonces.take(&request(1, 3, 100), 99, 3).unwrap_err().check, Check::Rate);
        nonces.take(&request(2, 3, 100), 99, 3).unwrap();
        // What has ended makes room.
        nonces.take(&request(1, 3, 200), 100, 3).unwrap();
    }

    #[test]
    fn the_file_does_not_grow_for_ever() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("nonces");
        let nonces = Nonces::open(&path, 0).unwrap();
        for i in 0..=3 * i64::try_from(COMPACT).unwrap() {
            let mut verified = request(1, 0, i + 10);
            verified.nonce[..8].copy_from_slice(&i.to_be_bytes());
            nonces.take(&verified, i, COMPACT).unwrap();
        }
        assert!(std::fs::metadata(&path).unwrap().len() <= (2 * COMPACT * RECORD) as u64);
        assert!(nonces.inner.lock().unwrap().seen.all <= 2 * COMPACT);
    }
}
