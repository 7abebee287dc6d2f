//! Queries: statistics over four hospitals' patients, through the real binaries.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use sealfold_tests::process;
use sealfold_tests::site::{Site, floats};
use sealfold_tests::study::{self, Asked, Options, Study};
use sealfold_tests::system::{Ended, System};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;

const TABLES: [&str; 4] = ["cleveland", "hungarian", "switzerland", "va-long-beach"];
/// Patients by age and sex, and by chest pain and outcome, counted in the
/// tables themselves.
const AGE_BY_SEX: [f64; 10] = [19.0, 61.0, 53.0, 159.0, 72.0, 303.0, 44.0, 178.0, 6.0, 25.0];
const PAIN_BY_OUTCOME: [f64; 8] = [26.0, 20.0, 150.0, 24.0, 131.0, 73.0, 104.0, 392.0];
/// 718 of 920 patients have a cholesterol.
const MEAN_CHOL: f64 = 246.832_87;

fn example() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/heart-disease")
}

fn table(name: &str) -> String {
    example().join(format!("data/{name}.csv")).to_str().unwrap().to_owned()
}

/// A folder of one party that plays no round.
struct Desk(TempDir);

impl Desk {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn file(&self, name: &str) -> String {
        self.0.path().join(name).to_str().unwrap().to_owned()
    }

