//! `docs/manifest.md`: what it shows of a manifest holds, each block put into a whole
//! one, and its noise is the noise that its commands give.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::cast_precision_loss)]

use sealfold_tests::process;
use sealfold_tests::site::Site;
use sealfold_tests::study::{self, Options};
use std::path::Path;
use std::process::Output;
use toml::{Table, Value};

fn page() -> String {
    let checkout = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    std::fs::read_to_string(checkout.join("docs/manifest.md")).unwrap()
}

/// The page's blocks of a language.
fn blocks(page: &str, language: &str) -> Vec<String> {
    let fence = format!("\n```{language}\n");
    let rest = page.split(&fence).skip(1);
    rest.map(|rest| rest.split("\n```\n").next().unwrap().to_owned() + "\n").collect()
}

/// A whole manifest with the sections of a block in place of its own.
fn whole(block: &Table) -> String {
    let options = Options { sites: 5, smallest_roster: 4, colluders: 1, ..Options::default() };
    let sites: Vec<_> = (0..options.sites).map(Site::numbered).collect();
    let mut manifest: Table = study::toml(&options, &sites).parse().unwrap();
    for (name, section) in block {
        match (manifest.get_mut(name), section) {
            // The block says how many rounds, the rest of the study is as it was.
            (Some(Value::Table(own)), Value::Table(shown)) if name == "study" => {
                own.extend(shown.clone());
            }
            _ => drop(manifest.insert(name.clone(), section.clone())),
        }
    }
    manifest.to_string()
}

fn show(manifest: &str) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("study.toml");
    std::fs::write(&path, manifest).unwrap();
    process::command("sealfold").args(["study", "show"]).arg(&path).output().unwrap()
}

/// The blocks, as TOML.
fn sections() -> Vec<Table> {
    blocks(&page(), "toml").iter().map(|block| block.parse().unwrap()).collect()
}

/// The one block with privacy for a unit.
fn private(unit: &str) -> Table {
    let is_unit = |block: &Table| {
        let privacy = block.get("privacy").and_then(Value::as_table);
        privacy.and_then(|privacy| privacy["unit"].as_str()) == Some(unit)
    };
    let found: Vec<_> = sections().into_iter().filter(is_unit).collect();
    assert_eq!(found.len(), 1, "blocks with unit {unit}");
    found.into_iter().next().unwrap()
}

/// What `sealfold privacy noise` gives for a command of the page, and the numbers that
/// the command has: `--rounds` and so on, by name.
fn answer(command: &str) -> (f64, Vec<(String, f64)>) {
    let words: Vec<_> = command.split_whitespace().collect();
    let numbers: Vec<_> = words[3..]
        .chunks(2)
        .map(|pair| (pair[0].trim_start_matches("--").to_owned(), pair[1].parse().unwrap()))
        .collect();
    assert_eq!(words[..3], ["sealfold", "privacy", "noise"], "{command}");
    let output = process::command("sealfold").arg("--json").args(&words[1..]).output().unwrap();
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    (json["noise_multiplier"].as_f64().unwrap(), numbers)
}

/// The page's questions for noise.
fn questions() -> Vec<String> {
    let commands = blocks(&page(), "console");
    let commands = commands.iter().flat_map(|block| block.lines());
    let asked = commands.filter_map(|line| line.strip_prefix("$ "));
    asked.filter(|command| command.contains("privacy noise")).map(str::to_owned).collect()
}

/// The answer to the page's question that has a block's numbers.
fn asked(block: &Table) -> f64 {
    let privacy = block["privacy"].as_table().unwrap();
    let number = |value: &Value| value.as_float().or(value.as_integer().map(|n| n as f64));
    let mut wanted = vec![
        ("epsilon".to_owned(), number(&privacy["epsilon"]).unwrap()),
        ("delta".to_owned(), number(&privacy["delta"]).unwrap()),
        ("rounds".to_owned(), number(&block["study"]["rounds"]).unwrap()),
    ];
    let rate = privacy.get("sampling_rate").and_then(number);
    wanted.extend(rate.map(|rate| ("sampling-rate".to_owned(), rate)));
    let count = privacy.get("adaptive_clip").and_then(|clip| number(&clip["count_noise"]));
    wanted.extend(count.map(|count| ("count-noise".to_owned(), count)));
    let answers: Vec<_> = questions().iter().map(|question| answer(question)).collect();
    let found = answers.iter().find(|(_, numbers)| *numbers == wanted);
    found.unwrap_or_else(|| panic!("no question has {wanted:?}: {answers:?}")).0
}

#[test]
fn every_block_of_the_page_stands_in_a_manifest_that_holds() {
    let blocks = sections();
    assert!(blocks.len() >= 4, "{} blocks", blocks.len());
    for block in blocks {
        let output = show(&whole(&block));
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{block}\n{error}");
    }
}

/// The page's numbers belong together: less noise is refused, and so are more rounds.
#[test]
fn each_unit_has_the_noise_that_the_command_beside_it_gives() {
    for unit in ["patient", "site"] {
        let block = private(unit);
        let shown = block["privacy"]["noise_multiplier"].as_float().unwrap();
        assert_eq!(shown.to_bits(), asked(&block).to_bits());
        let rounds = block["study"]["rounds"].as_integer().unwrap();
        for (section, field, value) in [
            ("privacy", "noise_multiplier", Value::Float(shown - 1e-3)),
            ("study", "rounds", Value::Integer(rounds + 1)),
        ] {
            let mut block = block.clone();
            block[section].as_table_mut().unwrap().insert(field.to_owned(), value);
            refused(&block, field);
        }
    }
}

#[test]
fn a_count_without_enough_noise_is_refused_by_its_name() {
    let mut block = private("site");
    block["privacy"]["adaptive_clip"]["count_noise"] = Value::Float(1.0);
    assert!(refused(&block, "count_noise").contains("by the count with count_noise 1 alone"));
}

fn refused(block: &Table, what: &str) -> String {
    let output = show(&whole(block));
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{what}: {error}");
    assert!(error.contains("privacy.epsilon"), "{what}: {error}");
    error
}
