//! Admission: the pass over one update that earns it a receipt.
//!
//! Every record is opened; the values must be finite, and other sites' parts of
//! the evaluation zero; their exact norm and a keyed hash of the plaintext are
//! remembered, so that the bytes that are folded later are the bytes that were
//! admitted, even if the site that knows the key and the host that keeps the bytes
//! work together.

use crate::door::{Doors, RecordDoor};
use crate::erasure::with_wiped_stack;
use crate::fold::Values;
use crate::keyed_hash::Tag;
use crate::round::{Secrets, Terms};
use sealfold_aggregation::exact_sum::ExactSum;
use sealfold_aggregation::norm;
use sealfold_protocol::offer::Offer;
use sealfold_protocol::refusal::{Check, Refusal};
use sealfold_protocol::seal::{self, Opener};
use sealfold_protocol::update::{Preamble, Receipt, UpdateHeader};
use sealfold_protocol::{Signed, SigningKey};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use zeroize::Zeroizing;

/// An update that was opened completely and found well formed.
pub struct Admitted {
    /// Its header.
    pub header: Signed<UpdateHeader>,
    /// The receipt that the site gets.
    pub receipt: Signed<Receipt>,
    /// Opens its records again.
    pub opener: Opener,
    /// The keyed hash that every later pass must arrive at.
    pub tag: Tag,
    /// The Euclidean norm.
    pub norm: f64,
    /// The number of examples, its weight.
    pub examples: u64,
}

/// What one thread saw of an update.
struct Seen {
    tag: Tag,
    squares: ExactSum,
    finite: bool,
    /// Whether nothing is counted in other sites' parts of the evaluation.
    own_counts: bool,
    preamble: Option<Zeroizing<Vec<u8>>>,
}

impl Seen {
    fn nothing() -> Self {
        Self {
            tag: Tag::default(),
            squares: ExactSum::new(),
            finite: true,
            own_counts: true,
            preamble: None,
        }
    }

    /// Notes whether values are finite, and the squares of their norm.
    fn look_at(&mut self, floats: &[u8]) {
        let inspection = norm::inspect(floats);
        self.finite &= inspection.finite;
        if inspection.finite {
            self.squares.add(inspection.sum_of_squares);
        }
    }
}

/// Reads an update through the door and admits it, or says why not.
///
/// # Errors
/// A refusal by `encapsulation`, `record`, `preamble`, `layout`, `finite`,
/// `evaluation`, `norm-limit`, or, passing, by `door`.
pub fn admit(
    terms: &Terms,
    secrets: &Secrets,
    header: Signed<UpdateHeader>,
    door: &impl Doors,
    threads: usize,
    key: &SigningKey,
) -> Result<Admitted, Refusal> {
    let opener = opener(terms, secrets, &header, door)?;
    let values = Values::of(&terms.manifest)?;
    let others = terms.manifest.evaluation_of_others(&header.statement().site);
    let update =
        Update { secrets, values: &values, others: &others, header: &header, opener: &opener };
    let seen = read_all(&update, door, threads)?;
    let preamble = seen.preamble.as_ref().map_or(&[][..], |chunk| chunk.as_slice());
    let preamble = Preamble::decode(preamble, values.preamble())
        .map_err(|e| sealed(terms, &header, Check::Preamble, "a preamble", &e.to_string()))?;
    let layout = terms.manifest.layout_digest()?;
    if preamble.layout != layout {
        return Err(Refusal::new(Check::Layout, layout, preamble.layout));
    }
    if !seen.finite {
        return Err(Refusal::new(Check::Finite, "finite values", "a NaN or an infinity"));
    }
    if !seen.own_counts {
        let expected = "no counts but in the site's own part of the evaluation";
        return Err(Refusal::new(Check::Evaluation, expected, "counts in another site's"));
    }
    let norm = seen.squares.to_f64().sqrt();
    if let Some(limit) = terms.manifest.aggregation.norm_limit
        && norm > limit
    {
        let expected = format!("a Euclidean norm of at most {limit}");
        return Err(sealed(terms, &header, Check::NormLimit, &expected, &norm.to_string()));
    }
    let statement = header.statement();
    let receipt = Receipt {
        study: statement.study,
        round: statement.round,
        offer: statement.offer,
        site: statement.site.clone(),
        header: header.digest(),
    };
    let receipt = Signed::sign(receipt, key)?;
    Ok(Admitted { header, receipt, opener, tag: seen.tag, norm, examples: preamble.examples })
}

/// Derives the update's keys and checks that the sealed bytes commit to them.
fn opener(
    terms: &Terms,
    secrets: &Secrets,
    header: &Signed<UpdateHeader>,
    door: &impl Doors,
) -> Result<Opener, Refusal> {
    let statement = header.statement();
    let foreign = |error: seal::SealError| {
        Refusal::new(Check::Encapsulation, "bytes sealed to the offer's key by this header", error)
    };
    let info = Offer::seal_info(&terms.offer.digest());
    let key = secrets.round.decapsulate(&statement.encapsulation, &info).map_err(foreign)?;
    let mut sealed = Vec::new();
    let mut door = door.open()?;
    door.ask(header.digest().as_bytes(), 0, seal::HEADER)?;
    door.take(&mut sealed)?;
    let prefix = sealed.first_chunk().ok_or_else(|| {
        Refusal::new(Check::Door, format!("{} bytes", seal::HEADER), sealed.len())
    })?;
    let context = header.digest();
    Opener::new(&key, context.as_bytes(), prefix, statement.plain_length).map_err(foreign)
}

