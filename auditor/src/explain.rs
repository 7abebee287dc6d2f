//! One leaf in words.

use crate::copy::LogCopy;
use crate::given::CannotTell;
use sealfold_attestation::Policy;
use sealfold_attestation::log::proof::Tree;
use sealfold_attestation::log::tile::{Content, WIDTH, decode_entries};
use sealfold_attestation::log::tree::{leaf_hash, verify_inclusion};
use sealfold_attestation::log::{Checkpoint, SignedCheckpoint, Tile, TileReader, note::Note};
use sealfold_protocol::abandonment::Abandonment;
use sealfold_protocol::leaf::{Held, Kind, Leaf};
use sealfold_protocol::manifest::Manifested;
use sealfold_protocol::offer::Offer;
use sealfold_protocol::release::{Disclosure, Release};
use sealfold_protocol::roster::{Commit, Roster};
use sealfold_protocol::study::identity;
use sealfold_protocol::text::shown;
use sealfold_protocol::{Digest, MultiSigned, encoding};
use sealfold_study::{Manifest, in_words};
use serde::Serialize;
use std::fmt::Write;

/// The most bytes of a statement that is read for its words.
const LIMIT: usize = 2 << 20;

/// One leaf, explained.
#[derive(Debug, Serialize)]
pub struct Explained {
    /// Its number, from 0.
    pub leaf: u64,
    /// The leaves that the checkpoint covers.
    pub size: u64,
    /// The log's origin.
    pub log: String,
    /// Whether the policy's log key signed the checkpoint; not asked without a
    /// policy.
    pub checkpoint_signed: bool,
    /// Why the leaf is not proven to be in the checkpoint's tree; nothing if it is.
    pub not_proven: Option<String>,
    /// Its kind.
    pub kind: Kind,
    /// The digest of the statement that it says it carries.
    pub statement: Digest,
    /// Where the statement's envelope is.
    pub envelope: String,
    /// Of an offer: where its evidence is, and of which platform.
    pub evidence: Option<String>,
    /// What the statement says, term by term.
    pub says: Vec<(&'static str, String)>,
    /// Why it cannot be shown, if so.
    pub not_shown: Option<String>,
}

impl Explained {
    /// For people.
    #[must_use]
    pub fn text(&self) -> String {
        let (leaf, size, log) = (self.leaf, self.size, shown(&self.log));
        let mut text = format!("leaf {leaf} of {size} in the log {log}\n");
        let by = if self.checkpoint_signed {
            "the checkpoint that the policy's log key signed"
        } else {
            "the checkpoint, whose signature was not checked (--policy names the key)"
        };
        match &self.not_proven {
            None => _ = writeln!(text, "It is proven to be in {by}."),
            Some(error) => _ = writeln!(text, "IT IS NOT PROVEN to be in {by}: {error}."),
        }
        let _ = writeln!(text, "{}", meaning(self.kind));
        let _ = writeln!(text, "{:<12} {}", "statement", self.statement);
        let _ = writeln!(text, "{:<12} {}", "envelope", self.envelope);
        if let Some(evidence) = &self.evidence {
            let _ = writeln!(text, "{:<12} {}", "evidence", shown(evidence));
        }
        text.push('\n');
        for (term, value) in &self.says {
            let _ = writeln!(text, "{term:<12} {}", shown(value));
        }
        if let Some(error) = &self.not_shown {
            let _ = writeln!(text, "The statement cannot be shown: {}.", shown(error));
        }
        text
    }
}

/// Describes leaf `number`: what it is, what it says, and whether it is proven
/// to be in the log. A signature is judged by a replay, which knows whose it
/// must be; here only the policy's log key is asked.
///
/// # Errors
/// [`CannotTell`] if the leaf cannot be read.
pub fn leaf(copy: &LogCopy, number: u64, policy: Option<&Policy>) -> Result<Explained, CannotTell> {
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
    let leaf = Leaf::decode(entry).map_err(|error| CannotTell::new("a leaf", error))?;
    let evidence = match &leaf {
        Leaf::Offer(offered) => {
            Some(format!("{}, platform {}", held(&offered.evidence), offered.platform))
        }
        _ => None,
    };
    let shown = copy.held(leaf.envelope()).map_err(|error| error.to_string());
    let shown = shown.and_then(|bytes| statement(&leaf, &bytes).map_err(|e| e.to_string()));
    let (says, not_shown) = match shown {
        Ok(says) => (says, None),
        Err(error) => (Vec::new(), Some(error)),
    };
    Ok(Explained {
        leaf: number,
        size,
        log: checkpoint.origin,
        checkpoint_signed: signed,
        not_proven: proof.err().map(|error| error.to_string()),
        kind: leaf.kind(),
        statement: leaf.statement(),
        envelope: held(leaf.envelope()),
        evidence,
        says,
        not_shown,
    })
}

fn held(held: &Held) -> String {
    match held {
        Held::Inline(bytes) => format!("{} bytes, in the leaf", bytes.len()),
        Held::Object(object) => format!("{} bytes, objects/{}", object.length, object.digest),
    }
}

fn meaning(kind: Kind) -> &'static str {
    match kind {
        Kind::Manifest => {
            "A manifest: what the sites of a study agreed to, with the signatures it had then."
        }
        Kind::Offer => {
            "An offer: an enclave instance proposes to run a round; the evidence says which code \
             it is and binds this very offer."
        }
        Kind::Roster => {
            "A roster: the updates that the instance will fold, if every site on it commits."
        }
        Kind::Commit => {
            "A commit: a site has verified evidence, offer and roster, and agrees that its update \
             is folded."
        }
        Kind::Release => "A release: the instance has disclosed the key of one aggregate, once.",
        Kind::Abandonment => {
            "An abandonment: the approvers have given an offer up; it counts as possibly released."
        }
    }
}

