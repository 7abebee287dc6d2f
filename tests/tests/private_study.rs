//! Studies with privacy, narrow formats and optimisers, through all the real
//! binaries: what a site's agent makes of them, and what its ledger refuses.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::cast_precision_loss)]

use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use sealfold_tests::process::{self, Server};
use sealfold_tests::site::floats;
use sealfold_tests::study::Options;
use sealfold_tests::system::{Platform, System};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

const PARAMETERS: usize = 50;
const BINS: usize = 4;
const ROWS: usize = 200;

fn private(noise_multiplier: f64, epsilon: f64) -> Options {
    Options {
        parameters: PARAMETERS,
        rounds: 2,
        aggregation: "rule = \"sum\"\ndivisor = 100".to_owned(),
        privacy: format!(
            "unit = \"patient\"\nclip = 2\nstep = 0.0000152587890625\nsampling_rate = 0.5\n\
             noise_multiplier = {noise_multiplier}\nepsilon = {epsilon}\ndelta = 1e-5"
        ),
        model: ["", "[evaluation]\nbins = 4\nper_site = true", ""],
        ..Options::default()
    }
}

/// The gradients of some patients, all alike, and of others who are held out:
/// half of them with the outcome, in the highest bin, half without, in the
/// lowest.
fn gradients(path: &Path, trained: usize, held_out: usize, value: f32) {
    let bytes =
        |values: Vec<f32>| -> Vec<u8> { values.into_iter().flat_map(f32::to_le_bytes).collect() };
    let patients = trained + held_out;
    let weights: Vec<f32> = (0..patients)
        .flat_map(|patient| vec![if patient < trained { value } else { 0.0 }; PARAMETERS])
        .collect();
    let counts: Vec<f32> = (0..patients)
        .flat_map(|patient| {
            let mut bins = [0.0; 2 * BINS];
            if patient >= trained {
                let outcome = patient % 2;
                bins[2 * (outcome * (BINS - 1)) + outcome] = 1.0;
            }
            bins
        })
        .collect();
    let (weights, counts) = (bytes(weights), bytes(counts));
    let view = |shape, data| TensorView::new(Dtype::F32, shape, data).unwrap();
    let tensors = [
        ("weights", view(vec![patients, PARAMETERS], &weights)),
        ("evaluation", view(vec![patients, BINS, 2], &counts)),
    ];
    safetensors::serialize_to_file(tensors, None, path).unwrap();
}

fn csv(folder: &Path) -> PathBuf {
    let path = folder.join("patients.csv");
    let rows: Vec<_> = (0..ROWS).map(|row| format!("{},{}", 30 + row % 50, row % 2)).collect();
    std::fs::write(&path, format!("age,num\n{}\n", rows.join("\n"))).unwrap();
    path
}

/// An agent whose trainer gives these gradients, and keeps each round's sample.
fn agent(system: &System, site: &str, update: &Path, data: &Path) -> Server {
    let samples = system.folder.path().join(format!("{site}-sample"));
    let train = format!(
        "cp {} $SEALFOLD_UPDATE && cp $SEALFOLD_SAMPLE {}-$SEALFOLD_ROUND",
        update.display(),
        samples.display()
    );
    let id = system.study.id().to_string();
    let mut command = system.command(site, &["run", "--host", &system.url, &id]);
    command.args(["--train", &train, "--poll-seconds", "0.05", "--data"]).arg(data);
    Server::start_unheard(command, &system.folder.path().join(format!("{site}.log")))
}