/// An update that is read, and what that takes.
struct Update<'a> {
    secrets: &'a Secrets,
    values: &'a Values,
    /// The values that are other sites' to count in.
    others: &'a [Range<u64>],
    header: &'a Signed<UpdateHeader>,
    opener: &'a Opener,
}

fn read_all(update: &Update<'_>, door: &impl Doors, threads: usize) -> Result<Seen, Refusal> {
    let stop = AtomicBool::new(false);
    let parts = std::thread::scope(|scope| {
        let read = |first| {
            let seen = with_wiped_stack(|| read_share(update, door, first, threads, &stop));
            if seen.is_err() {
                stop.store(true, Ordering::Relaxed);
            }
            seen
        };
        let workers: Vec<_> = (0..threads).map(|first| scope.spawn(move || read(first))).collect();
        workers
            .into_iter()
            .map(|w| w.join().unwrap_or_else(|_| Err(panicked())))
            .collect::<Vec<_>>()
    });
    let mut all = Seen::nothing();
    for part in parts {
        let part = part?;
        all.tag.combine(&part.tag);
        all.squares.merge(&part.squares);
        all.finite &= part.finite;
        all.own_counts &= part.own_counts;
        all.preamble = all.preamble.or(part.preamble);
    }
    Ok(all)
}

/// Reads records `first`, `first + step`, and so on.
fn read_share<D: Doors>(
    update: &Update<'_>,
    door: &D,
    first: usize,
    step: usize,
    stop: &AtomicBool,
) -> Result<Seen, Refusal> {
    let Update { secrets, values, others, header, opener } = *update;
    let mut seen = Seen::nothing();
    let length = header.statement().plain_length;
    let object = header.digest();
    let records = seal::record_count(length);
    let mut door = door.open()?;
    let (mut buffer, mut decoded) = (record_buffer(), values.scratch());
    let ask = |door: &mut D::Door, record: u64| -> Result<(), Refusal> {
        if record < records {
            let range = seal::record_range(length, record);
            door.ask(object.as_bytes(), range.start, usize_of(range.end - range.start)?)?;
        }
        Ok(())
    };
    ask(&mut door, first as u64)?;
    for record in (first as u64..records).step_by(step) {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        // The host reads the next record while this one is opened.
        ask(&mut door, record + step as u64)?;
        door.take(&mut buffer)?;
        let mut hasher = secrets.hash.record(object.as_bytes(), record);
        let mut looked = Ok(());
        opener
            .open_record(record, &mut buffer, |offset, chunk| {
                hasher.chunk(chunk);
                if record == 0 && offset == 0 {
                    let preamble = &chunk[..values.preamble().min(chunk.len())];
                    seen.preamble = Some(Zeroizing::new(preamble.to_vec()));
                }
                seen.own_counts &= values.are_zero(record, offset, chunk, others);
                match values.decode(record, offset, chunk, &mut decoded) {
                    Ok(Some((_, floats))) => seen.look_at(floats),
                    Ok(None) => {}
                    Err(refusal) => looked = Err(refusal),
                }
            })
            .map_err(|e| Refusal::new(Check::Record, format!("record {record} opens"), e))?;
        looked?;
        seen.tag.combine(&hasher.finish());
    }
    Ok(seen)
}

/// The length of every sealed finding: a norm's digits, counted, tell how large
/// it is, and the host sees lengths. The longest finite norm has 309 of them.
const FINDING: usize = 512;

/// A refusal whose finding is for the update's own site only.
fn sealed(
    terms: &Terms,
    header: &Signed<UpdateHeader>,
    check: Check,
    expected: &str,
    finding: &str,
) -> Refusal {
    let mut refusal = Refusal::new(check, expected, "another value, sealed to the site");
    let mut finding = finding.as_bytes().to_vec();
    finding.resize(FINDING, b' ');
    let info = Refusal::seal_info(&header.digest());
    refusal.sealed = terms
        .manifest
        .site(&header.statement().site)
        .ok()
        .and_then(|site| seal::seal_to(&site.release_key, &info, b"", &finding).ok());
    refusal
}

/// A buffer for any record, sealed or opened; erased when dropped. It never
/// grows, so no plaintext is left where it was.
pub(crate) fn record_buffer() -> Zeroizing<Vec<u8>> {
    Zeroizing::new(Vec::with_capacity(sealfold_protocol::door::MAX_LENGTH as usize))
}

/// A length that fits into memory's addresses.
pub(crate) fn usize_of(length: u64) -> Result<usize, Refusal> {
    usize::try_from(length).map_err(|_| Refusal::new(Check::Size, "a record", length))
}

/// A worker thread came to an unexpected end.
pub(crate) fn panicked() -> Refusal {
    Refusal::new(Check::Door, "a pass over the records", "a thread that ended early")
}
