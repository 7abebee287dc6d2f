//! The texts that people read, as they were reviewed: help and errors. After a
//! change, `TRYCMD=overwrite cargo test -p sealfold-tests --test texts` writes
//! them anew; read the difference.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use sealfold_tests::process;

#[test]
fn help_and_errors_are_the_reviewed_ones() {
    let home = tempfile::tempdir().unwrap();
    trycmd::TestCases::new()
        .register_bin("sealfold", process::binaries().join("sealfold"))
        .register_bin("sealfold-audit", process::binaries().join("sealfold-audit"))
        .env("HOME", home.path().to_str().unwrap())
        .env("COLUMNS", "100")
        .case("texts/*.trycmd")
        .run();
}
