//! What a binary says it was built from.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use sealfold_tests::process;
use std::path::Path;
use std::process::{Command, Output};

const CHECKOUT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

fn run(folder: &Path, program: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new(program);
    command.current_dir(folder).args(arguments);
    // Neither the settings of whoever runs this nor those of an image build.
    for name in ["SEALFOLD_COMMIT", "CARGO_TARGET_DIR", "RUSTFLAGS", "GIT_DIR", "GIT_WORK_TREE"] {
        command.env_remove(name);
    }
    command.output().unwrap_or_else(|e| panic!("{program}: {e}"))
}

fn good(output: Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn git(folder: &Path, arguments: &[&str]) -> String {
    let fixed = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"];
    good(run(folder, "git", &[&fixed, arguments].concat()))
}

/// What a binary says that is built here now.
fn built(folder: &Path) -> String {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    good(run(&folder.join("app"), &cargo, &["run", "--quiet", "--offline"]))
}

fn commit(folder: &Path) -> String {
    git(folder, &["commit", "--quiet", "--all", "--allow-empty", "--message", "x"]);
    git(folder, &["rev-parse", "--short=12", "HEAD"])
}

/// A checkout of one binary with the project's own build script.
fn checkout(folder: &Path) {
    let write = |name: &str, text: &str| std::fs::write(folder.join(name), text).unwrap();
    std::fs::create_dir_all(folder.join("app/src")).unwrap();
    let script = std::fs::read_to_string(format!("{CHECKOUT}/version.rs")).unwrap();
    write("version.rs", &script);
    write(".gitignore", "target\nCargo.lock\n");
    write("app/Cargo.toml", "[package]\nname = \"app\"\nedition = \"2024\"\n[workspace]\n");
    let build = "include!(\"../version.rs\");\nfn main() { tell_commit(&[\"app/src\"]); }\n";
    write("app/build.rs", build);
    write("app/src/main.rs", "fn main() { println!(\"{}\", env!(\"SEALFOLD_COMMIT\")); }\n");
}

#[test]
fn a_binary_names_the_commit_that_it_was_built_from() {
    let folder = tempfile::tempdir().unwrap();
    let main = folder.path().join("main");
    checkout(&main);
    assert_eq!(built(&main), "unknown", "without git");
    git(&main, &["init", "--quiet"]);
    git(&main, &["add", "."]);
    let first = commit(&main);
    // Nothing that the build watched knew of git before.
    std::fs::remove_dir_all(main.join("app/target")).unwrap();
    assert_eq!(built(&main), first);
    // A commit on the branch leaves HEAD as it is.
    let second = commit(&main);
    assert_ne!(first, second);
    assert_eq!(built(&main), second, "after a commit");
    git(&main, &["pack-refs", "--all"]);
    assert_eq!(built(&main), second, "with packed references");
    let third = commit(&main);
    assert_eq!(built(&main), third, "after a commit on a packed branch");
    let source = main.join("app/src/main.rs");
    let text = std::fs::read_to_string(&source).unwrap();
    std::fs::write(&source, format!("// changed\n{text}")).unwrap();
    assert_eq!(built(&main), format!("{third}-changed"));
    let fourth = commit(&main);
    assert_eq!(built(&main), fourth, "after the change was committed");
    git(&main, &["checkout", "--quiet", "--detach", &first]);
    assert_eq!(built(&main), first, "without a branch");
    // A linked worktree, where .git is a file.
    let linked = folder.path().join("linked");
    git(&main, &["worktree", "add", "--quiet", "-b", "other", linked.to_str().unwrap(), &third]);
    assert_eq!(built(&linked), third);
    let fifth = commit(&linked);
    assert_eq!(built(&linked), fifth, "after a commit in a worktree");
    assert_eq!(built(&main), first);
}

#[test]
fn a_build_that_finds_nothing_new_compiles_nothing() {
    let folder = tempfile::tempdir().unwrap();
    checkout(folder.path());
    git(folder.path(), &["init", "--quiet"]);
    git(folder.path(), &["add", "."]);
    let _ = commit(folder.path());
    let _ = built(folder.path());
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let output = run(&folder.path().join("app"), &cargo, &["build", "--offline"]);
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!text.contains("Compiling"), "{text}");
}

#[test]
fn every_binary_has_version_and_commit() {
    let has_git = run(Path::new(CHECKOUT), "git", &["rev-parse", "HEAD"]).status.success();
    for name in ["sealfold-enclave", "sealfold-host", "heart-disease"] {
        let version = good(process::run(name, &["--version"]));
        let commit = version
            .strip_prefix(&format!("{name} {} (", env!("CARGO_PKG_VERSION")))
            .and_then(|rest| rest.strip_suffix(')'))
            .unwrap_or_else(|| panic!("{version}"));
        assert!(!has_git || commit != "unknown", "{version}");
    }
}
