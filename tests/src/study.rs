//! A study for tests: n sites, a small or a large model.

use crate::site::Site;
use sealfold_protocol::api::OfferRequest;
use sealfold_protocol::bytes::Envelope;
use sealfold_protocol::terms::Terms;
use sealfold_protocol::{Digest, MultiSigned, SigningKey, content};
use sealfold_study::Manifest;
use std::fs::Permissions;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// What a test may choose.
#[derive(Clone)]
pub struct Options {
    /// The number of sites.
    pub sites: usize,
    /// The number of the first site, so that studies may have different ones.
    pub first_site: usize,
    /// k.
    pub smallest_roster: usize,
    /// c.
    pub colluders: usize,
    /// The number of parameters.
    pub parameters: usize,
    /// The rounds.
    pub rounds: u32,
    /// The aggregation section.
    pub aggregation: String,
    /// The weights of the first sites; the others have 1.
    pub weights: Vec<u32>,
    /// The promises that the study gives up, beside `weak`.
    pub accepts: Vec<&'static str>,
    /// The privacy section.
    pub privacy: String,
    /// What the model section and its tensor have besides: the optimiser, the
    /// evaluation after them, the tensor's further fields.
    pub model: [&'static str; 3],
    /// The deadlines: upload, commit, round.
    pub deadlines: [u64; 3],
    /// Who reads: `everyone` or `sites`.
    pub readers: &'static str,
    /// Whether the study accepts the weaker guarantees that it has.
    pub weak: bool,
    /// The last site signs only when a round is offered.
    pub late: bool,
    /// The accepted image, as three lines of TOML.
    pub measurements: String,
    /// A query in place of the model that the fields above describe.
    pub query: Option<Asked>,
}

/// A query of a test.
#[derive(Clone)]
pub struct Asked {
    /// The sections `[data]`, `[query]`, `[model]`, `[aggregation]`, `[privacy]`.
    pub sections: String,
    /// The model of zeros.
    pub model: PathBuf,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            sites: 4,
            first_site: 0,
            smallest_roster: 3,
            colluders: 0,
            parameters: 1000,
            rounds: 5,
            aggregation: MEAN.to_owned(),
            weights: Vec::new(),
            accepts: Vec::new(),
            privacy: "unit = \"none\"".to_owned(),
            model: ["", "", ""],
            deadlines: [60, 60, 600],
            readers: "everyone",
            weak: false,
            late: false,
            measurements: (0..3)
                .map(|i| format!("pcr{i} = \"{}\"\n", "11".repeat(48)))
                .collect::<Vec<_>>()
                .concat(),
            query: None,
        }
    }
}

/// A mean with a limit that no honest test comes near, and the grid that follows
/// from it: for four sites steps of 1/8192.
pub const MEAN: &str = "rule = \"weighted-mean\"\nnorm_limit = 65536.0";

/// A value that makes an update longer than that limit, if a model of a thousand
/// has it everywhere. A grid has steps for it.
pub const BEYOND: f32 = 6000.0;

/// The name of the log that test studies stand in.
pub const LOG_ORIGIN: &str = "log.example/test";

/// The key of that log.
#[must_use]
pub fn log_key() -> SigningKey {
    SigningKey::from_seed(&[3; 32]).unwrap()
}

/// Puts that log's key into the data folder of a host that is about to start,
/// unless it has one.
pub fn give_log_key(data: &Path) {
    let path = data.join("log.key");
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(data).unwrap();
    if !path.exists() {
        let line = format!("{LOG_ORIGIN} {}\n", hex::encode(*log_key().seed()));
        std::fs::write(&path, line).unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    }
}

/// A study with the sites that take part.
pub struct Study {
    /// The sites; all are approvers.
    pub sites: Vec<Site>,
    /// The manifest, signed by all.
    pub manifest: MultiSigned<Manifest>,
}

impl Study {
    /// A study whose initial model is zeros.
    #[must_use]
    pub fn new(options: &Options) -> Self {
        let sites: Vec<_> =
            (0..options.sites).map(|i| Site::numbered(options.first_site + i)).collect();
        let manifest = Manifest::from_toml(&toml(options, &sites)).unwrap();
        let mut signed = MultiSigned::sign(manifest, &sites[0].key).unwrap();
        for site in &sites[1..] {
            signed.add_signature(&site.key).unwrap();
        }
        Self { sites, manifest: signed }
    }

