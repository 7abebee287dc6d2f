//! What `deploy/confidential-space/` says and does, with a gcloud that is made up:
//! nothing of Google Cloud is part of this.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use sealfold_tests::process;
use serde_json::Value;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// The digest that the made-up sites accepted.
const DIGEST: &str = "5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e";
const IMAGE: &str = "europe-docker.pkg.dev/p/sealfold/enclave@sha256:";

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("deploy/confidential-space")
}

fn read(name: &str) -> String {
    std::fs::read_to_string(folder().join(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
}

/// The account of the host's machine, which is there before.
const HOST: &str = "sealfold-host@p.iam.gserviceaccount.com";
/// What the launcher of a machine that [`Cloud::run`] starts has read.
const SETTINGS: [&str; 4] = ["TDX", "tcp://10.10.0.2:5001", "https://us", "pki"];

/// What gcloud prints of a machine with that status, image and settings.
fn started(status: &str, digest: &str, [technology, door, audience, token]: [&str; 4]) -> String {
    format!("{status}~{technology}~{IMAGE}{digest}~{door}~{audience}~{token}\n")
}

/// The made-up gcloud notes what it is asked for; what stands in `there` exists,
/// what stands in `failing` fails; the machine was started as `started` says, in the
/// script's own words for it.
const GCLOUD: &str = r#"#!/bin/sh
cd "$CLOUD" || exit 99
printf '%s\n' "$*" >>asked
word=$(cat failing 2>/dev/null) && case "$*" in
*"$word"*) echo "ERROR: (gcloud) $word" >&2 && exit 1 ;;
esac
case "$*" in
*"--format value("*) echo 10.10.0.3 ;;
*"--format value[separator='~'](status,"*) cat started 2>/dev/null || exit 1 ;;
*" describe "*)
    for word in $(cat there 2>/dev/null); do
        case "$*" in *" describe $word"*) exit 0 ;; esac
    done
    exit 1
    ;;
esac
"#;

/// A project with the made-up gcloud.
struct Cloud(TempDir);

impl Cloud {
    fn new() -> Self {
        let cloud = Self(tempfile::tempdir().unwrap());
        cloud.put("gcloud", GCLOUD);
        let executable = PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(cloud.0.path().join("gcloud"), executable).unwrap();
        let announced =
            format!("[[confidential-space.measurements]]\nimage_digest = \"{DIGEST}\"\n");
        cloud.put("measurements.toml", announced);
        cloud.put("there", HOST);
        cloud
    }

    fn put(&self, name: &str, text: impl AsRef<[u8]>) {
        std::fs::write(self.0.path().join(name), text).unwrap();
    }

    /// Runs the script with these settings beside, or in place of, the usual ones.
    fn run(&self, action: &str, settings: &[(&str, &str)]) -> (i32, String) {
        let mut command = Command::new("/bin/sh");
        command.arg(folder().join("launch.sh")).arg(action).env_clear();
        command.env("PATH", format!("{}:/usr/bin:/bin", self.0.path().display()));
        command.env("CLOUD", self.0.path()).env("SEALFOLD_PROJECT", "p");
        command.env("SEALFOLD_ZONE", "z").env("SEALFOLD_IMAGE", format!("{IMAGE}{DIGEST}"));
        command.env("SEALFOLD_MEASUREMENTS", self.0.path().join("measurements.toml"));
        command.env("SEALFOLD_HOST_ADDRESS", "10.10.0.2").env("SEALFOLD_AUDIENCE", "https://us");
        let output = command.envs(settings.iter().copied()).output().unwrap();
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        (output.status.code().unwrap(), said)
    }

    fn asked(&self) -> Vec<String> {
        let all = std::fs::read_to_string(self.0.path().join("asked")).unwrap_or_default();
        all.lines().map(|line| line.replace("--quiet --project p ", "")).collect()
    }

    fn made(&self) -> Vec<String> {
        self.asked().into_iter().filter(|line| line.contains(" create ")).collect()
    }
}

#[test]
fn the_script_is_one_to_a_plain_shell() {
    let script = folder().join("launch.sh");
    let output = Command::new("/bin/sh").arg("-n").arg(&script).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(std::fs::metadata(&script).unwrap().permissions().mode() & 0o111, 0o111);
}

