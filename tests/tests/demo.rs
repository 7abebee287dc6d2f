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
        .args(["demo", "--private", "--rounds", "2", "--out"])
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
    assert!(epsilon <= 3.0 && epsilon > 2.99, "{epsilon}");
    for kind in ["private", "without_noise", "local_noise"] {
        for place in ["mean"].iter().chain(&HOSPITALS) {
            let auc = figures["auc"][kind][place].as_f64().unwrap();
            assert!((0.5..1.0).contains(&auc), "{kind} {place}: {auc}");
        }
    }
    // What went through the system learned something, with its noise.
    let study = &figures["study"];
    let mean = |kind: &str| study["auc"][kind]["mean"].as_f64().unwrap();
    assert!(mean("private") > 0.65, "{}", mean("private"));
    assert_ne!(mean("private").to_bits(), mean("without_noise").to_bits());
    // Each release counts the 276 held-out patients in 32 noisy counts.
    let evaluations = study["evaluations"].as_array().unwrap();
    assert_eq!(evaluations.len(), 2);
    let deviation = figures["noise_multiplier"].as_f64().unwrap() * 32f64.sqrt();
    for evaluation in evaluations {
        let patients = evaluation["pooled"]["patients"].as_f64().unwrap();
        assert!((patients - 276.0).abs() < 6.0 * deviation, "{patients}");
    }
    // The initial model scores everybody alike.
    let first = evaluations[0]["pooled"]["auc"].as_f64().unwrap();
    let last = evaluations[1]["pooled"]["auc"].as_f64().unwrap();
    assert!((first - 0.5).abs() < 0.25 && last > first, "{first} {last}");
    assert!(!out.join("summary.json").exists());
    let html = std::fs::read_to_string(out.join("private.html")).unwrap();
    assert!(html.contains("Privacy loss of a patient after each round"));
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
