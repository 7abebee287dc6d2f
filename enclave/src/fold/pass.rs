//! A pass: every record of every update of a roster, opened in lock-step.
//!
//! Every pass reads all records of all sites, whatever the rule makes of them,
//! so that the host learns nothing from what is read; and every pass arrives
//! at each site's admitted hash, or its result is thrown away.

use super::{Failure, panicked_failure};
use crate::admission::{Admitted, record_buffer, usize_of};
use crate::door::{Doors, RecordDoor};
use crate::erasure::with_wiped_stack;
use crate::keyed_hash::{KeyedHash, Tag};
use sealfold_protocol::refusal::{Check, Refusal};
use sealfold_protocol::seal::{self, CHUNK, TAG};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use zeroize::Zeroizing;

/// What the threads of a pass share. With each record goes a `T`, given once.
pub(super) struct Pass<'a, T> {
    members: &'a [Arc<Admitted>],
    hash: &'a KeyedHash,
    length: u64,
    records: Mutex<Box<dyn Iterator<Item = (u64, T)> + Send + 'a>>,
    stop: AtomicBool,
}

impl<'a, T: Send> Pass<'a, T> {
    /// A pass over updates of that length in bytes.
    pub fn new(
        members: &'a [Arc<Admitted>],
        hash: &'a KeyedHash,
        length: u64,
        records: impl Iterator<Item = (u64, T)> + Send + 'a,
    ) -> Self {
        let records: Box<dyn Iterator<Item = (u64, T)> + Send> = Box::new(records);
        Self { members, hash, length, records: Mutex::new(records), stop: AtomicBool::new(false) }
    }

    /// Lets so many threads work until no record is left, and gives what each
    /// came to.
    ///
    /// # Errors
    /// What a thread failed with; [`Failure::Sites`] if a site's bytes are not
    /// the admitted ones.
    pub fn run<D: Doors, S: Send>(
        &self,
        door: &D,
        threads: usize,
        work: impl Fn(&mut Reader<'_, 'a, T, D::Door>) -> Result<S, Failure> + Sync,
    ) -> Result<Vec<S>, Failure> {
        let part = || {
            let result = with_wiped_stack(|| {
                let mut reader = Reader::new(self, door.open()?)?;
                let made = work(&mut reader)?;
                Ok((made, reader.tags))
            });
            if result.is_err() {
                self.stop.store(true, Ordering::Relaxed);
            }
            result
        };
        let parts: Vec<Result<(S, Vec<Tag>), Failure>> = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..threads).map(|_| scope.spawn(part)).collect();
            let joined = workers.into_iter().map(std::thread::ScopedJoinHandle::join);
            joined.map(|part| part.unwrap_or_else(|_| Err(panicked_failure()))).collect()
        });
        let mut tags = vec![Tag::default(); self.members.len()];
        let mut made = Vec::new();
        for part in parts {
            let (one, seen) = part?;
            tags.iter_mut().zip(&seen).for_each(|(tag, part)| tag.combine(part));
            made.push(one);
        }
        self.expect_admitted(&tags)?;
        Ok(made)
    }

    /// Checks that every site's bytes were the admitted ones.
    fn expect_admitted(&self, tags: &[Tag]) -> Result<(), Failure> {
        let swapped: BTreeSet<_> = self
            .members
            .iter()
            .zip(tags)
            .filter(|(member, tag)| member.tag != **tag)
            .map(|(member, _)| member.header.statement().site.clone())
            .collect();
        if swapped.is_empty() {
            return Ok(());
        }
        let refusal = Refusal::new(
            Check::Admission,
            "the bytes that were admitted",
            format!("other bytes of {swapped:?}"),
        );
        Err(Failure::Sites(swapped, refusal))
    }
}

/// One thread's part of a pass.
pub(super) struct Reader<'p, 'a, T, D> {
    pass: &'p Pass<'a, T>,
    /// Reads ahead: the host fetches the next records while these are opened.
    door: D,
    ahead: Option<(u64, T)>,
    tags: Vec<Tag>,
    /// Records are opened in place, so these hold plaintext in the end. They
    /// are as long as they ever get from the start: one that grows leaves what
    /// it held behind.
    sealed: Vec<Zeroizing<Vec<u8>>>,
}

