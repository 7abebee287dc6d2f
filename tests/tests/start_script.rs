//! What `deploy/nitro/run-enclave.sh` does with a nitro-cli that is made up: no
//! Nitro instance is part of this.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use sealfold_tests::process::{self, Server};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(30);
/// The enclave that the made-up nitro-cli starts.
const OURS: &str = "i-0123456789abcdef0-enc0199aa55bb66cc77";
/// One that somebody else runs on the same instance.
const ANOTHER: &str = "i-0123456789abcdef0-enc0188dd99ee00ff11";

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("deploy/nitro/run-enclave.sh")
}

/// An image that is one to `sealfold measure`, with this application.
fn image(application: &[u8]) -> Vec<u8> {
    const HEADER: usize = 548;
    // A bzImage of one setup sector and one paragraph.
    let mut kernel = vec![0; 1040];
    (kernel[0x1f1], kernel[0x1f4]) = (1, 1);
    kernel[0x202..0x206].copy_from_slice(b"HdrS");
    let sections: [(u16, &[u8]); 5] =
        [(1, &kernel), (2, b"quiet"), (5, b"{}"), (3, b"init"), (3, application)];
    let mut header = vec![0; HEADER];
    header[..6].copy_from_slice(b".eif\0\x04");
    header[27] = 5;
    let mut body = Vec::new();
    for (i, (kind, bytes)) in sections.iter().enumerate() {
        let (offset, size) = ((HEADER + body.len()) as u64, bytes.len() as u64);
        header[28 + 8 * i..36 + 8 * i].copy_from_slice(&offset.to_be_bytes());
        header[284 + 8 * i..292 + 8 * i].copy_from_slice(&size.to_be_bytes());
        body.extend_from_slice(&kind.to_be_bytes());
        body.extend_from_slice(&[0; 2]);
        body.extend_from_slice(&size.to_be_bytes());
        body.extend_from_slice(bytes);
    }
    let mut sum = crc32fast::Hasher::new();
    sum.update(&header[..HEADER - 4]);
    sum.update(&body);
    header[HEADER - 4..].copy_from_slice(&sum.finalize().to_be_bytes());
    [header, body].concat()
}

/// What the real `nitro-cli describe-enclaves` prints, with the state behind the
/// measurements: the script is not to rest on the order.
fn listed(enclaves: &[(&str, u32, &str)]) -> String {
    let list: Vec<_> = enclaves
        .iter()
        .map(|(id, cid, state)| {
            serde_json::json!({
                "EnclaveName": "sealfold", "EnclaveID": id, "ProcessID": 4242, "EnclaveCID": cid,
                "NumberOfCPUs": 2, "CPUIDs": [1, 3], "MemoryMiB": 256, "State": state,
                "Flags": "NONE", "Measurements": { "HashAlgorithm": "Sha384 { ... }" },
            })
        })
        .collect();
    serde_json::to_string_pretty(&list).unwrap()
}

/// The made-up nitro-cli: it notes what it is asked for, and answers from files.
const NITRO_CLI: &str = r#"#!/bin/sh
cd "$INSTANCE" || exit 99
echo "$*" >>asked
case $1 in
describe-enclaves)
    # So many times the answer fails.
    left=$(cat failures 2>/dev/null || echo 0)
    if [ "$left" -gt 0 ]; then
        echo $((left - 1)) >failures
        echo "[ E38 ] Enclave process command not executed error." >&2
        exit 38
    fi
    cat enclaves
    ;;
run-enclave)
    if [ -f refusal ]; then
        cat refusal >&2
        exit 27
    fi
    : >booting
    [ ! -f slow ] || sleep 1
    cp with-ours enclaves
    echo "Start allocating memory..." >&2
    cat started
    ;;
terminate-enclave)
    cp without-ours enclaves
    echo '{ "Terminated": true }'
    ;;
esac
"#;

/// An instance with the made-up nitro-cli and an image that is pinned.
struct Instance(TempDir);

