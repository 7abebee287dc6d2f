//! The example study with privacy noise, through all real processes, and its
//! trainer's SCAFFOLD, through its files.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use safetensors::SafeTensors;
use sealfold_tests::process;
use serde_json::Value;
use std::path::Path;

const HOSPITALS: [&str; 4] = ["cleveland", "hungarian", "switzerland", "va-long-beach"];

#[test]
fn a_short_private_study_hides_patients_and_says_what_it_costs() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("demo");
    let output = process::command("heart-disease")
        .args(["demo", "--private", "--epsilon", "2.5", "--rounds", "2", "--out"])
        .arg(&out)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("at delta 0.00001 over 2 rounds"), "{text}");
    let figures: Value =
        serde_json::from_slice(&std::fs::read(out.join("private.json")).unwrap()).unwrap();
    assert_eq!((&figures["rounds"], &figures["delta"]), (&2.into(), &1e-5.into()));
    let epsilon = figures["epsilon"].as_f64().unwrap();
    assert!(epsilon <= 2.5 && epsilon > 2.49, "{epsilon}");
    assert_eq!(figures["epsilon_claimed"], 2.5);
    // What was asked for is what the sites agreed to.
    let study = std::fs::read_to_string(out.join("study.toml")).unwrap();
    assert!(study.contains("\nepsilon = 2.5\n"), "{study}");
    assert!(study.contains(&format!("\nnoise_multiplier = {}\n", figures["noise_multiplier"])));
    for kind in ["private", "without_noise", "local_noise"] {
        for place in ["mean"].iter().chain(&HOSPITALS) {
            let auc = figures["auc"][kind][place].as_f64().unwrap();
            assert!((0.5..1.0).contains(&auc), "{kind} {place}: {auc}");
        }
    }
    // The cost is the difference of the means, said in numbers.
    let auc = |kind: &str| figures["auc"][kind]["mean"].as_f64().unwrap();
    for kind in ["private", "local_noise"] {
        let cost = &figures["auc_cost"][kind];
        let (mean, spread) = (cost["mean"].as_f64().unwrap(), cost["spread"].as_f64().unwrap());
        assert!((mean - (auc("without_noise") - auc(kind))).abs() < 1e-9, "{kind}: {mean}");
        assert!(spread > 0.0 && text.contains(&format!("{mean:.4} ±{spread:.4}\n")), "{text}");
    }
    // What went through the system learned something, with its noise.
    let study = &figures["study"];
    let mean = |kind: &str| study["auc"][kind]["mean"].as_f64().unwrap();
    assert!(mean("private") > 0.65, "{}", mean("private"));
    assert_ne!(mean("private").to_bits(), mean("without_noise").to_bits());
    // The initial model and that after each round: 276 held-out patients in 32 noisy
    // counts.
    let evaluations = study["evaluations"].as_array().unwrap();
    assert_eq!(evaluations.len(), 3);
    let deviation = figures["noise_multiplier"].as_f64().unwrap() * 32f64.sqrt();
    for evaluation in evaluations {
        let patients = evaluation["pooled"]["patients"].as_f64().unwrap();
        assert!((patients - 276.0).abs() < 6.0 * deviation, "{patients}");
    }
    // The initial model scores everybody alike.
    let first = evaluations[0]["pooled"]["auc"].as_f64().unwrap();
    let last = evaluations[2]["pooled"]["auc"].as_f64().unwrap();
    assert!((first - 0.5).abs() < 0.25 && last > first, "{first} {last}");
    assert!(!out.join("summary.json").exists());
    let html = std::fs::read_to_string(out.join("private.html")).unwrap();
    assert!(html.contains("Epsilon of a patient after each release"));
}

