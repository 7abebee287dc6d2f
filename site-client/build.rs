//! Tells the binary the commit that it was built from.

use std::process::Command;

fn main() {
    println!("cargo:rerun-if-env-changed=SEALFOLD_COMMIT");
    println!("cargo:rerun-if-changed=../.git/HEAD");
    let commit = std::env::var("SEALFOLD_COMMIT").ok().or_else(|| {
        let output = Command::new("git").args(["rev-parse", "--short=12", "HEAD"]).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    });
    println!("cargo:rustc-env=SEALFOLD_COMMIT={}", commit.unwrap_or_else(|| "unknown".to_owned()));
}
