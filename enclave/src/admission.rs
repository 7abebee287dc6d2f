//! Admission: the pass over one update that earns it a receipt.
//!
//! Every record is opened; the values must be finite, those of a channel within
//! its range, and other sites' parts of a channel zero; the exact norm and a keyed
//! hash of the plaintext are remembered, so that the bytes that are folded later are
//! the bytes that were admitted, even if the site that knows the key and the host
//! that keeps the bytes work together.

use crate::door::{Doors, RecordDoor};
use crate::erasure::with_wiped_stack;
use crate::fold::Values;
use crate::keyed_hash::Tag;
use crate::round::{Secrets, Subject};
use sealfold_aggregation::exact_sum::ExactSum;
use sealfold_aggregation::{integer, norm};
use sealfold_protocol::offer::Offer;
use sealfold_protocol::refusal::{Check, Refusal};
use sealfold_protocol::seal::{self, Opener};
use sealfold_protocol::terms::Section;
use sealfold_protocol::update::{Receipt, UpdateHeader};
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
    /// The Euclidean norm of the model's values, in the model's units.
    pub norm: f64,
}

/// What one thread saw of an update.
struct Seen {
    tag: Tag,
    /// For each section of whole numbers the exact sum of their squares.
    squares: Vec<u128>,
    /// The sum of the squares of floating-point values.
    float_squares: ExactSum,
    finite: bool,
    /// Whether every value of a channel is one that the site may send.
    in_range: bool,
}

impl Seen {
    fn nothing(sections: usize) -> Self {
        Self {
            tag: Tag::default(),
            squares: vec![0; sections],
            float_squares: ExactSum::new(),
            finite: true,
            in_range: true,
        }
    }

    fn merge(&mut self, other: &Self) {
        self.tag.combine(&other.tag);
        let pairs = self.squares.iter_mut().zip(&other.squares);
        pairs.for_each(|(sum, squares)| *sum = sum.saturating_add(*squares));
        self.float_squares.merge(&other.float_squares);
        self.finite &= other.finite;
        self.in_range &= other.in_range;
    }

    /// The Euclidean norm of the model's values.
    #[allow(clippy::cast_precision_loss)] // one rounding for each section
    fn norm(&self, sections: &[(Range<u64>, Section)]) -> f64 {
        let of = |((_, section), squares): (&(Range<u64>, Section), &u128)| match section {
            Section::Model(Some(step)) => step * step * *squares as f64,
            _ => 0.0,
        };
        let whole: f64 = sections.iter().zip(&self.squares).map(of).sum();
        (whole + self.float_squares.to_f64()).sqrt()
    }
}

