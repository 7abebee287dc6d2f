//! The real binaries as child processes, killed when a test ends.

use sealfold_protocol::endpoint::Endpoint;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// How long a binary may take until it listens.
const START: Duration = Duration::from_secs(30);

/// The folder of the binaries of this build.
#[must_use]
pub fn binaries() -> PathBuf {
    // The test runs as target/PROFILE/deps/NAME.
    let test = std::env::current_exe().unwrap();
    test.parent().unwrap().parent().unwrap().to_owned()
}

/// A command of one of the project's binaries.
#[must_use]
pub fn command(name: &str) -> Command {
    let path = binaries().join(name);
    assert!(path.exists(), "{} is not built; run `make test`", path.display());
    Command::new(path)
}

/// Runs a binary to its end.
#[must_use]
pub fn run(name: &str, arguments: &[&str]) -> Output {
    command(name).args(arguments).stdin(Stdio::null()).output().unwrap()
}

/// A binary that serves.
pub struct Server {
    child: Child,
    log: PathBuf,
}

impl Server {
    /// Starts it and waits until it says where it listens.
    #[must_use]
    pub fn start(mut command: Command, log: &Path) -> Self {
        let file = File::create(log).unwrap();
        command.stdin(Stdio::null()).stdout(file.try_clone().unwrap()).stderr(file);
        let child = command.spawn().unwrap();
        let mut server = Self { child, log: log.to_owned() };
        let start = Instant::now();
        while server.place().is_none() {
            if let Some(status) = server.child.try_wait().unwrap() {
                panic!("{command:?} ended with {status}: {}", server.log());
            }
            assert!(start.elapsed() < START, "{command:?} does not listen: {}", server.log());
            std::thread::sleep(Duration::from_millis(5));
        }
        server
    }

    /// Starts it without waiting: one that does not serve.
    #[must_use]
    pub fn start_unheard(mut command: Command, log: &Path) -> Self {
        let file = File::create(log).unwrap();
        command.stdin(Stdio::null()).stdout(file.try_clone().unwrap()).stderr(file);
        Self { child: command.spawn().unwrap(), log: log.to_owned() }
    }

    /// Waits for its end; its exit code.
    #[must_use]
    pub fn wait(&mut self, patience: Duration) -> i32 {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code().unwrap_or(-1);
            }
            assert!(start.elapsed() < patience, "it does not end: {}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Tells it to stop, as a terminal or a service manager would.
    pub fn terminate(&self) {
        let status = Command::new("kill").arg(self.child.id().to_string()).status().unwrap();
        assert!(status.success());
    }

    /// Where it says that it listens.
    #[must_use]
    pub fn place(&self) -> Option<String> {
        let log = self.log();
        let (_, rest) = log.split_once("listening on ")?;
        let (place, _) = rest.split_once('\n')?;
        Some(place.split_whitespace().next()?.to_owned())
    }

    /// What it has printed.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Waits until it has printed a text.
    pub fn hear(&self, text: &str) {
        let start = Instant::now();
        while !self.log().contains(text) {
            assert!(start.elapsed() < START, "it does not say {text:?}: {}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// kill -9.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// The processor time that the process has used, in seconds; nothing when it
    /// has ended.
    #[must_use]
    pub fn cpu_seconds(&self) -> Option<f64> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).ok()?;
        // Behind the name, which may hold anything: user and system ticks.
        let fields: Vec<_> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let ticks = |field: &&str| field.parse::<u32>().ok();
        let (user, system) = (fields.get(11).and_then(ticks)?, fields.get(12).and_then(ticks)?);
        // A Linux tick is a hundredth of a second for user space.
        Some(f64::from(user + system) / 100.0)
    }

    /// The most memory that the process has had, in bytes (`VmHWM`).
    #[must_use]
    pub fn peak_memory(&self) -> u64 {
        self.memory().unwrap()
    }

    /// The same, or nothing if the process has ended.
    #[must_use]
    pub fn memory(&self) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).ok()?;
        let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
        Some(line.split_whitespace().nth(1)?.parse::<u64>().unwrap() * 1024)
    }
}

impl Server {
    /// Whether these bytes stand anywhere in the memory that the process can
    /// write to: heap, stacks (of ended threads too), static data.
    #[must_use]
    pub fn memory_holds(&self, bytes: &[u8]) -> bool {
        let of = |name: &str| format!("/proc/{}/{name}", self.child.id());
        let memory = File::open(of("mem")).unwrap();
        let maps = std::fs::read_to_string(of("maps")).unwrap();
        maps.lines().filter(|line| line.split(' ').nth(1).unwrap().starts_with("rw")).any(|line| {
            let (start, end) = line.split(' ').next().unwrap().split_once('-').unwrap();
            let [start, end] = [start, end].map(|hex| u64::from_str_radix(hex, 16).unwrap());
            let mut region = vec![0; usize::try_from(end - start).unwrap()];
            // Reserved address space has no pages to read.
            memory.read_exact_at(&mut region, start).is_ok()
                && region.windows(bytes.len()).any(|window| window == bytes)
        })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Starts an enclave in simulation on a Unix socket of that name.
#[must_use]
pub fn enclave(folder: &Path, name: &str, door: &Endpoint) -> (Server, Endpoint) {
    let endpoint = Endpoint::Unix(folder.join(format!("{name}.sock")));
    let mut command = command("sealfold-enclave");
    command
        .arg("--listen")
        .arg(endpoint.to_string())
        .arg("--door")
        .arg(door.to_string())
        .arg("--simulation-root")
        .arg(folder.join("simulation-root.pem"));
    (Server::start(command, &folder.join(format!("{name}.log"))), endpoint)
}

/// The policy section that accepts this build's simulated enclave.
#[must_use]
pub fn simulation_policy(folder: &Path) -> String {
    let root = folder.join("simulation-root.pem");
    let output =
        run("sealfold-enclave", &["--simulation-root", root.to_str().unwrap(), "--print-policy"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}
