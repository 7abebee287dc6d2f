//! What happened in a round, as this site knows it.
//!
//! The site's own memory (its binding, its releases, what it sealed) is told
//! apart from what the host says, of which only what verifies is repeated. It
//! changes nothing and takes no lock, so it can be asked while the agent runs.

mod next;

use crate::Result;
use crate::binding::{Committed, Recalled};
use crate::home::{Home, read_file, read_json};
use crate::keys::Keys;
use crate::study::Joined;
use sealfold_protocol::abandonment::Abandonment;
use sealfold_protocol::api::{RoundStatus, UploadState};
use sealfold_protocol::envelope::unverified_payload;
use sealfold_protocol::offer::Offer;
use sealfold_protocol::release::Release;
use sealfold_protocol::roster::{Commit, Roster};
use sealfold_protocol::text::shown;
use sealfold_protocol::{Digest, Signed, Statement};
use serde::Serialize;
use std::collections::BTreeSet;
use std::fmt::Write;

/// How this site stands in a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Standing {
    /// A round that this site's chain has not come to.
    Ahead,
    /// Free: nothing can be released of the site, and it may re-seal.
    Unbound,
    /// The site has committed: only that offer's release, or its abandonment,
    /// lets it go on.
    Bound,
    /// The offer that the site was bound to was abandoned: possibly released.
    Abandoned,
    /// The round is released, and the site has the next model.
    Released,
    /// The site's memory is older than its commits: it needs a new key.
    StateRestored,
}

impl Standing {
    /// For people.
    #[must_use]
    pub fn in_words(self) -> &'static str {
        match self {
            Self::Ahead => "not there yet",
            Self::Unbound => "not bound: nothing can be released of it, and it seals anew freely",
            Self::Bound => "bound: it commits under no other offer of this round",
            Self::Abandoned => {
                "free again: the offer it was bound to was abandoned, and may have \
                been released"
            }
            Self::Released => "done with the round: it is released",
            Self::StateRestored => "IN NEED OF A NEW KEY: its state was lost or restored",
        }
    }
}

/// A round, explained.
#[derive(Debug, Serialize)]
pub struct Explained {
    /// The round.
    pub round: u32,
    /// How the site stands in it.
    pub standing: Standing,
    /// The offer that stands at the host, or that was released.
    pub offer: Option<Digest>,
    /// Whether this site has verified the enclave behind it.
    pub verified: bool,
    /// The offer that the site is or was last bound to.
    pub bound_to: Option<Digest>,
    /// The offers of the round that were abandoned under this site.
    pub abandoned: Vec<Digest>,
    /// This site's update under the offer, by its header's digest.
    pub update: Option<Digest>,
    /// What the host says became of it.
    pub receipt: Option<String>,
    /// The rosters that this site committed to, in order.
    pub rosters: Vec<Committed>,
    /// The sites of the roster that stands at the host.
    pub roster: Option<Vec<String>>,
    /// Those that take part and are not on it.
    pub dropped: Vec<String>,
    /// Those on it whose commits the host shows.
    pub committed: Vec<String>,
    /// The release that this site has verified, or that the host shows.
    pub release: Option<Digest>,
    /// Whether the site, or the host, has a release of the round.
    pub released: bool,
    /// What happened, in words, in order.
    pub story: Vec<String>,
    /// What to do next, in words.
    pub next: String,
}

impl Explained {
    /// For people.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = format!("round {}\n", self.round);
        for line in &self.story {
            let _ = writeln!(text, "  {line}");
        }
        let _ = write!(text, "next: {}", self.next);
        text
    }
}

