//! The enclave as it is shipped, in a Confidential Space whose launcher is a
//! double: over TCP, through the real host and the sites' own commands.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use sealfold_protocol::access::Role;
use sealfold_protocol::api::{EvidenceReply, Phase};
use sealfold_protocol::bytes::Envelope;
use sealfold_tests::http;
use sealfold_tests::launcher::Manner;
use sealfold_tests::process::{self, Server};
use sealfold_tests::space::{Space, shipped};
use sealfold_tests::study::Options;
use sealfold_tests::system::{Platform, System};
use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

const SITES: [&str; 4] = ["site-000", "site-001", "site-002", "site-003"];
const PATIENCE: Duration = Duration::from_mins(2);

fn on(space: &Space, options: &Options) -> System {
    System::start_on(Platform::Space(space.clone()), options)
}

/// An auditor's report on the system's log, under a policy that accepts these
/// platforms.
fn audit(system: &System, platforms: &str) -> Value {
    let policy = format!("{}\n[log]\nkey = \"{}\"\n", system.policy(platforms), system.log_key());
    let path = system.folder.path().join("audit.toml");
    std::fs::write(&path, policy).unwrap();
    let output = process::command("sealfold-audit")
        .args(["replay", "--json"])
        .arg(system.log())
        .arg("--policy")
        .arg(&path)
        .output()
        .unwrap();
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&output.stderr)))
}

#[test]
fn a_study_runs_with_tokens_of_either_kind_over_tcp() {
    for (token, certificates) in [("PKI", true), ("oidc", false)] {
        let space = Space::of(token);
        let system = on(&space, &Options { rounds: 2, ..Options::default() });
        let verdict = system.on_study(SITES[0], &["verify"], &[]).good().json();
        assert_eq!(verdict["outcome"], "accepted", "{verdict}");
        let row = |name: &str| {
            let checks = verdict["checks"].as_array().unwrap().iter();
            let found: Vec<_> = checks.filter(|check| check["name"] == name).collect();
            assert_eq!(found.len(), 1, "{name} in {verdict}");
            found[0]["state"].as_str().unwrap().to_owned()
        };
        assert_eq!(row("chain"), if certificates { "passed" } else { "not-made" });
        for name in ["audience", "image-digest", "args", "env-override", "binding", "nonce"] {
            assert_eq!(row(name), "passed", "{name}");
        }
        // The request is the documented one: the binding first, the site's nonce second.
        let asked: Value = serde_json::from_str(system.launcher().asked().last().unwrap()).unwrap();
        assert_eq!(asked["token_type"], token.to_ascii_uppercase());
        assert_eq!(asked["nonces"].as_array().unwrap().len(), 2);
        assert_eq!(asked.as_object().unwrap().len(), 3, "{asked}");
        system.finish(system.agents(2), PATIENCE);
        let _ = system.wait_for(2, "released", |round| round.phase == Phase::Released);
        for site in SITES {
            assert!((system.model(site, 2) - 7.5).abs() < 1e-6, "{site}");
        }
    }
}

/// What a launcher is made to say otherwise.
type Lie = fn(&mut Value);

