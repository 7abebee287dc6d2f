//! The fold: one pass over all updates of a roster, in lock-step.
//!
//! Record j of every site is read, opened in place and added to row j of the
//! aggregate, which goes out sealed under a key that stays here. Rows are
//! independent, so every thread takes its share of them; what is summed over
//! rows is combined in a way that does not depend on who did which. Memory is
//! threads x record, whatever the size of the model.
//!
//! Nothing is disclosed here. The caller discloses the key after this pass has
//! opened every record of every site and each site's hash was the admitted one.

use crate::admission::{Admitted, panicked, record_buffer, usize_of};
use crate::door::{DoorError, Doors, RecordDoor};
use crate::erasure::with_wiped_stack;
use crate::keyed_hash::Tag;
use crate::round::{Plan, Terms};
use sealfold_aggregation::accumulate::Row;
use sealfold_aggregation::rule::Rule;
use sealfold_aggregation::weights;
use sealfold_protocol::bytes::Random;
use sealfold_protocol::content;
use sealfold_protocol::manifest;
use sealfold_protocol::refusal::{Check, Refusal};
use sealfold_protocol::release::{self, AggregatePreamble, Opening};
use sealfold_protocol::seal::{self, RecordSeal, Sealer};
use sealfold_protocol::update::PREAMBLE;
use sealfold_protocol::{Digest, Error, Secret};
use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

/// A sealed aggregate that lies at the host, and what would open it.
pub struct Folded {
    /// What opens it; not disclosed yet.
    pub opening: Opening,
    /// The commitment to it.
    pub commitment: Digest,
    /// Its name at the host.
    pub object: Random,
    /// Its length in bytes.
    pub plain_length: u64,
}

/// Why there is no aggregate.
pub enum Failure {
    /// The bytes of these sites do not open or are not the admitted ones.
    Sites(BTreeSet<String>, Refusal),
    /// The host or the platform failed; the fold may be tried again.
    Passing(Refusal),
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::Passing(refusal)
    }
}

impl From<DoorError> for Failure {
    fn from(error: DoorError) -> Self {
        Self::Passing(error.into())
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Passing(error.into())
    }
}

/// What the threads share.
struct Job<'a> {
    members: &'a [std::sync::Arc<Admitted>],
    hash: &'a crate::keyed_hash::KeyedHash,
    factors: Vec<f64>,
    preamble: Vec<u8>,
    object: Random,
    length: u64,
    records: Mutex<Box<dyn Iterator<Item = RecordSeal> + Send + 'a>>,
    stop: AtomicBool,
}

/// What one thread has done.
struct Share {
    tags: Vec<Tag>,
    hashes: Vec<(u64, [u8; 32])>,
}

/// Folds the updates of a plan.
///
/// # Errors
/// [`Failure`].
pub fn fold(
    terms: &Terms,
    plan: &Plan,
    door: &impl Doors,
    threads: usize,
) -> Result<Folded, Failure> {
    let length = sealfold_protocol::update::plain_length(&terms.manifest.model);
    let opening = Opening { key: Secret::draw()?, blinding: Secret::draw()? };
    let context = release::seal_context(&terms.offer.digest(), &plan.roster.digest());
    let (sealer, prefix) = Sealer::new(&opening.key, &context, length).map_err(Error::from)?;
    let preamble = AggregatePreamble {
        layout: terms.manifest.model.layout_digest()?,
        roster: plan.roster.digest(),
    };
    let job = Job {
        members: &plan.members,
        hash: &plan.secrets.hash,
        factors: factors(terms, &plan.members)?,
        preamble: preamble.encode()?,
        object: Random::draw()?,
        length,
        records: Mutex::new(Box::new(sealer.records())),
        stop: AtomicBool::new(false),
    };
    let mut main_door = door.open()?;
    main_door.write(job.object.as_bytes(), 0, &prefix)?;
    let shares = std::thread::scope(|scope| {
        let job = &job;
        let work = move || {
            let share = with_wiped_stack(|| fold_share(job, door));
            if share.is_err() {
                job.stop.store(true, Ordering::Relaxed);
            }
            share
        };
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        workers
            .into_iter()
            .map(|worker| worker.join().unwrap_or_else(|_| Err(panicked().into())))
            .collect::<Vec<_>>()
    });
    let hashes = gather(&job, shares)?;
    let sealed_length = seal::sealed_len(length).unwrap_or(u64::MAX);
    main_door.finish(job.object.as_bytes(), sealed_length)?;
    let content = content::digest_of_records(length, &hashes);
    let commitment = release::commitment(&opening.blinding, &content);
    Ok(Folded { opening, commitment, object: job.object, plain_length: length })
}