type Says = Vec<(&'static str, String)>;

/// The statement's own words. Its payload is found behind the envelope's
/// header; no signature is looked at.
fn statement(leaf: &Leaf, envelope: &[u8]) -> sealfold_protocol::Result<Says> {
    match leaf {
        Leaf::Manifest(_) => Manifest::open(envelope).map(|manifest| {
            let mut terms = in_words::terms(manifest.statement(), &identity(&manifest));
            if let Some(amends) = &manifest.statement().terms.amends {
                terms.insert(0, ("amends", amends.predecessor.to_string()));
            }
            terms.push(("signatures", manifest.signers().len().to_string()));
            terms
        }),
        Leaf::Offer(_) => Offer::open(envelope).map(|offer| {
            let offer = offer.statement();
            let mut terms = vec![
                ("study", offer.study.to_string()),
                ("round", offer.round.to_string()),
                ("manifest", offer.manifest.to_string()),
                ("base model", offer.base.to_string()),
                ("previous", offer.previous.map_or("none".to_owned(), |d| d.to_string())),
                ("instance key", offer.instance_key.to_string()),
            ];
            terms.extend(offer.clip.map(|clip| ("clip", clip.to_string())));
            terms
        }),
        Leaf::Roster(_) => payload::<Roster>(envelope, "roster").map(|roster| {
            let sites: Vec<_> = roster.members.iter().map(|m| m.site.as_str()).collect();
            vec![
                ("study", roster.study.to_string()),
                ("round", roster.round.to_string()),
                ("offer", roster.offer.to_string()),
                ("attempt", roster.attempt.to_string()),
                ("members", sites.join(", ")),
            ]
        }),
        Leaf::Commit(_) => payload::<Commit>(envelope, "commit").map(|commit| {
            vec![
                ("study", commit.study.to_string()),
                ("round", commit.round.to_string()),
                ("offer", commit.offer.to_string()),
                ("roster", commit.roster.to_string()),
                ("site", commit.site),
                ("update", commit.header.to_string()),
                ("checkpoint", commit.checkpoint.to_string()),
            ]
        }),
        Leaf::Release(_) => payload::<Release>(envelope, "release").map(|release| {
            let readers = match &release.disclosure {
                Disclosure::Everyone(_) => "everyone".to_owned(),
                Disclosure::Sites(sites) => format!("{} sites, sealed to each", sites.len()),
            };
            vec![
                ("study", release.study.to_string()),
                ("round", release.round.to_string()),
                ("offer", release.offer.to_string()),
                ("roster", release.roster.to_string()),
                ("base model", release.base.to_string()),
                ("aggregate", format!("{} (commitment)", release.aggregate)),
                ("length", format!("{} bytes", release.plain_length)),
                ("readers", readers),
            ]
        }),
        Leaf::Abandonment(_) => MultiSigned::<Abandonment>::open(envelope).map(|abandonment| {
            let said = abandonment.statement();
            vec![
                ("study", said.study.to_string()),
                ("round", said.round.to_string()),
                ("offer", said.offer.to_string()),
                ("reason", said.reason.clone()),
                ("signatures", abandonment.signers().len().to_string()),
            ]
        }),
    }
}

fn payload<T>(envelope: &[u8], what: &'static str) -> sealfold_protocol::Result<T>
where
    T: Serialize + serde::de::DeserializeOwned,
{
    let payload = sealfold_protocol::envelope::unverified_payload(what, envelope, LIMIT)?;
    encoding::from_slice(what, &payload, LIMIT)
}
