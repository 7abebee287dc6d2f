//! Folding at the limit: our figures beside the cipher's and the memory's own,
//! taken in the same run on the same cores.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    missing_docs,
    clippy::cast_precision_loss,
    clippy::missing_panics_doc
)]

use criterion::Criterion;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use sealfold_attestation::simulation::{DocumentFields, SimulationRoot};
use sealfold_attestation::{Evidence, Outcome, Policy, binding, nonce_hash, verify_live};
use sealfold_enclave::admission::{Admitted, admit};
use sealfold_enclave::door::{DoorError, Doors, RecordDoor};
use sealfold_enclave::fold::fold;
use sealfold_enclave::keyed_hash::KeyedHash;
use sealfold_enclave::round::{Plan, Secrets, Terms};
use sealfold_protocol::offer::Offer;
use sealfold_protocol::roster::{Member, Roster};
use sealfold_protocol::seal::{CHUNK, InputKey, RoundSecret, SealingWriter};
use sealfold_protocol::update::Preamble;
use sealfold_protocol::{Signed, SigningKey};
use sealfold_tests::site;
use sealfold_tests::study::{Options, Study};
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

mod processes;

const SITES: usize = 10;
const PARAMETERS: usize = 25_000_000;

/// Sealed updates in memory, in place of a host.
struct Memory {
    objects: HashMap<[u8; 32], Vec<u8>>,
}

struct MemoryDoor<'a> {
    memory: &'a Memory,
    asked: VecDeque<&'a [u8]>,
}

impl<'a> Doors for &'a Memory {
    type Door = MemoryDoor<'a>;
    fn open(&self) -> Result<MemoryDoor<'a>, DoorError> {
        Ok(MemoryDoor { memory: self, asked: VecDeque::new() })
    }
}

impl RecordDoor for MemoryDoor<'_> {
    fn ask(&mut self, object: &[u8; 32], offset: u64, length: usize) -> Result<(), DoorError> {
        let offset = usize::try_from(offset).unwrap();
        self.asked.push_back(&self.memory.objects[object][offset..offset + length]);
        Ok(())
    }
    fn take(&mut self, buffer: &mut Vec<u8>) -> Result<(), DoorError> {
        buffer.clear();
        buffer.extend_from_slice(self.asked.pop_front().unwrap());
        Ok(())
    }
    fn write(&mut self, _: &[u8; 32], _: u64, bytes: &[u8]) -> Result<(), DoorError> {
        black_box(bytes);
        Ok(())
    }
    fn settle(&mut self) -> Result<(), DoorError> {
        Ok(())
    }
    fn finish(&mut self, _: &[u8; 32], _: u64) -> Result<(), DoorError> {
        Ok(())
    }
}

/// A round with all updates sealed, ready to be admitted and folded.
struct Round {
    terms: Terms,
    secrets: Arc<Secrets>,
    memory: Memory,
    headers: Vec<Signed<sealfold_protocol::update::UpdateHeader>>,
    key: SigningKey,
}

impl Round {
    fn new(sites: usize, parameters: usize) -> Self {
        let study = Study::new(&Options {
            sites,
            smallest_roster: (sites / 2 + 1).max(2),
            parameters,
            aggregation: "rule = \"norm-clipped-mean\"\nclip = 1e9\nlargest_weight_share = 1.0"
                .into(),
            weak: sites < 4,
            ..Options::default()
        });
        let key = SigningKey::generate().unwrap();
        let secret = RoundSecret::generate().unwrap();
        let offer = Offer {
            study: study.id(),
            manifest: study.manifest.digest(),
            round: 1,
            base: study.manifest.statement().model.initial,
            previous: None,
            update_key: secret.public_key().unwrap(),
            instance_key: key.verifying_key(),
        };
        let offer = Signed::sign(offer, &key).unwrap();
        let layout = study.manifest.statement().model.layout_digest().unwrap();
        let values: Vec<f32> = (0..parameters).map(|i| (i % 1009) as f32 / 1009.0 - 0.5).collect();
        let preamble = Preamble { examples: 100, layout, metrics: BTreeMap::new() };
        let plain = site::plain(&preamble.encode().unwrap(), &values);
        let (mut objects, mut headers) = (HashMap::new(), Vec::new());
        for site in &study.sites {
            let sealed = site.seal_plain(&offer, &plain);
            objects.insert(*sealed.header.digest().as_bytes(), sealed.bytes);
            headers.push(sealed.header);
        }
        let terms = Terms {
            study: study.id(),
            manifest: study.manifest.statement().clone(),
            participants: study.sites.iter().map(|site| site.name.clone()).collect(),
            offer,
            started: Instant::now(),
        };
        let secrets = Arc::new(Secrets { round: secret, hash: KeyedHash::new(&[1; 32]) });
        Self { terms, secrets, memory: Memory { objects }, headers, key }
    }

