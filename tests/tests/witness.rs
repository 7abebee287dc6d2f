//! A witness that is not ours (`aics-witness`, `PyPI`, written from C2SP
//! tlog-witness) cosigns the host's log; a site whose policy demands it waits.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use sealfold_attestation::log::{NoteKey, SignedCheckpoint};
use sealfold_protocol::api::Phase;
use sealfold_tests::http;
use sealfold_tests::process::{self, Server};
use sealfold_tests::study::{self, LOG_ORIGIN, Options};
use sealfold_tests::system::{System, trial};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const SITES: [&str; 4] = ["site-000", "site-001", "site-002", "site-003"];
const PATIENCE: Duration = Duration::from_mins(1);

/// The witness's process, ended with the test.
struct Witness {
    child: std::process::Child,
    key: NoteKey,
    url: String,
}

impl Drop for Witness {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn python() -> PathBuf {
    let own = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/tools/tlog/bin/python");
    let path = std::env::var("SEALFOLD_TLOG_PYTHON").unwrap_or_else(|_| own.to_owned());
    let has_it = Command::new(&path).args(["-c", "import aics_witness"]).output();
    assert!(
        has_it.is_ok_and(|output| output.status.success()),
        "the independent witness is not installed at {path}: `make test-tools` installs it"
    );
    path.into()
}

impl Witness {
    fn ask(folder: &Path, arguments: &[&str]) -> String {
        let mut command = Command::new(python());
        command.args(["-m", "aics_witness"]).args(arguments).current_dir(folder);
        let output = command.env("AICS_WITNESS_CONFIG", "witness.json").output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// A witness that trusts this log.
    fn start(folder: &Path, log: &NoteKey) -> Self {
        std::fs::create_dir_all(folder).unwrap();
        let said = Self::ask(folder, &["init", "--name", "witness.example/w1"]);
        let key = said.split_whitespace().find_map(|word| word.parse().ok());
        let key = key.unwrap_or_else(|| panic!("no key in {said}"));
        let vkey = log.to_string();
        let _ = Self::ask(folder, &["add-log", "--origin", LOG_ORIGIN, "--vkey", &vkey]);
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let listen = format!("127.0.0.1:{port}");
        let mut command = Command::new(python());
        command.args(["-m", "aics_witness", "serve", "--listen", &listen]).current_dir(folder);
        command.env("AICS_WITNESS_CONFIG", "witness.json");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().unwrap();
        let start = Instant::now();
        while std::net::TcpStream::connect(&listen).is_err() {
            assert!(start.elapsed() < PATIENCE, "the witness does not listen");
            std::thread::sleep(Duration::from_millis(50));
        }
        Self { child, key, url: format!("http://{listen}") }
    }

    /// The size of the checkpoint of it that the host has.
    fn seen(&self, system: &System) -> u64 {
        let path = format!("/log/cosigned/{}", hex::encode(self.key.digest()));
        let reply = system.get(&path);
        if reply.status != 200 {
            return 0;
        }
        let log = system.log_key();
        let signed = SignedCheckpoint::open(&reply.body, &log).unwrap();
        assert!(signed.cosigned_by(&log, &self.key).is_some());
        signed.size()
    }
}

/// The system's host once more, with a witness.
fn restart_with(system: &mut System, witness: &str) {
    system.host.kill();
    let folder = system.folder.path();
    let mut command = process::command("sealfold-host");
    command.args(["serve", "--listen", &system.url.replace("http://", "tcp://")]);
    for (option, socket) in [("--enclave", "enclave.sock"), ("--door", "door.sock")] {
        command.arg(option).arg(format!("unix://{}", folder.join(socket).display()));
    }
    command.arg("--data").arg(folder.join("host")).args(["--witness", witness]);
    command.args(trial());
    system.host = Server::start(command, &folder.join("host-again.log"));
}

#[test]
fn a_witness_that_is_not_ours_cosigns_and_a_site_that_demands_it_waits_for_it() {
    let mut system = System::start(&Options::default());
    let log = system.log_key();
    assert_eq!(log.key(), study::log_key().verifying_key().as_bytes());
    let witness = Witness::start(&system.folder.path().join("witness"), &log);
    // One site demands a witness that the host does not ask.
    let policy = system.home(SITES[0]).join("policy.toml");
    let text = std::fs::read_to_string(&policy).unwrap();
    let demands = format!(
        "{text}\n[log]\nkey = \"{log}\"\nwitnesses = [\"{}\"]\nrequired = 1\n",
        witness.key
    );
    std::fs::write(&policy, demands).unwrap();
    system.submit_all();
    let _ = system.wait_for(1, "a roster", |round| round.roster_leaf.is_some());
    let ended = system.on_study(SITES[0], &["commit"], &[]);
    assert_eq!(ended.check(), "witnesses", "{ended:?}");
    assert!(system.round(1).commits.is_empty());
    // An agent waits, and goes on when the host asks the witness.
    let agents = system.agents(1);
    agents[0].hear("witnesses");
    restart_with(&mut system, &format!("{} {}", witness.key, witness.url));
    system.finish(agents, PATIENCE);
    let round = system.wait_for(1, "released", |round| round.phase == Phase::Released);
    assert!(witness.seen(&system) > round.roster_leaf.unwrap());
    // It follows the log to its end, from the size that it has seen.
    let size = || SignedCheckpoint::open(&system.get("/log/checkpoint").body, &log).unwrap().size();
    let start = Instant::now();
    while witness.seen(&system) < size() {
        assert!(start.elapsed() < PATIENCE, "{}", system.host.log());
        std::thread::sleep(Duration::from_millis(50));
    }
    // An auditor whose policy demands it is content, offline.
    let audit = std::fs::read_to_string(system.audit_policy()).unwrap();
    let audit = format!("{audit}witnesses = [\"{}\"]\nrequired = 1\n", witness.key);
    let file = system.folder.path().join("audit.toml");
    std::fs::write(&file, audit).unwrap();
    let folder = system.log();
    let arguments = ["replay", folder.to_str().unwrap(), "--policy", file.to_str().unwrap()];
    let output = process::run("sealfold-audit", &arguments);
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && said.contains("completeness   shown"), "{said}");
    // The witness gives a fork no cosignature: it has seen another root. The log may
    // grow while it is asked, which it answers with 409.
    let signer = sealfold_attestation::log::NoteSigner::from_seed(
        LOG_ORIGIN,
        sealfold_attestation::log::note::KeyKind::Ed25519,
        &study::log_key().seed(),
    );
    let signer = signer.unwrap();
    let at = witness.url.replace("http://", "tcp://").parse().unwrap();
    let start = Instant::now();
    let refused = loop {
        let size = witness.seen(&system);
        let other = sealfold_attestation::log::Hash([7; 32]);
        let fork = SignedCheckpoint::sign(size, other, &signer).unwrap();
        let body = [format!("old {size}\n\n").as_bytes(), &fork.to_bytes()].concat();
        let reply = http::send(&at, "POST", "/add-checkpoint", &[], &body).unwrap();
        if reply.status != 409 || start.elapsed() > PATIENCE {
            break reply;
        }
    };
    assert_eq!(refused.status, 422, "{}", String::from_utf8_lossy(&refused.body));
}

#[test]
fn a_host_says_which_witness_does_not_cosign_and_why() {
    let mut system = System::start(&Options::default());
    let log = system.log_key();
    let folder = system.folder.path().join("witness");
    std::fs::create_dir_all(&folder).unwrap();
    let witness = Witness::start(&folder, &log);
    // Nobody listens there.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    restart_with(&mut system, &format!("{} http://127.0.0.1:{port}", witness.key));
    system.host.hear("a witness does not cosign");
    // A round goes on all the same where no policy demands it.
    let agents = system.agents(1);
    system.finish(agents, PATIENCE);
    assert_eq!(witness.seen(&system), 0);
}

/// An operator who puts an old backup of his store back has forked the log; the
/// witness remembers, and so do the sites.
#[test]
fn an_old_copy_of_the_log_is_noticed_by_its_witness() {
    let mut system = System::start(&Options::default());
    let log = system.log_key();
    let witness = Witness::start(&system.folder.path().join("witness"), &log);
    let asked = format!("{} {}", witness.key, witness.url);
    restart_with(&mut system, &asked);
    // The copy is one that the witness has cosigned to its end, so that in itself
    // it is whole.
    let start = Instant::now();
    while witness.seen(&system) < 2 {
        assert!(start.elapsed() < PATIENCE, "{}", system.host.log());
        std::thread::sleep(Duration::from_millis(50));
    }
    let (host, copy) = (system.folder.path().join("host"), system.folder.path().join("copy"));
    let cp = |from: &Path, to: &Path| {
        assert!(Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap().success());
    };
    cp(&host, &copy);
    let agents = system.agents(1);
    system.finish(agents, PATIENCE);
    let start = Instant::now();
    while witness.seen(&system) < 7 {
        assert!(start.elapsed() < PATIENCE, "{}", system.host.log());
        std::thread::sleep(Duration::from_millis(50));
    }
    system.host.kill();
    std::fs::remove_dir_all(&host).unwrap();
    cp(&copy, &host);
    restart_with(&mut system, &asked);
    system.host.hear("an old copy of the log was put back");
}
