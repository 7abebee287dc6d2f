//! SCAFFOLD through an enclave: the example's trainer at four hospitals, and
//! control variates that the sites keep in step with the released aggregates.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use safetensors::SafeTensors;
use sealfold_tests::process;
use sealfold_tests::study::{Asked, Options, zeros};
use sealfold_tests::system::System;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Each hospital with the patients that its trainer sees: seven tenths of its
/// table, by outcome.
const HOSPITALS: [&str; 4] = ["cleveland", "hungarian", "switzerland", "va-long-beach"];
/// And its weight, as in the example's manifest: about 100 patients are 1.
const WEIGHTS: [u32; 4] = [3, 3, 1, 2];
const ROUNDS: u32 = 3;
/// Weights and biases of 20 replicas, and as many controls.
const PARAMETERS: usize = 2 * 20 * (35 + 1);

fn example() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/heart-disease")
}

/// The example study with the control variates that its README describes.
fn options(folder: &Path) -> Options {
    let model = folder.join("initial.safetensors");
    let mut made = process::command("heart-disease");
    made.args(["init-model", "--controls", "--out"]).arg(&model);
    assert!(made.status().unwrap().success());
    let template = std::fs::read_to_string(example().join("study.template.toml")).unwrap();
    let section = |from: &str, to: &str| {
        let start = template.find(from).unwrap();
        template[start..start + template[start..].find(to).unwrap()].to_owned()
    };
    let tensors = section("[[model.tensor]]", "[aggregation]");
    let controls = tensors
        .replace("name = \"weight\"", "name = \"weight_control\"\nrole = \"control\"")
        .replace("name = \"bias\"", "name = \"bias_control\"\nrole = \"control\"");
    let sections = format!(
        "{}[model]\ninitial = \"{}\"\nlearning_rate = 1.0\n{tensors}{controls}{}",
        section("[data]", "[model]"),
        zeros(PARAMETERS),
        section("[aggregation]", "# No aggregate"),
    );
    let query = Some(Asked { sections, model });
    Options {
        rounds: ROUNDS,
        smallest_roster: 4,
        query,
        weights: WEIGHTS.into(),
        ..Options::default()
    }
}

fn values(path: &Path, name: &str) -> Vec<f32> {
    let bytes = std::fs::read(path).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let (fours, _) = tensors.tensor(name).unwrap().data().as_chunks::<4>();
    fours.iter().map(|four| f32::from_le_bytes(*four)).collect()
}

#[test]
fn the_global_control_is_the_mean_of_what_the_hospitals_keep() {
    let folder = tempfile::tempdir().unwrap();
    let system = System::start(&options(folder.path()));
    let kept = |hospital: &str| folder.path().join(hospital);
    let sites: Vec<_> = system.study.sites.iter().map(|site| site.name.clone()).collect();
    let trainer = process::binaries().join("heart-disease");
    let agent = |(site, hospital): (&String, &&str)| {
        let data = example().join(format!("data/{hospital}.csv"));
        let train = format!(
            "{} train --hospital {hospital} --data {} --scaffold {}",
            trainer.display(),
            data.display(),
            kept(hospital).display(),
        );
        system.agent_with(site, &train, ROUNDS)
    };
    system.finish(sites.iter().zip(&HOSPITALS).map(agent).collect(), Duration::from_mins(2));
    let all: f64 = WEIGHTS.map(f64::from).iter().sum();
    let models = |site: &str| system.home(site).join("studies").join(system.id()).join("models");
    let mut moved = Vec::new();
    for round in 1..=ROUNDS {
        let model = models(&sites[0]).join(format!("round-{round:04}.safetensors"));
        for site in &sites[1..] {
            let other = models(site).join(format!("round-{round:04}.safetensors"));
            assert_eq!(std::fs::read(&model).unwrap(), std::fs::read(other).unwrap());
        }
        for (control, own) in [("weight_control", "weight"), ("bias_control", "bias")] {
            let global = values(&model, control);
            let file = format!("{}-{round:04}.safetensors", system.id());
            let kept = HOSPITALS.map(|hospital| values(&kept(hospital).join(&file), own));
            for (place, global) in global.iter().enumerate() {
                let own = kept.iter().zip(WEIGHTS);
                let mean =
                    own.map(|(own, n)| f64::from(own[place]) * f64::from(n) / all).sum::<f64>();
                assert!(
                    (f64::from(*global) - mean).abs() < 1e-5,
                    "{round} {place}: {global} {mean}"
                );
            }
            assert!(global.iter().any(|value| value.abs() > 1e-3), "{round} {control}: {global:?}");
        }
        moved.push(values(&model, "weight"));
    }
    assert!(moved[0] != moved[1] && moved[1] != moved[2]);
}