/// Explains a round of a study.
///
/// # Errors
/// [`Error::File`](crate::Error::File).
pub fn explain(
    home: &Home,
    keys: &Keys,
    joined: &Joined,
    status: Option<&RoundStatus>,
    round: u32,
) -> Result<Explained> {
    let memory = Recalled::read(home, &joined.local)?;
    let head = joined.next()?;
    let mut teller = Teller { keys, joined, round, story: Vec::new() };
    let kept = read_file(&joined.local.folder.join(format!("releases/{round:04}.cose")))?;
    let offer = status.and_then(|status| Offer::open(&status.offer.as_ref()?.0).ok());
    let offer = offer.filter(|offer| {
        (offer.statement().study, offer.statement().round) == (joined.local.id, round)
    });
    let verified: Vec<Digest> =
        read_json(&joined.local.round(round).join("verified-offers.json"))?.unwrap_or_default();
    let mut told = Explained {
        round,
        standing: Standing::Unbound,
        offer: offer.as_ref().map(Signed::digest),
        verified: offer.as_ref().is_some_and(|offer| verified.contains(&offer.digest())),
        bound_to: memory.last_bound(round),
        abandoned: memory.abandoned(round),
        update: None,
        receipt: None,
        rosters: memory.rosters(round),
        roster: None,
        dropped: Vec::new(),
        committed: Vec::new(),
        release: None,
        released: kept.is_some() || status.is_some_and(|status| status.release.is_some()),
        story: Vec::new(),
        next: String::new(),
    };
    teller.offer(&told);
    if let (Some(status), Some(offer)) = (status, &offer) {
        teller.update(&mut told, status);
        teller.roster(&mut told, status, offer);
    }
    teller.abandonments(&mut told, status);
    teller.commits(&told);
    let restored = memory.fault().or_else(|| teller.forgotten(&memory, status, offer.as_ref()));
    if let Some(bytes) = &kept {
        // Verified when it was kept, under a key that only its offer had.
        let payload = unverified_payload(Release::NAME, bytes, Release::LIMIT)?;
        told.release = Some(Digest::of(&[&payload]));
        teller.say(format!(
            "This site verified the release {} and computed the model after round {round}.",
            told.release.map_or(String::new(), |digest| digest.to_string())
        ));
    } else if let (Some(envelope), Some(offer)) =
        (status.and_then(|status| status.release.as_ref()), &offer)
        && let Ok(release) = Signed::<Release>::open(&envelope.0, &offer.statement().instance_key)
    {
        told.release = Some(release.digest());
        teller.say("The host shows a release, which this site has not applied yet.".to_owned());
    }
    (told.standing, told.next) = if let Some(fault) = restored {
        teller.say(fault);
        (Standing::StateRestored, REKEY.to_owned())
    } else if round > head.round {
        let next = format!("wait: this site's chain has come to round {}", head.round);
        (Standing::Ahead, next)
    } else if round < head.round {
        let rounds = joined.manifest().terms.last_round();
        let next = match head.round {
            next if next > rounds => "nothing: the study is done".to_owned(),
            next => format!("nothing: the study is at round {next}"),
        };
        (Standing::Released, next)
    } else {
        teller.standing(&told, status)
    };
    told.story = teller.story;
    Ok(told)
}

/// What a site does whose state was lost or restored.
const REKEY: &str = "do not run this folder again. Make new keys in a new folder (sealfold --home \
NEW init --name SITE), send the printed [[site]] to the study's approvers, and approve the \
amendment that lists it; it takes effect after the next release. Of this folder take only \
head.json, releases/ and models/ of the study. If the site was bound, the \
approvers abandon that offer (sealfold study abandon)";

/// What it means that an offer was abandoned.
const POSSIBLY_RELEASED: &str = "possibly released: its enclave may have released the aggregate \
before it was lost, and nobody can know. So it counts as spent privacy, and until there is a \
release this site commits only to the same roster, or to one that differs by at least k sites";

struct Teller<'a> {
    keys: &'a Keys,
    joined: &'a Joined,
    round: u32,
    story: Vec<String>,
}