    fn admit(&self, site: usize, threads: usize) -> Admitted {
        let header = self.headers[site].clone();
        admit(&self.terms, &self.secrets, header, &&self.memory, threads, &self.key).unwrap()
    }

    fn plan(&self, threads: usize) -> Plan {
        let members: Vec<_> =
            (0..self.headers.len()).map(|site| Arc::new(self.admit(site, threads))).collect();
        let listed = |m: &Arc<Admitted>| Member {
            site: m.header.statement().site.clone(),
            header: m.header.digest(),
        };
        let roster = Roster {
            study: self.terms.study,
            round: 1,
            offer: self.terms.offer.digest(),
            attempt: 1,
            members: members.iter().map(listed).collect(),
        };
        let roster = Signed::sign(roster, &self.key).unwrap();
        Plan { roster, members, secrets: self.secrets.clone() }
    }

    fn fold(&self, plan: &Plan, threads: usize) {
        let folded = fold(&self.terms, plan, &&self.memory, threads);
        assert!(folded.is_ok());
    }
}

/// Criterion times; the median is kept for the summary.
struct Bench {
    criterion: Criterion,
    figures: BTreeMap<String, Value>,
}

impl Bench {
    fn seconds(&mut self, name: &str, mut run: impl FnMut()) -> f64 {
        let mut times: Vec<Duration> = Vec::new();
        self.criterion.bench_function(name, |bencher| {
            bencher.iter_custom(|iterations| {
                let mut total = Duration::ZERO;
                for _ in 0..iterations {
                    let start = Instant::now();
                    run();
                    let time = start.elapsed();
                    times.push(time);
                    total += time;
                }
                total
            });
        });
        times.sort();
        times[times.len() / 2].as_secs_f64()
    }

    /// A speed in GB/s beside its limit.
    fn speed(
        &mut self,
        name: &str,
        bytes: f64,
        limit: Option<(&str, f64)>,
        run: impl FnMut(),
    ) -> f64 {
        let speed = bytes / self.seconds(name, run) / 1e9;
        self.note(name, speed, "GB/s", limit);
        speed
    }

    fn note(&mut self, name: &str, figure: f64, unit: &str, limit: Option<(&str, f64)>) {
        let mut entry = json!({ "figure": figure, "unit": unit });
        if let Some((what, limit)) = limit {
            entry["limit"] = json!(limit);
            entry["limit_is"] = json!(what);
            entry["share_of_limit"] = json!(figure / limit);
        }
        self.figures.insert(name.to_owned(), entry);
    }
}

fn on_threads(threads: usize, work: impl Fn() + Sync) {
    std::thread::scope(|scope| {
        (0..threads).for_each(|_| _ = scope.spawn(&work));
    });
}

/// AES-256-GCM alone: chunks that lie in the cache, opened in place.
fn cipher(bytes: usize) {
    let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &[7; 32]).unwrap());
    let nonce = || Nonce::assume_unique_for_key([0; 12]);
    let mut sealed = vec![1; CHUNK];
    key.seal_in_place_append_tag(nonce(), Aad::empty(), &mut sealed).unwrap();
    let mut chunk = sealed.clone();
    for _ in 0..bytes / CHUNK {
        chunk.copy_from_slice(&sealed);
        black_box(key.open_in_place(nonce(), Aad::empty(), &mut chunk).unwrap());
    }
}

fn limits(bench: &mut Bench, threads: usize) -> f64 {
    let bytes = 1 << 28;
    let all = (bytes * threads) as f64;
    let cipher =
        bench.speed(&format!("limit: AES-256-GCM alone, {threads} thread(s)"), all, None, || {
            on_threads(threads, || cipher(bytes));
        });
    let memory: Vec<u64> = vec![1; 1 << 26];
    let size = (memory.len() * 8) as f64;
    let read =
        bench.speed(&format!("limit: memory read alone, {threads} thread(s)"), size, None, || {
            std::thread::scope(|scope| {
                for part in memory.chunks(memory.len() / threads) {
                    scope.spawn(move || {
                        black_box(part.iter().fold(0u64, |a, b| a.wrapping_add(*b)))
                    });
                }
            });
        });
    cipher.min(read)
}

fn folding(bench: &mut Bench) -> f64 {
    let round = Round::new(SITES, PARAMETERS);
    let bytes = (SITES * PARAMETERS * 4) as f64;
    let mut speeds = Vec::new();
    for threads in [1, 2] {
        let limit = limits(bench, threads);
        let slower = Some(("the slower of the cipher and memory", limit));
        let name = format!("admission, {SITES} x 25 M float32, {threads} thread(s)");
        bench.speed(&name, bytes, slower, || {
            (0..SITES).for_each(|site| _ = black_box(round.admit(site, threads)));
        });
        let plan = round.plan(2);
        let name = format!("fold alone, {SITES} x 25 M float32, {threads} thread(s)");
        speeds.push(bench.speed(&name, bytes, slower, || round.fold(&plan, threads)));
    }
    bench.note("fold, 2 threads over 1", speeds[1] / speeds[0], "times", Some(("cores", 2.0)));
    peer(bench, bytes);
    bytes / speeds[1] / 1e9
}

