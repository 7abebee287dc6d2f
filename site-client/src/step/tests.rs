use super::*;
use sealfold_protocol::content;
use sealfold_study::Manifest;

/// The example with this in place of its rule, and these sections.
fn manifest(rule: &str, more: &str) -> Manifest {
    let text = include_str!("../../../study/example.toml");
    let text = text
        .replace("rule = \"weighted-mean\"\nnorm_limit = 5.0", rule)
        .replace("[quorum]", &format!("{more}\n[quorum]"))
        .replace("name = \"site-2\"", "name = \"site-2\"\nweight = 2");
    Manifest::from_toml(&text).unwrap()
}

const BASE: [f32; 12] =
    [0.0, 1.0, -2.5, 1e-3, 7.0, 0.1, 0.2, 0.3, 1e3, -1e-6, 3.3, f32::MIN_POSITIVE];

/// A folder with the model after round 1.
fn folder(manifest: &Manifest, base: &[f32; 12]) -> (tempfile::TempDir, Digest) {
    let folder = tempfile::tempdir().unwrap();
    let bytes: Vec<u8> = base.iter().flat_map(|value| value.to_le_bytes()).collect();
    let path = folder.path().join("round-0001.safetensors");
    tensors::write_content(&path, &manifest.terms.model, &mut bytes.as_slice()).unwrap();
    (folder, content::digest(&bytes))
}

/// Steps in a folder, and keeps the model if there is one.
fn stepped(
    manifest: &Manifest,
    kind: RoundKind,
    (folder, base): &(tempfile::TempDir, Digest),
    aggregate: &[u8],
) -> Result<Stepped> {
    assert_eq!(aggregate.len() as u64, manifest.terms.aggregate_length(kind));
    let roster = vec!["site-0", "site-2", "site-3"];
    let round = Round { manifest, kind, base: *base, roster };
    let [base, next] =
        [1, 2].map(|round| folder.path().join(format!("round-000{round}.safetensors")));
    let files = Files { base: &base, next: &next };
    let wrong = |error: io::Error| Error::Usage(error.to_string());
    let stepped = step(&round, &files, aggregate, wrong)?;
    assert_eq!(stepped.aggregate, content::digest(aggregate));
    if stepped.not_finite.is_some() {
        stepped.discard();
    } else {
        stepped.keep(&files)?;
        assert_eq!(tensors::digest(&next, &manifest.terms.model).unwrap(), stepped.model);
    }
    Ok(stepped)
}

/// The model after the step.
fn model(manifest: &Manifest, folder: &Path) -> Vec<f32> {
    let mut content = Vec::new();
    let path = folder.join("round-0002.safetensors");
    tensors::copy_content(&path, &manifest.terms.model.tensors, &mut content).unwrap();
    content.as_chunks::<4>().0.iter().map(|four| f32::from_le_bytes(*four)).collect()
}

fn words(words: Words, sums: &[i64]) -> Vec<u8> {
    sums.iter().flat_map(|sum| sum.to_le_bytes()[..words.width()].to_vec()).collect()
}

const COUNTS: &str = "[evaluation]\nbins = 1\nmost = 9";

/// The weights of the roster of three are 1, 2 and 1.
#[test]
#[allow(clippy::cast_possible_truncation, clippy::cast_precision_loss)]
fn sums_of_both_widths_lead_to_the_mean_in_binary64() {
    for (step, width) in [(1e-7, Words::Bits32), (4e-9, Words::Bits64)] {
        let rule = format!("rule = \"weighted-mean\"\nnorm_limit = 5.0\nstep = {step}");
        let manifest = manifest(&rule, COUNTS);
        assert_eq!(manifest.terms.words(RoundKind::Training), width);
        let mut sums: Vec<i64> = (0..12i64).map(|i| (i - 5) * 17_000_001).collect();
        if width == Words::Bits64 {
            sums[3] = 5_000_000_001;
        }
        let files = folder(&manifest, &BASE);
        let bytes = words(width, &[&sums[..], &[4, 7]].concat());
        let stepped = stepped(&manifest, RoundKind::Training, &files, &bytes).unwrap();
        assert_eq!((stepped.channels, stepped.not_finite), (vec![4, 7], None));
        let expected: Vec<f32> = BASE
            .iter()
            .zip(&sums)
            .map(|(base, sum)| {
                let mean = (*sum as f64 * (step / 4.0)) as f32;
                (f64::from(*base) + f64::from(mean)) as f32
            })
            .collect();
        assert_eq!(model(&manifest, files.0.path()), expected);
    }
}

