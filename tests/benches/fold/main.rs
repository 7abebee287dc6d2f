//! Folding at the limit: our figures beside the cipher's and the memory's own,
//! taken in the same run on the same cores.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    missing_docs,
    clippy::cast_precision_loss,
    clippy::missing_panics_doc
)]

use sealfold_attestation::simulation::{DocumentFields, SimulationRoot};
use sealfold_attestation::{Evidence, Outcome, Policy, binding, nonce_hash, verify_live};
use sealfold_enclave::admission::Admitted;
use sealfold_enclave::fold::chunks_at_once;
use sealfold_enclave::round::Plan;
use sealfold_protocol::seal::{self, RoundSecret, SealingWriter, encapsulate};
use sealfold_protocol::terms::RoundKind;
use sealfold_tests::study::Options;
use std::collections::{BTreeMap, HashMap};
use std::hint::black_box;
use std::sync::Arc;

mod figures;
mod limits;
mod memory;
mod parts;
mod processes;
mod rules;
mod sealed_round;

use figures::Bench;
use limits::Limits;
use memory::Memory;
use sealed_round::SealedRound;

const SITES: usize = 10;
const PARAMETERS: usize = 25_000_000;

/// A round whose sealed updates lie in memory.
struct Round {
    sealed: SealedRound,
    /// As admission reads them, record by record.
    records: Memory,
    /// As the fold reads them, all sites in lock-step.
    runs: Memory,
}

impl Round {
    fn new(sites: usize, parameters: usize) -> Self {
        Self::under(Options {
            sites,
            smallest_roster: (sites / 2 + 1).max(2),
            parameters,
            // Words of 32 bits; no update here is a quarter as long.
            aggregation: "rule = \"weighted-mean\"\nnorm_limit = 16384.0".into(),
            weak: sites < 4,
            ..Options::default()
        })
    }

    /// A round under a rule of its own.
    fn under(options: Options) -> Self {
        let parameters = options.parameters;
        let value = |i: usize| (i % 1009) as f32 / 1009.0 - 0.5;
        let values: Vec<f32> = (0..parameters).map(value).collect();
        let mut objects = HashMap::new();
        let sealed = SealedRound::new(
            &options,
            |_| values.clone(),
            |sealed| _ = objects.insert(*sealed.header.digest().as_bytes(), sealed.bytes),
        );
        let plain = sealed.subject.terms.update_length(RoundKind::Training);
        let objects = Arc::new(objects);
        let records = Memory::new(objects.clone(), plain, (seal::RECORD / seal::CHUNK + 1) as u64);
        let runs = Memory::new(objects, plain, chunks_at_once(sealed.headers.len()));
        Self { sealed, records, runs }
    }

    fn admit(&self, site: usize, threads: usize) -> Admitted {
        self.sealed.admit(site, &&self.records, threads).unwrap()
    }

    fn plan(&self, threads: usize) -> Plan {
        self.records.restore();
        let sites = 0..self.sealed.headers.len();
        self.sealed.plan(sites.map(|site| self.admit(site, threads)).collect())
    }

    fn fold(&self, plan: &Plan, threads: usize) {
        let folded = self.sealed.fold(plan, &&self.runs, threads);
        assert!(folded.is_ok());
    }
}

/// Seconds of the fold alone on two threads, and the limits on one and on two.
fn folding(bench: &mut Bench) -> (f64, [Limits; 2]) {
    let round = Round::new(SITES, PARAMETERS);
    let bytes = (SITES * PARAMETERS * 4) as f64;
    let mut speeds = Vec::new();
    let limits = [1, 2].map(|threads| {
        let limits = limits::measure(bench, threads);
        let name = format!("admission, {SITES} x 25 M values of 4 bytes, {threads} thread(s)");
        bench.speed_after(
            &name,
            bytes,
            Some(limits.slower()),
            || round.records.restore(),
            || {
                (0..SITES).for_each(|site| _ = black_box(round.admit(site, threads)));
            },
        );
        let plan = round.plan(2);
        let name = format!("fold alone, {SITES} x 25 M values of 4 bytes, {threads} thread(s)");
        speeds.push(folded(bench, &name, bytes, limits, (&round, &plan), threads));
        limits
    });
    let one = Some(("AES-256-GCM alone, 1 thread", limits[0].cipher));
    for (threads, aim) in [(1, 0.75), (2, 0.75 * 1.8)] {
        let name = format!("fold alone, {threads} thread(s), beside one core's cipher");
        bench.note(&name, speeds[threads - 1], "GB/s", one);
        bench.aim(&name, aim);
        let limit = limits[threads - 1].cipher_in_memory;
        let name =
            format!("fold alone, {threads} thread(s), beside the cipher on what lies in memory");
        bench.note(&name, speeds[threads - 1], "GB/s", Some(("the cipher, from memory", limit)));
    }
    let parts = parts::together(bench, SITES, limits[0]);
    let name = "fold alone, 1 thread(s), beside its parts one after the other";
    bench.note(name, speeds[0], "GB/s", Some(("its parts, each alone", parts)));
    peer(bench, bytes, limits[0].memory);
    (bytes / speeds[1] / 1e9, limits)
}