/// A plain-text aggregator as federated-learning frameworks have it: arrays in
/// memory, scaled and added, nothing decrypted and nothing checked.
fn peer(bench: &mut Bench, bytes: f64) {
    let updates: Vec<_> =
        (0..SITES).map(|_| ndarray::Array1::<f32>::from_elem(PARAMETERS, 0.5)).collect();
    bench.speed("peer: plain-text weighted mean with ndarray, 1 thread", bytes, None, || {
        let mut sum = ndarray::Array1::<f32>::zeros(PARAMETERS);
        updates.iter().for_each(|update| sum.scaled_add(0.1, update));
        black_box(sum);
    });
}

fn growth(bench: &mut Bench) {
    for sites in [2, 10, 50] {
        let round = Round::new(sites, 4_000_000);
        let plan = round.plan(2);
        let name = format!("fold alone, {sites} sites x 4 M float32, 2 threads");
        bench.speed(&name, (sites * 16_000_000) as f64, None, || round.fold(&plan, 2));
    }
    for millions in [1, 10, 100] {
        let round = Round::new(4, millions * 1_000_000);
        let plan = round.plan(2);
        let name = format!("fold alone, 4 sites x {millions} M float32, 2 threads");
        bench.speed(&name, (4 * millions * 4_000_000) as f64, None, || round.fold(&plan, 2));
    }
}

fn sealing(bench: &mut Bench) {
    let plain = vec![1; 100_000_000];
    bench.speed("sealing at the site, 100 MB, 1 thread", 1e8, None, || {
        let key = InputKey::new([1; 32]);
        let sink = std::io::sink();
        let mut writer = SealingWriter::new(&key, b"header", 100_000_000, sink).unwrap();
        std::io::Write::write_all(&mut writer, &plain).unwrap();
        writer.finish().unwrap();
    });
}

fn verification(bench: &mut Bench) {
    let root = SimulationRoot::generate().unwrap();
    let (offer, nonce) = ([1; 32], [2; 32]);
    let fields = DocumentFields {
        pcrs: BTreeMap::from([0, 1, 2].map(|index| (index, vec![index + 1; 48]))),
        user_data: Some(binding(&offer).to_vec()),
        nonce: Some(nonce_hash(&nonce).to_vec()),
        ..DocumentFields::now()
    };
    let evidence = Evidence::from_nitro(&root.issue(&fields).unwrap());
    let start = Policy::example().find("[nitro]").unwrap();
    let pcr = |byte: u8| hex::encode([byte; 48]);
    let policy = Policy::from_toml(&format!(
        "{}[simulation]\nroot = \"{}\"\ncertificate = \"\"\"\n{}\"\"\"\n[[simulation.measurements]]\n\
         pcr0 = \"{}\"\npcr1 = \"{}\"\npcr2 = \"{}\"\n",
        &Policy::example()[..start],
        hex::encode(root.fingerprint()),
        root.certificate_pem(),
        pcr(1),
        pcr(2),
        pcr(3),
    ))
    .unwrap();
    let seconds = bench.seconds("verification of evidence", || {
        let verdict = verify_live(&evidence, &policy, &offer, &nonce, jiff::Timestamp::now());
        assert_eq!(verdict.outcome(), Outcome::Accepted);
    });
    bench.note("verification of evidence", seconds * 1e3, "ms", None);
}

fn main() {
    // `cargo test --benches` only asks whether it runs.
    if std::env::args().any(|argument| argument == "--test") {
        return;
    }
    let criterion = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(2))
        .without_plots();
    let mut bench = Bench { criterion, figures: BTreeMap::new() };
    let alone = folding(&mut bench);
    let real = processes::seconds(SITES, PARAMETERS);
    bench.note(
        "from the host's store over a Unix socket to the release, 10 x 25 M float32",
        real,
        "s",
        Some(("the fold alone, 2 threads", alone)),
    );
    sealing(&mut bench);
    verification(&mut bench);
    growth(&mut bench);
    println!("\n{:<78}{:>10}  {:<6}{:>8}{:>8}", "", "figure", "", "limit", "share");
    for (name, entry) in &bench.figures {
        let number = |key: &str| entry[key].as_f64().map_or(String::new(), |v| format!("{v:.2}"));
        let unit = entry["unit"].as_str().unwrap_or_default();
        let (figure, limit) = (number("figure"), number("limit"));
        println!("{name:<78}{figure:>10}  {unit:<6}{limit:>8}{:>8}", number("share_of_limit"));
    }
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/bench");
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join("summary.json");
    std::fs::write(&path, serde_json::to_string_pretty(&bench.figures).unwrap()).unwrap();
    println!("\nfigures: target/bench/summary.json");
}