impl Instance {
    fn new() -> Self {
        let instance = Self(tempfile::tempdir().unwrap());
        instance.put("nitro-cli", NITRO_CLI);
        let executable = PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(instance.path("nitro-cli"), executable).unwrap();
        let another = (ANOTHER, 20, "RUNNING");
        let both = listed(&[another, (OURS, 16, "RUNNING"), ("i-0-enc3", 21, "RUNNING")]);
        instance.put("with-ours", both);
        instance.put("without-ours", listed(&[another]));
        instance.put("enclaves", listed(&[another]));
        let started = serde_json::json!({ "EnclaveName": "sealfold", "EnclaveID": OURS,
            "EnclaveCID": 16, "CPUIDs": [1, 3], "MemoryMiB": 256 });
        instance.put("started", serde_json::to_string_pretty(&started).unwrap());
        instance.put("sealfold.eif", image(b"application"));
        let text = instance.measured();
        instance.put("measurements.toml", format!("# announced\n{text}"));
        instance
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn put(&self, name: &str, text: impl AsRef<[u8]>) {
        std::fs::write(self.path(name), text).unwrap();
    }

    fn measured(&self) -> String {
        let output =
            process::run("sealfold", &["measure", self.path("sealfold.eif").to_str().unwrap()]);
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// What nitro-cli was asked for, but for the looks.
    fn asked(&self) -> Vec<String> {
        let all = std::fs::read_to_string(self.path("asked")).unwrap_or_default();
        all.lines().filter(|line| *line != "describe-enclaves").map(str::to_owned).collect()
    }

    fn looks(&self) -> usize {
        let all = std::fs::read_to_string(self.path("asked")).unwrap_or_default();
        all.lines().filter(|line| *line == "describe-enclaves").count()
    }

    /// The script, in an environment like a service manager's.
    fn script(&self) -> Command {
        let mut command = Command::new("/bin/sh");
        command.arg(script()).env_clear();
        let (ours, built) = (self.0.path().display(), process::binaries());
        command.env("PATH", format!("{ours}:{}:/usr/bin:/bin", built.display()));
        command.env("INSTANCE", self.0.path()).env("SEALFOLD_WATCH_SECONDS", "0.05");
        command.env("SEALFOLD_EIF", self.path("sealfold.eif"));
        command.env("SEALFOLD_MEASUREMENTS", self.path("measurements.toml"));
        command
    }

    /// Runs the script to its end; its exit code and what it said.
    fn run(&self) -> (i32, String) {
        let mut script = Server::start_unheard(self.script(), &self.path("said"));
        (script.wait(PATIENCE), script.log())
    }

    fn start(&self) -> Server {
        Server::start_unheard(self.script(), &self.path("said"))
    }
}

fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < PATIENCE, "it does not come to this: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn start_command(instance: &Instance) -> String {
    format!(
        "run-enclave --eif-path {} --cpu-count 2 --memory 256 --enclave-cid 16 --enclave-name sealfold",
        instance.path("sealfold.eif").display()
    )
}

#[test]
fn the_script_is_one_to_a_plain_shell() {
    let script = script();
    let output = Command::new("/bin/sh").arg("-n").arg(&script).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(std::fs::metadata(&script).unwrap().permissions().mode() & 0o111, 0o111);
}

#[test]
fn an_enclave_that_is_gone_ends_the_script_which_names_it() {
    let instance = Instance::new();
    let mut script = instance.start();
    wait_until("booted", || script.log().contains("has booted"));
    assert_eq!(instance.asked(), [start_command(&instance)]);
    // As long as it is there, the script stays, also when nitro-cli fails for
    // longer than it may be missing.
    instance.put("failures", "9");
    wait_until("looks", || instance.looks() > 16);
    assert!(script.log().contains("nitro-cli does not answer"), "{}", script.log());
    assert!(!script.log().contains("is gone"), "{}", script.log());
    // Another enclave, and ours on its way out, are not ours running.
    instance.put("enclaves", listed(&[(ANOTHER, 20, "RUNNING"), (OURS, 16, "TERMINATING")]));
    assert_eq!(script.wait(PATIENCE), 1, "{}", script.log());
    assert!(script.log().contains(&format!("enclave {OURS} is gone")), "{}", script.log());
    // It is left to the service manager what becomes of the rest.
    assert_eq!(instance.asked(), [start_command(&instance)]);
}

#[test]
fn another_image_than_the_pinned_one_is_not_started() {
    let instance = Instance::new();
    let pinned = instance.measured();
    let refused = |expected: &str| {
        let (code, said) = instance.run();
        assert_eq!(code, 78, "{said}");
        assert!(said.contains(expected) && said.contains("next: "), "{expected}: {said}");
        assert!(instance.asked().is_empty(), "{said}");
    };
    instance.put("sealfold.eif", image(b"another application"));
    refused("has other measurements than");
    // Half an image, and none.
    instance.put("sealfold.eif", &image(b"application")[..600]);
    refused("expected a whole image");
    std::fs::remove_file(instance.path("sealfold.eif")).unwrap();
    refused("expected a whole image");
    // A pin that says too little, nothing, or two things.
    instance.put("sealfold.eif", image(b"application"));
    let without: Vec<_> = pinned.lines().filter(|line| !line.starts_with("pcr2")).collect();
    instance.put("measurements.toml", without.join("\n"));
    refused("expected pcr2");
    instance.put("measurements.toml", "");
    refused("expected pcr0");
    instance.put("measurements.toml", pinned.replace("pcr1 = \"", "pcr1 = \"00"));
    refused("has other measurements than");
    instance.put("measurements.toml", format!("{pinned}\npcr8 = \"{}\"\n", "ab".repeat(48)));
    refused("has other measurements than");
    std::fs::remove_file(instance.path("measurements.toml")).unwrap();
    refused("no such file");
    // The same with the right one runs, so it was the pin.
    instance.put("measurements.toml", pinned);
    let script = instance.start();
    wait_until("booted", || script.log().contains("has booted"));
}

#[test]
fn a_stop_ends_the_scripts_own_enclave_and_no_other() {
    let instance = Instance::new();
    let mut script = instance.start();
    wait_until("booted", || script.log().contains("has booted"));
    script.terminate();
    assert_eq!(script.wait(PATIENCE), 0, "{}", script.log());
    let ended = format!("terminate-enclave --enclave-id {OURS}");
    assert_eq!(instance.asked(), [start_command(&instance), ended.clone()]);

    // Told to stop while the image boots: it is ended when its id is known.
    let instance = Instance::new();
    instance.put("slow", "");
    let mut script = instance.start();
    wait_until("booting", || instance.path("booting").exists());
    script.terminate();
    assert_eq!(script.wait(PATIENCE), 0, "{}", script.log());
    assert_eq!(instance.asked(), [start_command(&instance), ended]);
}

#[test]
fn what_nitro_cli_refuses_and_a_taken_address_end_the_script() {
    let instance = Instance::new();
    instance.put("refusal", "[ E27 ] Insufficient memory available.\n");
    let (code, said) = instance.run();
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("[ E27 ]") && said.contains("explain --error-code"), "{said}");
    assert_eq!(instance.asked(), [start_command(&instance)]);

    // Somebody's enclave has the address: it is neither joined nor ended.
    let instance = Instance::new();
    instance.put("enclaves", listed(&[(ANOTHER, 16, "RUNNING")]));
    let (code, said) = instance.run();
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("CID 16 runs already"), "{said}");
    assert!(instance.asked().is_empty(), "{said}");
    // 160 is not 16.
    instance.put("enclaves", listed(&[(ANOTHER, 160, "RUNNING")]));
    let script = instance.start();
    wait_until("booted", || script.log().contains("has booted"));
}