impl<'p, 'a, T: Send, D: RecordDoor> Reader<'p, 'a, T, D> {
    fn new(pass: &'p Pass<'a, T>, door: D) -> Result<Self, Failure> {
        let tags = vec![Tag::default(); pass.members.len()];
        let mut reader = Self { pass, door, ahead: None, tags, sealed: vec![record_buffer()] };
        reader.ahead = reader.ask()?;
        Ok(reader)
    }

    /// The number of sites.
    pub fn sites(&self) -> usize {
        self.pass.members.len()
    }

    /// The next record that no thread has; none when all are given out, or
    /// another thread has failed. Each record has to be opened.
    pub fn next(&mut self) -> Result<Option<(u64, T)>, Failure> {
        if self.pass.stop.load(Ordering::Relaxed) {
            return Ok(None);
        }
        let next = self.ahead.take();
        if next.is_some() {
            self.ahead = self.ask()?;
        }
        Ok(next)
    }

    /// Takes a record and asks for every site's part of it.
    fn ask(&mut self) -> Result<Option<(u64, T)>, Failure> {
        let next = self.pass.records.lock().map_err(|_| panicked_failure())?.next();
        if let Some((record, _)) = &next {
            let range = seal::record_range(self.pass.length, *record);
            let length = usize_of(range.end - range.start)?;
            for member in self.pass.members {
                self.door.ask(member.header.digest().as_bytes(), range.start, length)?;
            }
        }
        Ok(next)
    }

    /// Opens a record of one site after the other, and hands over each chunk:
    /// the site's place on the roster, the offset in the record, the plaintext.
    /// The first failure ends it.
    pub fn open_each(
        &mut self,
        record: u64,
        mut each: impl FnMut(usize, usize, &[u8]) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        for place in 0..self.sites() {
            self.open(record, place, 0, |offset, chunk| each(place, offset, chunk))?;
        }
        Ok(())
    }

    /// Opens a record of all sites, to look at them side by side.
    pub fn open_all(&mut self, record: u64) -> Result<(), Failure> {
        self.sealed.resize_with(self.sites(), record_buffer);
        (0..self.sites()).try_for_each(|place| self.open(record, place, place, |_, _| Ok(())))
    }

    /// The chunks of the record that [`Reader::open_all`] has opened, from all
    /// sites: the offset in the record, and the plaintexts in the roster's order.
    pub fn chunks(&self, record: u64) -> impl Iterator<Item = (usize, Vec<&[u8]>)> {
        let plain = seal::record_plain_len(self.pass.length, record);
        let plain = usize::try_from(plain).unwrap_or(0);
        (0..plain).step_by(CHUNK).map(move |offset| {
            let (start, length) = (offset / CHUNK * (CHUNK + TAG), CHUNK.min(plain - offset));
            (offset, self.sealed.iter().map(|sealed| &sealed[start..start + length]).collect())
        })
    }

    /// Opens one site's record in a buffer and hashes it.
    fn open(
        &mut self,
        record: u64,
        place: usize,
        buffer: usize,
        mut each: impl FnMut(usize, &[u8]) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let member = &self.pass.members[place];
        let sealed = &mut self.sealed[buffer];
        self.door.take(sealed)?;
        let mut hasher = self.pass.hash.record(member.header.digest().as_bytes(), record);
        let mut taken = Ok(());
        let opened = member.opener.open_record(record, sealed, |offset, chunk| {
            hasher.chunk(chunk);
            if taken.is_ok() {
                taken = each(offset, chunk);
            }
        });
        opened.map_err(|error| record_failure(member, record, &error))?;
        self.tags[place].combine(&hasher.finish());
        taken
    }
}

fn record_failure(member: &Admitted, record: u64, error: &seal::SealError) -> Failure {
    let site = member.header.statement().site.clone();
    let refusal = Refusal::new(Check::Record, format!("record {record} of {site} opens"), error);
    Failure::Sites(BTreeSet::from([site]), refusal)
}
