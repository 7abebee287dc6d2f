//! What the operator installs: that units, manifests and page say what the
//! binaries understand. No Nitro instance and no cluster is part of this.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use sealfold_tests::process;
use sealfold_tests::study::Options;
use sealfold_tests::system::System;
use serde_json::Value;
use std::path::{Path, PathBuf};

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
    assert_eq!(tried, 4);
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
    assert!(page.lines().count() < 270, "{} lines", page.lines().count());
    let page = page + &read("docs/operating-upgrade.md");
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
        ("to restart the enclave: this instance has closed", "host-proxy/src/conductor/mod.rs"),
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
