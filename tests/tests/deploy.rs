//! What the operator installs: that units, manifests, script and page say what
//! the binaries understand, and what the script does with a nitro-cli that is
//! made up. No Nitro instance and no cluster is part of this.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use sealfold_tests::process::{self, Server};
use sealfold_tests::study::Options;
use sealfold_tests::system::System;
use serde_json::Value;
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

fn checkout() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn read(path: &str) -> String {
    std::fs::read_to_string(checkout().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

fn deployed(name: &str) -> String {
    read(&format!("deploy/nitro/{name}"))
}

fn yaml(name: &str) -> Vec<Value> {
    serde_saphyr::from_str_multiple(&deployed(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
}

/// Lines that end in a backslash, joined with the next.
fn joined(text: &str) -> String {
    text.replace("\\\n", " ")
}

/// The settings of a unit or an environment file.
fn settings(text: &str) -> Vec<(String, String)> {
    let text = joined(text);
    let lines = text.lines().filter(|line| !line.starts_with(['#', '[']));
    let pairs = lines.filter_map(|line| line.split_once('='));
    pairs.map(|(name, value)| (name.to_owned(), value.trim().to_owned())).collect()
}

fn setting(text: &str, name: &str) -> String {
    let mut found = settings(text).into_iter().filter(|(known, _)| known == name);
    let (_, value) = found.next().unwrap_or_else(|| panic!("no {name} in {text}"));
    assert!(found.next().is_none(), "{name} stands twice");
    value
}

/// Whether a binary parses these arguments: it is asked for help behind them,
/// and an argument that it does not understand comes first.
fn understands(arguments: &[&str]) -> Result<(), String> {
    let (path, rest) = arguments.split_first().unwrap();
    let name = path.strip_prefix("/usr/local/bin/").unwrap_or(path);
    let output = process::command(name).args(rest).arg("--help").output().unwrap();
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{arguments:?}: {}", String::from_utf8_lossy(&output.stderr)))
}

#[test]
fn the_hosts_unit_starts_it_as_it_understands() {
    let (unit, environment) = (deployed("sealfold-host.service"), deployed("host.env"));
    let command = setting(&unit, "ExecStart");
    let listen = setting(&environment, "SEALFOLD_LISTEN");
    // The examples that are commented out are meant to be used as well.
    let examples = environment.replace("\n#SEALFOLD", "\nSEALFOLD");
    let options = settings(&examples).into_iter().filter(|(name, _)| name == "SEALFOLD_OPTIONS");
    let mut tried = 0;
    for (_, options) in options {
        let line = command
            .replace("${SEALFOLD_LISTEN}", &listen)
            .replace("$SEALFOLD_OPTIONS", &options)
            .replace("%d", "/run/credentials/sealfold-host.service")
            .replace("%S", "/var/lib");
        assert!(!line.contains(['$', '%']), "{line}");
        let mut words: Vec<_> = line.split_whitespace().collect();
        understands(&words).unwrap();
        tried += 1;
        // This test can fail.
        words.push("--no-such-option");
        assert!(understands(&words).unwrap_err().contains("--no-such-option"));
    }
    assert_eq!(tried, 3);
    // The key's names are those of the credentials.
    for credential in ["tls-cert", "tls-key"] {
        assert!(unit.contains(&format!("LoadCredential={credential}:/etc/sealfold/tls/")));
    }
    assert!(setting(&unit, "RestrictAddressFamilies").contains("AF_VSOCK"));
}

#[test]
fn the_enclaves_unit_and_the_script_fit_each_other_and_the_allocator() {
    let (unit, script) = (deployed("sealfold-enclave.service"), deployed("run-enclave.sh"));
    assert_eq!(setting(&unit, "ExecStart"), "/usr/local/lib/sealfold/run-enclave.sh");
    let code = setting(&unit, "RestartPreventExitStatus");
    assert!(script.contains(&format!("exit {code}\n")));
    let mut given = Vec::new();
    for (name, value) in settings(&unit).into_iter().filter(|(name, _)| name == "Environment") {
        let (variable, value) = value.split_once('=').unwrap_or_else(|| panic!("{name}={value}"));
        // The script's own value is the unit's.
        assert!(script.contains(&format!("${{{variable}:-{value}}}")), "{variable}={value}");
        given.push((variable.to_owned(), value.to_owned()));
    }
    let number = |wanted: &str| -> u64 {
        given.iter().find(|(name, _)| name == wanted).unwrap().1.parse().unwrap()
    };
    let allocator = &yaml("allocator.yaml")[0];
    let pool = |name: &str| allocator[name].as_u64().unwrap_or_else(|| panic!("{allocator}"));
    assert!(number("SEALFOLD_ENCLAVE_MEMORY") <= pool("memory_mib"));
    assert!(number("SEALFOLD_ENCLAVE_CPUS") <= pool("cpu_count"));
    // Whole huge pages, and what the image needs.
    assert!(pool("memory_mib") >= 128 && pool("memory_mib").is_multiple_of(2));
    // The host looks for the enclave where the script puts it.
    let host = setting(&deployed("sealfold-host.service"), "ExecStart");
    assert!(script.contains("${SEALFOLD_ENCLAVE_CID:-16}") && host.contains("vsock://16:5000"));
}

#[test]
fn the_allocators_own_parser_reads_its_file() {
    let text = deployed("allocator.yaml");
    let (_, after) = text.split_once("---\n").unwrap();
    for line in after.lines().filter(|line| !line.trim_start().starts_with('#')) {
        let (name, value) = line.split_once(": ").unwrap_or_else(|| panic!("{line:?}"));
        assert!(["memory_mib", "cpu_count"].contains(&name), "{line:?}");
        assert!(value.parse::<u64>().is_ok(), "{line:?}");
    }
}

#[test]
fn no_enclave_is_started_in_debug_mode() {
    let mut seen = 0;
    for entry in std::fs::read_dir(checkout().join("deploy/nitro")).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        for line in text.lines().filter(|line| !line.trim_start().starts_with('#')) {
            // --attach-console implies it.
            for flag in ["debug-mode", "debug_mode", "attach-console"] {
                assert!(!line.contains(flag), "{}: {line}", path.display());
            }
        }
        seen += 1;
    }
    assert_eq!(seen, 6);
}

fn item<'a>(list: &'a Value, name: &str) -> &'a Value {
    let mut items = list.as_array().unwrap_or_else(|| panic!("{list}")).iter();
    items.find(|item| item["name"] == name).unwrap_or_else(|| panic!("no {name} in {list}"))
}

#[test]
fn the_pods_parts_fit_each_other() {
    let documents = yaml("kubernetes.yaml");
    let of_kind = |kind: &str| documents.iter().find(|d| d["kind"] == kind).unwrap();
    let (service, set) = (of_kind("Service"), of_kind("StatefulSet"));
    let (spec, pod) = (&set["spec"], &set["spec"]["template"]["spec"]);
    let labels = &spec["template"]["metadata"]["labels"];
    assert_eq!(&spec["selector"]["matchLabels"], labels);
    assert_eq!(&service["spec"]["selector"], labels);
    assert_eq!(spec["serviceName"], service["metadata"]["name"]);
    assert_eq!(spec["replicas"], 1);

    let (host, enclave) = (item(&pod["containers"], "host"), item(&pod["containers"], "enclave"));
    let words = ["command", "args"].map(|list| host[list].as_array().unwrap().iter());
    let words: Vec<_> = words.into_iter().flatten().map(|word| word.as_str().unwrap()).collect();
    understands(&words).unwrap();
    let port = item(&host["ports"], "https")["containerPort"].as_u64().unwrap();
    assert!(words.contains(&format!("tcp://0.0.0.0:{port}").as_str()), "{words:?}");
    assert_eq!(item(&service["spec"]["ports"], "https")["targetPort"], "https");
    // The probe asks for what there is.
    let probe = &host["livenessProbe"]["httpGet"];
    assert_eq!((&probe["scheme"], &probe["port"]), (&"HTTPS".into(), &"https".into()));
    let system = System::start(&Options::default());
    let reply = system.get(probe["path"].as_str().unwrap());
    assert_eq!(reply.status, 200);
    assert_eq!(serde_json::from_slice::<Value>(&reply.body).unwrap()["enclave"], true);

    let unit = deployed("sealfold-enclave.service");
    assert_eq!(enclave["command"][0], setting(&unit, "ExecStart").as_str());
    let script = deployed("run-enclave.sh");
    for variable in enclave["env"].as_array().unwrap() {
        assert!(script.contains(&format!("${{{}:-", variable["name"].as_str().unwrap())));
    }
    let memory = item(&enclave["env"], "SEALFOLD_ENCLAVE_MEMORY")["value"].as_str().unwrap();
    for which in ["requests", "limits"] {
        let resources = &enclave["resources"][which];
        assert_eq!(resources["hugepages-2Mi"], format!("{memory}Mi"));
        assert_eq!(resources["aws.ec2.nitro/nitro_enclaves"], "1");
    }
    assert_eq!(yaml("allocator.yaml")[0]["memory_mib"].to_string(), memory);
    // What is mounted is there.
    let claims = spec["volumeClaimTemplates"].as_array().unwrap();
    let claims = claims.iter().map(|claim| &claim["metadata"]["name"]);
    let volumes = pod["volumes"].as_array().unwrap().iter().map(|volume| &volume["name"]);
    let mut there: Vec<_> = claims.chain(volumes).map(ToString::to_string).collect();
    let mounts = [host, enclave].map(|c| c["volumeMounts"].as_array().unwrap().iter());
    let mut mounted: Vec<_> =
        mounts.into_iter().flatten().map(|mount| mount["name"].to_string()).collect();
    there.sort_unstable();
    mounted.sort_unstable();
    assert_eq!(there, mounted);
}

/// A binary and its subcommands, as long as words are names of subcommands.
fn subcommand<'a>(words: &[&'a str]) -> Vec<&'a str> {
    let is_name = |word: &&&str| word.chars().all(|c| c.is_ascii_lowercase() || c == '-');
    words.iter().take_while(|word| !word.starts_with("--")).take_while(is_name).copied().collect()
}

