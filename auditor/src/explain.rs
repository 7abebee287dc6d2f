//! One leaf in words.

use crate::copy::LogCopy;
use crate::given::CannotTell;
use crate::text::printable;
use sealfold_attestation::Policy;
use sealfold_attestation::log::proof::Tree;
use sealfold_attestation::log::tile::{Content, WIDTH, decode_entries};
use sealfold_attestation::log::tree::{leaf_hash, verify_inclusion};
use sealfold_attestation::log::{Checkpoint, SignedCheckpoint, Tile, TileReader, note::Note};
use sealfold_protocol::abandonment::Abandonment;
use sealfold_protocol::leaf::{Held, Leaf};
use sealfold_protocol::manifest::Manifest;
use sealfold_protocol::offer::Offer;
use sealfold_protocol::release::{Disclosure, Release};
use sealfold_protocol::roster::{Commit, Roster};
use sealfold_protocol::{MultiSigned, encoding};
use std::fmt::Write;

/// The most bytes of a statement that is read for its words.
const LIMIT: usize = 2 << 20;

/// Describes leaf `number`: what it is, what it says, and whether it is proven
/// to be in the log. A signature is judged by a replay, which knows whose it
/// must be; here only the policy's log key is asked.
///
/// # Errors
/// [`CannotTell`] if the leaf cannot be read.
pub fn leaf(copy: &LogCopy, number: u64, policy: Option<&Policy>) -> Result<String, CannotTell> {
    let readable = "a log that can be read there";
    let wrong = |error: sealfold_attestation::log::LogError| CannotTell::new(readable, error);
    let bytes = copy.checkpoint().map_err(wrong)?;
    let (checkpoint, signed) = if let Some(key) = policy.and_then(Policy::log) {
        let signed = SignedCheckpoint::open(&bytes, key).map_err(wrong)?;
        (signed.checkpoint().clone(), true)
    } else {
        let note = Note::parse(&bytes).map_err(wrong)?;
        (Checkpoint::parse(note.text()).map_err(wrong)?, false)
    };
    let size = checkpoint.size;
    let bundle = Tile::of(Content::Entries, number / WIDTH, size).filter(|_| number < size);
    let bundle = bundle.ok_or_else(|| {
        CannotTell::new(format!("a leaf of {size}, counted from 0"), format!("leaf {number}"))
    })?;
    let bytes = copy.read(&bundle).map_err(wrong)?;
    let entries = decode_entries(&bundle, &bytes).map_err(wrong)?;
    let place = usize::try_from(number % WIDTH).unwrap_or_default();
    let entry = entries.get(place).ok_or_else(|| CannotTell::new("a leaf", "none"))?;
    let tree = Tree::new(copy, size);
    let hash = leaf_hash(entry);
    let proof = tree
        .inclusion(number)
        .and_then(|proof| verify_inclusion(number, &hash, size, &checkpoint.root, &proof));
    let mut text =
        format!("leaf {number} of {size} in the log {}\n", printable(&checkpoint.origin));
    let by = if signed {
        "the checkpoint that the policy's log key signed"
    } else {
        "the checkpoint, whose signature was not checked (--policy names the key)"
    };
    match proof {
        Ok(()) => _ = writeln!(text, "It is proven to be in {by}."),
        Err(error) => _ = writeln!(text, "IT IS NOT PROVEN to be in {by}: {error}."),
    }
    let leaf = Leaf::decode(entry).map_err(|error| CannotTell::new("a leaf", error))?;
    let _ = writeln!(text, "{}", meaning(&leaf));
    let _ = writeln!(text, "statement    {}", leaf.statement());
    let _ = writeln!(text, "envelope     {}", held(leaf.envelope()));
    if let Leaf::Offer(offered) = &leaf {
        let evidence = held(&offered.evidence);
        let _ =
            writeln!(text, "evidence     {evidence}, platform {}", printable(&offered.platform));
    }
    match copy.held(leaf.envelope()) {
        Ok(bytes) => _ = writeln!(text, "\n{}", statement(&leaf, &bytes)),
        Err(error) => _ = writeln!(text, "\nThe statement cannot be shown: {error}."),
    }
    Ok(text)
}

fn held(held: &Held) -> String {
    match held {
        Held::Inline(bytes) => format!("{} bytes, in the leaf", bytes.len()),
        Held::Object(object) => format!("{} bytes, objects/{}", object.length, object.digest),
    }
}

