//! What sites are told of a round, and how a site that lost its memory goes on.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use sealfold_protocol::offer::Offer;
use sealfold_tests::study::Options;
use sealfold_tests::system::System;
use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

const SITES: [&str; 4] = ["site-000", "site-001", "site-002", "site-003"];
const PATIENCE: Duration = Duration::from_mins(1);

fn explain(system: &System, site: &str, round: u32) -> Value {
    let id = system.id();
    let number = round.to_string();
    let ended = system.sealfold(site, &["explain", "--host", &system.url, &id, &number]);
    ended.good().json()
}

/// The same for people.
fn told(system: &System, site: &str, round: u32) -> String {
    let mut command = sealfold_tests::process::command("sealfold");
    command.arg("--home").arg(system.home(site));
    command.args(["explain", "--host", &system.url, &system.id(), &round.to_string()]);
    String::from_utf8(command.output().unwrap().stdout).unwrap()
}

fn story(told: &Value) -> String {
    let lines = told["story"].as_array().unwrap().iter();
    lines.map(|line| line.as_str().unwrap()).collect::<Vec<_>>().join("\n")
}

#[test]
fn a_round_is_told_from_the_offer_to_an_abandonment_and_the_release() {
    let mut system = System::start(&Options { rounds: 2, ..Options::default() });
    let first = explain(&system, SITES[0], 1);
    assert_eq!(first["standing"], "unbound");
    assert!(first["next"].as_str().unwrap().contains("submit"), "{first}");
    system.submit_all();
    let first = explain(&system, SITES[0], 1);
    assert_eq!([&first["receipt"], &first["verified"]], [&json!("admitted"), &json!(true)]);
    assert!(first["next"].as_str().unwrap().contains("commit to the roster"), "{first}");
    system.commit(&SITES[..2]);
    let bound = explain(&system, SITES[0], 1);
    assert_eq!(bound["standing"], "bound");
    assert_eq!(bound["committed"], json!(SITES[..2]));
    assert_eq!(bound["rosters"].as_array().unwrap().len(), 1);
    assert!(story(&bound).contains("so is bound to"), "{bound}");
    let status = system.on_study(SITES[0], &["status"], &[]).good().json();
    assert_eq!(status["standing"], "bound");
    assert_eq!(status["bound_to"], bound["bound_to"]);
    assert_eq!(explain(&system, SITES[2], 1)["standing"], "unbound");
    // The instance is gone: only an abandonment helps, and the site says so.
    system.restart_enclave();
    let round = system.wait_for(1, "approvers", |r| r.waiting_for.contains("study abandon"));
    let offer = Offer::open(&round.offer.unwrap().0).unwrap().digest().to_string();
    system.abandon(&offer, &SITES[..3]);
    let _ = system.wait_for(1, "a new offer", |round| {
        let new = round.offer.as_ref().map(|o| Offer::open(&o.0).unwrap().digest().to_string());
        new.is_some_and(|new| new != offer)
    });
    let waits = explain(&system, SITES[0], 1);
    assert!(story(&waits).contains("possibly released"), "{waits}");
    let agents = system.agents(1);
    system.finish(agents, PATIENCE);
    let released = explain(&system, SITES[0], 1);
    assert_eq!(released["standing"], "released");
    assert_eq!(released["abandoned"], json!([offer]));
    assert!(released["release"].is_string());
    let said = story(&released);
    assert!(said.contains("possibly released") && said.contains("verified the release"), "{said}");
    let text = told(&system, SITES[0], 1);
    assert!(text.starts_with("round 1\n") && text.contains("\nnext: nothing"), "{text}");
    assert!(!said.contains("so is bound") && said.contains("so was bound"), "{said}");
    assert!(!said.contains("not verified") && !said.contains("no update of this"), "{said}");
    assert_eq!(explain(&system, SITES[0], 2)["standing"], "unbound");
    assert_eq!(explain(&system, SITES[0], 7)["standing"], "ahead");
}