#[test]
fn a_project_gets_what_it_lacks_and_an_image_by_its_digest() {
    let cloud = Cloud::new();
    let (code, said) = cloud.run("start", &[]);
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("--enclave tcp://10.10.0.3:5000"), "{said}");
    let made = cloud.made();
    assert_eq!(made.len(), 4, "{made:#?}");
    assert!(made[0].starts_with("iam service-accounts create sealfold-enclave"), "{made:#?}");
    assert!(made[1].contains("--allow tcp:5000") && made[2].contains("--allow tcp:5001"));
    let machine = &made[3];
    for words in [
        "--confidential-compute-type TDX",
        "--maintenance-policy TERMINATE",
        "--shielded-secure-boot",
        "--image-project confidential-space-images --image-family confidential-space ",
        "--no-address",
        "--service-account sealfold-enclave@p.iam.gserviceaccount.com --scopes cloud-platform",
        "--metadata ^~^tee-image-reference=europe-docker.pkg.dev/p/sealfold/enclave@sha256:5e",
        "~tee-env-SEALFOLD_DOOR=tcp://10.10.0.2:5001~",
        "~tee-env-SEALFOLD_AUDIENCE=https://us~tee-env-SEALFOLD_TOKEN=pki",
    ] {
        assert!(machine.contains(words), "{words} in {machine}");
    }
    let roles = cloud.asked().into_iter().filter(|line| line.contains("add-iam-policy-binding"));
    assert_eq!(roles.count(), 3);
    // What is there is left as it is.
    cloud.put("there", format!("{HOST} sealfold-enclave"));
    cloud.put("started", started("RUNNING", DIGEST, SETTINGS));
    cloud.put("asked", "");
    assert_eq!(cloud.run("start", &[]).0, 0);
    assert!(cloud.made().is_empty(), "{:#?}", cloud.made());
    let (code, _) = cloud.run("stop", &[]);
    assert_eq!(code, 0);
    assert!(cloud.asked().last().unwrap().starts_with("compute instances delete sealfold-enclave"));
}

#[test]
fn settings_that_no_site_would_accept_make_nothing() {
    let cloud = Cloud::new();
    let other = format!("{IMAGE}{}", "ab".repeat(32));
    let tagged = IMAGE.replace("@sha256:", ":latest");
    for (setting, value, expected) in [
        ("SEALFOLD_IMAGE", other.as_str(), "has another digest than"),
        ("SEALFOLD_IMAGE", &tagged, "expected an image by its digest"),
        ("SEALFOLD_IMAGE", "", "expected SEALFOLD_IMAGE"),
        ("SEALFOLD_AUDIENCE", "", "expected SEALFOLD_AUDIENCE"),
        ("SEALFOLD_AUDIENCE", "a~tee-cmd=x", "without spaces and ~"),
        ("SEALFOLD_HOST_ADDRESS", "", "expected SEALFOLD_HOST_ADDRESS"),
        ("SEALFOLD_HOST_ADDRESS", "tcp://10.10.0.2:5001", "a bare IPv4 address or name"),
        ("SEALFOLD_HOST_ADDRESS", "10.10.0.2:5001", "a bare IPv4 address or name"),
        ("SEALFOLD_HOST_ADDRESS", "--help", "a bare IPv4 address or name"),
        ("SEALFOLD_PROJECT", "", "expected SEALFOLD_PROJECT"),
        ("SEALFOLD_TOKEN", "jwt", "expected SEALFOLD_TOKEN=pki or oidc"),
        ("SEALFOLD_TECHNOLOGY", "SGX", "expected SEALFOLD_TECHNOLOGY=TDX or SEV"),
        ("SEALFOLD_MEASUREMENTS", "/nonexistent", "found no such file"),
    ] {
        let (code, said) = cloud.run("start", &[(setting, value)]);
        assert_eq!(code, 78, "{setting}={value}: {said}");
        assert!(said.contains(expected) && said.contains("next: "), "{said}");
    }
    let several = format!("image_digest = \"{DIGEST}\"\n").repeat(2);
    for (announced, expected) in [("", "found none"), (several.as_str(), "found several")] {
        cloud.put("measurements.toml", announced);
        let (code, said) = cloud.run("start", &[]);
        assert!(code == 78 && said.contains(expected), "{said}");
    }
    assert_eq!(cloud.run("begin", &[]).0, 78);
    cloud.put("measurements.toml", format!("image_digest = \"{DIGEST}\"\n"));
    for (technology, machine, expected) in [
        ("SEV", "c3-standard-4", "expected a machine of AMD for SEV, found c3-standard-4"),
        ("TDX", "n2d-standard-8", "expected a machine of Intel for TDX, found n2d-standard-8"),
    ] {
        let settings = [("SEALFOLD_TECHNOLOGY", technology), ("SEALFOLD_MACHINE", machine)];
        let (code, said) = cloud.run("start", &settings);
        assert!(code == 78 && said.contains(expected) && said.contains("next: "), "{said}");
    }
    assert!(cloud.asked().is_empty(), "{:#?}", cloud.asked());
}

