//! A pass: every record of every update of a roster, opened in lock-step.
//!
//! Every pass reads all records of all sites, whatever the rule makes of them,
//! so that the host learns nothing from what is read; and every pass arrives
//! at each site's admitted hash, or its result is thrown away.

use super::{Failure, panicked_failure};
use crate::admission::{Admitted, usize_of};
use crate::door::{Doors, RecordDoor};
use crate::erasure::with_wiped_stack;
use crate::keyed_hash::{KeyedHash, RecordHasher, Tag};
use sealfold_protocol::refusal::{Check, Refusal};
use sealfold_protocol::seal::{self, CHUNK, TAG};
use std::collections::{BTreeSet, VecDeque};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use zeroize::Zeroizing;

/// The answers that a thread has asked for and not taken, at most. Requests that
/// wait fill the connection: without a bound, with hundreds of sites, enclave and
/// host would each wait for the other to read. When half of them are taken it asks
/// for as many more, all at once.
const AHEAD: usize = 16;

/// The chunks that are read at once of each of so many sites: what all of them
/// have should lie in the second-level cache, and no read be too small.
#[must_use]
pub fn chunks_at_once(sites: usize) -> u64 {
    const HELD: usize = 1 << 20;
    let fits = HELD / (sites.max(1) * CHUNK);
    [16, 8, 4].into_iter().find(|run| *run <= fits).unwrap_or(4) as u64
}

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
    /// The host fetches what is asked for while this opens what came before.
    door: D,
    /// The records that are this thread's to open, the oldest first.
    ours: VecDeque<(u64, T)>,
    asking: Asking,
    tags: Vec<Tag>,
    /// Of each site the chunks that are being opened, in place, so these hold
    /// plaintext in the end. They are as long as they ever get from the start:
    /// one that grows leaves what it held behind.
    sealed: Vec<Zeroizing<Vec<u8>>>,
}

/// What a reader asks the host for next, and how far it is ahead.
struct Asking {
    /// What is left of a record, from a site's part of the first run on.
    chunks: Range<u64>,
    site: usize,
    /// The chunks of a run.
    run: u64,
    /// Answers that were not taken yet.
    under_way: usize,
}

impl<'p, 'a, T: Send, D: RecordDoor> Reader<'p, 'a, T, D> {
    fn new(pass: &'p Pass<'a, T>, door: D) -> Result<Self, Failure> {
        let (sites, run) = (pass.members.len(), chunks_at_once(pass.members.len()));
        let length = usize_of(run)? * (CHUNK + TAG);
        let mut reader = Self {
            pass,
            door,
            ours: VecDeque::new(),
            asking: Asking { chunks: 0..0, site: 0, run, under_way: 0 },
            tags: vec![Tag::default(); sites],
            sealed: (0..sites).map(|_| Zeroizing::new(Vec::with_capacity(length))).collect(),
        };
        reader.ask()?;
        Ok(reader)
    }

    /// The number of sites.
    pub fn sites(&self) -> usize {
        self.pass.members.len()
    }

    /// The next record that no thread has; none when all are given out, or
    /// another thread has failed. Each record has to be opened.
    pub fn next(&mut self) -> Option<(u64, T)> {
        if self.pass.stop.load(Ordering::Relaxed) {
            return None;
        }
        self.ours.pop_front()
    }

    /// Asks for runs of chunks, every site's part of one before the next, until
    /// enough are under way again.
    fn ask(&mut self) -> Result<(), Failure> {
        let (pass, asking) = (self.pass, &mut self.asking);
        if asking.under_way > AHEAD / 2 {
            return Ok(());
        }
        while asking.under_way < AHEAD {
            if asking.chunks.is_empty() {
                let next = pass.records.lock().map_err(|_| panicked_failure())?.next();
                let Some(next) = next else { break };
                asking.chunks = seal::record_chunks(pass.length, next.0);
                self.ours.push_back(next);
            }
            let end = asking.chunks.end.min(asking.chunks.start + asking.run);
            let range = seal::chunks_range(pass.length, &(asking.chunks.start..end));
            let object = pass.members[asking.site].header.digest();
            let length = usize_of(range.end - range.start)?;
            self.door.ask(object.as_bytes(), range.start, length)?;
            asking.under_way += 1;
            asking.site += 1;
            if asking.site == pass.members.len() {
                (asking.site, asking.chunks.start) = (0, end);
            }
        }
        Ok(())
    }

    /// Opens a record of all sites, and hands over chunk after chunk: the offset
    /// in the record, and the plaintexts in the roster's order.
    pub fn open(
        &mut self,
        record: u64,
        mut each: impl FnMut(usize, &[&[u8]]) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let pass = self.pass;
        let hasher =
            |member: &Arc<Admitted>| pass.hash.record(member.header.digest().as_bytes(), record);
        let mut hashers: Vec<_> = pass.members.iter().map(hasher).collect();
        let chunks = seal::record_chunks(pass.length, record);
        let (mut offset, mut start) = (0, chunks.start);
        while start < chunks.end {
            let end = chunks.end.min(start + self.asking.run);
            self.open_run(record, start..end, &mut hashers)?;
            for place in 0..usize_of(end - start)? {
                let plains: Vec<_> = self.sealed.iter().map(|run| plain_of(run, place)).collect();
                let length = plains.first().map_or(0, |plain| plain.len());
                if length > 0 {
                    each(offset, &plains)?;
                }
                offset += length;
            }
            start = end;
        }
        for (tag, hasher) in self.tags.iter_mut().zip(hashers) {
            tag.combine(&hasher.finish());
        }
        Ok(())
    }

    /// Takes the oldest run of every site, opens it in place and hashes it.
    fn open_run(
        &mut self,
        record: u64,
        chunks: Range<u64>,
        hashers: &mut [RecordHasher<'_>],
    ) -> Result<(), Failure> {
        for (site, (member, hasher)) in self.pass.members.iter().zip(hashers).enumerate() {
            self.door.take(&mut self.sealed[site])?;
            self.asking.under_way -= 1;
            self.ask()?;
            let mut sealed = self.sealed[site].chunks_mut(CHUNK + TAG);
            for chunk in chunks.clone() {
                let opened = member.opener.open_chunk(chunk, sealed.next().unwrap_or_default());
                let plain = opened.map_err(|error| record_failure(member, record, &error))?;
                // The empty last chunk is no part of what was admitted.
                if !plain.is_empty() {
                    hasher.chunk(plain);
                }
            }
        }
        Ok(())
    }
}

/// The plaintext of the chunk at a place of a run that is open.
fn plain_of(run: &[u8], place: usize) -> &[u8] {
    let sealed = run.chunks(CHUNK + TAG).nth(place).unwrap_or_default();
    &sealed[..sealed.len().saturating_sub(TAG)]
}

fn record_failure(member: &Admitted, record: u64, error: &seal::SealError) -> Failure {
    let site = member.header.statement().site.clone();
    let refusal = Refusal::new(Check::Record, format!("record {record} of {site} opens"), error);
    Failure::Sites(BTreeSet::from([site]), refusal)
}