#[test]
fn a_site_that_does_not_commit_is_dropped_unattended_and_is_told_so() {
    let system = System::start(&Options { deadlines: [2, 2, 600], ..Options::default() });
    let _ = system.submit(SITES[3], 8.0).good();
    let agents: Vec<_> = SITES[..3].iter().map(|site| system.agent(site, 1.0, 1)).collect();
    system.finish(agents, PATIENCE);
    let of_agent = explain(&system, SITES[0], 1);
    let rosters = of_agent["rosters"].as_array().unwrap();
    assert_eq!(rosters.len(), 2, "{of_agent}");
    assert!(story(&of_agent).contains("site-003 was dropped"), "{of_agent}");
    assert_eq!(of_agent["dropped"], json!(["site-003"]));
    let dropped = explain(&system, SITES[3], 1);
    assert!(story(&dropped).contains("This site was dropped"), "{dropped}");
    assert_eq!(dropped["next"], "sealfold fetch, or sealfold run does it");
    // It gets the release all the same.
    let out = system.folder.path().join("out.safetensors");
    let ended = system.on_study(SITES[3], &["fetch"], &["--out", out.to_str().unwrap()]).good();
    assert_eq!(ended.json()["round"], 1);
    assert!((system.model(SITES[3], 1) - 1.0).abs() < 1e-6);
}

fn cp(from: &Path, to: &Path) {
    std::fs::create_dir_all(to.parent().unwrap()).unwrap();
    assert!(Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap().success());
}

/// A site loses its folder while it is bound. It makes new keys, the others amend
/// the study, the offer is abandoned, and the round after takes it in.
#[test]
fn a_site_that_lost_its_state_goes_on_with_a_new_key_after_the_next_release() {
    for readers in ["everyone", "sites"] {
        let options = Options { rounds: 2, readers, deadlines: [2, 4, 600], ..Options::default() };
        let system = System::start(&options);
        let lost = SITES[3];
        system.submit_all();
        system.commit(&SITES[3..]);
        // An old copy of the folder comes back: its commit is not remembered.
        let (home, old) = (system.home(lost), system.folder.path().join("old"));
        cp(&home, &old);
        let study = format!("studies/{}", system.id());
        std::fs::remove_file(home.join(&study).join("binding.json")).unwrap();
        std::fs::remove_file(home.join(format!("keys/binding-{}.json", system.id()))).unwrap();
        let told = explain(&system, lost, 1);
        assert_eq!(told["standing"], "state-restored", "{told}");
        assert!(told["next"].as_str().unwrap().contains("Make new keys in a new folder"));
        let status = system.on_study(lost, &["status"], &[]).good().json();
        assert_eq!(status["standing"], "state-restored");
        // The others finish the round, with the commit that the lost folder made.
        system.commit(&SITES[..3]);
        let _ = system.wait_for(1, "a release", |round| round.release.is_some());
        let out = system.folder.path().join("out.safetensors");
        let fetch = |site: &str| {
            system.on_study(site, &["fetch"], &["--out", out.to_str().unwrap()]).good()
        };
        // New keys in a new folder.
        let policy = std::fs::read_to_string(home.join("policy.toml")).unwrap();
        std::fs::remove_dir_all(&home).unwrap();
        let keys = system.sealfold(lost, &["init", "--name", lost]).good().json();
        std::fs::write(home.join("policy.toml"), policy).unwrap();
        let _ = system.amend(&SITES, |text| {
            let (kept, gone) = text.split_at(text.find("[[site]]\nname = \"site-003\"").unwrap());
            assert!(gone.matches("[[site]]").count() == 1);
            format!(
                "{kept}[[site]]\nname = \"{lost}\"\nsigning_key = {}\nrelease_key = {}\n",
                keys["signing_key"], keys["release_key"],
            )
        });
        if readers == "sites" {
            // Round 1 was sealed to the key that is gone, so a model that the old
            // folder had would do; here another site gives its own.
            let from = system.home(SITES[0]).join(&study);
            let _ = fetch(SITES[0]);
            for part in ["head.json", "models", "releases"] {
                cp(&from.join(part), &home.join(&study).join(part));
            }
        }
        // Those without round 1 do that first; the study has two.
        let agents = SITES.iter().map(|site| system.agent(site, 2.0, 2)).collect();
        system.finish(agents, PATIENCE);
        let told = explain(&system, lost, 2);
        assert_eq!(told["standing"], "released", "{told}");
        assert_eq!(told["rosters"].as_array().unwrap().len(), 1);
        assert!((system.model(lost, 2) - system.model(SITES[0], 2)).abs() < 1e-9);
    }
}
