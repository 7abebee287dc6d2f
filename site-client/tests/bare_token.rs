//! `sealfold verify --evidence` on the real Confidential Space token, offline.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const ITS_TIME: &str = "2025-09-05T08:17:30Z";

/// The section that `docs/site.md` explains, for the image of the real token.
const SECTION: &str = r#"
[confidential-space]
audience = "z08381475938604996746"
roots = ["148b293821bb0c6a317f413c8ba475814091cb22d49b9e3c94198db8e8f86c39"]
hardware_models = ["GCP_INTEL_TDX"]
support = "STABLE"
[[confidential-space.measurements]]
image_digest = "e2e5e3672f416ac9ca71aa639abf86db0b713729a48c125a925af6c808b20b5d"
args = ["/usr/local/bin/ctf_sha2"]
env = { PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", SSL_CERT_FILE = "/etc/ssl/certs/ca-certificates.crt" }
operator_env = ["HOSTNAME"]
"#;

struct Case {
    folder: tempfile::TempDir,
    token: PathBuf,
}

impl Case {
    fn new() -> Self {
        let vectors = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../attestation/tests/vectors/confidential-space");
        let folder = tempfile::tempdir().unwrap();
        Self { folder, token: vectors.join("gcs_pki_token_20250905.jwt") }
    }

    fn policy(&self, section: &str) {
        let example = sealfold_attestation::Policy::example();
        let start = example.find("[nitro]").unwrap();
        let text = format!("{}{section}", &example[..start]);
        std::fs::write(self.folder.path().join("policy.toml"), text).unwrap();
    }

    fn verify(&self, token: &Path, more: &[&str]) -> (i32, String) {
        let Output { status, mut stdout, stderr } = Command::new(env!("CARGO_BIN_EXE_sealfold"))
            .arg("--home")
            .arg(self.folder.path().join("home"))
            .args(["verify", "--evidence"])
            .arg(token)
            .arg("--policy")
            .arg(self.folder.path().join("policy.toml"))
            .args(more)
            .output()
            .unwrap();
        stdout.extend(stderr);
        (status.code().unwrap(), String::from_utf8(stdout).unwrap())
    }
}

#[test]
fn nothing_fails_at_its_own_time_and_no_offer_is_bound() {
    let case = Case::new();
    case.policy(SECTION);
    let (code, out) = case.verify(&case.token, &["--at", ITS_TIME]);
    assert_eq!(code, 2, "{out}");
    for row in [
        "platform        passed",
        "chain           passed",
        "root            passed",
        "signature       passed",
        "audience        passed",
        "debug-mode      passed",
        "image-digest    passed",
        "env             passed",
        "binding         not made",
        "could not tell",
    ] {
        assert!(out.contains(row), "{row}\n{out}");
    }
    assert!(!out.contains("pcr0"), "{out}");
    // As an editor or `echo` leaves it.
    let saved = case.folder.path().join("token.jwt");
    std::fs::write(&saved, std::fs::read_to_string(&case.token).unwrap() + "\n").unwrap();
    assert_eq!(case.verify(&saved, &["--at", ITS_TIME]).0, 2);
}

#[test]
fn it_is_refused_today_and_by_other_policies() {
    let case = Case::new();
    case.policy(SECTION);
    let (code, out) = case.verify(&case.token, &[]);
    assert_eq!(code, 1, "{out}");
    for name in ["validity", "expiry", "age"] {
        assert!(out.contains(&format!("{name:<15} FAILED")), "{out}");
    }
    let (code, out) = case.verify(&case.token, &["--at", ITS_TIME, "--nonce", "00"]);
    assert_eq!(code, 1);
    assert!(out.contains("nonce           FAILED"), "{out}");
    case.policy(&SECTION.replace("e2e5e3", "000000"));
    let (code, out) = case.verify(&case.token, &["--at", ITS_TIME]);
    assert_eq!(code, 1);
    assert!(out.contains("image-digest    FAILED"), "{out}");
    let example = sealfold_attestation::Policy::example();
    case.policy(&example[example.find("[nitro]").unwrap()..]);
    let (code, out) = case.verify(&case.token, &["--at", ITS_TIME]);
    assert_eq!(code, 1);
    assert!(out.contains("platform        FAILED"), "{out}");
}

#[test]
fn a_key_set_stands_beside_the_policy() {
    let case = Case::new();
    case.policy(&SECTION.replace("roots", "jwks = \"google-jwks.json\"\n# roots"));
    let (code, out) = case.verify(&case.token, &["--at", ITS_TIME]);
    assert_eq!(code, 1, "{out}");
    assert!(out.contains("google-jwks.json"), "{out}");
    let n = format!("{}A", "_".repeat(341));
    let set = format!(r#"{{"keys":[{{"kid":"a","kty":"RSA","n":"{n}","e":"AQAB"}}]}}"#);
    std::fs::write(case.folder.path().join("google-jwks.json"), set).unwrap();
    // Keys alone: no token with certificates is accepted.
    let (code, out) = case.verify(&case.token, &["--at", ITS_TIME]);
    assert_eq!(code, 1, "{out}");
    assert!(out.contains("root            FAILED"), "{out}");
}