/// Checks that every site's bytes were the admitted ones, and puts the rows'
/// hashes in order.
fn gather(job: &Job<'_>, shares: Vec<Result<Share, Failure>>) -> Result<Vec<[u8; 32]>, Failure> {
    let mut tags = vec![Tag::default(); job.members.len()];
    let mut hashes = Vec::new();
    for share in shares {
        let share = share?;
        tags.iter_mut().zip(&share.tags).for_each(|(tag, part)| tag.combine(part));
        hashes.extend(share.hashes);
    }
    let swapped: BTreeSet<_> = job
        .members
        .iter()
        .zip(&tags)
        .filter(|(member, tag)| member.tag != **tag)
        .map(|(member, _)| member.header.statement().site.clone())
        .collect();
    if !swapped.is_empty() {
        let refusal = Refusal::new(
            Check::Admission,
            "the bytes that were admitted",
            format!("other bytes of {swapped:?}"),
        );
        return Err(Failure::Sites(swapped, refusal));
    }
    hashes.sort_unstable_by_key(|(record, _)| *record);
    Ok(hashes.into_iter().map(|(_, hash)| hash).collect())
}

/// Folds rows until none is left.
fn fold_share(job: &Job<'_>, door: &impl Doors) -> Result<Share, Failure> {
    let mut share = Share { tags: vec![Tag::default(); job.members.len()], hashes: Vec::new() };
    // Two connections: one that reads ahead while a row is folded, and one that
    // writes, so that neither side waits for the other to read.
    let (mut reader, mut writer) = (door.open()?, door.open()?);
    let mut row = Row::new();
    // Records are opened in place, so both hold plaintext in the end. They are
    // as long as they ever get from the start: one that grows leaves what it
    // held behind.
    let (mut sealed, mut plain) = (record_buffer(), record_buffer());
    let mut next = ask_next(job, &mut reader)?;
    while !job.stop.load(Ordering::Relaxed) {
        let Some(seal) = next else { break };
        next = ask_next(job, &mut reader)?;
        let record = seal.index();
        let floats = usize_of(seal::record_plain_len(job.length, record))? / 4;
        row.reset(floats);
        for (place, member) in job.members.iter().enumerate() {
            reader.take(&mut sealed)?;
            let tag = add(job, &mut row, place, record, &mut sealed)
                .map_err(|e| record_failure(member, record, &e))?;
            share.tags[place].combine(&tag);
        }
        plain.resize(floats * 4, 0);
        row.write_f32(&mut plain);
        if record == 0 {
            plain[..PREAMBLE].copy_from_slice(&job.preamble);
        }
        share.hashes.push((record, content::record_hash(&plain)));
        sealed.clear();
        seal.seal(&plain, &mut sealed).map_err(Error::from)?;
        let range = seal::record_range(job.length, record);
        writer.write(job.object.as_bytes(), range.start, &sealed)?;
    }
    writer.settle()?;
    Ok(share)
}

/// Opens one site's record, hashes it and adds it to the row.
fn add(
    job: &Job<'_>,
    row: &mut Row,
    place: usize,
    record: u64,
    sealed: &mut [u8],
) -> Result<Tag, seal::SealError> {
    let member = &job.members[place];
    let factor = job.factors[place];
    let mut hasher = job.hash.record(member.header.digest().as_bytes(), record);
    member.opener.open_record(record, sealed, |offset, chunk| {
        hasher.chunk(chunk);
        // The preamble is hashed like all the rest, but it is no tensor.
        if record > 0 || offset >= PREAMBLE {
            row.add(offset / 4, factor, chunk);
        }
    })?;
    Ok(hasher.finish())
}

/// Takes the next record that no thread has, and asks for every site's part.
fn ask_next(job: &Job<'_>, door: &mut impl RecordDoor) -> Result<Option<RecordSeal>, Failure> {
    let next = job.records.lock().map_err(|_| panicked())?.next();
    if let Some(seal) = &next {
        let range = seal::record_range(job.length, seal.index());
        let length = usize_of(range.end - range.start)?;
        for member in job.members {
            door.ask(member.header.digest().as_bytes(), range.start, length)?;
        }
    }
    Ok(next)
}

fn record_failure(member: &Admitted, record: u64, error: &seal::SealError) -> Failure {
    let site = member.header.statement().site.clone();
    let refusal = Refusal::new(Check::Record, format!("record {record} of {site} opens"), error);
    Failure::Sites(BTreeSet::from([site]), refusal)
}

/// Each site's multiplier, from the manifest's rule.
fn factors(terms: &Terms, members: &[std::sync::Arc<Admitted>]) -> Result<Vec<f64>, Refusal> {
    let aggregation = &terms.manifest.aggregation;
    let rule = match (aggregation.rule, aggregation.clip) {
        (manifest::Rule::NormClippedMean, Some(clip)) => Rule::NormClippedMean { clip },
        _ => Rule::WeightedMean,
    };
    let examples: Vec<_> = members.iter().map(|member| member.examples).collect();
    let norms: Vec<_> = members.iter().map(|member| member.norm).collect();
    let weights = weights::bounded(&examples, aggregation.largest_weight_share)
        .map_err(|e| Refusal::new(Check::Manifest, "weights within the agreed share", e))?;
    rule.factors(&weights, &norms)
        .map_err(|e| Refusal::new(Check::Manifest, "the agreed rule's conditions", e))
}
