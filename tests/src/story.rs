//! A log as a test wants it: genuine statements in any order, with whatever a
//! hostile host would leave out, change or put in.

use crate::site::{Site, pretended};
use crate::study::{Options, Study};
use sealfold_attestation::binding;
use sealfold_attestation::log::note::KeyKind;
use sealfold_attestation::log::{Checkpoint, Edge, NoteSigner, SignedCheckpoint};
use sealfold_attestation::simulation::{DocumentFields, SimulationRoot};
use sealfold_protocol::abandonment::Abandonment;
use sealfold_protocol::bytes::Random;
use sealfold_protocol::leaf::{Held, Kind, Leaf};
use sealfold_protocol::offer::Offer;
use sealfold_protocol::release::{Disclosure, Opening, Release};
use sealfold_protocol::roster::{Commit, Member, Roster};
use sealfold_protocol::terms::{Amends, RoundKind};
use sealfold_protocol::{Digest, MultiSigned, Secret, Signed, SigningKey, Statement, seal};
use sealfold_study::Manifest;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The registers of the image that runs the story's enclaves.
const PCR: [u8; 48] = [0x11; 48];

/// A log under construction, with the study that it tells.
pub struct Story {
    /// Where the log is written.
    pub folder: PathBuf,
    /// The study.
    pub study: Study,
    /// The platform's root.
    pub root: SimulationRoot,
    /// The log's key.
    pub signer: NoteSigner,
    /// When evidence is signed, in milliseconds since 1970.
    pub clock: u64,
    /// The release before.
    pub previous: Option<Digest>,
    /// The model that the next offer goes on from.
    pub base: Digest,
    /// The clip that the release before leads to.
    pub clip: Option<f64>,
    edge: Edge,
    key: SigningKey,
    /// By roster: the checkpoint that ends with its leaf.
    checkpoints: BTreeMap<Digest, Digest>,
}

impl Story {
    /// An empty log.
    #[must_use]
    pub fn new(folder: &Path, options: &Options) -> Self {
        std::fs::create_dir_all(folder.join("objects")).unwrap();
        let study = Study::new(options);
        let base = study.terms().model.initial;
        Self {
            folder: folder.to_owned(),
            base,
            study,
            root: SimulationRoot::generate().unwrap(),
            signer: NoteSigner::from_seed("log.example/test", KeyKind::Ed25519, &[3; 32]).unwrap(),
            clock: DocumentFields::now().timestamp,
            previous: None,
            clip: None,
            edge: Edge::new(),
            key: SigningKey::from_seed(&[77; 32]).unwrap(),
            checkpoints: BTreeMap::new(),
        }
    }

    /// A policy under which the story holds.
    #[must_use]
    pub fn policy(&self) -> String {
        let keys: Vec<_> = self.study.sites.iter().take(3).map(Site::quoted_key).collect();
        let pcr = hex::encode(PCR);
        format!(
            "[evidence]\nmax_age_seconds = 300\n[approval]\nrequired = 2\napprovers = [{}]\n\
             [round]\nsmallest_roster = 3\ncolluders = 0\n[log]\nkey = \"{}\"\n[simulation]\n\
             root = \"{}\"\ncertificate = '''{}'''\n[[simulation.measurements]]\n\
             pcr0 = \"{pcr}\"\npcr1 = \"{pcr}\"\npcr2 = \"{pcr}\"\n",
            keys.join(", "),
            self.signer.key(),
            hex::encode(self.root.fingerprint()),
            self.root.certificate_pem(),
        )
    }