    fn write(&self, name: &str, text: &str) -> String {
        let path = self.file(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = process::command("sealfold");
        command.args(["--home", &self.file("home"), "--json", "query"]).args(arguments);
        command
    }

    fn query(&self, arguments: &[&str]) -> Ended {
        self.command(arguments).output().unwrap().into()
    }

    /// The example's query as a study of four sites.
    fn example(&self, epsilon: &str) -> Options {
        let draft = example().join("query.toml");
        let model = self.file("zeros.safetensors");
        let plan = ["plan", draft.to_str().unwrap(), "--patients", "920", "--model", &model];
        let planned = self.query(&[&plan[..], &["--epsilon", epsilon]].concat()).good().json();
        let text = std::fs::read_to_string(&draft).unwrap();
        let asked = &text[text.find("[data]").unwrap()..];
        let sections = format!("{asked}\n{}", planned["sections"].as_str().unwrap());
        let query = Some(Asked { sections, model: model.into() });
        Options { rounds: 1, query, ..Options::default() }
    }

    /// The manifest of a study in a file.
    fn manifest(&self, options: &Options) -> String {
        let sites: Vec<_> = (0..options.sites).map(Site::numbered).collect();
        self.write("study.toml", &study::toml(options, &sites))
    }
}

/// The figures of one statistic: label, value, standard error.
fn figures(read: &Value, statistic: &str) -> Vec<(String, Option<f64>, f64)> {
    let all = read["statistics"].as_array().unwrap();
    let found = all.iter().find(|reading| reading["statistic"] == statistic).unwrap();
    let figures = found["figures"].as_array().unwrap().iter();
    let error = |figure: &Value| figure["standard_error"].as_f64().unwrap_or(f64::NAN);
    figures
        .map(|f| (f["label"].as_str().unwrap().to_owned(), f["value"].as_f64(), error(f)))
        .collect()
}

#[test]
fn four_hospitals_count_their_patients_and_noise_hides_each() {
    let desk = Desk::new();
    let system = System::start(&desk.example("8"));
    let study = system.folder.path().join("study.toml");
    let study = study.to_str().unwrap();
    let program = process::binaries().join("sealfold");
    let answer = |site: &str, name: &str| {
        let (program, home) = (program.display(), system.home(site));
        let (home, data) = (home.display(), table(name));
        format!("{program} --home {home} query answer --study {study} --data {data}")
    };
    let sites: Vec<_> = system.study.sites.iter().map(|site| site.name.clone()).collect();
    let agents = sites.iter().zip(TABLES);
    let agents = agents.map(|(site, name)| system.agent_with(site, &answer(site, name), 1));
    system.finish(agents.collect(), Duration::from_mins(1));
    let model = system.home(&sites[0]).join("studies").join(system.id());
    let model = model.join("models/round-0001.safetensors");
    let read = ["read", "--study", study, "--model", model.to_str().unwrap()];
    let read = desk.query(&read).good().json();
    // Errors in units of what was promised.
    let mut squares = Vec::new();
    for (statistic, exact) in [
        ("contingency of age and sex", &AGE_BY_SEX[..]),
        ("contingency of cp and num", &PAIN_BY_OUTCOME),
    ] {
        let found = figures(&read, statistic);
        let (label, total, error) = &found[0];
        assert_eq!(label, "patients");
        assert!((total.unwrap() - 920.0).abs() < 6.0 * error, "{found:?}");
        assert_eq!(found.len(), exact.len() + 1);
        for ((label, value, error), exact) in found[1..].iter().zip(exact) {
            match value {
                Some(value) => squares.push(((value - exact) / error).powi(2)),
                None => assert!(*exact < 9.0 * error, "{label}: {exact} of {error}"),
            }
        }
    }
    // Chi-squared with about 18 degrees of freedom: one in a million is outside.
    let sum: f64 = squares.iter().sum();
    assert!(squares.len() >= 12 && sum > 1.0 && sum < 70.0, "{squares:?}");
    let oldest = &figures(&read, "contingency of age and sex")[10].0;
    assert_eq!(oldest, "age 70 to 100, sex 1");
    let chol = figures(&read, "mean of chol");
    assert!((chol[0].1.unwrap() - 718.0).abs() < 6.0 * chol[0].2, "{chol:?}");
    assert!((chol[1].1.unwrap() - MEAN_CHOL).abs() < 6.0 * chol[1].2, "{chol:?}");
    assert!(chol[1].2 < 10.0, "{chol:?}");
    // Interpolated in cells of 10: half a cell beside the noise.
    for ((_, value, error), exact) in
        figures(&read, "quantiles of thalach")[1..].iter().zip([120.0, 140.0, 157.0])
    {
        assert!((value.unwrap() - exact).abs() < 6.0 * error + 5.0, "{value:?} {exact}");
    }
    // What people read.
    let mut people = process::command("sealfold");
    people.args(["--home", &desk.file("home"), "query", "read", "--study", study, "--model"]);
    let text = Ended::from(people.arg(&model).output().unwrap()).good().stdout;
    assert!(text.contains("mean of chol") && text.contains("+-"), "{text}");
}

#[test]
fn an_answer_is_the_patients_own_cells() {
    let desk = Desk::new();
    let study = desk.manifest(&desk.example("1"));
    let out = desk.file("update.safetensors");
    let data = table("switzerland");
    let answer = ["answer", "--study", &study, "--data", &data, "--out", &out];
    assert_eq!(desk.query(&answer).good().json()["patients"], 123);
    let bytes = std::fs::read(&out).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let rows = |name: &str| {
        let tensor = tensors.tensor(name).unwrap();
        assert_eq!(tensor.shape()[0], 123);
        let cells = tensor.shape()[1..].iter().product::<usize>();
        floats(tensor.data()).chunks(cells).map(<[f32]>::to_vec).collect::<Vec<_>>()
    };
    let norms = ["contingency of age and sex", "contingency of cp and num", "quantiles of thalach"]
        .map(|name| {
            let counted = rows(name);
            let ones = |row: &Vec<f32>| row.iter().filter(|value| **value > 0.0).count();
            assert!(counted.iter().all(|row| ones(row) <= 1));
            counted.iter().map(|row| row.iter().sum::<f32>()).collect::<Vec<_>>()
        });
    // One share of the clip each: a half, but for the room that rounding has.
    let weight = norms[0][0];
    assert!(weight > 0.499 && weight < 0.5, "{weight}");
    assert!(norms[0].iter().chain(&norms[1]).all(|norm| norm.to_bits() == weight.to_bits()));
    // No cholesterol was measured there: 0 stands for missing.
    assert!(rows("mean of chol").iter().flatten().all(|value| value.to_bits() == 0));
    let missing = std::fs::read_to_string(&data).unwrap();
    let missing = missing.lines().skip(1).filter(|line| line.split(',').nth(7) == Some(""));
    let absent = norms[2].iter().filter(|norm| norm.to_bits() == 0).count();
    assert_eq!(absent, missing.count());
}

#[test]
fn what_cannot_be_asked_or_answered_is_named() {
    let desk = Desk::new();
    let options = desk.example("1");
    let study = desk.manifest(&options);
    let out = desk.file("update.safetensors");
    let answer = |study: &str, data: &str, more: &[&str]| {
        let fixed = ["answer", "--study", study, "--data", data, "--out", &out];
        desk.query(&[&fixed[..], more].concat())
    };
    let text = std::fs::read_to_string(table("cleveland")).unwrap();
    let broken = desk.write("broken.csv", &text.replacen("63,1,1", "630,1,1", 1));
    let refused = answer(&study, &broken, &[]);
    assert_eq!(refused.check(), "data");
    assert!(refused.stdout.contains("range of \\\"age\\\""), "{refused:?}");
    let other = answer(&study, &table("cleveland"), &["--expect", &"00".repeat(32)]);
    assert_eq!(other.check(), "manifest");
    // By the environment of an agent as well.
    let arguments = ["answer", "--study", &study, "--data", &table("cleveland"), "--out", &out];
    let mut command = desk.command(&arguments);
    command.env("SEALFOLD_MANIFEST", "11".repeat(32));
    assert_eq!(Ended::from(command.output().unwrap()).check(), "manifest");
    let id = Study::new(&options).id().to_string();
    let _ = answer(&study, &table("cleveland"), &["--expect", &id]).good();
    // A model of other tensors is no answer, contributions are none either.
    let read = desk.query(&["read", "--study", &study, "--model", &out]);
    assert_eq!(read.check(), "layout");
    // The model of zeros is that before any round.
    let zeros = desk.file("zeros.safetensors");
    let before = desk.query(&["read", "--study", &study, "--model", &zeros]);
    assert_eq!((before.code, before.check()), (1, "query".to_owned()));
    assert!(before.stdout.contains("no round has run"), "{before:?}");
    // What is next to zero is suppressed, every figure.
    let mut bytes = std::fs::read(&zeros).unwrap();
    let last = bytes.len() - 4;
    bytes[last..].copy_from_slice(&1e-9f32.to_le_bytes());
    std::fs::write(&zeros, bytes).unwrap();
    let none = desk.query(&["read", "--study", &study, "--model", &zeros]).good().json();
    let all = none["statistics"].as_array().unwrap().iter();
    let mut shown = all.flat_map(|reading| reading["figures"].as_array().unwrap());
    assert!(shown.all(|figure| figure["value"].is_null()), "{none}");
    let training = desk.manifest(&Options::default());
    assert_eq!(answer(&training, &table("cleveland"), &[]).check(), "query");
    // Drafts.
    let draft = std::fs::read_to_string(example().join("query.toml")).unwrap();
    let plan = |text: &str, epsilon: &str| {
        let draft = desk.write("draft.toml", text);
        desk.query(&["plan", &draft, "--patients", "920", "--epsilon", epsilon])
    };
    let unknown = plan(&draft.replace("column = \"chol\"", "column = \"weight\""), "1");
    assert_eq!(unknown.check(), "manifest");
    assert!(unknown.stdout.contains("mean of weight"), "{unknown:?}");
    let free = plan(&draft, "0");
    assert_eq!((free.code, &free.json()["refusal"]["check"]), (1, &Value::from("privacy")));
    let kind = plan(&draft.replace("\"mean\"", "\"mode\""), "1");
    assert!(kind.stdout.contains("mode"), "{kind:?}");
}