/// The speed of a fold.
fn folded(
    bench: &mut Bench,
    name: &str,
    bytes: f64,
    limits: Limits,
    (round, plan): (&Round, &Plan),
    threads: usize,
) -> f64 {
    let limit = Some(limits.slower());
    bench.speed_after(name, bytes, limit, || round.runs.restore(), || round.fold(plan, threads))
}

/// A plain-text aggregator as federated-learning frameworks have it: arrays in
/// memory, scaled and added, nothing decrypted and nothing checked.
fn peer(bench: &mut Bench, bytes: f64, memory: f64) {
    let updates: Vec<_> =
        (0..SITES).map(|_| ndarray::Array1::<f32>::from_elem(PARAMETERS, 0.5)).collect();
    let limit = Some(("memory read alone", memory));
    bench.speed("peer: plain-text weighted mean with ndarray, 1 thread", bytes, limit, || {
        let mut sum = ndarray::Array1::<f32>::zeros(PARAMETERS);
        updates.iter().for_each(|update| sum.scaled_add(0.1, update));
        black_box(sum);
    });
}

fn growth(bench: &mut Bench, limits: Limits) {
    for sites in [2, 10, 50] {
        let round = Round::new(sites, 4_000_000);
        let plan = round.plan(2);
        let name = format!("fold alone, {sites} sites x 4 M values of 4 bytes, 2 threads");
        let bytes = (sites * 16_000_000) as f64;
        folded(bench, &name, bytes, limits, (&round, &plan), 2);
    }
    for millions in [1, 10, 100] {
        let round = Round::new(4, millions * 1_000_000);
        let plan = round.plan(2);
        let name = format!("fold alone, 4 sites x {millions} M values of 4 bytes, 2 threads");
        let bytes = (4 * millions * 4_000_000) as f64;
        folded(bench, &name, bytes, limits, (&round, &plan), 2);
    }
}

/// All of a site's work on an update but its disk: the key's encapsulation and
/// the bulk.
fn sealing(bench: &mut Bench) {
    let bytes = 100_000_000;
    let plain = vec![1; bytes];
    let name = "limit: AES-256-GCM alone, sealing, 1 thread";
    let limit = bench.speed(name, bytes as f64, None, || limits::sealing_cipher(bytes));
    let secret = RoundSecret::generate().unwrap();
    let recipient = secret.public_key().unwrap();
    let limit = Some(("AES-256-GCM alone, sealing", limit));
    bench.speed("sealing at the site, 100 MB, 1 thread", bytes as f64, limit, || {
        let (encapsulation, key) = encapsulate(&recipient, b"info").unwrap();
        black_box(encapsulation);
        let sink = std::io::sink();
        let mut writer = SealingWriter::new(&key, b"header", bytes as u64, sink).unwrap();
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
    // The simulated chain has two certificates below its root, and the document.
    let limit = 3.0 * limits::signature_check(bench) * 1e3;
    let seconds = bench.seconds("verification of evidence", || {
        let verdict = verify_live(&evidence, &policy, &offer, &nonce, jiff::Timestamp::now());
        assert_eq!(verdict.outcome(), Outcome::Accepted);
    });
    let limit = Some(("3 P-384 signature checks alone", limit));
    bench.note("verification of evidence", seconds * 1e3, "ms", limit);
}

fn main() {
    // `cargo test --benches` only asks whether it runs.
    if std::env::args().any(|argument| argument == "--test") {
        return;
    }
    // `cargo bench ... -- processes` is that alone.
    if std::env::args().any(|argument| argument == "processes") {
        return println!("{:.3} s", processes::seconds(SITES, PARAMETERS));
    }
    let mut bench = Bench::new();
    let (alone, limits) = folding(&mut bench);
    // `cargo bench ... -- fold` ends here.
    if std::env::args().any(|argument| argument == "fold") {
        return bench.print_and_write();
    }
    let real = processes::seconds(SITES, PARAMETERS);
    let name = "from the host's store over a Unix socket to the release on disk, 10 x 25 M values of 4 bytes";
    bench.note(name, real, "s", Some(("the fold alone, 2 threads", alone)));
    bench.aim(name, 0.5);
    sealing(&mut bench);
    verification(&mut bench);
    growth(&mut bench, limits[1]);
    rules::measure(&mut bench, limits);
    bench.print_and_write();
}