    /// The number of leaves.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.edge.size()
    }

    /// Appends any bytes.
    pub fn raw(&mut self, entry: &[u8]) {
        let mut full = Vec::new();
        self.edge.push(entry, &mut full).unwrap();
        for (tile, bytes) in full {
            self.write(&tile.to_string(), &bytes);
        }
    }

    /// Appends a leaf, with what it names.
    pub fn leaf(&mut self, leaf: &Leaf, held: &[&[u8]]) {
        for bytes in held {
            if let Some(object) = Held::new(bytes).object() {
                std::fs::write(self.folder.join(format!("objects/{}", object.digest)), bytes)
                    .unwrap();
            }
        }
        self.raw(&leaf.encode().unwrap());
    }

    /// Writes the edge and a checkpoint.
    #[must_use]
    pub fn close(&self) -> SignedCheckpoint {
        for (tile, bytes) in self.edge.partial() {
            self.write(&tile.to_string(), &bytes);
        }
        let signed = SignedCheckpoint::sign(self.edge.size(), self.edge.root(), &self.signer);
        let signed = signed.unwrap();
        self.write("checkpoint", &signed.to_bytes());
        signed
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        let path = self.folder.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }

    /// Logs a statement of one signer.
    pub fn say<T: Statement>(&mut self, kind: Kind, signed: &Signed<T>) {
        let leaf = Leaf::said(kind, signed.digest(), signed.envelope()).unwrap();
        self.leaf(&leaf, &[signed.envelope()]);
        if kind == Kind::Roster {
            let _ = self.checkpoints.insert(signed.digest(), self.checkpoint());
        }
    }

    /// The digest of the checkpoint that ends with the last leaf.
    #[must_use]
    pub fn checkpoint(&self) -> Digest {
        let origin = self.signer.key().name().to_owned();
        let (size, root) = (self.edge.size(), self.edge.root());
        Digest::new(Checkpoint { origin, size, root }.digest())
    }

    /// Logs the study's manifest.
    pub fn manifest(&mut self) {
        let manifest = self.study.manifest.clone();
        self.manifested(&manifest);
    }

    /// Logs any manifest.
    pub fn manifested(&mut self, manifest: &MultiSigned<Manifest>) {
        let (envelope, digest) = (manifest.envelope().unwrap(), manifest.digest());
        self.leaf(&Leaf::said(Kind::Manifest, digest, &envelope).unwrap(), &[&envelope]);
    }

    /// An amendment of the study's first manifest, signed by all sites.
    #[must_use]
    pub fn amendment(&self, change: impl FnOnce(&mut Manifest)) -> MultiSigned<Manifest> {
        let first = self.study.manifest.digest();
        let mut manifest = self.study.manifest.statement().clone();
        manifest.terms.amends = Some(Amends { study: first, predecessor: first });
        change(&mut manifest);
        let mut signed = MultiSigned::sign(manifest, &self.study.sites[0].key).unwrap();
        for site in &self.study.sites[1..] {
            signed.add_signature(&site.key).unwrap();
        }
        signed
    }

    /// An offer of a new instance for a round.
    pub fn offer(&mut self, round: u32) -> Signed<Offer> {
        self.clock += 60_000;
        // Any key of that form will do: nothing is sealed to it.
        let seed = Digest::of(&[&self.clock.to_be_bytes()]);
        self.key = SigningKey::from_seed(seed.as_bytes()).unwrap();
        let offer = Offer {
            study: self.study.id(),
            manifest: self.study.manifest.digest(),
            round,
            base: self.base,
            previous: self.previous,
            clip: self.study.terms().round_clip(self.clip),
            update_key: seal::public_of(&[5; 32]).unwrap(),
            instance_key: self.key.verifying_key(),
        };
        Signed::sign(offer, &self.key).unwrap()
    }

    /// Evidence that binds an offer's digest.
    #[must_use]
    pub fn evidence(&self, offer: &Digest) -> Vec<u8> {
        let mut fields = DocumentFields::now();
        fields.timestamp = self.clock;
        fields.pcrs = (0..3).map(|index| (index, PCR.to_vec())).collect();
        fields.user_data = Some(binding(offer.as_bytes()).to_vec());
        fields.nonce = Some(vec![0; 32]);
        self.root.issue(&fields).unwrap()
    }

    /// Logs an offer with that evidence.
    pub fn offered(&mut self, offer: &Signed<Offer>, evidence: &[u8]) {
        let leaf = Leaf::offer(offer.digest(), offer.envelope(), "nitro", evidence);
        self.leaf(&leaf, &[offer.envelope(), evidence]);
    }

    /// A roster of the first n sites.
    #[must_use]
    pub fn roster(&self, offer: &Signed<Offer>, attempt: u32, n: usize) -> Signed<Roster> {
        let member = |site: &Site| Member {
            site: site.name.clone(),
            header: Digest::of(&[site.name.as_bytes(), offer.digest().as_bytes()]),
        };
        let statement = offer.statement();
        let roster = Roster {
            study: statement.study,
            round: statement.round,
            offer: offer.digest(),
            attempt,
            members: self.study.sites[..n].iter().map(member).collect(),
        };
        Signed::sign(roster, &self.key).unwrap()
    }

    /// A site's commit.
    #[must_use]
    pub fn commit(&self, site: usize, roster: &Signed<Roster>) -> Signed<Commit> {
        let site = &self.study.sites[site];
        let header = roster.statement().header_of(&site.name).unwrap();
        let logged = self.checkpoints.get(&roster.digest()).copied();
        let checkpoint = logged.unwrap_or_else(|| pretended(&roster.digest()));
        site.commit_at(roster, header, checkpoint)
    }

    /// A release of a roster.
    #[must_use]
    pub fn release(&self, offer: &Signed<Offer>, roster: &Signed<Roster>) -> Signed<Release> {
        let of = offer.statement();
        let secret = || Secret::copy_of(&[9; 32]);
        let release = Release {
            study: of.study,
            manifest: of.manifest,
            round: of.round,
            offer: offer.digest(),
            roster: roster.digest(),
            base: of.base,
            previous: of.previous,
            aggregate: Digest::of(&[roster.digest().as_bytes()]),
            object: Random::new(*offer.digest().as_bytes()),
            plain_length: self.study.terms().aggregate_length(self.study.terms().kind(of.round)),
            below_clip: self.study.terms().first_clip().map(|_| 1),
            disclosure: Disclosure::Everyone(Opening { key: secret(), blinding: secret() }),
        };
        Signed::sign(release, &self.key).unwrap()
    }

    /// A statement of the instance that made the last offer.
    #[must_use]
    pub fn signed<T: Statement>(&self, statement: T) -> Signed<T> {
        Signed::sign(statement, &self.key).unwrap()
    }

    /// Logs a whole round with all sites.
    pub fn round(&mut self, round: u32) {
        let offer = self.offer(round);
        let evidence = self.evidence(&offer.digest());
        self.offered(&offer, &evidence);
        let n = self.study.sites.len();
        let roster = self.roster(&offer, 1, n);
        self.say(Kind::Roster, &roster);
        for site in 0..n {
            let commit = self.commit(site, &roster);
            self.say(Kind::Commit, &commit);
        }
        let release = self.release(&offer, &roster);
        self.say(Kind::Release, &release);
        self.released(&release);
    }

    /// Goes on from a release.
    pub fn released(&mut self, release: &Signed<Release>) {
        let terms = self.study.terms();
        let clip = terms.round_clip(self.clip);
        self.clip = terms.next_clip(clip, release.statement().below_clip);
        self.previous = Some(release.digest());
        if terms.kind(release.statement().round) == RoundKind::Training {
            self.base = Digest::of(&[b"model", release.digest().as_bytes()]);
        }
    }

    /// Logs an abandonment signed by the first n sites.
    pub fn abandon(&mut self, offer: &Signed<Offer>, n: usize) {
        let of = offer.statement();
        let reason = "a test".to_owned();
        let statement =
            Abandonment { study: of.study, round: of.round, offer: offer.digest(), reason };
        let mut signed = MultiSigned::sign(statement, &self.study.sites[0].key).unwrap();
        for site in &self.study.sites[1..n] {
            signed.add_signature(&site.key).unwrap();
        }
        let envelope = signed.envelope().unwrap();
        let leaf = Leaf::said(Kind::Abandonment, signed.digest(), &envelope).unwrap();
        self.leaf(&leaf, &[&envelope]);
    }
}
