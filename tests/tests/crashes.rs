//! Processes that die, at every point, and nothing acknowledged is lost.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use sealfold_protocol::Signed;
use sealfold_protocol::access::Role;
use sealfold_protocol::api::{Phase, UPLOAD_OFFSET, UploadState};
use sealfold_protocol::offer::Offer;
use sealfold_protocol::roster::Commit;
use sealfold_tests::http;
use sealfold_tests::participation::gives;
use sealfold_tests::study::Options;
use sealfold_tests::system::{System, first_value};
use std::time::Duration;

const SITES: [&str; 4] = ["site-000", "site-001", "site-002", "site-003"];
const PATIENCE: Duration = Duration::from_secs(40);

#[test]
fn an_enclave_that_dies_while_uploads_run_costs_nothing() {
    let mut system = System::start(&Options { readers: "sites", ..Options::default() });
    for site in &SITES[..2] {
        let ended = system.submit(site, 1.0).good();
        assert_eq!(ended.json()["state"], "admitted");
    }
    let old = system.round(1).offer;
    system.restart_enclave();
    // The agents find another offer, verify it, seal again and finish; those
    // that had submitted too, with what they have kept.
    let agents = SITES.iter().map(|site| system.agent(site, 2.0, 2)).collect();
    system.finish(agents, PATIENCE);
    assert_ne!(system.wait_for(1, "released", |r| r.phase == Phase::Released).offer, old);
    for site in SITES {
        assert!((system.model(site, 2) - 4.0).abs() < 1e-6);
    }
}

#[test]
fn an_enclave_that_dies_after_commits_is_waited_for_until_the_approvers_abandon() {
    let mut system = System::start(&Options::default());
    system.submit_all();
    system.commit(&SITES[..2]);
    system.restart_enclave();
    let round = system.wait_for(1, "approvers", |r| r.waiting_for.contains("study abandon"));
    let offer = Offer::open(&round.offer.unwrap().0).unwrap().digest().to_string();
    // No agent goes on by itself.
    let agents = system.agents(1);
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(system.status().rounds_done, 0);
    // Two signatures are not enough, a third is.
    let abandon = |site: &str| {
        let more = ["--round", "1", "--offer", &offer, "--reason", "the enclave died", "--yes"];
        system.on_study(site, &["study", "abandon"], &more).good().json()["signatures"].clone()
    };
    assert_eq!(abandon("site-000"), 1);
    assert_eq!(abandon("site-001"), 2);
    std::thread::sleep(Duration::from_millis(600));
    assert_eq!(system.status().rounds_done, 0);
    assert_eq!(abandon("site-002"), 3);
    system.finish(agents, PATIENCE);
    assert!((system.model("site-003", 1) - 3.75).abs() < 1e-6);
}

#[test]
fn a_site_that_works_by_hand_goes_on_after_an_abandonment() {
    let mut system = System::start(&Options::default());
    for site in SITES {
        let _ = system.submit(site, 1.0).good();
    }
    let _ = system.wait_for(1, "a roster", |round| round.roster.is_some());
    let _ = system.on_study(SITES[0], &["commit"], &[]).good();
    system.restart_enclave();
    let round = system.wait_for(1, "approvers", |r| r.waiting_for.contains("study abandon"));
    // Without an offer that stands nothing can be told.
    let verdict = system.on_study(SITES[0], &["verify"], &[]);
    assert_eq!(verdict.code, 2, "{verdict:?}");
    assert_eq!(verdict.json()["outcome"], "undecided");
    assert_eq!(system.submit(SITES[0], 1.0).code, 1);
    let offer = Offer::open(&round.offer.unwrap().0).unwrap().digest().to_string();
    system.abandon(&offer, &SITES[..3]);
    let _ = system.wait_for(1, "a new offer", |round| {
        let new = round.offer.as_ref().map(|o| Offer::open(&o.0).unwrap().digest().to_string());
        new.is_some_and(|new| new != offer)
    });
    assert_eq!(system.submit(SITES[0], 1.0).good().json()["state"], "admitted");
}

