//! The image's own scripts: what they make, and what they say when something
//! is missing, wrong or broken. Run by `make test-nitro`.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use sealfold_tests::machine::Image;
use serde_json::Value;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tempfile::TempDir;

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("image").join(name)
}

/// A script with an empty cache, which may not install anything.
fn command(name: &str, cache: &Path) -> Command {
    let mut command = Command::new(script(name));
    command.env("SEALFOLD_CACHE", cache).env_remove("CI").env_remove("SEALFOLD_INSTALL");
    command
}

/// What a script said when it failed, as it must.
fn complaint(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "{text}");
    assert!(text.contains("error: ") && text.contains("next: "), "{text}");
    text
}

/// A folder with one program of that name and text, for the front of the path.
fn program(name: &str, text: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
    folder
}

fn path_after(folder: &TempDir) -> String {
    format!("{}:{}", folder.path().display(), std::env::var("PATH").unwrap())
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

#[test]
#[ignore = "needs buildah and the images: make test-nitro"]
fn the_oci_image_is_the_shipped_binary_alone_and_its_digest_is_equal_over_two_builds() {
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let digests = folders.each_ref().map(|folder| {
        let output =
            Command::new(script("oci.sh")).arg("--out").arg(folder.path()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    });
    assert!(digests[0].starts_with("sha256:"), "{digests:?}");
    assert_eq!(digests[0], digests[1]);

    // What is in it, read from the layout.
    let layout = folders[0].path().join("image");
    let blob = |digest: &Value| {
        layout.join("blobs/sha256").join(digest.as_str().unwrap().strip_prefix("sha256:").unwrap())
    };
    let index = json(&layout.join("index.json"));
    assert_eq!(index["manifests"][0]["digest"], digests[0].as_str());
    let manifest = json(&blob(&index["manifests"][0]["digest"]));
    let config = json(&blob(&manifest["config"]["digest"]));
    let settings = &config["config"];
    // To whom the launcher's socket belongs.
    assert_eq!(settings["User"], "0:0");
    assert_eq!(settings["Entrypoint"], serde_json::json!(["/sealfold-enclave"]));
    let label = |name: &str| settings["Labels"][format!("tee.launch_policy.{name}")].clone();
    assert_eq!(label("allow_cmd_override"), "false");
    assert_eq!(label("allow_env_override"), "SEALFOLD_DOOR,SEALFOLD_AUDIENCE,SEALFOLD_TOKEN");
    assert_eq!(label("allow_capabilities"), "false");
    assert_eq!(label("monitoring_memory_allow"), "never");
    let layers = manifest["layers"].as_array().unwrap();
    assert_eq!(layers.len(), 1);
    let unpacked = tempfile::tempdir().unwrap();
    let tar = Command::new("tar")
        .args(["--numeric-owner", "-tvf"])
        .arg(blob(&layers[0]["digest"]))
        .output()
        .unwrap();
    let listing = String::from_utf8(tar.stdout).unwrap();
    let entries: Vec<_> = listing.lines().collect();
    assert_eq!(entries.len(), 1, "{listing}");
    assert!(entries[0].starts_with("-r-xr-xr-x 0/0"), "{listing}");
    let status = Command::new("tar")
        .arg("-xf")
        .arg(blob(&layers[0]["digest"]))
        .arg("-C")
        .arg(unpacked.path())
        .status()
        .unwrap();
    assert!(status.success());
    let binary = unpacked.path().join("sealfold-enclave");
    // The very binary that the EIF holds.
    let shipped = json(&Image::shipped().file.parent().unwrap().join("measurements.json"));
    let digest = ring::digest::digest(&ring::digest::SHA256, &std::fs::read(&binary).unwrap());
    assert_eq!(hex::encode(digest), shipped["parts"]["application"]["sha256"].as_str().unwrap());
    // Without a platform it names what is missing.
    let output = Command::new(&binary).output().unwrap();
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("there is no NSM device"));
}

#[test]
#[ignore = "needs the images: make test-nitro"]
fn the_bill_of_materials_lists_what_is_linked_and_nothing_of_the_simulation() {
    let folder = Image::shipped().file.parent().unwrap().to_owned();
    let bill = json(&folder.join("bom.json"));
    assert_eq!((&bill["bomFormat"], &bill["specVersion"]), (&"CycloneDX".into(), &"1.5".into()));
    let names: Vec<_> = bill["components"]
        .as_array()
        .unwrap()
        .iter()
        .map(|component| component["name"].as_str().unwrap())
        .collect();
    for name in ["linux", "ring", "hpke", "vsock", "aws-nitro-enclaves-nsm-api", "sealfold-init"] {
        assert!(names.contains(&name), "{name}: {names:?}");
    }
    // Test tools and the simulation's certificates are not linked.
    for name in ["proptest", "rcgen", "criterion"] {
        assert!(!names.contains(&name), "{name}");
    }
    // The size that the documents promise.
    let report = json(&folder.join("measurements.json"));
    assert!(report["image"]["bytes"].as_u64().unwrap() < 12_000_000, "{report}");
}

#[test]
#[ignore = "needs the kernel's build tools: make test-nitro"]
fn a_kernel_source_of_another_version_is_not_built() {
    let (cache, sources) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let text = std::fs::read_to_string(script("kernel/build.sh")).unwrap();
    let name = text.lines().find_map(|line| line.strip_prefix("DEB=")).unwrap();
    std::fs::write(sources.path().join(name), b"another kernel").unwrap();
    let output = command("kernel/build.sh", cache.path())
        .env("SEALFOLD_SOURCES", sources.path())
        .output()
        .unwrap();
    let text = complaint(&output);
    assert!(text.contains(&format!("{name}: expected SHA-256 ")), "{text}");
    assert!(text.contains("it is not the pinned source"), "{text}");
}

#[test]
#[ignore = "needs Debian's dpkg: make test-nitro"]
fn a_missing_tool_is_named_with_the_command_that_installs_it() {
    let cache = tempfile::tempdir().unwrap();
    // A path with what the script itself needs, and no buildah.
    let tools = tempfile::tempdir().unwrap();
    for tool in ["bash", "dirname", "cargo", "gcc", "git", "realpath", "env"] {
        let found = Command::new("which").arg(tool).output().unwrap();
        let found = String::from_utf8(found.stdout).unwrap();
        std::os::unix::fs::symlink(found.trim(), tools.path().join(tool)).unwrap();
    }
    let output = command("oci.sh", cache.path()).env("PATH", tools.path()).output().unwrap();
    let text = complaint(&output);
    assert!(text.contains("error: not installed: buildah"), "{text}");
    assert!(text.contains("apt install buildah"), "{text}");
}

#[test]
#[ignore = "needs the image's build tools: make test-nitro"]
fn a_full_disk_is_named_before_anything_is_built() {
    let cache = tempfile::tempdir().unwrap();
    let full = program("df", "#!/bin/sh\nprintf 'Avail\\n   17\\n'\n");
    for name in ["kernel/build.sh", "vm/tools.sh", "build.sh", "oci.sh"] {
        let output = command(name, cache.path()).env("PATH", path_after(&full)).output().unwrap();
        let text = complaint(&output);
        assert!(text.contains("has 17 MiB free, expected at least"), "{name}: {text}");
        assert!(text.contains("SEALFOLD_CACHE"), "{text}");
    }
}

#[test]
#[ignore = "plays with a cache: make test-nitro"]
fn a_corrupted_cache_is_noticed_and_thrown_away() {
    let cache = tempfile::tempdir().unwrap();
    let kept = cache.path().join("kept");
    let library = script("lib.sh");
    let run = |body: &str| {
        let text = format!("set -euo pipefail; . '{}'; {body}", library.display());
        Command::new("bash")
            .args(["-c", &text])
            .env("SEALFOLD_CACHE", cache.path())
            .output()
            .unwrap()
    };
    let result = cache.path().join("result");
    std::fs::create_dir(&result).unwrap();
    std::fs::write(result.join("tool"), b"a tool").unwrap();
    let keep = format!("keep '{}' '{}'", result.display(), kept.display());
    assert!(run(&keep).status.success());
    let cached = format!("cached '{}'", kept.display());
    assert!(run(&cached).status.success());
    // One bit, in a file that was listed.
    std::fs::write(kept.join("tool"), b"a tooL").unwrap();
    let output = run(&cached);
    assert!(!output.status.success());
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("was changed or is not whole; building it again"), "{text}");
    assert!(!kept.exists());
}