#[test]
fn each_technology_has_its_kind_of_machine() {
    for (technology, machine) in [("TDX", "c3-standard-4"), ("SEV", "n2d-standard-4")] {
        let cloud = Cloud::new();
        let (code, said) = cloud.run("start", &[("SEALFOLD_TECHNOLOGY", technology)]);
        assert_eq!(code, 0, "{said}");
        let made = cloud.made();
        let words = format!("--machine-type {machine} --confidential-compute-type {technology} ");
        assert!(made.last().unwrap().contains(&words), "{made:#?}");
    }
}

#[test]
fn a_machine_that_was_started_with_other_settings_is_not_taken_for_this_one() {
    let cloud = Cloud::new();
    cloud.put("there", format!("{HOST} sealfold-enclave"));
    let mut others = vec![started("RUNNING", &"ab".repeat(32), SETTINGS)];
    for (place, other) in [(0, "SEV"), (1, "tcp://10.10.0.9:5001"), (2, "https://eu"), (3, "oidc")]
    {
        let mut settings = SETTINGS;
        settings[place] = other;
        others.push(started("RUNNING", DIGEST, settings));
    }
    // Made by hand, without the metadata.
    others.push("RUNNING~~~~~\n".to_owned());
    for other in others {
        cloud.put("started", &other);
        let (code, said) = cloud.run("start", &[]);
        assert_eq!(code, 78, "{other}: {said}");
        assert!(said.contains("was started with other settings"), "{said}");
        assert!(said.contains("launch.sh stop, then start"), "{said}");
        // Both are shown.
        for (_, settings) in [other.as_str(), &started("", DIGEST, SETTINGS)].map(rest) {
            assert!(said.contains(settings), "{settings} in {said}");
        }
    }
    // The same, but it has ended.
    cloud.put("started", started("TERMINATED", DIGEST, SETTINGS));
    let (code, said) = cloud.run("start", &[]);
    assert_eq!(code, 78, "{said}");
    assert!(said.contains("to run, found TERMINATED"), "{said}");
    // Nothing was made or changed meanwhile.
    let asked = cloud.asked();
    assert!(asked.iter().all(|line| line.contains(" describe ")), "{asked:#?}");
    for status in ["PROVISIONING", "STAGING", "RUNNING"] {
        cloud.put("started", started(status, DIGEST, SETTINGS));
        assert_eq!(cloud.run("start", &[]).0, 0, "{status}");
    }
    assert!(cloud.made().iter().all(|line| !line.contains("instances create")));
}

/// What gcloud prints, parted in status and settings.
fn rest(printed: &str) -> (&str, &str) {
    printed.trim_end().split_once('~').unwrap()
}

#[test]
fn without_the_hosts_account_no_firewall_rule_is_made() {
    let cloud = Cloud::new();
    cloud.put("there", "");
    let (code, said) = cloud.run("start", &[]);
    assert_eq!(code, 78, "{said}");
    assert!(
        said.contains(HOST) && said.contains("service-accounts create sealfold-host"),
        "{said}"
    );
    assert!(cloud.made().is_empty(), "{:#?}", cloud.made());
}

