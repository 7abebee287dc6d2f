// Part of every build script whose binary says what it was built from:
//
//     include!("../version.rs");
//
//     fn main() {
//         tell_commit(&["folders of the checkout that the binary is made from"]);
//     }
//
// The commit goes into SEALFOLD_COMMIT at compile time, with `-changed` behind
// it if tracked files differ from it, as `commit_of` in image/lib.sh says it.
// A SEALFOLD_COMMIT in the environment overrides both; without git and without
// that, the commit is `unknown`.

use std::path::Path;
use std::process::Command;

/// Tells the crate its commit, and cargo when to ask again: when HEAD, the
/// branch behind it or a source of the binary changes. A source that changes
/// makes the crate compile anyway, so asking again costs nothing.
fn tell_commit(sources: &[&str]) {
    println!("cargo:rerun-if-env-changed=SEALFOLD_COMMIT");
    let given = std::env::var("SEALFOLD_COMMIT").ok().filter(|commit| !commit.is_empty());
    let commit = given.or_else(|| commit_of_checkout(sources));
    println!("cargo:rustc-env=SEALFOLD_COMMIT={}", commit.as_deref().unwrap_or("unknown"));
}

fn commit_of_checkout(sources: &[&str]) -> Option<String> {
    let commit = git(&["rev-parse", "--short=12", "HEAD"])?;
    let root = git(&["rev-parse", "--show-toplevel"])?;
    // Git knows where these lie, in a linked worktree too. A branch that only
    // packed-refs names has no file: then its nearest folder is watched.
    let branch = git(&["symbolic-ref", "-q", "HEAD"]);
    if let Some(file) = branch.and_then(|branch| git(&["rev-parse", "--git-path", &branch])) {
        Path::new(&file).ancestors().filter(|path| path.exists()).take(1).for_each(watch);
    }
    for name in ["HEAD", "packed-refs", "logs/HEAD"] {
        let file = git(&["rev-parse", "--git-path", name]).unwrap_or_default();
        if !file.is_empty() && Path::new(&file).exists() {
            watch(Path::new(&file));
        }
    }
    sources.iter().for_each(|source| watch(&Path::new(&root).join(source)));
    let same = Command::new("git").args(["-C", &root, "diff", "--quiet", "HEAD"]).status().ok()?;
    Some(if same.success() { commit } else { commit + "-changed" })
}

fn watch(path: &Path) {
    println!("cargo:rerun-if-changed={}", path.display());
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    (output.status.success() && !text.is_empty()).then_some(text)
}
