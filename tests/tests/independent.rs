//! An implementation that is not ours reads the log: `aics-tlog` (`PyPI`),
//! which was written from the C2SP specifications.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use sealfold_attestation::log::note::KeyKind;
use sealfold_attestation::log::{NoteSigner, SignedCheckpoint};
use sealfold_tests::story::Story;
use sealfold_tests::study::Options;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The interpreter that has the package; `SEALFOLD_TLOG_PYTHON` names another.
fn python() -> PathBuf {
    let own = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/tools/tlog/bin/python");
    let path = std::env::var("SEALFOLD_TLOG_PYTHON").unwrap_or_else(|_| own.to_owned());
    let has_it = Command::new(&path).args(["-c", "import aics_tlog"]).output();
    assert!(
        has_it.is_ok_and(|output| output.status.success()),
        "the independent reader is not installed at {path}: `make test-tools` installs it \
         (aics-tlog 0.2.1 from PyPI), or SEALFOLD_TLOG_PYTHON names a \
         Python that has it"
    );
    path.into()
}

fn ask(arguments: &[&str]) -> Output {
    Command::new(python()).arg("-m").arg("aics_tlog").args(arguments).output().unwrap()
}

fn good(arguments: &[&str]) -> String {
    let output = ask(arguments);
    let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    assert!(output.status.success(), "{arguments:?}: {said}");
    said
}

fn refused(arguments: &[&str]) {
    let output = ask(arguments);
    let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    assert!(!output.status.success(), "{arguments:?}: {said}");
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A log of three hundred leaves and more, and an older checkpoint of it.
fn story(folder: &Path) -> (Story, PathBuf) {
    let options = Options { rounds: 100, ..Options::default() };
    let mut story = Story::new(&folder.join("log"), &options);
    story.manifest();
    (1..=20).for_each(|round| story.round(round));
    let old = folder.join("old");
    std::fs::write(&old, story.close().to_bytes()).unwrap();
    (21..=45).for_each(|round| story.round(round));
    let _ = story.close();
    (story, old)
}

#[test]
fn another_implementation_verifies_checkpoint_inclusion_and_consistency() {
    let folder = tempfile::tempdir().unwrap();
    let (story, old) = story(folder.path());
    let key = story.signer.key().to_string();
    let tiles = text(&story.folder);
    good(&["verify-checkpoint", "--log-key", &key, "--tiles", tiles]);
    for index in ["0", "1", "140", "255", "256", "315"] {
        good(&["verify-inclusion", "--log-key", &key, "--tiles", tiles, "--index", index]);
    }
    refused(&["verify-inclusion", "--log-key", &key, "--tiles", tiles, "--index", "316"]);
    let consistent =
        ["verify-consistency", "--log-key", &key, "--tiles", tiles, "--old-checkpoint", text(&old)];
    good(&consistent);
    // And it sees what is not so: another key, a changed tile, a fork.
    let other = NoteSigner::from_seed("log.example/test", KeyKind::Ed25519, &[4; 32]).unwrap();
    refused(&["verify-checkpoint", "--log-key", &other.key().to_string(), "--tiles", tiles]);
    let root = sealfold_attestation::log::Hash([7; 32]);
    let fork = SignedCheckpoint::sign(141, root, &story.signer).unwrap();
    std::fs::write(&old, fork.to_bytes()).unwrap();
    refused(&consistent);
    let tile = story.folder.join("tile/0/000");
    let mut bytes = std::fs::read(&tile).unwrap();
    bytes[4000] ^= 1;
    std::fs::write(&tile, bytes).unwrap();
    refused(&["verify-inclusion", "--log-key", &key, "--tiles", tiles, "--index", "140"]);
}

#[test]
fn another_implementation_reads_every_leaf_and_believes_our_cosignature() {
    let folder = tempfile::tempdir().unwrap();
    let (story, old) = story(folder.path());
    let key = story.signer.key().to_string();
    let witness = NoteSigner::from_seed("hospital-a", KeyKind::CosignatureV1, &[5; 32]).unwrap();
    let mut signed =
        SignedCheckpoint::open(&std::fs::read(&old).unwrap(), story.signer.key()).unwrap();
    let now = jiff::Timestamp::now().as_second();
    signed.cosign(&witness, u64::try_from(now).unwrap()).unwrap();
    std::fs::write(&old, signed.to_bytes()).unwrap();
    let vkey = witness.key().to_string();
    let cosigned = |note: &str, witness: &str| {
        let arguments = ["--log-key", &key, "--witness-key", witness, "--quorum", "1"];
        ask(&[&["verify-checkpoint", "--note", note], &arguments[..]].concat())
    };
    let output = cosigned(text(&old), &vkey);
    assert!(output.status.success(), "{output:?}");
    // A note that this witness did not cosign has no quorum.
    let plain = story.folder.join("checkpoint");
    assert!(!cosigned(text(&plain), &vkey).status.success());
    // Every tile and every entry against the root.
    let program = "import sys\nfrom aics_tlog import *\n\
        note = parse_note(open(sys.argv[1] + '/checkpoint', 'rb').read())\n\
        c = parse_checkpoint(note.text)\n\
        print(audit_tiles(FileSystemTileReader(sys.argv[1]), c.size, c.root))";
    let output =
        Command::new(python()).args(["-c", program, text(&story.folder)]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