#[test]
fn a_gcloud_that_fails_ends_it_at_once() {
    for failing in
        ["service-accounts create", "workloadUser", "firewall-rules create", "instances create"]
    {
        let cloud = Cloud::new();
        cloud.put("failing", failing);
        let (code, said) = cloud.run("start", &[]);
        assert_eq!(code, 1, "{said}");
        assert!(said.contains("gcloud did not"), "{said}");
        assert!(cloud.asked().last().unwrap().contains(failing), "{:#?}", cloud.asked());
    }
}

/// The blocks of a kind in the Terraform files.
fn terraform(kind: &str) -> Value {
    let names = ["versions.tf", "variables.tf", "network.tf", "machines.tf", "outputs.tf"];
    let text: Vec<_> = names.map(read).into_iter().collect();
    let all: Value = hcl::from_str(&text.join("\n")).unwrap();
    all[kind].clone()
}

#[test]
fn terraform_says_what_the_script_says() {
    let resources = terraform("resource");
    let enclave = &resources["google_compute_instance"]["enclave"];
    let metadata = enclave["metadata"].as_object().unwrap();
    let names: Vec<_> = metadata.keys().map(String::as_str).collect();
    let script = read("launch.sh");
    assert_eq!(names.len(), 5);
    for name in &names {
        assert!(script.contains(&format!("{name}=")), "{name}");
    }
    // Every variable that is set is one that the image's labels allow.
    let dockerfile = std::fs::read_to_string(folder().join("../../Dockerfile.enclave")).unwrap();
    let (_, labels) = dockerfile.split_once("allow_env_override\"=\"").unwrap();
    let allowed: Vec<_> = labels.split('"').next().unwrap().split(',').collect();
    let set = names.iter().filter_map(|name| name.strip_prefix("tee-env-"));
    let mut set: Vec<_> = set.collect();
    set.sort_unstable();
    let mut sorted = allowed.clone();
    sorted.sort_unstable();
    assert_eq!(set, sorted);
    assert!(metadata["tee-env-SEALFOLD_DOOR"].as_str().unwrap().ends_with(":5001"));
    // No debug image, no logging, no mounts, no override of the command.
    let family = terraform("data")["google_compute_image"]["confidential_space"]["family"].clone();
    assert_eq!(family, "confidential-space");
    for word in ["confidential-space-debug", "tee-cmd", "tee-mount", "log-redirect", "monitoring"] {
        let files = [read("launch.sh"), read("machines.tf"), read("network.tf")].concat();
        assert!(!files.contains(word), "{word}");
    }
    assert_eq!(enclave["shielded_instance_config"]["enable_secure_boot"], true);
    assert_eq!(enclave["scheduling"]["on_host_maintenance"], "TERMINATE");
    assert!(enclave["network_interface"].get("access_config").is_none(), "{enclave:#}");
    let rules = resources["google_compute_firewall"].as_object().unwrap();
    let ports: Vec<_> =
        rules.iter().map(|(name, rule)| (name.as_str(), &rule["allow"]["ports"][0])).collect();
    for (name, port) in [("requests", "5000"), ("door", "5001"), ("sites", "443"), ("ssh", "22")] {
        assert!(ports.contains(&(name, &port.into())), "{ports:?}");
    }
    // Who installs the host comes through Google's proxy, and to the host alone.
    assert_eq!(rules["ssh"]["source_ranges"], serde_json::json!(["35.235.240.0/20"]));
    for (name, rule) in rules {
        let to = &rule["target_service_accounts"].to_string();
        assert_eq!(to.contains("account.enclave"), name == "requests", "{name}: {to}");
    }
    // The sites' address is one that stays.
    let sites = &resources["google_compute_instance"]["host"]["network_interface"]["access_config"];
    assert_eq!(sites["nat_ip"], "${google_compute_address.sites.address}");
    assert!(resources["google_compute_address"]["sites"].get("subnetwork").is_none());
    // The page enables by hand what the files enable.
    let page = std::fs::read_to_string(folder().join("../../docs/operating-google.md")).unwrap();
    let needed = resources["google_project_service"]["needed"]["for_each"].to_string();
    let services: Vec<_> = needed.split('"').filter(|part| part.contains("googleapis")).collect();
    assert_eq!(services.len(), 7, "{needed}");
    for service in services {
        assert!(page.contains(service.trim_end_matches('\\')), "{service}");
    }
    assert!(dockerfile.contains("\nEXPOSE 5000\n"));
    // The two roles beside the launcher's log are the same in both.
    for role in
        ["confidentialcomputing.workloadUser", "artifactregistry.reader", "logging.logWriter"]
    {
        assert!(script.contains(role) && read("machines.tf").contains(role), "{role}");
    }
}

