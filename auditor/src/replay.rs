//! The replay: every leaf from the first to the last, in constant memory.
//!
//! Three questions are answered on the way. Is this the history that the
//! checkpoint, and every checkpoint that somebody kept, vouches for? Is every
//! statement in it signed by who must sign it? And does each follow from those
//! before?

use crate::agreement;
use crate::copy::LogCopy;
use crate::finding::{Check, Finding, Findings};
use crate::given::{CannotTell, Kept, log_key};
use crate::opening::{note, object, opened, said, unknown_study};
use crate::report::{Completeness, Report};
use crate::study::Study;
use crate::summary::{Released, Summary};
use jiff::Timestamp;
use sealfold_attestation::log::tile::{Content, WIDTH, decode_entries, decode_hashes};
use sealfold_attestation::log::{
    Checkpoint, Edge, Hash, LogError, NoteKey, SignedCheckpoint, Tile, TileReader,
};
use sealfold_attestation::{Evidence, Policy, confidential_space, nitro};
use sealfold_protocol::abandonment::Abandonment;
use sealfold_protocol::leaf::{Held, Kind, Leaf, Offered};
use sealfold_protocol::manifest::Manifested;
use sealfold_protocol::offer::Offer;
use sealfold_protocol::release::Release;
use sealfold_protocol::roster::{Commit, Roster};
use sealfold_protocol::{Digest, Error, MultiSigned, Signed};
use sealfold_study::Manifest;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// The most studies that are followed at a time.
const MAX_STUDIES: usize = 4096;
/// The most objects that are remembered by their digests.
const MAX_READ: usize = 1 << 16;
/// The released rounds that a report lists; earlier ones are only counted.
pub const ROUNDS_KEPT: usize = 1000;

/// A replay of one copy of a log under one policy.
pub struct Replay<'a> {
    copy: &'a LogCopy,
    policy: &'a Policy,
    studies: BTreeMap<Digest, Study>,
    findings: Findings,
    leaves: BTreeMap<Kind, u64>,
    rounds: VecDeque<Released>,
    rounds_kept: usize,
    /// The first leaf that could not be judged, so that what goes on from it
    /// cannot be either.
    unjudged: Option<u64>,
    /// Objects with manifests that were read: one may be large, and is read once.
    read: BTreeSet<Digest>,
}

impl<'a> Replay<'a> {
    /// A replay that keeps so many released rounds for its report.
    #[must_use]
    pub fn new(copy: &'a LogCopy, policy: &'a Policy, rounds_kept: usize) -> Self {
        Self {
            copy,
            policy,
            studies: BTreeMap::new(),
            findings: Findings::default(),
            leaves: BTreeMap::new(),
            rounds: VecDeque::new(),
            rounds_kept,
            unjudged: None,
            read: BTreeSet::new(),
        }
    }

