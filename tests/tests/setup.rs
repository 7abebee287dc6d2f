//! What a site does before its first round: keys, data, the initial model; and
//! what the command line says of itself.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use sealfold_tests::process;
use sealfold_tests::site::Site;
use sealfold_tests::study::{self, Options};
use sealfold_tests::system::{Ended, System, first_value, write_tensors};
use serde_json::{Value, json};
use std::fmt::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

fn sealfold(home: &Path, arguments: &[&str]) -> Ended {
    let mut command = process::command("sealfold");
    command.arg("--home").arg(home).arg("--json").args(arguments);
    command.output().unwrap().into()
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn keys_are_made_once_and_for_their_owner() {
    let folder = tempfile::tempdir().unwrap();
    let home = folder.path().join("home");
    let made = sealfold(&home, &["init", "--name", "hospital-a"]).good().json();
    assert_eq!(made["site"], "hospital-a");
    let files = ["keys/signing.json", "keys/release.json", "policy.toml"];
    for file in files {
        assert_eq!(mode(&home.join(file)), 0o600, "{file}");
    }
    assert_eq!((mode(&home), mode(&home.join("keys"))), (0o700, 0o700));
    let policy = std::fs::read_to_string(home.join("policy.toml")).unwrap();
    assert!(!policy.contains("[simulation]"), "{policy}");
    let before = files.map(|file| std::fs::read(home.join(file)).unwrap());
    let again = sealfold(&home, &["init", "--name", "hospital-a"]);
    assert_eq!(again.code, 1, "{again:?}");
    let signing = home.join("keys/signing.json");
    let refusal = json!({
        "check": "keys", "expected": "a home without keys", "found": signing,
        "next": "a site keeps its keys; a lost one is replaced by an amendment of the study",
    });
    assert_eq!(again.json()["refusal"], refusal);
    assert_eq!(before, files.map(|file| std::fs::read(home.join(file)).unwrap()));
    let odd = sealfold(&folder.path().join("odd"), &["init", "--name", "Hospital A"]);
    assert_eq!((odd.code, &odd.json()["refusal"]["check"]), (1, &json!("name")));
    // Without --json it prints the section for the manifest.
    let mut command = process::command("sealfold");
    command.arg("--home").arg(folder.path().join("b")).args(["init", "--name", "hospital-b"]);
    let text = String::from_utf8(command.output().unwrap().stdout).unwrap();
    assert!(text.contains("[[site]]\nname = \"hospital-b\"\nsigning_key = \""), "{text}");
    // A key that others can read is no secret any more.
    std::fs::set_permissions(&signing, std::fs::Permissions::from_mode(0o640)).unwrap();
    let shared = ["status", "--host", "http://127.0.0.1:1", &"00".repeat(32)];
    let ended = sealfold(&home, &shared);
    assert_eq!((ended.code, &ended.json()["refusal"]["check"]), (1, &json!("key-mode")));
}

/// The example study's manifest.
fn heart_disease(folder: &Path) -> PathBuf {
    let sites: Vec<_> = (0..4).map(Site::numbered).collect();
    let keys: Vec<_> = sites.iter().map(|s| format!("\"{}\"", s.key.verifying_key())).collect();
    let template =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/heart-disease/study.template.toml");
    let text = std::fs::read_to_string(template)
        .unwrap()
        .replace("= ROUNDS", "= 3")
        .replace("\"INITIAL\"", &format!("\"{}\"", "00".repeat(32)))
        .replace("[APPROVERS]", &format!("[{}]", keys.join(", ")))
        .replace("\nLOG\n", "\n[log]\norigin = \"log.example/heart\"\nkey = \"KEY\"\n")
        .replace("KEY", &study::log_key().verifying_key().to_string())
        .replace("\nMEASUREMENTS", &format!("\n{}", Options::default().measurements))
        .replace("\nSITES", &format!("\n{}", sites.iter().map(Site::listing).collect::<String>()));
    let path = folder.join("study.toml");
    std::fs::write(&path, text).unwrap();
    path
}

fn table(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/heart-disease/data").join(name)
}

#[test]
fn data_is_checked_rule_by_rule() {
    let folder = tempfile::tempdir().unwrap();
    let study = heart_disease(folder.path());
    let check = |data: &Path| {
        let (study, data) = (study.to_str().unwrap(), data.to_str().unwrap());
        sealfold(folder.path(), &["check", "--study", study, "--data", data])
    };
    for (name, rows, with_outcome) in [
        ("cleveland.csv", 303, 139),
        ("hungarian.csv", 294, 106),
        ("switzerland.csv", 123, 115),
        ("va-long-beach.csv", 200, 149),
    ] {
        let report = check(&table(name)).good().json()["report"].clone();
        let expected = json!({ "rows": rows, "with_outcome": with_outcome, "violations": [] });
        assert_eq!(report, expected, "{name}");
    }
    // One copy that breaks every rule of rows and values.
    let text = std::fs::read_to_string(table("cleveland.csv")).unwrap();
    let mut lines: Vec<Vec<&str>> = text.lines().map(|line| line.split(',').collect()).collect();
    for (row, column, value) in [
        (1, 0, "63.25"),
        (2, 1, "7"),
        (3, 3, "987"),
        (4, 2, "typical"),
        (5, 13, ""),
        (6, 0, ""),
        (7, 3, "876"),
    ] {
        lines[row][column] = value;
    }
    lines[8].pop();
    lines[9].push("1");
    let broken = folder.path().join("broken.csv");
    let joined = |lines: &[Vec<&str>]| {
        lines.iter().fold(String::new(), |mut text, line| {
            let _ = writeln!(text, "{}", line.join(","));
            text
        })
    };
    std::fs::write(&broken, joined(&lines)).unwrap();
    let ended = check(&broken);
    assert_eq!(ended.code, 1, "{ended:?}");
    let violations = ended.json()["report"]["violations"].clone();
    let found: Vec<Value> = violations
        .as_array()
        .unwrap()
        .iter()
        .map(|v| json!([v["rule"], v["column"], v["count"], v["rows"]]))
        .collect();
    assert_eq!(
        json!(found),
        json!([
            ["fields", "", 2, [8, 9]],
            ["integer", "age", 1, [1]],
            ["missing-share", "age", 1, []],
            ["category", "sex", 1, [2]],
            ["number", "cp", 1, [4]],
            ["range", "trestbps", 2, [3, 7]],
            ["outcome", "num", 1, [5]],
        ])
    );
    assert_eq!(violations[0]["expected"], "14 fields in every row, as in the header");
    // No patient's value is told.
    for value in ["63.25", "987", "876", "typical"] {
        assert!(!ended.stdout.contains(value), "{value}: {ended:?}");
    }
    // Copies that break the rules of columns and of the table.
    let of_copy = |change: &dyn Fn(&mut Vec<Vec<&str>>)| {
        let mut lines: Vec<Vec<&str>> = text.lines().map(|l| l.split(',').collect()).collect();
        change(&mut lines);
        std::fs::write(&broken, joined(&lines)).unwrap();
        let ended = check(&broken);
        assert_eq!(ended.code, 1, "{ended:?}");
        let violation = ended.json()["report"]["violations"][0].clone();
        [violation["rule"].clone(), violation["column"].clone(), violation["count"].clone()]
    };
    let twice = of_copy(&|lines| lines.iter_mut().for_each(|line| line.insert(0, line[0])));
    assert_eq!(twice, [json!("duplicate-column"), json!("age"), json!(2)]);
    let twice = of_copy(&|lines| lines.iter_mut().for_each(|line| line.push(line[13])));
    assert_eq!(twice, [json!("duplicate-column"), json!("num"), json!(2)]);
    let renamed = of_copy(&|lines| lines[0][4] = "cholesterol");
    assert_eq!(renamed, [json!("column"), json!("chol"), json!(0)]);
    let short = of_copy(&|lines| lines.truncate(100));
    assert_eq!(short, [json!("minimum-rows"), json!(""), json!(99)]);
    // A file that is not there is refused by another name than data that breaks a rule.
    let missing = check(&folder.path().join("none.csv"));
    assert_eq!((missing.code, missing.check()), (1, "file".to_owned()), "{missing:?}");
}

#[test]
fn an_initial_model_has_one_digest_in_any_format() {
    let system = System::start(&Options::default());
    let folder = system.folder.path();
    let study = folder.join("study.toml").to_str().unwrap().to_owned();
    let digest = |model: &Path| {
        let model = model.to_str().unwrap();
        system.sealfold("site-000", &["study", "digest-model", model, "--study", &study])
    };
    let initial = system.study.manifest.statement().terms.model.initial.to_string();
    let archive = folder.join("model.npz");
    write_archive(&archive, 1000, 0.0);
    for model in [folder.join("study.safetensors"), archive] {
        assert_eq!(digest(&model).good().json(), json!({ "initial": initial }), "{model:?}");
    }
    let other = folder.join("other.safetensors");
    write_tensors(&other, 1000, 1.0);
    assert_ne!(digest(&other).good().json()["initial"], initial);
    write_tensors(&other, 999, 1.0);
    assert_eq!(digest(&other).check(), "layout");
}

/// An npz archive of one tensor, `weights`, of one value.
fn write_archive(path: &Path, parameters: usize, value: f32) {
    let mut archive = ndarray_npy::NpzWriter::new(std::fs::File::create(path).unwrap());
    archive.add_array("weights", &ndarray::Array1::from_elem(parameters, value)).unwrap();
    archive.finish().unwrap();
}

#[test]
fn an_archive_of_arrays_is_an_update_too() {
    let system = System::start(&Options { sites: 3, ..Options::default() });
    let archive = system.folder.path().join("update.npz");
    let submit = |parameters: usize, value: f32| {
        write_archive(&archive, parameters, value);
        system.submit_file("site-000", &archive, &system.url)
    };
    assert_eq!(submit(999, 1.0).check(), "layout");
    assert_eq!(submit(1000, f32::INFINITY).check(), "finite");
    assert_eq!(submit(1000, 3.0).good().json()["state"], "admitted");
    let sites = ["site-000", "site-001", "site-002"];
    for site in &sites[1..] {
        let _ = system.submit(site, 1.5).good();
    }
    let _ = system.wait_for(1, "a roster", |round| round.roster.is_some());
    for site in sites {
        let _ = system.on_study(site, &["commit"], &[]).good();
    }
    let _ = system.wait_for(1, "a release", |round| round.release.is_some());
    let out = system.folder.path().join("model.safetensors");
    let fetch = ["--out", out.to_str().unwrap()];
    let _ = system.on_study("site-001", &["fetch"], &fetch).good();
    assert!((first_value(&out) - 2.0).abs() < 1e-6, "{}", first_value(&out));
}

#[test]
fn keys_under_a_passphrase_need_it_in_every_command() {
    let system = System::start(&Options::default());
    let file = |name: &str, text: &str| {
        let path = system.folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (right, wrong) = (file("right", "correct horse\n"), file("wrong", "battery staple\n"));
    // A site of a study of its own, whose keys are made under a passphrase.
    let home = system.folder.path().join("hospital");
    let made = ["init", "--name", "hospital", "--passphrase-file", &right];
    let made = sealfold(&home, &made).good().json();
    let manifest = std::fs::read_to_string(system.folder.path().join("study.toml")).unwrap();
    let listed = system.study.sites[3].listing();
    let mine = format!(
        "[[site]]\nname = \"hospital\"\nsigning_key = {}\nrelease_key = {}\n",
        made["signing_key"], made["release_key"]
    );
    let study = file("own.toml", &manifest.replace(&listed, &mine));
    std::fs::copy(system.home("site-000").join("policy.toml"), home.join("policy.toml")).unwrap();
    let approve = |more: &[&str]| {
        let fixed = ["study", "approve", &study, "--host", &system.url, "--yes"];
        sealfold(&home, &[&fixed[..], more].concat())
    };
    let refused = |ended: &Ended, expected: &str, found: &str| {
        assert_eq!(ended.code, 1, "{ended:?}");
        let refusal = &ended.json()["refusal"];
        assert_eq!(refusal["check"], "passphrase");
        let key = home.join("keys/signing.json").display().to_string();
        assert_eq!(refusal["expected"], expected.replace("KEY", &key));
        assert_eq!(refusal["found"], found);
        assert!(refusal["next"].as_str().unwrap().contains("--passphrase-file"), "{refusal}");
    };
    let without = approve(&[]);
    refused(&without, "a passphrase for KEY, which is encrypted", "none");
    let other = approve(&["--passphrase-file", &wrong]);
    refused(&other, "the passphrase that KEY was encrypted under", "another one");
    let id = approve(&["--passphrase-file", &right]).good().json()["study"].clone();
    let id = id.as_str().unwrap();
    // The environment does as well; the study waits for the others.
    let mut command = process::command("sealfold");
    command.arg("--home").arg(&home).args(["--json", "verify", "--host", &system.url, id]);
    let verified: Ended = command.env("SEALFOLD_PASSPHRASE_FILE", &right).output().unwrap().into();
    assert_eq!((verified.code, &verified.json()["outcome"]), (2, &json!("undecided")));
    let update = system.update(1.0);
    let submit = |more: &[&str]| {
        let update = update.to_str().unwrap();
        let fixed = ["submit", "--host", &system.url, id, "--update", update];
        sealfold(&home, &[&fixed[..], more].concat())
    };
    refused(&submit(&[]), "a passphrase for KEY, which is encrypted", "none");
    refused(
        &submit(&["--passphrase-file", &wrong]),
        "the passphrase that KEY was encrypted under",
        "another one",
    );
    assert_eq!(submit(&["--passphrase-file", &right]).check(), "approvers");
}

#[test]
fn pages_and_completions_name_every_command() {
    let folder = tempfile::tempdir().unwrap();
    let pages = folder.path().join("pages");
    assert!(process::run("sealfold", &["man", pages.to_str().unwrap()]).status.success());
    let commands = [
        "init", "check", "study", "verify", "measure", "submit", "commit", "fetch", "status", "run",
    ];
    let completions = process::run("sealfold", &["completions", "bash"]);
    let completions = String::from_utf8(completions.stdout).unwrap();
    for command in commands {
        let page = std::fs::read_to_string(pages.join(format!("sealfold-{command}.1")));
        let page = page.unwrap_or_else(|error| panic!("{command}: {error}"));
        assert!(page.contains(".TH") && page.contains(&format!("sealfold\\-{command}")), "{page}");
        assert!(completions.contains(&format!("sealfold__subcmd__{command}")), "{command}");
    }
    let page = std::fs::read_to_string(pages.join("sealfold-study-approve.1")).unwrap();
    assert!(page.contains("\\-\\-model"), "{page}");
    // Bash itself reads the script.
    let script = folder.path().join("sealfold.bash");
    std::fs::write(&script, completions).unwrap();
    let read = std::process::Command::new("bash").arg("-n").arg(&script).status().unwrap();
    assert!(read.success());
    let odd = process::run("sealfold", &["completions", "cobol"]);
    assert_eq!(odd.status.code(), Some(2));
}
