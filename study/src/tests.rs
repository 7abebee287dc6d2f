use super::*;
use crate::seal::RoundSecret;
use crate::{Pcr, SigningKey};

/// Four sites' signing keys, in the order of their names.
pub(crate) fn keys() -> Vec<SigningKey> {
    (1..5).map(|i| SigningKey::from_seed(&[i; 32]).unwrap()).collect()
}

/// A manifest of four sites that checks.
pub(crate) fn manifest() -> Manifest {
    let site = |(i, key): (usize, &SigningKey)| {
        let seed = [100 + u8::try_from(i).unwrap(); 32];
        let release = RoundSecret::from_seed(&seed).public_key().unwrap();
        format!(
            "[[site]]\nname = \"site-{i}\"\nsigning_key = \"{}\"\nrelease_key = {}\n",
            key.verifying_key(),
            serde_json::to_string(&release).unwrap()
        )
    };
    let sites: String = keys().iter().enumerate().map(site).collect();
    let approvers: Vec<_> =
        keys().iter().map(|key| format!("{:?}", key.verifying_key().to_string())).collect();
    let log = SigningKey::from_seed(&[99; 32]).unwrap().verifying_key().to_string();
    let text = TEXT.replace("APPROVERS", &approvers.join(", ")).replace("SITES", &sites);
    let text = text.replace("LOG", &log);
    Manifest::from_toml(&text).unwrap()
}

const TEXT: &str = r#"
format = 1
[study]
name = "example"
purpose = "a test"
intended_use = "none"
rounds = 20
valid_from = "2026-01-01T00:00:00Z"
valid_until = "2027-01-01T00:00:00Z"
[data]
cohort = "all"
minimum_rows = 10
outcome = { column = "num", rule = ">", value = 0 }
[[data.feature]]
name = "age"
unit = "years"
type = "real"
range = [0, 120]
missing_share = 0
[model]
initial = "0000000000000000000000000000000000000000000000000000000000000000"
learning_rate = 1
[[model.tensor]]
name = "weights"
shape = [3, 4]
dtype = "float32"
[aggregation]
rule = "weighted-mean"
largest_weight_share = 0.5
[privacy]
unit = "none"
[quorum]
smallest_roster = 3
colluders = 0
[deadlines]
upload_seconds = 60
commit_seconds = 60
round_seconds = 600
[release]
readers = "sites"
[approval]
required = 3
approvers = [APPROVERS]
[log]
origin = "log.example/heart"
key = "LOG"
[[measurements.nitro]]
pcr0 = "111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111"
pcr1 = "111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111"
pcr2 = "111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111"
SITES
"#;

fn refused(change: impl FnOnce(&mut Manifest)) -> String {
    let mut changed = manifest();
    change(&mut changed);
    changed.check().unwrap_err().to_string()
}

#[test]
fn toml_and_cbor_are_the_same_manifest() {
    let manifest = manifest();
    let signed = MultiSigned::sign(manifest.clone(), &keys()[0]).unwrap();
    let opened = Manifest::open(&signed.envelope().unwrap()).unwrap();
    assert_eq!(opened.statement(), &manifest);
    assert_eq!(manifest.model.parameters(), 12);
    let again = Manifest::from_toml(&toml::to_string(&manifest).unwrap()).unwrap();
    assert_eq!(again, manifest);
}

#[test]
fn an_unknown_or_missing_field_is_named() {
    let text = toml::to_string(&manifest()).unwrap();
    let unknown = text.replace("[quorum]", "[quorum]\nsurprise = 1");
    let error = Manifest::from_toml(&unknown).unwrap_err().to_string();
    assert!(error.contains("surprise"), "{error}");
    let missing = text.replace("rounds = 20", "");
    let error = Manifest::from_toml(&missing).unwrap_err().to_string();
    assert!(error.contains("study.rounds"), "{error}");
}