#[test]
#[ignore = "needs the image builder: make test-nitro"]
fn an_image_that_cannot_be_signed_is_not_written() {
    let out = tempfile::tempdir().unwrap();
    let folder = out.path().to_str().unwrap();
    let signed_with = |certificate: &Path, key: &Path| {
        let output = Command::new(script("build.sh"))
            .args(["--out", folder, "--sign"])
            .args([certificate, key])
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success(), "{text}");
        assert!(text.contains("cannot be signed with this key and certificate"), "{text}");
        assert!(!out.path().join("sealfold.eif").exists());
        text
    };
    let wrong = out.path().join("certificate.pem");
    std::fs::write(&wrong, b"no certificate").unwrap();
    let signer = Image::of("signed").file.parent().unwrap().join("../signer.pem");
    let text = signed_with(&wrong, &wrong);
    assert!(text.contains("expected a certificate in PEM"), "{text}");
    let text = signed_with(&signer, &wrong);
    assert!(text.contains("expected a private key in PEM"), "{text}");
    let other = out.path().join("other.key");
    let made = Command::new("openssl")
        .args(["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384", "-out"])
        .arg(&other)
        .output()
        .unwrap();
    assert!(made.status.success());
    let text = signed_with(&signer, &other);
    assert!(text.contains("expected the private key of"), "{text}");
}