#[test]
fn patients_are_clipped_sampled_noised_and_counted_and_the_budget_is_charged() {
    let budget = |folder: &Path| {
        format!(
            "{}\n[budgets]\nregister = {{ epsilon = 15, delta = 1e-4 }}\n",
            process::simulation_policy(folder)
        )
    };
    // Little noise, so that sums are told from it; three releases are charged.
    let options = private(0.7, 14.0);
    let system = System::start_with(Platform::Process, &options, budget);
    let data = csv(system.folder.path());
    let names: Vec<_> = system.study.sites.iter().map(|site| site.name.clone()).collect();
    let mut agents = Vec::new();
    for (i, site) in names.iter().enumerate() {
        let update = system.folder.path().join(format!("{site}.safetensors"));
        // Every gradient is far longer than the clip, and clipped to it.
        gradients(&update, 100, 100 + 20 * i, 1000.0);
        agents.push(agent(&system, site, &update, &data));
    }
    system.finish(agents, Duration::from_mins(2));
    // 400 patients with a norm of 2 each, over 100, in two rounds.
    let folder = system.home("site-000").join(format!("studies/{}", system.study.id()));
    let model = std::fs::read(folder.join("models/round-0002.safetensors")).unwrap();
    let model = SafeTensors::deserialize(&model).unwrap();
    let values = floats(model.tensor("weights").unwrap().data());
    let mean = values.iter().sum::<f32>() / values.len() as f32;
    let expected = 2.0 * 400.0 * 2.0 / (PARAMETERS as f32).sqrt() / 100.0;
    // The mean of 50 places has a fiftieth of their variance.
    let deviation = 0.7 * 2.0 / 100.0 * 2f32.sqrt() / (PARAMETERS as f32).sqrt();
    assert!((mean - expected).abs() < 5.0 * deviation, "{mean} {expected}");
    assert!(values.iter().any(|value| value.to_bits() != values[0].to_bits()));
    // All sites have the same model, evaluation and samples of their own.
    let mut samples = BTreeSet::new();
    for site in &names {
        for round in 1..=2 {
            let path = system.folder.path().join(format!("{site}-sample-{round}"));
            let sample = std::fs::read_to_string(path).unwrap();
            let rows: Vec<usize> = sample.lines().map(|row| row.parse().unwrap()).collect();
            assert!(rows.iter().all(|row| *row < ROWS));
            assert!((60..140).contains(&rows.len()), "{}", rows.len());
            samples.insert(rows);
        }
    }
    assert_eq!(samples.len(), 8);
    let evaluation = std::fs::read(folder.join("evaluations/0001.json")).unwrap();
    let evaluation: serde_json::Value = serde_json::from_slice(&evaluation).unwrap();
    let patients = evaluation["pooled"]["patients"].as_f64().unwrap();
    // 520 held out, in eight cells of each of four sites with noise 0.7; noise
    // below zero is cut off.
    assert!((patients - 520.0).abs() < 40.0, "{evaluation}");
    assert!(evaluation["pooled"]["auc"].as_f64().unwrap() > 0.95, "{evaluation}");
    assert_eq!(evaluation["sites"].as_object().unwrap().len(), 4);
    assert!(evaluation["auc_spread"][1].as_f64().unwrap() > 0.9, "{evaluation}");
    // The ledger has no room for another study.
    let ledger = std::fs::read_to_string(system.home("site-000").join("ledger.json")).unwrap();
    assert!(ledger.contains("register") && ledger.contains("14"), "{ledger}");
    let approve = |text: String| {
        let manifest = system.folder.path().join("another.toml");
        std::fs::write(&manifest, text).unwrap();
        let manifest = manifest.to_str().unwrap().to_owned();
        let url = system.url.as_str();
        system.sealfold("site-000", &["study", "approve", &manifest, "--host", url, "--yes"])
    };
    let text = std::fs::read_to_string(system.folder.path().join("study.toml")).unwrap();
    let another = text.replace("name = \"test\"", "name = \"another\"");
    assert_eq!(approve(another.clone()).check(), "budget");
    // Nor does it take a study that cannot be charged.
    let pcrs: Vec<_> = text.lines().filter(|line| line.starts_with("pcr")).collect();
    let measurements = pcrs.join("\n");
    let none = Options { parameters: PARAMETERS, measurements, ..Options::default() };
    let none = sealfold_tests::study::toml(&none, &system.study.sites);
    assert_eq!(approve(none).check(), "budget");
    // A cheaper one fits, by name of its source.
    let cheap = another.replace("noise_multiplier = 0.7", "noise_multiplier = 9.5");
    let ended = approve(cheap.replace("epsilon = 14", "epsilon = 0.9"));
    assert_eq!(ended.code, 0, "{ended:?}");
}

