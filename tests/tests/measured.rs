//! What a study measures, and what an update becomes on its way, through all the
//! real binaries.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use safetensors::Dtype;
use safetensors::tensor::TensorView;
use sealfold_protocol::api::UploadState;
use sealfold_tests::participation::gives;
use sealfold_tests::study::Options;
use sealfold_tests::system::System;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_mins(1);

fn bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// An update of one value, and counts of held-out patients in two bins.
fn counted(system: &System, site: &str, value: f32, counts: [f32; 4]) -> PathBuf {
    let path = system.folder.path().join(format!("{site}-counted.safetensors"));
    let (weights, counts) = (bytes(&vec![value; system.study.parameters()]), bytes(&counts));
    let view = |shape, data| TensorView::new(Dtype::F32, shape, data).unwrap();
    let tensors = [
        ("weights", view(vec![system.study.parameters()], &weights)),
        ("evaluation", view(vec![2, 2], &counts)),
    ];
    safetensors::serialize_to_file(tensors, None, &path).unwrap();
    path
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// Round t + 1 measures the model of release t, and one round follows the last.
/// Counts are counts, whatever the weights; a site that has no metric is not one
/// with a metric of 0.
#[test]
fn every_model_is_measured_and_the_last_one_too() {
    let mean = Options { weights: vec![1, 2, 2, 1], ..Options::default() };
    measured(mean);
    // Floating-point values, and whole numbers beside them.
    for update_type in ["float32", "bfloat16"] {
        let aggregation = format!("rule = \"median\"\nupdate_type = \"{update_type}\"");
        let accepts = vec!["selective-rule"];
        measured(Options { aggregation, accepts, ..Options::default() });
    }
}

fn measured(options: Options) {
    let system = System::start(&Options {
        parameters: 10,
        rounds: 2,
        model: ["", "[evaluation]\nbins = 2\n[[metric]]\nname = \"loss\"\nrange = [0, 4]", ""],
        ..options
    });
    let names: Vec<_> = system.study.sites.iter().map(|site| site.name.clone()).collect();
    let mut agents = Vec::new();
    for (number, site) in names.iter().enumerate() {
        let update = counted(&system, site, 1.0, [30.0, 2.0, 5.0, 13.0]);
        // The last site has no metric. Each notes what it was asked to do.
        let metrics = if number == 3 { "{}" } else { "{\"loss\": 0.5, \"own\": 7}" };
        let asked = system.folder.path().join(format!("{site}-asked"));
        let train = format!(
            "{} && echo '{metrics}' > $SEALFOLD_METRICS && \
             echo $SEALFOLD_ROUND $SEALFOLD_TASK >> {}",
            gives(&update),
            asked.display()
        );
        agents.push(system.agent_with(site, &train, 3));
    }
    let logs: Vec<_> =
        names.iter().map(|site| system.folder.path().join(format!("{site}.log"))).collect();
    system.finish(agents, PATIENCE);
    let asked = std::fs::read_to_string(system.folder.path().join("site-001-asked")).unwrap();
    assert_eq!(asked, "1 train\n2 train\n3 evaluate\n");
    // The mean of ones, twice; the round that measures changes nothing.
    for site in &names {
        let models = [1, 2, 3].map(|round| system.model(site, round).to_bits());
        assert_eq!(models, [1f32, 2.0, 2.0].map(f32::to_bits));
        let folder = system.home(site).join(format!("studies/{}/evaluations", system.id()));
        for round in 0..3 {
            let read = json(&folder.join(format!("{round:04}.json")));
            assert_eq!(read["model_round"], round);
            assert_eq!(read["measured_in_round"], round + 1);
            assert_eq!(read["pooled"]["patients"], 200.0);
            assert_eq!(read["pooled"]["with_outcome"], 60.0);
            assert_eq!(read["metrics"]["loss"]["sites"], 3.0);
            assert_eq!(read["metrics"]["loss"]["mean"], 0.5);
            assert_eq!(read["metrics"].as_object().unwrap().len(), 1);
        }
        assert!(!folder.join("0003.json").exists());
    }
    let log = std::fs::read_to_string(&logs[0]).unwrap();
    for said in ["\"metrics kept\"", "\"own\"", "\"quantised\"", "\"relative_error\""] {
        assert!(log.contains(said), "{said}: {log}");
    }
    assert!(std::fs::read_to_string(&logs[3]).unwrap().contains("\"metrics absent\""));
}

#[test]
fn what_no_channel_can_carry_is_refused_at_the_site() {
    let system = System::start(&Options {
        parameters: 10,
        model: [
            "",
            "[evaluation]\nbins = 2\nmost = 100\n[[metric]]\nname = \"loss\"\nrange = [0, 4]",
            "",
        ],
        ..Options::default()
    });
    let file = |name: &str, text: &str| {
        let path = system.folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let submit = |counts: [f32; 4], metrics: &str| {
        let update = counted(&system, "site-000", 1.0, counts);
        let metrics = file("metrics.json", metrics);
        let more = ["--update", update.to_str().unwrap(), "--metrics", &metrics];
        system.on_study("site-000", &["submit"], &more)
    };
    let few = [1.0, 2.0, 3.0, 4.0];
    let many = submit([1.0, 101.0, 3.0, 4.0], "{}");
    assert_eq!(many.check(), "evaluation");
    assert!(many.json()["refusal"]["found"].as_str().unwrap().contains("101 in bin 0"), "{many:?}");
    for wrong in [-1.0, 0.3, f32::NAN] {
        let check = submit([1.0, wrong, 3.0, 4.0], "{}").check();
        assert!(["evaluation", "finite"].contains(&check.as_str()), "{wrong}: {check}");
    }
    let high = submit(few, "{\"loss\": 4.5}");
    assert_eq!(high.check(), "metric");
    assert!(
        high.json()["refusal"]["expected"].as_str().unwrap().contains("loss from 0 to 4"),
        "{high:?}"
    );
    let old = submit(few, "{\"examples\": 3, \"metrics\": {\"loss\": 1}}");
    assert!(format!("{old:?}").contains("weight of its [[site]]"), "{old:?}");
    assert_eq!(submit(few, "{\"loss\": 4}").good().json()["state"], "admitted");
}

/// An honest hospital is never refused for its norm: its client scales the update
/// to the limit, so a refusal tells the host nothing of an honest one.
#[test]
fn a_long_update_is_scaled_to_the_limit_and_admitted() {
    let limit = "rule = \"weighted-mean\"\nnorm_limit = 100.0";
    let system = System::start(&Options { aggregation: limit.into(), ..Options::default() });
    // Norms from 0.03 to 3e30.
    for (site, value) in
        ["site-000", "site-001", "site-002", "site-003"].into_iter().zip([1e-3f32, 3.0, 1e6, 1e29])
    {
        assert_eq!(system.submit(site, value).good().json()["state"], "admitted");
    }
    let uploads = system.round(1).uploads;
    let admitted = |state: &UploadState| matches!(state, UploadState::Admitted(_));
    assert!(uploads.len() == 4 && uploads.iter().all(|upload| admitted(&upload.state)));
}

/// A release that leads to a model of infinities ends the study, at every site by
/// the same name; nobody keeps the base for a second release on it.
#[test]
fn a_model_that_is_not_finite_ends_the_study_everywhere() {
    let limit = "rule = \"weighted-mean\"\nnorm_limit = 1e39";
    let system = System::start(&Options {
        parameters: 1,
        aggregation: limit.into(),
        model: ["optimiser = { kind = \"fed-avg-m\", momentum = 0.5 }", "", ""],
        ..Options::default()
    });
    // The step is 2e38, then 3e38: the model would be at 5e38.
    let update = system.update(2e38);
    let mut agents: Vec<_> = system
        .study
        .sites
        .iter()
        .map(|site| system.agent_with(&site.name, &gives(&update), 5))
        .collect();
    for agent in &mut agents {
        assert_eq!(agent.wait(PATIENCE), 1, "{}", agent.log());
        let log = agent.log();
        assert!(log.contains("model-not-finite") && log.contains("begin a new study"), "{log}");
    }
    for site in &system.study.sites {
        let folder = system.home(&site.name).join(format!("studies/{}/models", system.id()));
        assert!(folder.join("round-0001.safetensors").exists());
        assert!(!folder.join("round-0002.safetensors").exists());
    }
    // It is the same again for a site that begins anew.
    let fetched = system.on_study("site-000", &["fetch"], &["--out", "/dev/null"]);
    assert_eq!(fetched.check(), "model-not-finite");
}
