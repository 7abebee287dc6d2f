//! The OCI image in namespaces of its own, as a launcher would run it: its root
//! file system, unpacked, and no network but two endpoints, which relays outside
//! the root file system carry to Unix sockets.
//!
//! Within: an interface `lo` and nothing else. The enclave's port 5000 is
//! `enclave.sock` outside, `door.sock` outside is port 5001 within. The launcher's
//! folder is mounted read-only, as Google's launcher does it, and `/dev` has the
//! devices that every OCI runtime gives (runtime specification, "Default Devices").

use crate::process::{self, Server};
use crate::workload::{self, Workload};
use sealfold_protocol::endpoint::Endpoint;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where the enclave finds the record door, within.
pub const DOOR: &str = "tcp://127.0.0.1:5001";
/// Where the launcher's folder is, within.
const LAUNCHER: &str = "run/container_launcher";

/// What is done within the namespaces before the image's program runs: arguments
/// are the folder, the relay's binary, and the image's command line.
const SCRIPT: &str = r#"set -eu
folder=$1 relay=$2
shift 2
ip link set lo up
mount --bind -o ro "$folder/launcher" "$folder/root/run/container_launcher"
mount -t tmpfs -o mode=755 tmpfs "$folder/root/dev"
for device in null zero full random urandom; do
    touch "$folder/root/dev/$device"
    mount --bind "/dev/$device" "$folder/root/dev/$device"
done
"$relay" relay --from "unix://$folder/enclave.sock" --to tcp://127.0.0.1:5000 2>"$folder/relay-in.log" &
"$relay" relay --from tcp://127.0.0.1:5001 --to "unix://$folder/door.sock" 2>"$folder/relay-out.log" &
tries=0
until grep -q listening "$folder/relay-in.log" && grep -q listening "$folder/relay-out.log"; do
    tries=$((tries + 1))
    [ $tries -lt 200 ] || { echo "the relays do not listen" >&2 && exit 1; }
    sleep 0.05
done
exec chroot "$folder/root" "$@"
"#;

/// A folder in which an image runs.
pub struct Namespace {
    folder: PathBuf,
}

impl Namespace {
    /// Unpacks the image of a layout. The folder `launcher` within is for the
    /// launcher's socket.
    #[must_use]
    pub fn unpack(folder: &Path, layout: &Path) -> Self {
        let root = folder.join("root");
        fs::create_dir_all(&root).unwrap();
        for layer in workload::layers(layout) {
            let tar = Command::new("tar").arg("-xf").arg(layer).arg("-C").arg(&root).status();
            assert!(tar.unwrap().success());
        }
        for path in [folder.join("launcher"), root.join(LAUNCHER), root.join("dev")] {
            fs::create_dir_all(path).unwrap();
        }
        Self { folder: folder.to_owned() }
    }

    /// The folder of the launcher's socket.
    #[must_use]
    pub fn launcher(&self) -> PathBuf {
        self.folder.join("launcher")
    }

    /// Where the host finds the enclave.
    #[must_use]
    pub fn enclave(&self) -> Endpoint {
        Endpoint::Unix(self.folder.join("enclave.sock"))
    }

    /// Where the host has to keep its record door.
    #[must_use]
    pub fn door(&self) -> Endpoint {
        Endpoint::Unix(self.folder.join("door.sock"))
    }

    /// The root file system.
    #[must_use]
    pub fn root(&self) -> PathBuf {
        self.folder.join("root")
    }

    /// The command that runs a workload.
    #[must_use]
    pub fn command(&self, workload: &Workload) -> Command {
        let relay = process::binaries().join("sealfold-host");
        let mut command = Command::new("unshare");
        command.args(isolation()).args(["sh", "-c", SCRIPT, "namespace"]);
        command.arg(&self.folder).arg(relay).args(&workload.args);
        command.env_clear().envs(&workload.env);
        command
    }

    /// Runs a workload; returns when its enclave listens.
    #[must_use]
    pub fn start(&self, workload: &Workload) -> Server {
        Server::start(self.command(workload), &self.folder.join("console.log"))
    }
}

/// What is put into namespaces of its own: with a user namespace where that is
/// allowed, without where root may do it anyway. A machine that allows neither
/// fails the test: there it cannot be run.
fn isolation() -> Vec<&'static str> {
    let all = ["--net", "--mount", "--pid", "--ipc", "--uts", "--fork", "--kill-child"];
    let mut why = Vec::new();
    for user in [&["--user", "--map-root-user"][..], &[]] {
        let flags = [user, &all].concat();
        let tried = Command::new("unshare").args(&flags).arg("true").output().unwrap();
        if tried.status.success() {
            return flags;
        }
        why.push(String::from_utf8_lossy(&tried.stderr).into_owned());
    }
    panic!(
        "this machine allows no namespaces, which the test of the image needs: run it as root \
         with CAP_SYS_ADMIN, or allow user namespaces (sysctl user.max_user_namespaces). {why:?}"
    );
}

/// The process within that runs the image's program, as it is seen from outside.
///
/// # Panics
/// If there is none.
#[must_use]
pub fn process_in(root: &Path) -> PathBuf {
    let is_ours = |process: &PathBuf| {
        fs::read_link(process.join("root")).is_ok_and(|path| path == root)
            && fs::read(process.join("cmdline")).is_ok_and(|line| line == b"/sealfold-enclave\0")
    };
    let processes = fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().path());
    processes
        .into_iter()
        .find(is_ours)
        .unwrap_or_else(|| panic!("no process in {}", root.display()))
}