#[test]
fn images_are_of_one_platform_or_of_several() {
    let image = ConfidentialSpaceMeasurement { image_digest: Digest::new([7; 32]) };
    let mut both = manifest();
    both.measurements.confidential_space.push(image);
    let mut other = both.clone();
    other.measurements.nitro.clear();
    for manifest in [&both, &other] {
        let signed = MultiSigned::sign(manifest.clone(), &keys()[0]).unwrap();
        let opened = Manifest::open(&signed.envelope().unwrap()).unwrap();
        assert_eq!(opened.statement(), manifest);
        let text = toml::to_string(manifest).unwrap();
        assert!(text.contains("[[measurements.confidential-space]]"), "{text}");
        assert_eq!(&Manifest::from_toml(&text).unwrap(), manifest);
    }
    // A list that is empty is not there, and spelled out it is another encoding.
    let encode = |manifest: &Manifest| crate::encoding::to_vec(manifest).unwrap();
    let bytes = encode(&manifest());
    assert!(!bytes.windows(18).any(|window| window == b"confidential-space"));
    let place = bytes.windows(12).position(|window| window == b"measurements").unwrap() + 12;
    assert_eq!(bytes[place], 0xa1);
    let empty = [&[0xa2][..], b"\x72confidential-space\x80", &bytes[place + 1..]].concat();
    let empty = [&bytes[..place], &empty].concat();
    assert!(crate::encoding::from_slice::<Manifest>("manifest", &empty, 1 << 20).is_err());
    let zeros = ConfidentialSpaceMeasurement { image_digest: Digest::new([0; 32]) };
    let refused = refused(|m| m.measurements.confidential_space.push(zeros));
    assert!(refused.contains("measurements.confidential-space"), "{refused}");
}

#[test]
fn every_rule_names_its_field() {
    assert!(refused(|m| m.study.rounds = 0).contains("study.rounds"));
    assert!(refused(|m| m.study.valid_until = m.study.valid_from).contains("valid_until"));
    assert!(refused(|m| m.study.purpose.clear()).contains("study.purpose"));
    assert!(refused(|m| m.measurements.nitro.clear()).contains("measurements: expected"));
    assert!(
        refused(|m| m.measurements.nitro[0].pcr2 = Pcr::new([0; 48])).contains("debug enclave")
    );
    assert!(refused(|m| m.approval.required = 2).contains("more than half"));
    assert!(refused(|m| m.sites[1].name = m.sites[0].name.clone()).contains("site.name"));
    assert!(
        refused(|m| m.sites[1].signing_key = m.sites[0].signing_key).contains("site.signing_key")
    );
    assert!(refused(|m| m.sites[0].name = "Big Site".into()).contains("site.name"));
    assert!(
        refused(|m| m.aggregation.largest_weight_share = Some(0.2))
            .contains("largest_weight_share")
    );
    assert!(refused(|m| m.aggregation.clip = Some(1.0)).contains("aggregation.clip"));
    assert!(refused(|m| m.aggregation.rule = Rule::NormClippedMean).contains("aggregation.clip"));
    assert!(refused(|m| m.aggregation.norm_limit = Some(f64::NAN)).contains("norm_limit"));
    assert!(refused(|m| m.model.learning_rate = f64::INFINITY).contains("learning_rate"));
    assert!(refused(|m| m.model.tensors[0].shape = vec![1 << 40, 2]).contains("tensor.shape"));
    assert!(refused(|m| m.model.tensors[0].shape = vec![u64::MAX, 2]).contains("tensor.shape"));
    assert!(refused(|m| m.model.tensors[0].shape = vec![0]).contains("tensor.shape"));
    assert!(refused(|m| m.model.tensors.clear()).contains("model.tensor"));
    assert!(refused(|m| m.deadlines.round_seconds = 100).contains("round_seconds"));
    assert!(refused(|m| m.data.features[0].range = None).contains("range"));
    assert!(refused(|m| m.data.features[0].missing_share = 2.0).contains("missing_share"));
    assert!(refused(|m| m.quorum.smallest_roster = 2).contains("2k > n + c"));
    assert!(refused(|m| m.format = 2).contains("format"));
    for origin in ["", "a b", "a+b", "a\nb", &"a".repeat(129)] {
        assert!(refused(|m| m.log.origin = origin.to_owned()).contains("log.origin"), "{origin}");
    }
}

