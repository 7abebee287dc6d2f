//! The fold: passes over all updates of a roster, in lock-step.
//!
//! Record j of every site is read, a few chunks of each at a time, opened in place
//! and made into the rows j of the aggregate, which go out sealed under a key that
//! stays here. Records are independent, so every thread takes its share of them;
//! what is summed over records is combined in a way that does not depend on who
//! did which. Memory is threads x (sites x some chunks + a row), whatever the size
//! of the model.
//!
//! A rule that needs the distances between updates takes one pass for them and
//! another for the rows.
//!
//! Nothing is disclosed here. The caller discloses the key after every pass has
//! opened every record of every site and each site's hash was the admitted one.

mod combination;
mod exact;
mod pass;
mod rows;
mod values;

pub use pass::chunks_at_once;
pub(crate) use values::Values;

use crate::admission::panicked;
use crate::door::{DoorError, Doors, RecordDoor};
use crate::round::{Plan, Subject};
use combination::Combination;
use pass::Pass;
use sealfold_protocol::bytes::Random;
use sealfold_protocol::refusal::Refusal;
use sealfold_protocol::release::{self, Opening};
use sealfold_protocol::seal::{self, Sealer};
use sealfold_protocol::{Digest, Error, Secret, content};
use std::collections::BTreeSet;

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
    /// Under an adaptive clip: the noisy count of the sites below it.
    pub below_clip: Option<i64>,
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

fn panicked_failure() -> Failure {
    Failure::Passing(panicked())
}

/// Where the rows go.
struct Output {
    object: Random,
    length: u64,
}

/// Folds the updates of a plan.
///
/// # Errors
/// [`Failure`].
pub fn fold(
    subject: &Subject,
    plan: &Plan,
    door: &impl Doors,
    threads: usize,
) -> Result<Folded, Failure> {
    let kind = subject.kind();
    let values = Values::of(&subject.terms, kind)?;
    let combination = Combination::of(subject, plan, &values, door, threads)?;
    let length = subject.terms.aggregate_length(kind);
    let output = Output { object: Random::draw()?, length };
    let opening = Opening { key: Secret::draw()?, blinding: Secret::draw()? };
    let context = release::seal_context(&subject.offer.digest(), &plan.roster.digest());
    let (sealer, prefix) =
        Sealer::new(&opening.key, &context, output.length).map_err(Error::from)?;
    let mut main_door = door.open()?;
    main_door.write(output.object.as_bytes(), 0, &prefix)?;
    let records = rows::records(&values, sealer.records());
    let pass = Pass::new(&plan.members, &plan.secrets.hash, values.length(), records);
    let parts =
        pass.run(door, threads, |reader| rows::make(reader, &combination, &values, &output, door))?;
    let mut hashes: rows::Hashes = parts.into_iter().flatten().collect();
    hashes.sort_unstable_by_key(|(record, _)| *record);
    let hashes: Vec<_> = hashes.into_iter().map(|(_, hash)| hash).collect();
    let sealed_length = seal::sealed_len(output.length).unwrap_or(u64::MAX);
    main_door.finish(output.object.as_bytes(), sealed_length)?;
    let content = content::digest_of_records(output.length, &hashes);
    Ok(Folded {
        commitment: release::commitment(&opening.blinding, &content),
        opening,
        object: output.object,
        plain_length: output.length,
        below_clip: exact::below_clip(subject, plan)?,
    })
}