#[test]
fn what_noise_buys_is_answered_and_shown() {
    let folder = tempfile::tempdir().unwrap();
    let home = folder.path().to_str().unwrap();
    let ask = |arguments: &[&str]| {
        let all = [&["--home", home, "--json", "privacy"], arguments].concat();
        let output = process::run("sealfold", &all);
        assert!(output.status.success(), "{output:?}");
        serde_json::from_slice::<serde_json::Value>(&output.stdout).unwrap()
    };
    let noise = ask(&["noise", "--epsilon", "3", "--rounds", "40", "--delta", "1e-5"]);
    let multiplier = noise["noise_multiplier"].as_f64().unwrap();
    assert!((8.0..11.0).contains(&multiplier), "{multiplier}");
    let multiplier = multiplier.to_string();
    let cost =
        ask(&["cost", "--noise-multiplier", &multiplier, "--rounds", "40", "--delta", "1e-5"]);
    let (rdp, pld) = (&cost["epsilon"]["rdp"], &cost["epsilon"]["pld"]);
    assert!((rdp.as_f64().unwrap() - 3.0).abs() < 1e-3 && rdp.as_f64() <= Some(3.0), "{cost}");
    assert!(pld.as_f64() < rdp.as_f64(), "{cost}");
    assert_eq!(cost["epsilon_by_round"].as_array().unwrap().len(), 40);
    // What is printed buys what was asked for, to the last digit.
    for (epsilon, rounds, rate) in
        [("3", "2", "0.5"), ("2", "10", "1"), ("5", "40", "1"), ("5", "10", "0.1")]
    {
        let setting = ["--rounds", rounds, "--sampling-rate", rate];
        let noise = ask(&[&["noise", "--epsilon", epsilon], &setting[..]].concat());
        let printed = format!("{:.6}", noise["noise_multiplier"].as_f64().unwrap());
        let cost = ask(&[&["cost", "--noise-multiplier", &printed], &setting[..]].concat());
        assert!(cost["epsilon"]["rdp"].as_f64() <= epsilon.parse().ok(), "{printed} {cost}");
    }
    let wrong = process::run(
        "sealfold",
        &["--home", home, "privacy", "cost", "--noise-multiplier", "0", "--rounds", "1"],
    );
    assert_eq!(wrong.status.code(), Some(1), "{wrong:?}");
}

#[test]
fn half_floats_travel_and_an_optimiser_has_its_state_beside_the_model() {
    let options = Options {
        parameters: 1000,
        rounds: 2,
        aggregation: "rule = \"trimmed-mean\"\ntrim = 1\nnorm_limit = 1e9\n\
                      update_type = \"float16\""
            .to_owned(),
        accepts: vec!["selective-rule"],
        model: [
            "optimiser = { kind = \"fed-adam\", beta1 = 0.9, beta2 = 0.99, tau = 0.1 }",
            "",
            "",
        ],
        ..Options::default()
    };
    let system = System::start(&options);
    system.finish(system.agents(2), Duration::from_mins(1));
    // The mean of the middle two of 1, 2, 4 and 8, twice.
    let (mut m, mut v, mut x) = (0.0, 0.01, 0.0);
    for round in 1..=2 {
        m = 0.9 * m + 0.1 * 3.0;
        v = 0.99 * v + 0.01 * 3.0 * 3.0;
        x += m / (f64::sqrt(v) + 0.1);
        for site in &system.study.sites {
            let found = f64::from(system.model(&site.name, round));
            assert!((found - x).abs() < 1e-5, "round {round}: {found} {x}");
        }
    }
    let models = system.home("site-000").join(format!("studies/{}/models", system.study.id()));
    let state = std::fs::metadata(models.join("round-0002.state")).unwrap();
    assert_eq!(state.len(), 8 * 1000);
    // What a half float does not hold is scaled until it does.
    let system = System::start(&Options { rounds: 3, ..options });
    let ended = system.submit("site-000", 1e6).good();
    assert!(ended.stdout.contains("does not fit float16"), "{ended:?}");
}