/// Reads an update through the door and admits it, or says why not.
///
/// # Errors
/// A refusal by `encapsulation`, `record`, `layout`, `finite`, `channel`,
/// `norm-limit`, or, passing, by `door`.
pub fn admit(
    subject: &Subject,
    secrets: &Secrets,
    header: Signed<UpdateHeader>,
    door: &impl Doors,
    threads: usize,
    key: &SigningKey,
) -> Result<Admitted, Refusal> {
    let opener = opener(subject, secrets, &header, door)?;
    let (terms, kind) = (&subject.terms, subject.kind());
    let values = Values::of(terms, kind)?;
    let sections = terms.sections(kind, &header.statement().site);
    // Under noise the clip bounds what a patient adds; the sum of all has no range.
    let ranged = terms.privacy.noise().is_none();
    let update = Update {
        secrets,
        values: &values,
        sections: &sections,
        ranged,
        header: &header,
        opener: &opener,
    };
    let seen = read_all(&update, door, threads)?;
    if !seen.finite {
        return Err(Refusal::new(Check::Finite, "finite values", "a NaN or an infinity"));
    }
    if !seen.in_range {
        let expected = "values within each channel's range, and none in another site's part";
        return Err(Refusal::new(Check::Channel, expected, "another value"));
    }
    let norm = seen.norm(&sections);
    if let Some(limit) = terms.aggregation.norm_limit
        && !norm.total_cmp(&limit).is_le()
    {
        let expected = format!("a Euclidean norm of at most {limit}");
        return Err(sealed(subject, &header, Check::NormLimit, &expected, &norm.to_string()));
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
    Ok(Admitted { header, receipt, opener, tag: seen.tag, norm })
}

/// Derives the update's keys and checks that the sealed bytes commit to them.
fn opener(
    subject: &Subject,
    secrets: &Secrets,
    header: &Signed<UpdateHeader>,
    door: &impl Doors,
) -> Result<Opener, Refusal> {
    let statement = header.statement();
    let foreign = |error: seal::SealError| {
        Refusal::new(Check::Encapsulation, "bytes sealed to the offer's key by this header", error)
    };
    let info = Offer::seal_info(&subject.offer.digest());
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
    sections: &'a [(Range<u64>, Section)],
    /// Whether the values of a channel have to be within its range.
    ranged: bool,
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
    let mut all = Seen::nothing(update.sections.len());
    for part in parts {
        all.merge(&part?);
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
    let Update { secrets, values, header, opener, .. } = *update;
    let mut seen = Seen::nothing(update.sections.len());
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
                let first = values.split(record, offset, chunk.len()).first;
                let seen = look_at(update, &mut seen, first, chunk, &mut decoded);
                looked = std::mem::replace(&mut looked, Ok(())).and(seen);
            })
            .map_err(|e| Refusal::new(Check::Record, format!("record {record} opens"), e))?;
        looked?;
        seen.tag.combine(&hasher.finish());
    }
    Ok(seen)
}

/// Looks at the values of a chunk that begin with number `first`, section by
/// section. All of them are read, whatever they hold.
fn look_at(
    update: &Update<'_>,
    seen: &mut Seen,
    first: u64,
    chunk: &[u8],
    decoded: &mut Vec<u8>,
) -> Result<(), Refusal> {
    let values = update.values;
    let malformed = |error| Refusal::new(Check::Layout, "values of the agreed format", error);
    let begin = update.sections.partition_point(|(numbers, _)| numbers.end <= first);
    let end = first + (chunk.len() / values.width()) as u64;
    for (place, (numbers, section)) in update.sections.iter().enumerate().skip(begin) {
        if numbers.start >= end {
            break;
        }
        let bytes = values.within(first, chunk, numbers);
        match section {
            Section::Model(Some(_)) => {
                let squares = integer::sum_of_squares(values.format(), bytes).map_err(malformed)?;
                seen.squares[place] = seen.squares[place].saturating_add(squares);
            }
            Section::Model(None) => {
                let inspection = norm::inspect(values.decode(bytes, decoded)?);
                seen.finite &= inspection.finite;
                if inspection.finite {
                    seen.float_squares.add(inspection.sum_of_squares);
                }
            }
            Section::Channel(least, most) => {
                let format = values.channel_format();
                let (low, high) = integer::range(format, bytes).map_err(malformed)?;
                let within = i64::from(low) >= *least && i64::from(high) <= *most;
                seen.in_range &= within || !update.ranged;
            }
            Section::OfOthers => {
                seen.in_range &= bytes.iter().fold(0, |any, byte| any | byte) == 0;
            }
        }
    }
    Ok(())
}

/// The length of every sealed finding: a norm's digits, counted, tell how large
/// it is, and the host sees lengths. The longest finite norm has 309 of them.
const FINDING: usize = 512;

/// A refusal whose finding is for the update's own site only.
fn sealed(
    subject: &Subject,
    header: &Signed<UpdateHeader>,
    check: Check,
    expected: &str,
    finding: &str,
) -> Refusal {
    let mut refusal = Refusal::new(check, expected, "another value, sealed to the site");
    let mut finding = finding.as_bytes().to_vec();
    finding.resize(FINDING, b' ');
    let info = Refusal::seal_info(&header.digest());
    refusal.sealed = subject
        .terms
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