/// What is expected and what is found, in words that differ.
#[test]
fn what_is_found_says_why_it_is_not_what_is_expected() {
    let with = |aggregation: &str, bins: Option<u32>| {
        let mut manifest = manifest();
        manifest.aggregation = toml::from_str(aggregation).unwrap();
        manifest.evaluation = bins.map(|bins| Evaluation { bins, per_site: false });
        manifest.check().unwrap_err().to_string()
    };
    let sum = with("rule = \"sum\"\ndivisor = 1", None);
    let expected = "aggregation.rule: expected another than sum, which is for the privacy units \
                    patient and site, found sum with the privacy unit none";
    assert!(sum.ends_with(expected), "{sum}");
    let grid = with("rule = \"sum\"\ndivisor = 1\nupdate_type = \"grid\"", None);
    assert!(grid.contains("another than grid") && grid.ends_with("privacy unit none"), "{grid}");
    let short = "rule = \"weighted-mean\"\nlargest_weight_share = 0.5\nupdate_type = \"float16\"";
    let counted = with(short, Some(4));
    assert!(counted.ends_with("found rule weighted-mean with update_type float16"), "{counted}");
    let trimmed = with("rule = \"trimmed-mean\"\ntrim = 2", None);
    let expected = "smallest_roster: expected at least 5 for trimmed-mean (n > 2 trim), found 3";
    assert!(trimmed.ends_with(expected), "{trimmed}");
    let leak = "accepts = [\"fewer-sites-than-roster\"]";
    let none = with(&format!("rule = \"multi-krum\"\nbyzantine = 0\nkeep = 0\n{leak}"), None);
    let expected = "aggregation.keep: expected at least 1 for multi-krum, found 0";
    assert!(none.ends_with(expected), "{none}");
    let tiny = "rule = \"centred-clipping\"\nclip = 1e-310\nsteps = 1\nlargest_weight_share = 1";
    let tiny = with(tiny, None);
    assert!(tiny.contains("aggregation.clip: expected a positive number"), "{tiny}");
    let leaky = with(&format!("rule = \"median\"\n{leak}"), None);
    assert!(leaky.ends_with("found fewer-sites-than-roster"), "{leaky}");
}

/// Lines that look like terms, sequences that hide them, and marks that turn
/// words around are refused in every text that a person reads before signing.
#[test]
fn texts_that_people_cannot_read_are_refused_by_field() {
    type Place = fn(&mut Manifest) -> &mut String;
    let places: [(&str, Place); 9] = [
        ("study.name", |m| &mut m.study.name),
        ("study.purpose", |m| &mut m.study.purpose),
        ("study.intended_use", |m| &mut m.study.intended_use),
        ("data.cohort", |m| &mut m.data.cohort),
        ("data.outcome.column", |m| &mut m.data.outcome.column),
        ("data.feature.name", |m| &mut m.data.features[0].name),
        ("data.feature.unit", |m| &mut m.data.features[0].unit),
        ("model.tensor.name", |m| &mut m.model.tensors[0].name),
        ("log.origin", |m| &mut m.log.origin),
    ];
    let bad =
        ["heart\nquorum       10 of 12", "a\u{1b}[8m", "a\u{9b}2J", "\u{202e}a", "a\u{2028}b"];
    for (field, place) in places {
        for text in bad {
            let mut manifest = manifest();
            text.clone_into(place(&mut manifest));
            match manifest.check() {
                Err(Error::Manifest { field: found, found: what, .. }) => {
                    assert_eq!(found, field);
                    assert!(!what.contains(is_hidden), "{what:?}");
                }
                other => panic!("{field} {text:?}: {other:?}"),
            }
            // What is described, checked or not, has a line for each term.
            let plain = in_words::describe(&self::manifest(), &Digest::new([1; 32]));
            let found = in_words::describe(&manifest, &Digest::new([1; 32]));
            assert_eq!(found.lines().count(), plain.lines().count(), "{found}");
            assert!(!found.contains(|c| c != '\n' && is_hidden(c)), "{found:?}");
        }
    }
}

/// A scale that the manifest takes is one with which updates can be decoded.
#[test]
fn a_scale_that_no_update_could_have_is_refused() {
    let with = |scale: f32| {
        let mut manifest = manifest();
        manifest.aggregation.update_type = UpdateType::Int8;
        manifest.model.tensors[0].scale = Some(scale);
        manifest
    };
    let largest = f32::MAX / 128.0;
    for scale in [1e-30, 0.01, largest] {
        with(scale).check().unwrap();
        let format = UpdateType::Int8.format();
        sealfold_aggregation::format::Codec::new(format, &with(scale).scales()).unwrap();
    }
    let above = f32::from_bits(largest.to_bits() + 1);
    for scale in [0.0, -0.01, f32::NAN, f32::INFINITY, 1e-40, 3e38, above] {
        match with(scale).check() {
            Err(Error::Manifest { field, .. }) => {
                assert_eq!(field, "model.tensor \"weights\" scale");
            }
            other => panic!("{scale}: {other:?}"),
        }
    }
}