#[test]
fn the_operators_page_names_what_there_is() {
    let page = read("docs/operating.md");
    assert!(page.lines().count() < 260, "{} lines", page.lines().count());
    // Options, in blocks of commands.
    let mut options = 0;
    for line in joined(&page).lines().filter(|line| line.starts_with("sealfold")) {
        let line = line.split(['#', '|', '>']).next().unwrap();
        let words: Vec<_> =
            line.split_whitespace().map(|word| word.trim_matches(['[', ']'])).collect();
        let command = subcommand(&words);
        let output = process::run(command[0], &[&command[1..], &["--help"]].concat());
        assert!(output.status.success(), "{line}: {output:?}");
        let help = String::from_utf8(output.stdout).unwrap();
        for option in words.iter().filter(|word| word.starts_with("--")) {
            let is_there = help.split([' ', '\n', ',']).any(|word| word == *option);
            assert!(is_there, "{option} of {line:?}: {help}");
            options += 1;
        }
    }
    assert!(options >= 10, "{options}");
    // Targets of make, and files.
    let makefile = read("Makefile");
    for rest in page.replace("\nmake ", "`make ").split("`make ").skip(1) {
        let target: String =
            rest.chars().take_while(|c| c.is_ascii_lowercase() || *c == '-').collect();
        assert!(makefile.contains(&format!("\n{target}:")), "make {target}");
    }
    for rest in page.split("deploy/nitro/").skip(1) {
        let is_name = |c: &char| c.is_ascii_alphanumeric() || "-.".contains(*c);
        let name: String = rest.chars().take_while(is_name).collect();
        let path = checkout().join("deploy/nitro").join(name.trim_end_matches('.'));
        assert!(path.exists(), "{}", path.display());
    }
    // What is quoted is what is printed.
    for (text, source) in [
        ("the parent to answer on vsock 3:9000 in 10 s", "image/init/src/heartbeat.rs"),
        ("an answer of the NSM in 20 s", "image/init/src/randomness.rs"),
        ("nsm-hwrng as the kernel's source", "image/init/src/randomness.rs"),
        ("the device /dev/nsm of a Nitro enclave", "image/init/src/machine.rs"),
        ("there is no NSM device", "enclave/src/attester/nsm.rs"),
        ("the NSM did not answer in", "enclave/src/attester/nsm.rs"),
        ("the NSM has not answered the last request", "enclave/src/attester/nsm.rs"),
        ("expected a record within 60 s, the host is slower", "enclave/src/door.rs"),
        ("to restart the enclave: this instance has closed", "host-proxy/src/conductor.rs"),
        ("has other measurements than", "deploy/nitro/run-enclave.sh"),
        ("is gone", "deploy/nitro/run-enclave.sh"),
        ("runs already", "deploy/nitro/run-enclave.sh"),
    ] {
        // A line may end within it.
        let page = page.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(page.contains(text), "the page lacks {text:?}");
        assert!(read(source).contains(text), "{source} lacks {text:?}");
    }
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
    let sum = crc32(header[..HEADER - 4].iter().chain(&body));
    header[HEADER - 4..].copy_from_slice(&sum.to_be_bytes());
    [header, body].concat()
}

fn crc32<'a>(bytes: impl Iterator<Item = &'a u8>) -> u32 {
    !bytes.fold(!0, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| {
            (sum >> 1) ^ (0xedb8_8320 & (sum & 1).wrapping_neg())
        })
    })
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
        command.arg(checkout().join("deploy/nitro/run-enclave.sh")).env_clear();
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
    let script = checkout().join("deploy/nitro/run-enclave.sh");
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