#[test]
fn a_released_offer_is_not_given_up() {
    let system = System::start(&Options::default());
    system.submit_all();
    system.commit(&SITES);
    let round = system.wait_for(1, "the release", |round| round.release.is_some());
    let offer = Offer::open(&round.offer.unwrap().0).unwrap().digest().to_string();
    // Some sites would go on from the release, others would begin again.
    let more = ["--round", "1", "--offer", &offer, "--reason", "a test", "--yes"];
    let refused = system.on_study(SITES[0], &["study", "abandon"], &more);
    assert_eq!(refused.check(), "phase");
    assert!(system.round(1).abandonments.is_empty());
}

#[test]
fn a_host_that_is_killed_in_every_phase_loses_nothing_that_it_acknowledged() {
    let mut system = System::start(&Options { parameters: 700_000, ..Options::default() });
    // A cut upload goes on where it stopped, across the host's death.
    let _ = system.wait_for(1, "an offer", |round| round.offer.is_some());
    let envelope = system.round(1).offer.unwrap();
    let offer = Offer::open(&envelope.0).unwrap();
    let terms = system.study.terms().clone();
    let update = system.study.sites[0].seal(&offer, &terms, &vec![1.0; 700_000]);
    let (name, digest) = (update.header.digest().to_string(), update.header.digest());
    let begin = |system: &System| system.begin_upload(&update.header);
    let append = |system: &System, site: usize, offset: usize, piece: &[u8]| {
        system.append_as(&system.study.sites[site], &digest, offset, piece)
    };
    assert_eq!(begin(&system).received, 0);
    assert_eq!(append(&system, 0, 0, &update.bytes[..1_000_000]).status, 200);
    // Nobody else can write into it, nor anybody anywhere else.
    assert_eq!(append(&system, 1, 1_000_000, b"x").status, 404);
    assert_eq!(append(&system, 0, 5, b"x").status, 409);
    assert_eq!(append(&system, 0, 1_000_000, &vec![0; 2_000_000]).status, 413);
    system.restart_host();
    assert_eq!(begin(&system).received, 1_000_000);
    // Clients that hang up while a piece is written: what the host says that it
    // has is what is on its disk.
    let staged = system.folder.path().join("host/staging/updates").join(&name);
    let on_disk = || usize::try_from(std::fs::metadata(&staged).unwrap().len()).unwrap();
    for i in 0..40 {
        let from = on_disk();
        let offset = from.to_string();
        let (path, piece) = (format!("/v1/uploads/{name}"), &update.bytes[from..from + 20_000]);
        let headers = [(UPLOAD_OFFSET, offset.as_str())];
        let signer = (&system.study.sites[0].key, Role::Party);
        let signed = http::signature(signer, "PATCH", &path, &headers, piece);
        let signed = signed.iter().map(|(name, value)| (*name, value.as_str()));
        let headers: Vec<_> = headers.into_iter().chain(signed).collect();
        let stream = http::write(&system.endpoint(), "PATCH", &path, &headers, piece).unwrap();
        std::thread::sleep(Duration::from_micros(100 * i));
        drop(stream);
        std::thread::sleep(Duration::from_millis(30));
        let said = usize::try_from(begin(&system).received).unwrap();
        assert_eq!(said, on_disk(), "hung up after {i} x 0.1 ms");
    }
    let from = on_disk();
    assert_eq!(append(&system, 0, from, &update.bytes[from..]).status, 200);
    let _ = system.wait_for(1, "admission", |round| {
        round.uploads.iter().any(|upload| matches!(upload.state, UploadState::Admitted(_)))
    });
    for (site, value) in SITES.iter().zip([1.0, 2.0, 4.0, 8.0]).skip(1) {
        let _ = system.submit(site, value).good();
        system.restart_host();
    }
    let round = system.wait_for(1, "a roster", |round| round.roster.is_some());
    assert!(round.uploads.iter().all(|u| matches!(u.state, UploadState::Admitted(_))));
    system.restart_host();
    for site in &SITES[1..3] {
        let _ = system.on_study(site, &["commit"], &[]).good();
        system.restart_host();
    }
    assert_eq!(system.round(1).commits.len(), 2);
    let _ = system.on_study(SITES[3], &["commit"], &[]).good();
    // The first site's commit is made by hand, as its update was.
    let round = system.wait_for(1, "the roster's leaf", |round| round.roster_leaf.is_some());
    let checkpoint = system.roster_checkpoint(&round);
    let roster = Signed::open(&round.roster.unwrap().0, &offer.statement().instance_key).unwrap();
    let site = &system.study.sites[0];
    let commit: Signed<Commit> = site.commit_at(&roster, update.header.digest(), checkpoint);
    assert_eq!(system.post_as(site, "commits", commit.envelope()).status, 200);
    system.restart_host();
    let _ = system.wait_for(1, "the release", |round| round.release.is_some());
    system.restart_host();
    let out = system.folder.path().join("model.safetensors");
    for site in &SITES[1..] {
        let _ = system.on_study(site, &["fetch"], &["--out", out.to_str().unwrap()]).good();
        assert!((first_value(&out) - 3.75).abs() < 1e-6);
    }
    // The uploads of a released round are forgotten, whenever the host died.
    let staged = system.folder.path().join("host/staging/updates");
    let left = || std::fs::read_dir(&staged).unwrap().count();
    let start = std::time::Instant::now();
    while left() > 0 {
        assert!(start.elapsed() < PATIENCE, "{} uploads are left", left());
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn agents_that_are_killed_or_stopped_go_on_where_they_were() {
    let system = System::start(&Options { rounds: 10, ..Options::default() });
    let mut first = system.agent(SITES[0], 1.0, 10);
    let others: Vec<_> = SITES[1..3].iter().map(|site| system.agent(site, 1.0, 10)).collect();
    let _ = system.wait_for(1, "uploads", |round| round.uploads.len() == 3);
    first.kill();
    let first = system.agent(SITES[0], 1.0, 10);
    let mut last = system.agent(SITES[3], 1.0, 10);
    std::thread::sleep(Duration::from_millis(300));
    last.terminate();
    assert_eq!(last.wait(PATIENCE), 2, "{}", last.log());
    let last = system.agent(SITES[3], 1.0, 10);
    system.finish(others, PATIENCE);
    system.finish(vec![first, last], PATIENCE);
    for site in SITES {
        assert!((system.model(site, 10) - 10.0).abs() < 1e-6);
    }
}

#[test]
fn the_trainer_of_a_killed_agent_never_runs_beside_another() {
    let system = System::start(&Options::default());
    let steps = system.folder.path().join("steps");
    let train = format!(
        "echo begin >> {0}; sleep 2; echo end >> {0}; {1}",
        steps.display(),
        gives(&system.update(1.0))
    );
    let mut agent = system.agent_with(SITES[0], &train, 1);
    let said = || std::fs::read_to_string(&steps).unwrap_or_default();
    let start = std::time::Instant::now();
    while said() != "begin\n" {
        assert!(start.elapsed() < PATIENCE, "{}", agent.log());
        std::thread::sleep(Duration::from_millis(10));
    }
    agent.kill();
    let agent = system.agent_with(SITES[0], &train, 1);
    agent.hear("second-trainer");
    assert_eq!(said(), "begin\n");
    agent.hear("\"uploaded\"");
    assert_eq!(said(), "begin\nend\nbegin\nend\n");
    // A command that leaves something running has ended all the same.
    let train = format!("sleep 60 <&0 & {}", gives(&system.update(1.0)));
    let mut agent = system.agent_with(SITES[1], &train, 1);
    agent.hear("\"uploaded\"");
    agent.kill();
    let left = system.home(SITES[1]).join("training.lock");
    std::fs::File::open(left).unwrap().try_lock().unwrap();
}
