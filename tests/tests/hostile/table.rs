//! The threat model's table of attacks, held against the code and the tests.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// A row: the attack, where its remedy is, and the tests that play it.
struct Row {
    attack: String,
    code: Vec<(String, Vec<String>)>,
    tests: Vec<String>,
}

/// What stands between back quotes.
fn quoted(cell: &str) -> Vec<String> {
    cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

fn rows() -> Vec<Row> {
    let page = std::fs::read_to_string(root().join("docs/threat-model.md")).unwrap();
    let (_, section) = page.split_once("## What a hostile host tries").unwrap();
    let section = section.split("\n## ").next().unwrap();
    let lines = section.lines().filter(|line| line.starts_with('|'));
    let cells = lines.map(|line| line.trim_matches('|').split(" | ").map(str::trim));
    let mut rows = Vec::new();
    for cells in cells {
        let cells: Vec<_> = cells.collect();
        if cells[0] == "attack" || cells[0].starts_with("---") {
            continue;
        }
        let [attack, _remedy, code, tests] = cells[..] else { panic!("four cells: {cells:?}") };
        let mut places: Vec<(String, Vec<String>)> = Vec::new();
        for name in quoted(code) {
            if name.contains('/') {
                places.push((name, Vec::new()));
            } else {
                places.last_mut().expect("a file before a function").1.push(name);
            }
        }
        rows.push(Row { attack: attack.to_owned(), code: places, tests: quoted(tests) });
    }
    rows
}

/// Every test of this folder, as `module::function`.
fn tests() -> BTreeSet<String> {
    let folder = root().join("tests/tests/hostile");
    let mut found = BTreeSet::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let module = path.file_stem().unwrap().to_str().unwrap().to_owned();
        if module == "table" {
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        for test in text.split("#[test]").skip(1) {
            let name = test.split_once("fn ").unwrap().1.split('(').next().unwrap();
            found.insert(format!("{module}::{name}"));
        }
    }
    found
}

#[test]
fn every_row_has_its_test_and_every_test_its_row() {
    let (rows, tests) = (rows(), tests());
    assert!(rows.len() >= 45, "{} rows", rows.len());
    let mut named = BTreeMap::new();
    for row in &rows {
        assert!(!row.tests.is_empty(), "{:?} has no test", row.attack);
        for test in &row.tests {
            assert!(tests.contains(test), "{:?} names {test}, which is no test", row.attack);
            named.entry(test.clone()).or_insert(&row.attack);
        }
    }
    let without: Vec<_> = tests.iter().filter(|test| !named.contains_key(*test)).collect();
    assert!(without.is_empty(), "no row names {without:?}");
}

#[test]
fn every_row_names_code_that_is_there() {
    for row in rows() {
        assert!(!row.code.is_empty(), "{:?} names no code", row.attack);
        for (file, functions) in row.code {
            let text = std::fs::read_to_string(root().join(&file));
            let text = text.unwrap_or_else(|error| panic!("{:?}: {file}: {error}", row.attack));
            assert!(!functions.is_empty(), "{:?}: {file} without a function", row.attack);
            for function in functions {
                let is_there = ["fn ", "struct "].iter().any(|kind| {
                    [
                        format!("{kind}{function}("),
                        format!("{kind}{function}<"),
                        format!("{kind}{function} "),
                    ]
                    .iter()
                    .any(|definition| text.contains(definition))
                });
                assert!(is_there, "{:?}: {file} has no {function}", row.attack);
            }
        }
    }
}

/// The attacks of the design stand in the table, in its own words.
#[test]
fn every_attack_of_the_design_is_a_row() {
    let rows = rows();
    for words in [
        "forged evidence",
        "another image",
        "debug image",
        "production policy",
        "stale evidence",
        "another offer",
        "site's nonce",
        "swapped key",
        "not the chain's",
        "crafted first model",
        "another round, study or site's name",
        "own encapsulation",
        "two updates of one site",
        "truncated, reordered, repeated, spliced",
        "one corrupted record",
        "swaps its bytes",
        "boundless weight",
        "dropped",
        "below k",
        "two rosters",
        "two instances",
        "disjoint rosters",
        "abandonment",
        "commit replayed",
        "different checkpoints",
        "vetoes",
        "forks",
        "forgets",
        "rewritten",
        "release altered",
        "withheld",
        "older one",
        "signature too few",
        "changed after approval",
        "strangers",
        "amended twice",
        "budget reset",
        "noise is too small",
        "beyond the agreed number",
        "restored site disk",
        "second agent",
        "oracle",
    ] {
        assert!(rows.iter().any(|row| row.attack.contains(words)), "no row about {words:?}");
    }
}