#[test]
fn what_no_policy_accepts_is_refused_by_every_site_by_its_name() {
    let space = Space::of("PKI");
    let system = on(&space, &Options::default());
    let lies: [(&str, Lie); 11] = [
        ("debug-mode", |claims| claims["dbgstat"] = json!("enabled")),
        ("hardware-model", |claims| claims["hwmodel"] = json!("GCP_SHIELDED_VM")),
        ("support", |claims| {
            claims["submods"]["confidential_space"]["support_attributes"] = json!(["USABLE"]);
        }),
        ("monitoring", |claims| {
            claims["submods"]["confidential_space"]["monitoring_enabled"]["memory"] = json!(true);
        }),
        ("image-digest", |claims| {
            let other = format!("sha256:{}", "ab".repeat(32));
            claims["submods"]["container"]["image_digest"] = json!(other);
        }),
        ("args", |claims| {
            claims["submods"]["container"]["args"] = json!(["/sealfold-enclave", "--threads", "1"]);
        }),
        ("cmd-override", |claims| {
            claims["submods"]["container"]["cmd_override"] = json!(["--threads", "1"]);
        }),
        ("env", |claims| {
            claims["submods"]["container"]["env"]["LD_PRELOAD"] = json!("/tmp/x.so");
        }),
        ("env-override", |claims| {
            claims["submods"]["container"]["env_override"]["RUST_BACKTRACE"] = json!("full");
        }),
        ("audience", |claims| claims["aud"] = json!("https://sts.googleapis.com")),
        ("nonce", |claims| {
            let first = claims["eat_nonce"][0].clone();
            claims["eat_nonce"] = json!([first, "00".repeat(32)]);
        }),
    ];
    for (name, lie) in lies {
        system.launcher().behave(Manner::Lying(Box::new(lie)));
        let ended = system.on_study(SITES[0], &["verify"], &[]);
        let refused = ended.refused_checks();
        // Without a known image nothing is known of its arguments either.
        assert_eq!(refused, [name], "{ended:?}");
        let submitted = system.submit(SITES[1], 1.0);
        assert_eq!(submitted.check(), name, "{submitted:?}");
    }
    // The same two nonces in the other places.
    system.launcher().behave(Manner::Lying(Box::new(|claims| {
        claims["eat_nonce"].as_array_mut().unwrap().reverse();
    })));
    let ended = system.on_study(SITES[0], &["verify"], &[]);
    assert_eq!(ended.refused_checks(), ["binding", "nonce"]);
    assert!(system.round(1).uploads.is_empty());
    // An honest launcher is believed again, by the same sites.
    system.launcher().behave(Manner::Honest);
    assert_eq!(system.submit(SITES[1], 1.0).good().json()["state"], "admitted");
}

#[test]
fn a_launcher_that_fails_or_limits_is_named_to_sites() {
    let space = Space::of("PKI");
    let system = on(&space, &Options::default());
    let evidence = |system: &System| -> Result<EvidenceReply, String> {
        let path = format!("/v1/studies/{}/rounds/1/evidence", system.id());
        let nonce = sealfold_tests::site::nonce();
        let signer = (&system.study.sites[0].key, Role::Party);
        http::call_as(signer, &system.endpoint(), "POST", &path, &json!({ "nonce": nonce }))
            .map_err(|refusal| refusal.to_string())
    };
    assert_eq!(evidence(&system).unwrap().platform, "confidential-space");
    system.launcher().behave(Manner::Failing(500, "failed to refresh attestation agent"));
    let text = evidence(&system).unwrap_err();
    assert!(text.contains("status 500: failed to refresh attestation agent"), "{text}");
    assert!(text.contains("evidence"), "{text}");
    let asked = system.launcher().asked().len();
    system.launcher().behave(Manner::Limited(asked));
    let text = evidence(&system).unwrap_err();
    assert!(text.contains("status 429: rate limit exceeded"), "{text}");
    let ended = system.on_study(SITES[0], &["verify"], &[]);
    assert_ne!(ended.code, 0);
    assert!(format!("{ended:?}").contains("rate limit exceeded"), "{ended:?}");
    system.launcher().behave(Manner::Honest);
    assert!(evidence(&system).is_ok());
}

#[test]
fn a_silent_launcher_holds_nobody_up_for_long() {
    let space = Space::of("PKI");
    let system = on(&space, &Options::default());
    system.launcher().behave(Manner::Silent);
    let start = Instant::now();
    let ended = system.on_study(SITES[0], &["verify"], &[]);
    assert_ne!(ended.code, 0);
    let text = format!("{ended:?}");
    assert!(text.contains("expected a token within 20 s, found a slower launcher"), "{text}");
    assert!(start.elapsed() < Duration::from_secs(40), "{:?}", start.elapsed());
    // Meanwhile the enclave answered others.
    assert_eq!(system.get("/v1/health").status, 200);
}

/// Starts the shipped enclave, which must end at once; what it said.
fn ends(arguments: &[&str], environment: &[(&str, &str)], folder: &Path) -> String {
    let mut command = Command::new(shipped());
    command.args(arguments).env_clear().envs(environment.iter().copied());
    let mut server = Server::start_unheard(command, &folder.join("ends.log"));
    assert_eq!(server.wait(Duration::from_secs(10)), 1, "{}", server.log());
    server.log()
}