    /// The study's identity.
    #[must_use]
    pub fn id(&self) -> Digest {
        self.manifest.digest()
    }

    /// The terms of the manifest.
    #[must_use]
    pub fn terms(&self) -> &Terms {
        &self.manifest.statement().terms
    }

    /// What a host asks an enclave for in round 1.
    #[must_use]
    pub fn first_offer(&self) -> OfferRequest {
        OfferRequest {
            manifests: vec![Envelope(self.manifest.envelope().unwrap())],
            round: 1,
            base: self.terms().model.initial,
            previous: None,
            clip: None,
        }
    }

    /// The number of parameters.
    #[must_use]
    pub fn parameters(&self) -> usize {
        usize::try_from(self.terms().model.parameters()).unwrap()
    }
}

/// The digest of a model of zeros.
#[must_use]
pub fn zeros(parameters: usize) -> Digest {
    let mut digest = content::ContentHasher::new();
    let piece = vec![0; 1 << 20];
    let mut left = parameters * 4;
    while left > 0 {
        let take = left.min(piece.len());
        digest.update(&piece[..take]);
        left -= take;
    }
    digest.finish()
}

/// The manifest's TOML.
#[must_use]
pub fn toml(options: &Options, sites: &[Site]) -> String {
    let keys: Vec<_> =
        sites.iter().map(|site| format!("\"{}\"", site.key.verifying_key())).collect();
    let weights = options.weights.iter().copied().chain(std::iter::repeat(1));
    let listed = sites.iter().zip(weights).map(|(site, weight)| {
        let weight = if weight == 1 { String::new() } else { format!("weight = {weight}\n") };
        site.listing() + &weight
    });
    let listed: String = listed.collect();
    let weak = options.weak.then_some("few-honest-sites");
    let accepts: Vec<_> =
        weak.iter().chain(&options.accepts).map(|name| format!("\"{name}\"")).collect();
    let [upload, commit, round] = options.deadlines;
    let sections = options.query.as_ref().map(|query| query.sections.clone());
    format!(
        r#"format = 2
accepts = [{accepts}]
[study]
name = "test"
purpose = "a test"
intended_use = "none"
rounds = {rounds}
valid_from = "2026-01-01T00:00:00Z"
valid_until = "2046-01-01T00:00:00Z"
{sections}
[quorum]
smallest_roster = {k}
colluders = {c}
[deadlines]
upload_seconds = {upload}
commit_seconds = {commit}
round_seconds = {round}
[release]
readers = "{readers}"
[approval]
required = {required}
approvers = [{approvers}]
[log]
origin = "{LOG_ORIGIN}"
key = "{log}"
[[measurements.nitro]]
{measurements}
{listed}"#,
        rounds = options.rounds,
        sections = sections.unwrap_or_else(|| training(options)),
        k = options.smallest_roster,
        c = options.colluders,
        readers = options.readers,
        accepts = accepts.join(", "),
        measurements = options.measurements,
        log = log_key().verifying_key(),
        required = sites.len() / 2 + 1,
        approvers = keys.join(", "),
    )
}

/// The sections of a study that trains a model.
fn training(options: &Options) -> String {
    let [optimiser, evaluation, tensor] = options.model;
    format!(
        r#"[data]
cohort = "all"
minimum_rows = 1
outcome = {{ column = "num", rule = ">", value = 0 }}
[[data.feature]]
name = "age"
unit = "years"
type = "real"
range = [0, 120]
missing_share = 0
[model]
initial = "{initial}"
learning_rate = 1
{optimiser}
[[model.tensor]]
name = "weights"
shape = [{parameters}]
dtype = "float32"
{tensor}
[aggregation]
{aggregation}
[privacy]
{privacy}
{evaluation}"#,
        initial = zeros(options.parameters),
        parameters = options.parameters,
        aggregation = options.aggregation,
        privacy = options.privacy,
    )
}