#[test]
fn an_exit_code_tells_what_was_refused_from_what_could_not_be_done() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("demo");
    let demo = |program: &str, arguments: &[&str]| {
        let mut command = std::process::Command::new(program);
        command.arg("demo").args(arguments).arg("--out").arg(&out).output().unwrap()
    };
    let program = process::binaries().join("heart-disease");
    let program = program.to_str().unwrap();
    let help = process::run("heart-disease", &["--help"]);
    assert!(String::from_utf8(help.stdout).unwrap().contains("1 refused"));
    // An earlier demo, which a refusal leaves alone.
    std::fs::create_dir(&out).unwrap();
    std::fs::write(out.join(".sealfold-demo"), "").unwrap();
    std::fs::write(out.join("private.json"), "{}").unwrap();
    let none = demo(program, &["--private", "--epsilon", "0"]);
    assert!(out.join("private.json").exists());
    let said = String::from_utf8_lossy(&none.stderr).into_owned();
    assert_eq!(none.status.code(), Some(1), "{said}");
    assert!(said.contains("expected a positive number; give another --epsilon"), "{said}");
    // Programs that are not there.
    let nowhere = folder.path().to_str().unwrap();
    let unbuilt = demo(program, &["--bin-dir", nowhere]);
    let said = String::from_utf8_lossy(&unbuilt.stderr).into_owned();
    assert_eq!(unbuilt.status.code(), Some(2), "{said}");
    assert!(said.contains("run make build"), "{said}");
    assert_eq!(demo(program, &["--epsilon", "1"]).status.code(), Some(2));
    // No manifest may list an image in debug mode, whose measurements are zeros.
    let other = folder.path().join("other.toml");
    let pcr = "00".repeat(48);
    let image = format!("pcr0 = \"{pcr}\"\npcr1 = \"{pcr}\"\npcr2 = \"{pcr}\"\n");
    std::fs::write(&other, format!("[[nitro.measurements]]\n{image}")).unwrap();
    let nobody = format!("unix://{}", folder.path().join("nobody").display());
    let other = other.to_str().unwrap();
    let refused =
        demo(program, &["--enclave", &nobody, "--door", &nobody, "--platform-policy", other]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(said.contains("refused by check manifest"), "{said}");
}

/// Runs the trainer for a round, as an agent would; the values of its update.
fn train(folder: &Path, round: u32) -> impl Fn(&str) -> Vec<f32> {
    let data = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../examples/heart-disease/data/switzerland.csv");
    let update = folder.join("update.safetensors");
    let output = process::command("heart-disease")
        .args(["train", "--hospital", "switzerland", "--data"])
        .arg(data)
        .arg("--scaffold")
        .arg(folder.join("controls"))
        .env("SEALFOLD_MODEL", folder.join("model.safetensors"))
        .env("SEALFOLD_UPDATE", &update)
        .env("SEALFOLD_METRICS", folder.join("metrics.json"))
        .env("SEALFOLD_ROUND", round.to_string())
        .env("SEALFOLD_STUDY", "study")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let bytes = std::fs::read(&update).unwrap();
    move |name| {
        let tensors = SafeTensors::deserialize(&bytes).unwrap();
        let (fours, _) = tensors.tensor(name).unwrap().data().as_chunks::<4>();
        fours.iter().map(|four| f32::from_le_bytes(*four)).collect()
    }
}

#[test]
fn scaffolds_own_control_variate_is_kept_from_round_to_round() {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("model.safetensors");
    let made = process::command("heart-disease")
        .args(["init-model", "--controls", "--out"])
        .arg(&model)
        .status()
        .unwrap();
    assert!(made.success());
    let first = train(folder.path(), 1);
    let (moved, change) = (first("weight"), first("weight_control"));
    // Without corrections the control is the mean gradient: minus the update
    // over the 8 steps' length of 0.3.
    for (moved, change) in moved.iter().zip(&change) {
        assert!((moved / -2.4 - change).abs() < 1e-6, "{moved} {change}");
    }
    assert!(change.iter().any(|change| change.abs() > 0.01));
    // The global control is still 0: the own one takes its gradient out.
    let second = train(folder.path(), 2);
    let length = |values: &[f32]| values.iter().map(|value| value * value).sum::<f32>().sqrt();
    assert!(length(&second("weight")) < 0.8 * length(&moved));
    // A round that is tried again begins where it began.
    let again = train(folder.path(), 2);
    assert_eq!(second("weight"), again("weight"));
    assert_eq!(train(folder.path(), 1)("weight"), moved);
}
