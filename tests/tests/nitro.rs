//! The image in a virtual machine that emulates a Nitro enclave: the real
//! kernel, init, NSM driver and vsock. Run by `make test-nitro`, which builds
//! the images and the machine.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use sealfold_attestation::nitro::Document;
use sealfold_protocol::api::{EvidenceReply, Phase};
use sealfold_protocol::offer::Offer;
use sealfold_tests::elsewhere::Elsewhere;
use sealfold_tests::machine::{self, Image, Sockets};
use sealfold_tests::process::{self, Server};
use sealfold_tests::study::Options;
use sealfold_tests::system::{Platform, System};
use serde_json::{Value, json};
use std::path::Path;
use std::time::{Duration, Instant};

const SITES: [&str; 4] = ["site-000", "site-001", "site-002", "site-003"];
const PATIENCE: Duration = Duration::from_mins(2);

fn on(image: &Image, options: &Options) -> System {
    System::start_on(Platform::Machine(image.clone()), options)
}

/// The payload of a document whose signature nobody checked.
fn unverified(document: &[u8]) -> Document {
    let value: serde_cbor::Value = serde_cbor::from_slice(document).unwrap();
    let parts = match value {
        serde_cbor::Value::Tag(_, inner) => *inner,
        other => other,
    };
    let serde_cbor::Value::Array(parts) = parts else { panic!("no COSE_Sign1") };
    let serde_cbor::Value::Bytes(payload) = &parts[2] else { panic!("no payload") };
    Document::parse(payload).unwrap()
}

/// A policy that accepts an image under the root of AWS.
fn aws_policy(image: &Image) -> String {
    format!(
        "[nitro]\nroots = [\"641a0321a3e244efe456463195d606317ed7cdcc3c1756e09893f3c68f79bb5b\"]\n\
         [[nitro.measurements]]\n{}\n",
        image.measurements()
    )
}

#[test]
#[ignore = "needs a virtual machine: make test-nitro"]
fn the_shipped_image_is_what_was_measured_and_no_site_believes_an_nsm_that_does_not_sign() {
    let image = Image::shipped();
    let start = Instant::now();
    let platform = Platform::Machine(image.clone());
    let system = System::start_with(platform, &Options::default(), |_| aws_policy(&image));
    println!("from nothing to an offer in {:.1} s", start.elapsed().as_secs_f64());
    let nonce = sealfold_tests::site::nonce();
    let path = format!("/v1/studies/{}/rounds/1/evidence", system.id());
    let (site, body) = (&system.study.sites[0], json!({ "nonce": nonce }).to_string());
    let json = [("content-type", "application/json")];
    let reply = system.send_as(site, "POST", &path, &json, body.as_bytes());
    let reply: EvidenceReply = serde_json::from_slice(&reply.body).unwrap();
    let document = unverified(&reply.document.0);
    let report = image.file.parent().unwrap().join("measurements.json");
    let report: Value = serde_json::from_slice(&std::fs::read(report).unwrap()).unwrap();
    for index in 0..3u8 {
        let built = report["measurements"][format!("pcr{index}")].as_str().unwrap();
        assert_eq!(hex::encode(document.pcr(index)), built, "pcr{index}");
        assert!(image.measurements().contains(built), "sealfold measure, pcr{index}");
    }
    assert_eq!(document.nonce.unwrap(), sealfold_attestation::nonce_hash(nonce.as_bytes()));
    for site in SITES {
        let ended = system.on_study(site, &["verify"], &[]);
        assert_eq!(ended.refused_checks(), ["algorithm"], "{ended:?}");
    }
    // Nor does any site submit to it.
    let ended = system.submit(SITES[0], 1.0);
    assert_eq!(ended.code, 1, "{ended:?}");
    assert!(system.round(1).uploads.is_empty());
}

#[test]
#[ignore = "needs a virtual machine: make test-nitro"]
fn four_hospitals_run_three_rounds_through_the_image() {
    let image = Image::of("simulation");
    let folder = tempfile::tempdir().unwrap();
    let sockets = Sockets::new(folder.path());
    let (_machine, _devices) = machine::boot(folder.path(), &image);
    let policy = folder.path().join("platform.toml");
    std::fs::write(&policy, image.simulation_policy()).unwrap();
    let out = folder.path().join("demo");
    let output = process::command("heart-disease")
        .args(["demo", "--rounds", "3", "--enclave", &sockets.enclave().to_string()])
        .args(["--door", &sockets.door().to_string(), "--platform-policy"])
        .arg(&policy)
        .arg("--out")
        .arg(&out)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let summary: Value =
        serde_json::from_slice(&std::fs::read(out.join("summary.json")).unwrap()).unwrap();
    assert_eq!(summary["rounds"], 3);
    for hospital in ["cleveland", "hungarian", "switzerland", "va-long-beach"] {
        let auc = summary["auc"][hospital]["federated"].as_f64().unwrap();
        assert!((0.5..1.0).contains(&auc), "{hospital}: {auc}");
    }
}

#[test]
#[ignore = "needs a virtual machine: make test-nitro"]
fn an_image_with_one_byte_changed_is_refused_by_every_site() {
    let (good, changed) = (Image::of("simulation"), Image::of("changed"));
    let platform = Platform::Machine(changed.clone());
    let system = System::start_with(platform, &Options::default(), |_| good.simulation_policy());
    for site in SITES {
        let ended = system.on_study(site, &["verify"], &[]);
        assert_eq!(ended.refused_checks(), ["pcr0", "pcr2"]);
        assert_eq!(system.submit(site, 1.0).code, 1);
    }
    assert!(system.round(1).uploads.is_empty());
    // Kernel and init are the same, the application is not.
    let (good, changed) = (good.measurements(), changed.measurements());
    let same: Vec<_> = good.lines().zip(changed.lines()).map(|(a, b)| a == b).collect();
    assert_eq!(same, [false, true, false]);
}