impl Teller<'_> {
    fn say(&mut self, line: String) {
        self.story.push(line);
    }

    fn offer(&mut self, told: &Explained) {
        let line = match (told.offer, told.verified) {
            (None, _) => "The host shows no offer for it.".to_owned(),
            (Some(offer), true) => {
                format!("Offer {offer}: this site verified the enclave behind it.")
            }
            (Some(offer), false) if told.released => {
                format!("Offer {offer}: released. What a site keeps of a round that runs is gone.")
            }
            (Some(offer), false) => format!("Offer {offer}: not verified by this site."),
        };
        self.say(line);
    }

    fn update(&mut self, told: &mut Explained, status: &RoundStatus) {
        let mine = status.uploads.iter().find(|upload| upload.site == self.keys.site);
        let Some(mine) = mine else {
            // After a release there is none any more.
            if !told.released {
                self.say("The host has no update of this site under that offer.".to_owned());
            }
            return;
        };
        told.update = Some(mine.header);
        let (receipt, words) = match &mine.state {
            UploadState::Receiving => (
                "receiving".to_owned(),
                format!("is being uploaded: {} of {} bytes", mine.received, mine.length),
            ),
            UploadState::Stored => {
                ("stored".to_owned(), "is at the host and waits for the enclave".to_owned())
            }
            UploadState::Admitted(_) => {
                ("admitted".to_owned(), "was opened and admitted by the enclave".to_owned())
            }
            UploadState::Refused(refusal) => {
                ("refused".to_owned(), format!("was refused: {}", shown(&refusal.to_string())))
            }
        };
        told.receipt = Some(receipt);
        self.say(format!("This site's update {} {words}.", mine.header));
    }

    fn roster(&mut self, told: &mut Explained, status: &RoundStatus, offer: &Signed<Offer>) {
        let Some(envelope) = &status.roster else { return };
        let key = offer.statement().instance_key;
        let Ok(roster) = Signed::<Roster>::open(&envelope.0, &key) else {
            return self.say("The host shows a roster that its enclave did not sign.".to_owned());
        };
        let sites: BTreeSet<_> =
            roster.statement().sites().into_iter().map(str::to_owned).collect();
        let terms = self.joined.under(&offer.statement().manifest);
        let manifest = terms.unwrap_or(self.joined.study.current());
        let signers = manifest.signers();
        let takes_part = |site: &&sealfold_protocol::terms::Site| {
            signers.contains(&site.signing_key) && !sites.contains(&site.name)
        };
        let listed = manifest.statement().terms.sites.iter();
        told.dropped = listed.filter(takes_part).map(|site| site.name.clone()).collect();
        for site in &manifest.statement().terms.sites {
            let has = status.commits.iter().any(|commit| {
                Signed::<Commit>::open(&commit.0, &site.signing_key)
                    .is_ok_and(|commit| commit.statement().roster == roster.digest())
            });
            if has {
                told.committed.push(site.name.clone());
            }
        }
        let list = |sites: &[String]| match sites {
            [] => "none".to_owned(),
            sites => sites.join(", "),
        };
        let on: Vec<_> = sites.into_iter().collect();
        let attempt = roster.statement().attempt;
        self.say(format!(
            "Roster {} (attempt {attempt}) of {}. Not on it: {}. Committed: {}.",
            roster.digest(),
            list(&on),
            list(&told.dropped),
            list(&told.committed)
        ));
        if told.dropped.contains(&self.keys.site) {
            self.say(
                "This site was dropped: its update is not folded in this round. It gets the \
                 release like every other site."
                    .to_owned(),
            );
        }
        told.roster = Some(on);
    }

    fn commits(&mut self, told: &Explained) {
        for (place, committed) in told.rosters.iter().enumerate() {
            let sites = committed.sites.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
            let smaller = match place.checked_sub(1).and_then(|before| told.rosters.get(before)) {
                Some(before) if before.offer == committed.offer => {
                    let gone = before.sites.difference(&committed.sites).cloned();
                    let gone = gone.collect::<Vec<_>>().join(", ");
                    format!(" It is smaller than the one before: {gone} was dropped.")
                }
                _ => String::new(),
            };
            let is_over = told.released || told.abandoned.contains(&committed.offer);
            self.say(format!(
                "This site committed to roster {} of {sites} under offer {}, and so {} bound to \
                 that offer.{smaller}",
                committed.roster,
                committed.offer,
                if is_over { "was" } else { "is" }
            ));
        }
    }

    /// A commit under this site's key that it does not remember.
    fn forgotten(
        &self,
        memory: &Recalled,
        status: Option<&RoundStatus>,
        offer: Option<&Signed<Offer>>,
    ) -> Option<String> {
        let _ = offer?;
        let key = self.keys.signing.verifying_key();
        let commits = status?.commits.iter();
        let own = commits.filter_map(|commit| Signed::<Commit>::open(&commit.0, &key).ok());
        let unknown = own.map(|commit| commit.statement().roster);
        let unknown = unknown.into_iter().find(|roster| !memory.has_committed(roster))?;
        Some(format!(
            "The host shows a commit to roster {unknown} under this site's key that this folder \
             does not remember: its state was lost, restored or copied."
        ))
    }

    fn abandonments(&mut self, told: &mut Explained, status: Option<&RoundStatus>) {
        let manifest = self.joined.manifest();
        for envelope in status.into_iter().flat_map(|status| &status.abandonments) {
            let opened = Abandonment::open(&envelope.0, &self.joined.local.id, &manifest.terms);
            let Ok(abandonment) = opened else {
                self.say(
                    "An abandonment waits for more approvers' signatures; until then it is none."
                        .to_owned(),
                );
                continue;
            };
            let statement = abandonment.statement();
            if !told.abandoned.contains(&statement.offer) {
                told.abandoned.push(statement.offer);
            }
            let reason = shown(&statement.reason);
            self.say(format!(
                "Offer {} was abandoned by the approvers ({reason}). That means {}.",
                statement.offer, POSSIBLY_RELEASED
            ));
        }
        if status.is_none_or(|status| status.abandonments.is_empty()) {
            for offer in &told.abandoned {
                self.say(format!("Offer {offer} was abandoned: {POSSIBLY_RELEASED}."));
            }
        }
    }
}
