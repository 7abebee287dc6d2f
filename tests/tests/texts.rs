//! The texts that people read, as they were reviewed: help and errors. After a
//! change, `TRYCMD=overwrite cargo test -p sealfold-tests --test texts` writes
//! them anew; read the difference. So are the commands of the pages that plan a
//! study: what stands there is what they print.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use sealfold_tests::process;

fn reviewed(case: &str) {
    let home = tempfile::tempdir().unwrap();
    trycmd::TestCases::new()
        .register_bin("sealfold", process::binaries().join("sealfold"))
        .register_bin("sealfold-audit", process::binaries().join("sealfold-audit"))
        .env("HOME", home.path().to_str().unwrap())
        .env("COLUMNS", "100")
        .case(case)
        .run();
}

#[test]
fn help_and_errors_are_the_reviewed_ones() {
    reviewed("texts/*.trycmd");
}

#[test]
fn the_pages_that_plan_a_study_show_what_their_commands_print() {
    reviewed("../docs/manifest.md");
    reviewed("../docs/privacy.md");
}