#[test]
fn the_hosts_unit_takes_its_part_and_everything_says_what_was_not_tried() {
    let text = read("host.conf").replace("\\\n", " ");
    let lines: Vec<_> = text.lines().filter(|line| line.starts_with("ExecStart=")).collect();
    // The first empties what the unit says.
    assert_eq!((lines.len(), lines[0]), (2, "ExecStart="));
    let line = lines[1]
        .strip_prefix("ExecStart=")
        .unwrap()
        .replace("${SEALFOLD_LISTEN}", "tcp://0.0.0.0:443")
        .replace("${SEALFOLD_ENCLAVE}", "tcp://10.10.0.3:5000")
        .replace("$SEALFOLD_OPTIONS", "--log-format json")
        .replace("%d", "/run/credentials/sealfold-host.service")
        .replace("%S", "/var/lib");
    assert!(!line.contains(['$', '%']), "{line}");
    let mut words = line.split_whitespace();
    assert_eq!(words.next(), Some("/usr/local/bin/sealfold-host"));
    let words: Vec<_> = words.collect();
    let output = process::command("sealfold-host").args(&words).arg("--help").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let unit = std::fs::read_to_string(folder().join("../nitro/sealfold-host.service")).unwrap();
    for option in words.iter().filter(|word| word.starts_with("--") && **word != "--log-format") {
        assert!(unit.contains(option), "{option}");
    }
    for name in ["launch.sh", "versions.tf", "host.conf"] {
        assert!(read(name).contains("NOT TRIED"), "{name}");
    }
}

#[test]
fn the_operators_page_for_google_names_what_there_is() {
    let root = folder().join("../..");
    let page = std::fs::read_to_string(root.join("docs/operating-google.md")).unwrap();
    let makefile = std::fs::read_to_string(root.join("Makefile")).unwrap();
    for rest in page.replace("\nmake ", "`make ").split("`make ").skip(1) {
        let target: String =
            rest.chars().take_while(|c| c.is_ascii_lowercase() || *c == '-').collect();
        assert!(makefile.contains(&format!("\n{target}:")), "make {target}");
    }
    let mut files = 0;
    for rest in page.split("deploy/confidential-space/").skip(1) {
        let is_name = |c: &char| c.is_ascii_alphanumeric() || "-.".contains(*c);
        let name: String = rest.chars().take_while(is_name).collect();
        let path = folder().join(name.trim_end_matches('.'));
        assert!(path.exists(), "{}", path.display());
        files += 1;
    }
    assert!(files >= 3, "{files}");
    // What is quoted is what is printed.
    let words = page.split_whitespace().collect::<Vec<_>>().join(" ");
    for (text, source) in [
        ("found neither", "enclave/src/platform.rs"),
        ("found both", "enclave/src/platform.rs"),
        ("record door: expected its address, found none", "enclave/src/platform.rs"),
        ("one that this user may not write to", "enclave/src/attester/confidential_space.rs"),
        ("found a slower launcher", "enclave/src/attester/confidential_space.rs"),
        ("expected a token, found status", "enclave/src/attester/confidential_space.rs"),
        ("has another digest than", "deploy/confidential-space/launch.sh"),
    ] {
        assert!(words.contains(text), "the page lacks {text:?}");
        let source = std::fs::read_to_string(root.join(source)).unwrap();
        let source = source.replace("\\\n", " ").split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(source.contains(text), "{text:?}");
    }
    assert!(page.contains("not tried"));
}