#[test]
#[ignore = "needs a virtual machine: make test-nitro"]
fn a_signed_images_signer_is_compared() {
    let image = Image::of("signed");
    assert!(image.measurements().contains("pcr8"));
    let system = on(&image, &Options::default());
    let _ = system.on_study(SITES[0], &["verify"], &[]).good();
    // A site that accepts another signer only, or an image that nobody signed
    // where a signer is demanded.
    let path = system.home(SITES[1]).join("policy.toml");
    let policy = std::fs::read_to_string(&path).unwrap();
    let line = policy.lines().find(|line| line.starts_with("pcr8")).unwrap();
    let other = format!("pcr8 = \"{}\"", "ab".repeat(48));
    std::fs::write(&path, policy.replace(line, &other)).unwrap();
    let ended = system.on_study(SITES[1], &["verify"], &[]);
    assert_eq!(ended.refused_checks(), ["pcr8"]);
}

#[test]
#[ignore = "needs a virtual machine: make test-nitro"]
fn a_machine_that_dies_before_commits_costs_nothing() {
    let mut system = on(&Image::of("simulation"), &Options::default());
    for site in &SITES[..2] {
        assert_eq!(system.submit(site, 1.0).good().json()["state"], "admitted");
    }
    let old = system.round(1).offer;
    system.restart_enclave();
    system.finish(SITES.iter().map(|site| system.agent(site, 2.0, 2)).collect(), PATIENCE);
    assert_ne!(system.wait_for(1, "released", |r| r.phase == Phase::Released).offer, old);
    for site in SITES {
        assert!((system.model(site, 2) - 4.0).abs() < 1e-6);
    }
}

#[test]
#[ignore = "needs a virtual machine: make test-nitro"]
fn a_machine_that_dies_after_commits_is_replaced_only_by_the_approvers() {
    let mut system = on(&Image::of("simulation"), &Options::default());
    system.submit_all();
    system.commit(&SITES[..2]);
    system.restart_enclave();
    let round = system.wait_for(1, "approvers", |r| r.waiting_for.contains("study abandon"));
    let offer = Offer::open(&round.offer.unwrap().0).unwrap().digest().to_string();
    // A host that shows them the new machine all the same is refused by name.
    let at = Sockets::new(system.folder.path()).enclave();
    let elsewhere = Elsewhere::in_front_of(&system, at);
    elsewhere.wait_for("an offer of the new machine", |round| round.offer.is_some());
    for site in &SITES[..2] {
        let ended = elsewhere.on_study(&system, site, "verify").good();
        assert_eq!(ended.json()["outcome"], "accepted");
        let ended = system.submit_file(site, &system.update(1.0), &elsewhere.url);
        assert_eq!(ended.check(), "bound-to-another-offer");
    }
    assert_eq!(system.status().rounds_done, 0);
    drop(elsewhere);
    system.abandon(&offer, &SITES[..3]);
    let agents = system.agents(1);
    system.finish(agents, PATIENCE);
    for site in SITES {
        assert!((system.model(site, 1) - 3.75).abs() < 1e-6);
    }
}

#[test]
#[ignore = "needs a virtual machine: make test-nitro"]
fn a_machine_that_is_gone_is_named_with_what_to_do() {
    let mut system = on(&Image::of("simulation"), &Options::default());
    system.enclave.kill();
    let next = "the operator starts the enclave";
    let round = system.wait_for(1, "the operator", |round| round.waiting_for.contains(next));
    // Where it is, is the operator's business.
    assert!(!round.waiting_for.contains("hybrid-vsock"), "{round:?}");
    let log = system.host.log();
    assert!(log.contains("expected an enclave at hybrid-vsock://"), "{log}");
    // A site can tell nothing, and is told what to do.
    let ended = system.on_study(SITES[0], &["verify"], &[]);
    assert_eq!(ended.code, 2, "{ended:?}");
    assert!(ended.stdout.contains(next) || ended.stderr.contains(next), "{ended:?}");
}

#[test]
#[ignore = "needs a virtual machine: make test-nitro"]
fn updates_of_three_times_the_machines_memory_go_through_it() {
    let image = Image { mebibytes: 64, ..Image::of("simulation") };
    let parameters = 13_000_000;
    assert!(4 * 4 * parameters > (3 * image.mebibytes as usize) << 20);
    let options = Options { parameters, rounds: 1, ..Options::default() };
    let system = on(&image, &options);
    let agents = system.agents(1);
    let start = Instant::now();
    system.finish(agents, PATIENCE);
    println!("208 MB through 64 MiB in {:.1} s", start.elapsed().as_secs_f64());
    for site in SITES {
        assert!((system.model(site, 1) - 3.75).abs() < 1e-6);
    }
}

/// Boots a machine that must end by itself; what its console said.
fn ends(folder: &Path, image: &Image) -> String {
    let command = machine::qemu(folder, image);
    let mut machine = Server::start_unheard(command, &folder.join("console.log"));
    assert_eq!(machine.wait(PATIENCE), 0, "{}", machine.log());
    machine.log()
}

#[test]
#[ignore = "needs a virtual machine: make test-nitro"]
fn a_heartbeat_that_nobody_answers_ends_the_machine() {
    let folder = tempfile::tempdir().unwrap();
    let _devices = machine::deaf_devices(folder.path());
    let console = ends(folder.path(), &Image::shipped());
    assert!(
        console.contains("init: heartbeat: expected the parent to answer on vsock 3:9000"),
        "{console}"
    );
}