#[test]
fn floats_of_a_selective_rule_stand_before_words_of_channels() {
    let text = include_str!("../../../study/example.toml");
    let text = text
        .replace("rule = \"weighted-mean\"\nnorm_limit = 5.0", "rule = \"median\"")
        .replace("format = 2", "format = 2\naccepts = [\"selective-rule\"]")
        .replace("[quorum]", &format!("{COUNTS}\n[quorum]"));
    let manifest = Manifest::from_toml(&text).unwrap();
    let files = folder(&manifest, &BASE);
    let floats: Vec<u8> = [0.5f32; 12].iter().flat_map(|value| value.to_le_bytes()).collect();
    let bytes = [floats, words(Words::Bits32, &[1, 9])].concat();
    let stepped = stepped(&manifest, RoundKind::Training, &files, &bytes).unwrap();
    assert_eq!(stepped.channels, [1, 9]);
    assert_eq!(model(&manifest, files.0.path())[..3], [0.5, 1.5, -2.0]);
}

/// The round that measures the last model hands it on, and the optimiser's state.
#[test]
fn an_evaluation_round_changes_no_model() {
    let manifest = manifest("rule = \"weighted-mean\"\nnorm_limit = 5.0", COUNTS);
    let files = folder(&manifest, &BASE);
    let path = |name: &str| files.0.path().join(name);
    std::fs::write(path("round-0001.state"), b"state").unwrap();
    let bytes = words(manifest.terms.words(RoundKind::Evaluation), &[3, 5]);
    // Again after a crash.
    for _ in 0..2 {
        let stepped = stepped(&manifest, RoundKind::Evaluation, &files, &bytes).unwrap();
        assert_eq!((stepped.model, stepped.channels), (files.1, vec![3, 5]));
        assert_eq!(model(&manifest, files.0.path()), BASE);
        assert_eq!(std::fs::read(path("round-0002.state")).unwrap(), b"state");
    }
}

#[test]
fn a_model_that_is_not_finite_is_none_and_names_its_tensor() {
    let rule = "rule = \"weighted-mean\"\nnorm_limit = 1e39";
    let manifest = manifest(rule, COUNTS);
    let step = manifest.terms.model.tensors[0].step.unwrap();
    let files = folder(&manifest, &[3e38; 12]);
    #[allow(clippy::cast_possible_truncation)]
    let high = (2e38 / step * 4.0) as i64;
    let mut sums = [0; 14];
    (sums[4], sums[12]) = (high, 6);
    let bytes = words(manifest.terms.words(RoundKind::Training), &sums);
    for _ in 0..2 {
        let stepped = stepped(&manifest, RoundKind::Training, &files, &bytes).unwrap();
        // The aggregate was read to its end all the same.
        assert_eq!(stepped.channels, [6, 0]);
        let said = stepped.not_finite.unwrap();
        assert!(said.contains("\"weights\"") && said.contains("value 4"), "{said}");
    }
    let left: Vec<_> =
        std::fs::read_dir(files.0.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, ["round-0001.safetensors"]);
}

#[test]
fn an_aggregate_that_ends_early_or_goes_on_is_refused() {
    let manifest = manifest("rule = \"weighted-mean\"\nnorm_limit = 5.0", COUNTS);
    let files = folder(&manifest, &BASE);
    let [base, next] = ["round-0001", "round-0002"].map(|name| files.0.path().join(name));
    let base = base.with_extension("safetensors");
    for kind in [RoundKind::Training, RoundKind::Evaluation] {
        let whole = usize::try_from(manifest.terms.aggregate_length(kind)).unwrap();
        for length in [whole - 1, whole + 1] {
            let round = Round { manifest: &manifest, kind, base: files.1, roster: vec!["site-0"] };
            let files = Files { base: &base, next: &next };
            let wrong = |error: io::Error| Error::Usage(error.to_string());
            assert!(step(&round, &files, vec![0; length].as_slice(), wrong).is_err());
        }
    }
    assert!(!next.exists());
}