    /// Replays the log up to its checkpoint. `progress` is told the number of
    /// leaves done and of all.
    ///
    /// # Errors
    /// [`CannotTell`] if the policy names no log, or the copy has no checkpoint
    /// of that log.
    pub fn run(
        mut self,
        kept: &[Kept],
        now: Timestamp,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Report, CannotTell> {
        let key = log_key(self.policy)?;
        let expected = format!("a checkpoint signed by {key}");
        let bytes = self.copy.checkpoint().map_err(|error| CannotTell::new(&expected, error))?;
        let checkpoint = SignedCheckpoint::open(&bytes, key)
            .map_err(|error| CannotTell::new(&expected, error))?;
        let size = checkpoint.size();
        for later in kept.iter().filter(|kept| kept.checkpoint.size() > size) {
            let expected =
                format!("{} leaves, as {} has seen", later.checkpoint.size(), later.name);
            self.findings.add(Finding::new(Check::Shortened, expected, format!("{size} leaves")));
        }
        let vouches = |witness: &&NoteKey| {
            let of = |signed: &SignedCheckpoint| {
                !signed.cosignatures(std::slice::from_ref(*witness)).is_empty()
            };
            of(&checkpoint) || kept.iter().any(|kept| of(&kept.checkpoint))
        };
        let found = self.policy.witnesses().iter().filter(vouches).count();
        let required = self.policy.required_witnesses();
        if found < required {
            let expected = format!("checkpoints that {required} witnesses of the policy cosigned");
            self.findings.add(Finding::new(Check::Witnesses, expected, found));
        }
        let is_whole = match self.walk(&checkpoint, kept, progress) {
            Ok(()) => true,
            Err(stopped) => {
                self.findings.add(stopped);
                false
            }
        };
        let mut late = Vec::new();
        let studies: Vec<Summary> =
            self.studies.values().map(|study| study.end(now, &mut late)).collect();
        late.into_iter().for_each(|finding| self.findings.add(finding));
        let cosigned = checkpoint.cosignatures(self.policy.witnesses());
        let furthest = kept.iter().map(|kept| kept.checkpoint.size()).max();
        let completeness = Completeness::of(is_whole, size, furthest, cosigned);
        let (findings, safety, liveness) = self.findings.sorted();
        Ok(Report {
            log: checkpoint.checkpoint().origin.clone(),
            size,
            root: checkpoint.root().to_string(),
            replayed_at: now,
            completeness,
            safety,
            liveness,
            findings,
            leaves: self.leaves,
            studies,
            rounds: self.rounds.into(),
        })
    }

    /// Walks over all leaves. An error is the finding that ends the walk.
    fn walk(
        &mut self,
        checkpoint: &SignedCheckpoint,
        kept: &[Kept],
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<(), Finding> {
        let size = checkpoint.size();
        let mut edge = Edge::new();
        let mut vouched: BTreeMap<u64, Vec<(&str, Hash)>> = BTreeMap::new();
        for kept in kept {
            let checkpoint = &kept.checkpoint;
            let roots = vouched.entry(checkpoint.size()).or_default();
            roots.push((&kept.name, checkpoint.root()));
        }
        self.compare(0, &edge, &vouched);
        for index in 0..size.div_ceil(WIDTH) {
            let Some(bundle) = Tile::of(Content::Entries, index, size) else { break };
            let stop = |error: LogError| {
                let expected = format!("{} leaves", bundle.width());
                Finding::new(Check::Entries, expected, error).at(index * WIDTH)
            };
            let bytes = self.copy.read(&bundle).map_err(stop)?;
            let mut full = Vec::new();
            for entry in decode_entries(&bundle, &bytes).map_err(stop)? {
                let number = edge.size();
                edge.push(entry, &mut full).map_err(stop)?;
                self.leaf(number, entry, &edge, &checkpoint.checkpoint().origin);
                self.compare(edge.size(), &edge, &vouched);
            }
            full.iter().for_each(|(tile, bytes)| self.tile(tile, bytes));
            progress(edge.size(), size);
        }
        edge.partial().iter().for_each(|(tile, bytes)| self.tile(tile, bytes));
        if edge.root() != checkpoint.root() {
            let expected = format!("root {} of {size} leaves", checkpoint.root());
            self.findings.add(Finding::new(Check::Root, expected, edge.root()));
        }
        Ok(())
    }

    /// Compares with what others kept of the log at this size.
    fn compare(&mut self, size: u64, edge: &Edge, vouched: &BTreeMap<u64, Vec<(&str, Hash)>>) {
        let Some(roots) = vouched.get(&size) else { return };
        for (name, root) in roots.iter().filter(|(_, root)| *root != edge.root()) {
            let expected = format!("root {root} of {size} leaves, as {name} has seen");
            self.findings.add(Finding::new(Check::Fork, expected, edge.root()));
        }
    }

    /// Compares a stored tile with what the leaves make it.
    fn tile(&mut self, tile: &Tile, expected: &[u8]) {
        let stored = match self.copy.read(tile) {
            Ok(stored) => stored,
            Err(error) => {
                return self.findings.add(Finding::new(Check::TileMissing, tile, error));
            }
        };
        if stored == expected {
            return;
        }
        let mut finding =
            Finding::new(Check::Tile, format!("{tile} as its leaves make it"), "another");
        let hashes =
            decode_hashes(tile, &stored).and_then(|s| Ok((s, decode_hashes(tile, expected)?)));
        if tile.content() == Content::Hashes(0)
            && let Ok((stored, expected)) = hashes
        {
            let place = stored.iter().zip(&expected).position(|(a, b)| a != b);
            let place = place.and_then(|place| u64::try_from(place).ok()).unwrap_or(0);
            finding = finding.at(tile.index() * WIDTH + place);
        }
        self.findings.add(finding);
    }

    /// Judges a leaf.
    fn leaf(&mut self, number: u64, entry: &[u8], edge: &Edge, origin: &str) {
        let leaf = match Leaf::decode(entry) {
            Ok(leaf) => leaf,
            Err(error) => {
                let expected = "a leaf that this version knows";
                self.unjudged = self.unjudged.or(Some(number));
                return self.findings.add(Finding::new(Check::Leaf, expected, error).at(number));
            }
        };
        let unjudged = self.unjudged;
        *self.leaves.entry(leaf.kind()).or_default() += 1;
        let mut findings = Vec::new();
        let place = self.judge(number, &leaf, edge, origin, &mut findings);
        for finding in findings {
            let mut finding = finding.at(number);
            finding.follows = unjudged.filter(|_| finding.may_follow());
            self.findings.add(match place {
                Some((study, round)) => finding.within(study, round),
                None => finding,
            });
        }
    }

    /// The study and round that the leaf belongs to, as far as it can be told.
    fn judge(
        &mut self,
        number: u64,
        leaf: &Leaf,
        edge: &Edge,
        origin: &str,
        findings: &mut Vec<Finding>,
    ) -> Option<(Digest, Option<u32>)> {
        if let (Leaf::Manifest(_), Held::Object(object)) = (leaf, leaf.envelope()) {
            if self.read.contains(&object.digest) {
                let found = "an object that a leaf before it named";
                findings.push(Finding::new(Check::LeafTwice, "further signatures", found));
                return None;
            }
            if self.read.len() < MAX_READ {
                self.read.insert(object.digest);
            }
        }
        let bytes = match self.copy.held(leaf.envelope()) {
            Ok(bytes) => bytes,
            Err(error) => {
                self.unjudged = self.unjudged.or(Some(number));
                findings.push(object(&error));
                return None;
            }
        };
        match leaf {
            Leaf::Manifest(_) => {
                let manifest = note(Manifest::open(&bytes), findings)?;
                said(leaf, manifest.digest(), findings)?;
                Some((self.manifest(manifest, findings), None))
            }
            Leaf::Offer(offered) => {
                let offer = note(Offer::open(&bytes), findings)?;
                said(leaf, offer.digest(), findings)?;
                let (study, round) = (offer.statement().study, offer.statement().round);
                let evidence = self.evidence(&offered.platform, offered, findings);
                let policy = self.policy;
                let known = self.expect_study(&study, findings)?;
                known.offer(number, offer, evidence.as_ref(), policy, findings);
                Some((study, Some(round)))
            }
            Leaf::Roster(_) => {
                let roster = Signed::<Roster>::open_by(&bytes, |roster| {
                    self.study(&roster.study)?.instance("roster's offer", &roster.offer)
                });
                let roster = opened(leaf, roster, findings)?;
                let place = (roster.statement().study, Some(roster.statement().round));
                let (origin, size, root) = (origin.to_owned(), edge.size(), edge.root());
                let checkpoint = Digest::new(Checkpoint { origin, size, root }.digest());
                self.studies.get_mut(&place.0)?.roster(roster, checkpoint, findings);
                Some(place)
            }
            Leaf::Commit(_) => {
                let commit = Signed::<Commit>::open_by(&bytes, |commit| {
                    self.study(&commit.study)?.site_key(commit)
                });
                let commit = opened(leaf, commit, findings)?;
                let place = (commit.statement().study, Some(commit.statement().round));
                self.studies.get_mut(&place.0)?.commit(&commit, findings);
                Some(place)
            }
            Leaf::Release(_) => {
                let release = Signed::<Release>::open_by(&bytes, |release| {
                    self.study(&release.study)?.instance("release's offer", &release.offer)
                });
                let release = opened(leaf, release, findings)?;
                let place = (release.statement().study, Some(release.statement().round));
                let study = self.studies.get_mut(&place.0)?;
                if let Some(released) = study.release(number, release, findings) {
                    if self.rounds.len() >= self.rounds_kept {
                        self.rounds.pop_front();
                    }
                    self.rounds.push_back(released);
                }
                Some(place)
            }
            Leaf::Abandonment(said) => {
                // Its approvers are the study's, so it is opened there.
                let claimed = note(MultiSigned::<Abandonment>::open(&bytes), findings)?;
                let place = (claimed.statement().study, Some(claimed.statement().round));
                let study = self.expect_study(&place.0, findings)?;
                study.abandonment(number, &bytes, &said.statement, findings);
                Some(place)
            }
        }
    }

    fn manifest(&mut self, manifest: MultiSigned<Manifest>, findings: &mut Vec<Finding>) -> Digest {
        let id = sealfold_protocol::study::identity(&manifest);
        if let Some(study) = self.studies.get_mut(&id) {
            study.manifest(manifest, self.policy, findings);
            return id;
        }
        if self.studies.len() >= MAX_STUDIES {
            let expected = format!("at most {MAX_STUDIES} studies in a log");
            findings.push(Finding::new(Check::Manifest, expected, "another"));
            return id;
        }
        findings.extend(agreement::against_policy(&manifest, self.policy));
        match Study::begin(manifest) {
            Ok(study) => _ = self.studies.insert(id, study),
            Err(finding) => findings.push(finding),
        }
        id
    }

    fn evidence(
        &self,
        platform: &str,
        offered: &Offered,
        findings: &mut Vec<Finding>,
    ) -> Option<Evidence> {
        if ![nitro::NAME, confidential_space::NAME].contains(&platform) {
            let found = platform.chars().take(80).collect::<String>();
            findings.push(Finding::new(
                Check::Platform,
                "a platform that this version knows",
                found,
            ));
            return None;
        }
        match self.copy.held(&offered.evidence) {
            Ok(bytes) => Evidence::of(platform, &bytes).ok(),
            Err(error) => {
                findings.push(object(&error));
                None
            }
        }
    }

    fn study(&self, id: &Digest) -> Result<&Study, Error> {
        self.studies.get(id).ok_or_else(|| unknown_study(id))
    }

    fn expect_study(&mut self, id: &Digest, findings: &mut Vec<Finding>) -> Option<&mut Study> {
        if !self.studies.contains_key(id) {
            let expected = "a study whose approved manifest stands before it in the log";
            findings.push(Finding::new(Check::Manifest, expected, id));
        }
        self.studies.get_mut(id)
    }
}
