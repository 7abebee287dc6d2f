//! The nonces of signed requests, so that none is taken twice.
//!
//! A nonce is remembered until its signature has ended, in memory and in a file
//! beside it, so that a host that was killed does not take again what it took
//! before. The file is not synced: who cuts the power may replay what a site
//! asked for in the ten minutes before. It would be told the same again, or
//! refused by what the request is about.

use sealfold_protocol::access::{NONCE, Verified};
use sealfold_protocol::refusal::{Check, Refusal};
use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// A key and a nonce.
type Name = [u8; 32 + NONCE];
/// A record of the file: a name, and when it ends, big-endian.
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

#[derive(Debug)]
struct Inner {
    seen: HashMap<Name, i64>,
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
        let mut seen = HashMap::new();
        // A record that a crash cut is that of a request that was not answered.
        for record in bytes.as_chunks::<RECORD>().0 {
            let (mut name, mut end) = ([0; 32 + NONCE], [0; 8]);
            name.copy_from_slice(&record[..32 + NONCE]);
            end.copy_from_slice(&record[32 + NONCE..]);
            seen.insert(name, i64::from_be_bytes(end));
        }
        seen.retain(|_, end| *end > now);
        let file = write(path, &seen)?;
        let inner = Mutex::new(Inner { seen, file, appended: 0 });
        Ok(Self { path: path.to_owned(), inner })
    }

    /// Takes a nonce, unless it was taken before.
    ///
    /// # Errors
    /// A refusal by `replay`, by `rate` if there are too many, by `storage`.
    pub fn expect_new(&self, verified: &Verified, now: i64) -> Result<(), Refusal> {
        let mut name = [0; 32 + NONCE];
        name[..32].copy_from_slice(verified.key.as_bytes());
        name[32..].copy_from_slice(&verified.nonce);
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if inner.seen.get(&name).is_some_and(|end| *end > now) {
            return Err(Refusal::new(
                Check::Replay,
                "a request that was not seen before",
                "the same again",
            )
            .next("sign each request anew, with a new nonce; sealfold does so by itself"));
        }
        if inner.appended >= COMPACT {
            inner.seen.retain(|_, end| *end > now);
            inner.file = write(&self.path, &inner.seen).map_err(crate::store::failed)?;
            inner.appended = 0;
        }
        if inner.seen.len() >= MOST {
            let expected = format!("at most {MOST} requests in ten minutes");
            return Err(Refusal::new(Check::Rate, expected, "more"));
        }
        let record = [&name[..], &verified.expires.to_be_bytes()].concat();
        inner.file.write_all(&record).map_err(crate::store::failed)?;
        inner.seen.insert(name, verified.expires);
        inner.appended += 1;
        Ok(())
    }
}

/// Writes the file anew; what follows is appended.
fn write(path: &Path, seen: &HashMap<Name, i64>) -> std::io::Result<File> {
    let new = path.with_extension("new");
    let mut bytes = Vec::with_capacity(seen.len() * RECORD);
    for (name, end) in seen {
        bytes.extend_from_slice(name);
        bytes.extend_from_slice(&end.to_be_bytes());
    }
    std::fs::write(&new, bytes)?;
    std::fs::rename(&new, path)?;
    OpenOptions::new().append(true).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use sealfold_protocol::VerifyingKey;
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
        nonces.expect_new(&request(1, 1, 100), 0).unwrap();
        assert_eq!(nonces.expect_new(&request(1, 1, 100), 50).unwrap_err().check, Check::Replay);
        nonces.expect_new(&request(2, 1, 200), 0).unwrap();
        drop(nonces);
        // Cut in the middle of a record.
        let mut file = OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(&[9; RECORD - 1]).unwrap();
        let nonces = Nonces::open(&path, 100).unwrap();
        assert_eq!(nonces.expect_new(&request(2, 1, 200), 100).unwrap_err().check, Check::Replay);
        nonces.expect_new(&request(1, 1, 300), 100).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 2 * RECORD as u64);
    }

    #[test]
    fn the_file_does_not_grow_for_ever() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("nonces");
        let nonces = Nonces::open(&path, 0).unwrap();
        for i in 0..=3 * i64::try_from(COMPACT).unwrap() {
            let mut verified = request(1, 0, i + 10);
            verified.nonce[..8].copy_from_slice(&i.to_be_bytes());
            nonces.expect_new(&verified, i).unwrap();
        }
        assert!(std::fs::metadata(&path).unwrap().len() <= (2 * COMPACT * RECORD) as u64);
        assert!(nonces.inner.lock().unwrap().seen.len() <= 2 * COMPACT);
    }
}