fn meaning(leaf: &Leaf) -> &'static str {
    match leaf {
        Leaf::Manifest(_) => {
            "A manifest: what the sites of a study agreed to, with the signatures it had then."
        }
        Leaf::Offer(_) => {
            "An offer: an enclave instance proposes to run a round; the evidence says which code \
             it is and binds this very offer."
        }
        Leaf::Roster(_) => {
            "A roster: the updates that the instance will fold, if every site on it commits."
        }
        Leaf::Commit(_) => {
            "A commit: a site has verified evidence, offer and roster, and agrees that its update \
             is folded."
        }
        Leaf::Release(_) => "A release: the instance has disclosed the key of one aggregate, once.",
        Leaf::Abandonment(_) => {
            "An abandonment: the approvers have given an offer up; it counts as possibly released."
        }
    }
}

/// The statement's own words. Its payload is found behind the envelope's
/// header; no signature is looked at.
fn statement(leaf: &Leaf, envelope: &[u8]) -> String {
    let shown = match leaf {
        Leaf::Manifest(_) => Manifest::open(envelope).map(|m| manifest(&m)),
        Leaf::Offer(_) => Offer::open(envelope).map(|offer| {
            let offer = offer.statement();
            let previous = offer.previous.map_or("none".to_owned(), |d| d.to_string());
            format!(
                "study        {}\nround        {}\nmanifest     {}\nbase model   {}\n\
                 previous     {previous}\ninstance key {}",
                offer.study, offer.round, offer.manifest, offer.base, offer.instance_key
            )
        }),
        Leaf::Roster(_) => payload::<Roster>(envelope, "roster").map(|roster| {
            let sites: Vec<_> = roster.members.iter().map(|m| printable(&m.site)).collect();
            format!(
                "study        {}\nround        {}\noffer        {}\nattempt      {}\n\
                 members      {}",
                roster.study,
                roster.round,
                roster.offer,
                roster.attempt,
                sites.join(", ")
            )
        }),
        Leaf::Commit(_) => payload::<Commit>(envelope, "commit").map(|commit| {
            format!(
                "study        {}\nround        {}\noffer        {}\nroster       {}\n\
                 site         {}\nupdate       {}\ncheckpoint   {}",
                commit.study,
                commit.round,
                commit.offer,
                commit.roster,
                printable(&commit.site),
                commit.header,
                commit.checkpoint
            )
        }),
        Leaf::Release(_) => payload::<Release>(envelope, "release").map(|release| {
            let readers = match &release.disclosure {
                Disclosure::Everyone(_) => "everyone".to_owned(),
                Disclosure::Sites(sites) => format!("{} sites, sealed to each", sites.len()),
            };
            format!(
                "study        {}\nround        {}\noffer        {}\nroster       {}\n\
                 base model   {}\naggregate    {} (commitment)\nreaders      {readers}",
                release.study,
                release.round,
                release.offer,
                release.roster,
                release.base,
                release.aggregate
            )
        }),
        Leaf::Abandonment(_) => MultiSigned::<Abandonment>::open(envelope).map(|abandonment| {
            let signers = abandonment.signers().len();
            let said = abandonment.statement();
            format!(
                "study        {}\nround        {}\noffer        {}\nreason       {}\n\
                 signatures   {signers}",
                said.study,
                said.round,
                said.offer,
                printable(&said.reason)
            )
        }),
    };
    shown.unwrap_or_else(|error| format!("The statement does not decode: {error}."))
}

fn payload<T>(envelope: &[u8], what: &'static str) -> sealfold_protocol::Result<T>
where
    T: serde::Serialize + serde::de::DeserializeOwned,
{
    let payload = sealfold_protocol::envelope::unverified_payload(what, envelope, LIMIT)?;
    encoding::from_slice(what, &payload, LIMIT)
}

fn manifest(signed: &MultiSigned<Manifest>) -> String {
    let manifest = signed.statement();
    let amends = manifest.amends.as_ref().map_or_else(
        || "nothing: it is the first of its study".to_owned(),
        |amends| format!("{} of study {}", amends.predecessor, amends.study),
    );
    let sites: Vec<_> = manifest.sites.iter().map(|site| site.name.as_str()).collect();
    format!(
        "study        {}\namends       {amends}\npurpose      {}\nintended use {}\n\
         valid        {} to {}\nrounds       {}\nsites        {}\nquorum       k = {}, c = {}\n\
         signatures   {}",
        printable(&manifest.study.name),
        printable(&manifest.study.purpose),
        printable(&manifest.study.intended_use),
        manifest.study.valid_from,
        manifest.study.valid_until,
        manifest.study.rounds,
        sites.join(", "),
        manifest.quorum.smallest_roster,
        manifest.quorum.colluders,
        signed.signers().len(),
    )
}
