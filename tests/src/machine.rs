//! Enclave images in a virtual machine that emulates a Nitro enclave: QEMU's
//! `nitro-enclave` machine, whose vsock a vhost-user device puts on Unix
//! sockets.

use crate::process::{self, Server};
use sealfold_protocol::endpoint::Endpoint;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// Where the init reports that the image is up.
const HEARTBEAT: u32 = 9000;
/// Where the enclave serves in its machine.
const ENCLAVE: u32 = 5000;
/// Where the enclave looks for the record door.
const DOOR: u32 = 5001;
/// How long the device may take until its socket is there.
const START: Duration = Duration::from_secs(10);

/// An image and the machine that it gets.
#[derive(Debug, Clone)]
pub struct Image {
    /// The EIF.
    pub file: PathBuf,
    /// The machine's memory.
    pub mebibytes: u32,
}

fn setting(name: &str) -> PathBuf {
    let value = std::env::var_os(name);
    PathBuf::from(value.unwrap_or_else(|| panic!("{name} is not set; run `make test-nitro`")))
}

impl Image {
    /// The image that is shipped.
    #[must_use]
    pub fn shipped() -> Self {
        Self { file: setting("SEALFOLD_IMAGES").join("eif/sealfold.eif"), mebibytes: 128 }
    }

    /// A test's image of that name.
    #[must_use]
    pub fn of(name: &str) -> Self {
        let folder = setting("SEALFOLD_IMAGES").join("nitro").join(name);
        Self { file: folder.join("sealfold.eif"), mebibytes: 128 }
    }

    /// What a policy says to accept it: computed from the file, not asked of
    /// the machine.
    #[must_use]
    pub fn measurements(&self) -> String {
        let output = process::run("sealfold", &["measure", self.file.to_str().unwrap()]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines().filter(|line| line.starts_with("pcr")).collect::<Vec<_>>().join("\n")
    }

    /// The policy section that accepts it under the test's simulation root.
    #[must_use]
    pub fn simulation_policy(&self) -> String {
        let path = setting("SEALFOLD_IMAGES").join("nitro/policy.toml");
        let policy = std::fs::read_to_string(path).unwrap();
        let (root, _) = policy.split_once("[[simulation.measurements]]").unwrap();
        format!("{root}[[simulation.measurements]]\n{}\n", self.measurements())
    }
}

/// A machine's sockets.
#[derive(Debug, Clone)]
pub struct Sockets(PathBuf);

impl Sockets {
    /// Sockets in a folder.
    #[must_use]
    pub fn new(folder: &Path) -> Self {
        Self(folder.join("vm.sock"))
    }

    fn of_port(&self, port: u32) -> PathBuf {
        PathBuf::from(format!("{}_{port}", self.0.display()))
    }

    /// Where the host finds the enclave.
    #[must_use]
    pub fn enclave(&self) -> Endpoint {
        Endpoint::HybridVsock { path: self.0.clone(), port: ENCLAVE }
    }

    /// Where the enclave finds the host's record door.
    #[must_use]
    pub fn door(&self) -> Endpoint {
        Endpoint::Unix(self.of_port(DOOR))
    }
}

/// What keeps a machine company; it goes when the machine does.
pub struct Devices {
    _vsock: Server,
}

/// Boots an image; returns when its enclave listens.
#[must_use]
pub fn boot(folder: &Path, image: &Image) -> (Server, Devices) {
    let vsock = devices(folder);
    let server = Server::start(qemu(folder, image), &folder.join("console.log"));
    (server, vsock)
}

/// Answers the init's heartbeat and starts the vsock device.
#[must_use]
pub fn devices(folder: &Path) -> Devices {
    devices_with(folder, |stream, beat| _ = stream.write_all(&beat))
}

/// Takes the init's heartbeat and never answers it.
#[must_use]
pub fn deaf_devices(folder: &Path) -> Devices {
    devices_with(folder, |stream, _| _ = stream.read(&mut [0]))
}

fn devices_with(folder: &Path, answer: fn(&mut UnixStream, [u8; 1])) -> Devices {
    let sockets = Sockets::new(folder);
    let heartbeat = sockets.of_port(HEARTBEAT);
    let _ = std::fs::remove_file(&heartbeat);
    let listener = UnixListener::bind(&heartbeat).unwrap();
    std::thread::spawn(move || {
        // One boot, one beat.
        let (mut stream, _) = listener.accept().unwrap();
        let mut beat = [0];
        if stream.read_exact(&mut beat).is_ok() {
            answer(&mut stream, beat);
        }
    });
    start_vsock(folder, &sockets)
}

fn start_vsock(folder: &Path, sockets: &Sockets) -> Devices {
    let device = folder.join("vhost.sock");
    let _ = std::fs::remove_file(&device);
    let _ = std::fs::remove_file(&sockets.0);
    let mut command = Command::new(setting("SEALFOLD_VHOST_VSOCK"));
    // With the default buffer large writes of a guest hang.
    command.arg("--vm").arg(format!(
        "guest-cid=4,socket={},uds-path={},tx-buffer-size=16384",
        device.display(),
        sockets.0.display()
    ));
    let vsock = Server::start_unheard(command, &folder.join("vsock.log"));
    let start = Instant::now();
    while !device.exists() {
        assert!(start.elapsed() < START, "the vsock device does not start: {}", vsock.log());
        std::thread::sleep(Duration::from_millis(5));
    }
    Devices { _vsock: vsock }
}

/// The command that boots an image.
#[must_use]
pub fn qemu(folder: &Path, image: &Image) -> Command {
    let mut command = Command::new(setting("SEALFOLD_QEMU"));
    command.args(["-M", "nitro-enclave,vsock=c,id=sealfold-test", "-chardev"]);
    command.arg(format!("socket,id=c,path={}", folder.join("vhost.sock").display()));
    command.arg("-kernel").arg(&image.file).args(["-m", &format!("{}M", image.mebibytes)]);
    // The default processor lacks the AES instructions that every Nitro
    // instance has. (`-cpu max` has them too, and a clock that goes astray
    // under load.)
    command.args(["-cpu", "qemu64,+aes,+pclmulqdq,+ssse3,+sse4.1,+sse4.2,+popcnt,+movbe"]);
    // AWS's machine ends at the keyboard controller's reset, which this one does
    // not have. (What is appended here is not measured.)
    command.args(["-append", "reboot=t"]);
    // Firmware from Debian's packages.
    command.args(["-nographic", "-no-reboot", "-L", "/usr/share/qemu", "-L", "/usr/share/seabios"]);
    command
}
