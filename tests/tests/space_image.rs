//! The OCI image as `make image` builds it, run from its unpacked root file system
//! without a network but for its two endpoints. Run by `make
//! test-confidential-space`, which builds the image.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use sealfold_protocol::api::EnclaveStatus;
use sealfold_tests::http;
use sealfold_tests::launcher::{AUDIENCE, Launcher};
use sealfold_tests::namespace::{DOOR, Namespace, process_in};
use sealfold_tests::process::{self, Server};
use sealfold_tests::space::{TABLE, section};
use sealfold_tests::workload::Workload;
use serde_json::{Value, json};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;

/// What the operator sets.
const OPERATOR: [(&str, &str); 3] =
    [("SEALFOLD_DOOR", DOOR), ("SEALFOLD_AUDIENCE", AUDIENCE), ("SEALFOLD_TOKEN", "pki")];

fn layout() -> PathBuf {
    let folder = std::env::var_os("SEALFOLD_OCI");
    PathBuf::from(folder.expect("SEALFOLD_OCI is not set; run `make test-confidential-space`"))
}

/// A folder that others may look into, as an ordinary user within has to.
fn folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    folder
}

/// `sealfold measure` of the image.
fn measured(more: &[&str]) -> String {
    let layout = layout();
    let output = process::run("sealfold", &[&["measure", layout.to_str().unwrap()], more].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// A policy for the image under the simulation's roots: what `sealfold measure`
/// says of it, and a root for Nitro documents, which there are none of.
fn policy(folder: &Path) -> String {
    let image = measured(&[]).replace("[[confidential-space.", &format!("[[{TABLE}."));
    let image = &image[image.find("[[").unwrap()..];
    let nitro = process::simulation_policy(folder);
    let (root, _) = nitro.split_once("[[simulation.measurements]]").unwrap();
    format!("{root}{}\n", section(TABLE, image))
}

/// Whether this process has any interface but `lo`, or listens or is connected
/// anywhere but on the two endpoints.
fn expect_alone(process: &Path) {
    let read = |name: &str| std::fs::read_to_string(process.join("net").join(name)).unwrap();
    let interfaces: Vec<_> = read("dev")
        .lines()
        .skip(2)
        .map(|line| line.split(':').next().unwrap().trim().to_owned())
        .collect();
    assert_eq!(interfaces, ["lo"]);
    assert_eq!(read("route").lines().count(), 1, "{}", read("route"));
    // Local address and port, in hex; 0A is a listener.
    let mut listens: Vec<_> = read("tcp")
        .lines()
        .skip(1)
        .map(|line| line.split_whitespace().skip(1).collect::<Vec<_>>())
        .filter(|fields| fields[2] == "0A")
        .map(|fields| u16::from_str_radix(fields[0].split(':').nth(1).unwrap(), 16).unwrap())
        .collect();
    listens.sort_unstable();
    assert_eq!(listens, [5000, 5001]);
}

/// Whether this process may do nothing that an ordinary one may not.
fn expect_powerless(process: &Path) {
    let status = std::fs::read_to_string(process.join("status")).unwrap();
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().to_owned()
    };
    for set in ["CapEff:", "CapPrm:", "CapInh:", "CapAmb:"] {
        assert_eq!(field(set), "0".repeat(16), "{set}");
    }
    assert_eq!(field("NoNewPrivs:"), "1");
}

#[test]
#[ignore = "needs the image: make test-confidential-space"]
fn four_hospitals_run_three_rounds_through_the_image_without_a_network() {
    let folder = folder();
    let namespace = Namespace::unpack(folder.path(), &layout());
    // Nothing but the binary is in it, and the places of what is mounted.
    let names = std::fs::read_dir(namespace.root()).unwrap();
    let mut names: Vec<_> = names.map(|entry| entry.unwrap().file_name()).collect();
    names.sort_unstable();
    assert_eq!(names, ["dev", "run", "sealfold-enclave"]);
    let workload = Workload::launch(&layout(), &OPERATOR).unwrap();
    let launcher = Launcher::start(&namespace.launcher(), workload.clone());
    let enclave = namespace.start(&workload);
    let process = process_in(&namespace.root());
    expect_alone(&process);
    expect_powerless(&process);

    let platform = folder.path().join("platform.toml");
    std::fs::write(&platform, policy(folder.path())).unwrap();
    let out = folder.path().join("demo");
    let output = process::command("heart-disease")
        .args(["demo", "--rounds", "3", "--enclave", &namespace.enclave().to_string()])
        .args(["--door", &namespace.door().to_string(), "--platform-policy"])
        .arg(&platform)
        .arg("--out")
        .arg(&out)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{}", enclave.log());
    let summary: Value =
        serde_json::from_slice(&std::fs::read(out.join("summary.json")).unwrap()).unwrap();
    assert_eq!(summary["rounds"], 3);
    for hospital in ["cleveland", "hungarian", "switzerland", "va-long-beach"] {
        let auc = summary["auc"][hospital]["federated"].as_f64().unwrap();
        assert!((0.5..1.0).contains(&auc), "{hospital}: {auc}");
    }
    // Every site asked for itself, in every round: another nonce, second in place.
    let asked: Vec<Value> =
        launcher.asked().iter().map(|body| serde_json::from_str(body).unwrap()).collect();
    let mut nonces: Vec<_> = asked.iter().map(|body| body["nonces"][1].to_string()).collect();
    nonces.sort_unstable();
    nonces.dedup();
    assert!(nonces.len() >= 3 * 4, "{} nonces", nonces.len());
    assert!(asked.iter().all(|body| body["token_type"] == "PKI" && body["audience"] == AUDIENCE));
    expect_alone(&process);
}

#[test]
#[ignore = "needs the image: make test-confidential-space"]
fn the_launcher_starts_what_the_labels_allow_and_nothing_else() {
    let set = |name: &'static str| Workload::launch(&layout(), &[(name, "x")]);
    for name in ["LD_PRELOAD", "PATH", "RUST_BACKTRACE", "HOSTNAME", "SEALFOLD_PLATFORM", ""] {
        let refused = set(name).unwrap_err();
        assert!(refused.contains("not allowed to be overridden"), "{refused}");
    }
    let workload = Workload::launch(&layout(), &OPERATOR).unwrap();
    assert_eq!(workload.args, ["/sealfold-enclave"]);
    assert_eq!(workload.env_override.len(), 3);
    // What a site reads off the image is what the token will say.
    let text = measured(&[]);
    let digest = workload.image_digest.strip_prefix("sha256:").unwrap();
    assert!(text.contains(&format!("image_digest = \"{digest}\"")), "{text}");
    let table: toml::Value = toml::from_str(&text).unwrap();
    let image = &table["confidential-space"]["measurements"][0];
    let open = ["HOSTNAME", "SEALFOLD_AUDIENCE", "SEALFOLD_DOOR", "SEALFOLD_TOKEN"];
    assert_eq!(image["operator_env"], toml::Value::try_from(open).unwrap());
    assert_eq!(image["args"], toml::Value::try_from(["/sealfold-enclave"]).unwrap());
    assert_eq!(image["env"]["PATH"].as_str(), Some(workload.env["PATH"].as_str()));
    let manifest = measured(&["--manifest"]);
    assert_eq!(
        manifest.trim(),
        format!("[[measurements.confidential-space]]\nimage_digest = \"{digest}\"")
    );
    let example = sealfold_attestation::Policy::example();
    let line = example.lines().find(|line| line.starts_with("# operator_env")).unwrap();
    assert_eq!(line, format!("# operator_env = {}", json!(open).to_string().replace(',', ", ")));
}

/// Starts the image, which must end at once; what it said.
fn ends(namespace: &Namespace, workload: &Workload, folder: &Path) -> String {
    let log = folder.join("ends.log");
    let mut server = Server::start_unheard(namespace.command(workload), &log);
    assert_ne!(server.wait(Duration::from_secs(30)), 0, "{}", server.log());
    server.log()
}

#[test]
#[ignore = "needs the image: make test-confidential-space"]
fn an_image_outside_a_confidential_space_or_told_too_little_ends_and_says_why() {
    let folder = folder();
    let namespace = Namespace::unpack(folder.path(), &layout());
    let workload = Workload::launch(&layout(), &OPERATOR).unwrap();
    let text = ends(&namespace, &workload, folder.path());
    assert!(text.contains("platform: expected /dev/nsm"), "{text}");
    assert!(text.contains("/run/container_launcher/teeserver.sock"), "{text}");
    let _launcher = Launcher::start(&namespace.launcher(), workload.clone());
    for (left_out, expected) in
        [("SEALFOLD_DOOR", "tee-env-SEALFOLD_DOOR"), ("SEALFOLD_AUDIENCE", "SEALFOLD_AUDIENCE")]
    {
        let told = OPERATOR.into_iter().filter(|(name, _)| *name != left_out);
        let workload = Workload::launch(&layout(), &told.collect::<Vec<_>>()).unwrap();
        let text = ends(&namespace, &workload, folder.path());
        assert!(text.contains(expected), "{text}");
    }
    // With everything it starts, and with the launcher's folder mounted read-only
    // and its socket writable by its owner alone it can ask.
    let _enclave = namespace.start(&workload);
    let status: EnclaveStatus =
        http::call(&namespace.enclave(), "GET", "/v1/status", &json!({})).unwrap();
    assert!(status.offer.is_none() && status.receipts.is_empty(), "{status:?}");
}