#[test]
fn an_enclave_that_is_told_too_little_says_what_it_lacks() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("teeserver.sock");
    let socket = socket.to_str().unwrap();
    let (door, audience) =
        (("SEALFOLD_DOOR", "tcp://10.0.0.2:5001"), ("SEALFOLD_AUDIENCE", "https://sites"));
    // No device and no socket: no enclave.
    let text = ends(&["--launcher", socket], &[door, audience], folder.path());
    assert!(text.contains("platform: expected /dev/nsm"), "{text}");
    assert!(text.contains("found neither"), "{text}");
    // Forced, and not there.
    let forced = ["--platform", "confidential-space", "--launcher", socket];
    let text = ends(&forced, &[door, audience], folder.path());
    assert!(text.contains("expected the launcher's socket at"), "{text}");
    let text = ends(&["--platform", "nitro"], &[door], folder.path());
    assert!(text.contains("there is no NSM device"), "{text}");
    // There, and known by it; but no audience, or no door.
    let _listener = std::os::unix::net::UnixListener::bind(socket).unwrap();
    let text = ends(&["--launcher", socket], &[door], folder.path());
    assert!(text.contains("tee-env-SEALFOLD_AUDIENCE"), "{text}");
    let text = ends(&["--launcher", socket], &[audience], folder.path());
    assert!(text.contains("tee-env-SEALFOLD_DOOR=tcp://ADDRESS:5001"), "{text}");
}

#[test]
fn a_study_moves_between_platforms_and_back_and_is_replayed_from_one_log() {
    let space = Space::of("PKI");
    let options = Options { rounds: 3, ..Options::default() };
    let nitro = Platform::Process;
    let mut system = System::start_with(nitro.clone(), &options, |folder| space.policy(folder));
    let run = |system: &System, round: u32| {
        system.finish(system.agents(1), PATIENCE);
        let _ = system.wait_for(round, "released", |round| round.phase == Phase::Released);
    };
    let verified = |system: &System, platform: &str| {
        for site in SITES {
            let verdict = system.on_study(site, &["verify"], &[]).good().json();
            assert_eq!(verdict["outcome"], "accepted");
            let names = verdict["checks"].as_array().unwrap().iter();
            let has = |wanted: &str| names.clone().any(|check| check["name"] == wanted);
            let measured = [has("pcr0"), has("image-digest")];
            assert_eq!(measured, [platform == "nitro", platform == "confidential-space"]);
        }
    };
    // The host has shown the next round's offer of the old instance by then, or not.
    let move_to = |system: &mut System, platform: Platform, round: u32| {
        let old = system.wait_for(round, "an offer here", |round| round.offer.is_some()).offer;
        system.move_to(platform);
        let is_new = |offer: &Option<Envelope>| offer.is_some() && *offer != old;
        let _ = system.wait_for(round, "an offer there", |round| is_new(&round.offer));
    };
    verified(&system, "nitro");
    run(&system, 1);
    move_to(&mut system, Platform::Space(space.clone()), 2);
    verified(&system, "confidential-space");
    run(&system, 2);
    move_to(&mut system, nitro, 3);
    verified(&system, "nitro");
    run(&system, 3);
    for site in SITES {
        assert!((system.model(site, 3) - 11.25).abs() < 1e-6, "{site}");
    }
    // Whoever audits sees both kinds in one log, under the policy of the sites.
    let both = space.policy(system.folder.path());
    let report = audit(&system, &both);
    assert_eq!(report["findings"], json!([]), "{report:#}");
    let rounds = report["rounds"].as_array().unwrap().iter();
    let mut measured: Vec<_> = rounds
        .map(|round| (round["round"].as_u64().unwrap(), round["measured"]["platform"].clone()))
        .collect();
    measured.sort_by_key(|(round, _)| *round);
    let expected = [(1, "nitro"), (2, "confidential-space"), (3, "nitro")];
    assert_eq!(measured, expected.map(|(round, platform)| (round, json!(platform))));
    // A policy that lacks one of them says so of its offers, and of no other: of
    // the released one, and of the next round's before the study moved back.
    let report = audit(&system, &process::simulation_policy(system.folder.path()));
    let findings = report["findings"].as_array().unwrap();
    let lacking = |finding: &Value| finding["found"] == "confidential-space, and no such section";
    assert!(findings.iter().all(lacking), "{findings:#?}");
    let rounds: Vec<_> = findings.iter().map(|finding| finding["round"].clone()).collect();
    assert_eq!(rounds, [json!(2), json!(3)]);
}
