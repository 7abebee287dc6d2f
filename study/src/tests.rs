use super::*;
use sealfold_protocol::manifest::{Manifested, TermsOnly};
use sealfold_protocol::seal::RoundSecret;
use sealfold_protocol::terms::{Channel, Noise, Privacy, Rule, UpdateType, Weakness};
use sealfold_protocol::text::is_hidden;
use sealfold_protocol::{Digest, Error, MultiSigned, Pcr, SigningKey, encoding};

/// Four sites' signing keys, in the order of their names.
pub(crate) fn keys() -> Vec<SigningKey> {
    (1..5).map(|i| SigningKey::from_seed(&[i; 32]).unwrap()).collect()
}

/// A manifest of four sites that checks.
pub(crate) fn manifest() -> Manifest {
    Manifest::from_toml(include_str!("../example.toml")).unwrap()
}

/// The file of that manifest, from its keys' seeds. `SEALFOLD_WRITE_VECTORS=1`
/// writes it instead of comparing it.
#[test]
fn the_example_has_the_keys_of_its_seeds() {
    let site = |(i, key): (usize, &SigningKey)| {
        let seed = [100 + u8::try_from(i).unwrap(); 32];
        let release = RoundSecret::from_seed(&seed).public_key().unwrap();
        format!(
            "\n[[site]]\nname = \"site-{i}\"\nsigning_key = \"{}\"\nrelease_key = {}\n",
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
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/example.toml");
    if std::env::var_os("SEALFOLD_WRITE_VECTORS").is_some() {
        std::fs::write(path, &text).unwrap();
    }
    assert_eq!(std::fs::read_to_string(path).unwrap(), text);
    manifest().check().unwrap();
}

const TEXT: &str = r#"# A study of four sites, as small as one can be. The tests use it.
format = 2

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
norm_limit = 5.0

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
SITES"#;

fn refused(change: impl FnOnce(&mut Manifest)) -> String {
    let mut changed = manifest();
    change(&mut changed);
    changed.check().unwrap_err().to_string()
}

/// The example with some of its text replaced.
fn read(replaced: &[(&str, &str)]) -> Result<Manifest, Error> {
    let mut text = include_str!("../example.toml").to_owned();
    for (from, to) in replaced {
        assert!(text.contains(from), "{from}");
        text = text.replacen(from, to, 1);
    }
    Manifest::from_toml(&text)
}

/// The example's sites under noise that hides each patient, with its claim.
pub(crate) fn private(noise: Noise, claim: Claim, rounds: u32) -> Manifest {
    let mut manifest = manifest();
    manifest.terms.rounds = rounds;
    manifest.terms.aggregation.rule = Rule::Sum;
    manifest.terms.aggregation.norm_limit = None;
    manifest.terms.aggregation.divisor = Some(1.0);
    manifest.terms.model.tensors[0].step = None;
    manifest.terms.privacy = Privacy::Patient(noise);
    manifest.agreement.claim = Some(claim);
    manifest
}

fn field(error: &Error) -> String {
    match error {
        Error::Manifest { field, .. } => field.clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn toml_and_cbor_are_the_same_manifest() {
    let manifest = manifest();
    let signed = MultiSigned::sign(manifest.clone(), &keys()[0]).unwrap();
    let envelope = signed.envelope().unwrap();
    assert_eq!(Manifest::open(&envelope).unwrap().statement(), &manifest);
    assert_eq!(manifest.terms.model.parameters(), 12);
    let again = Manifest::from_toml(&manifest.to_toml().unwrap()).unwrap();
    assert_eq!(again, manifest);
    // The enclave reads the same terms under the same digest.
    let enclave = TermsOnly::open(&envelope).unwrap();
    assert_eq!(enclave.digest(), signed.digest());
    assert_eq!(enclave.statement().terms, manifest.terms);
    assert_eq!(enclave.statement().agreement, encoding::to_vec(&manifest.agreement).unwrap());
}

#[test]
fn other_formats_are_refused_by_version() {
    let old = read(&[("format = 2", "format = 1")]).unwrap_err();
    assert_eq!(field(&old), "format");
    let said = old.to_string();
    assert!(said.contains("expected 2") && said.ends_with("found 1"), "{said}");
    // In an envelope the content type has the version.
    let signed = MultiSigned::sign(manifest(), &keys()[0]).unwrap().envelope().unwrap();
    let text = String::from_utf8_lossy(&signed).into_owned();
    let place = text.find("manifest.v2").unwrap();
    let mut old = signed.clone();
    let at = signed.windows(11).position(|window| window == b"manifest.v2").unwrap();
    assert!(place > 0);
    old[at + 10] = b'1';
    let said = Manifest::open(&old).unwrap_err().to_string();
    assert!(said.contains("format version 1 is not one that this version"), "{said}");
}

#[test]
fn an_unknown_or_missing_field_is_named() {
    let unknown = read(&[("[quorum]", "[quorum]\nsurprise = 1")]).unwrap_err().to_string();
    assert!(unknown.contains("surprise"), "{unknown}");
    let missing = read(&[("rounds = 20", "")]).unwrap_err().to_string();
    assert!(missing.contains("study.rounds"), "{missing}");
    let share = read(&[("norm_limit", "largest_weight_share = 0.5\nnorm_limit")]).unwrap_err();
    assert!(share.to_string().contains("largest_weight_share"), "{share}");
}

#[test]
fn images_are_of_one_platform_or_of_several() {
    let image = ConfidentialSpaceMeasurement { image_digest: Digest::new([7; 32]) };
    let mut both = manifest();
    both.agreement.measurements.confidential_space.push(image);
    let mut other = both.clone();
    other.agreement.measurements.nitro.clear();
    for manifest in [&both, &other] {
        let signed = MultiSigned::sign(manifest.clone(), &keys()[0]).unwrap();
        let opened = Manifest::open(&signed.envelope().unwrap()).unwrap();
        assert_eq!(opened.statement(), manifest);
        let text = manifest.to_toml().unwrap();
        assert!(text.contains("[[measurements.confidential-space]]"), "{text}");
        assert_eq!(&Manifest::from_toml(&text).unwrap(), manifest);
    }
    // A list that is empty is not there, and spelled out it is another encoding.
    let bytes = encoding::to_vec(&manifest().agreement).unwrap();
    assert!(!bytes.windows(18).any(|window| window == b"confidential-space"));
    let place = bytes.windows(12).position(|window| window == b"measurements").unwrap() + 12;
    assert_eq!(bytes[place], 0xa1);
    let empty = [&[0xa2][..], b"\x72confidential-space\x80", &bytes[place + 1..]].concat();
    let empty = [&bytes[..place], &empty].concat();
    assert!(encoding::from_slice::<Agreement>("agreement", &empty, 1 << 20).is_err());
    let zeros = ConfidentialSpaceMeasurement { image_digest: Digest::new([0; 32]) };
    let refused = refused(|m| m.agreement.measurements.confidential_space.push(zeros));
    assert!(refused.contains("measurements.confidential-space"), "{refused}");
}

#[test]
fn every_rule_names_its_field() {
    assert!(refused(|m| m.terms.rounds = 0).contains("study.rounds"));
    let study = |change: fn(&mut Purpose)| refused(|m| change(&mut m.agreement.study));
    assert!(study(|s| s.valid_until = s.valid_from).contains("valid_until"));
    assert!(study(|s| s.purpose.clear()).contains("study.purpose"));
    let images = |change: fn(&mut Measurements)| refused(|m| change(&mut m.agreement.measurements));
    assert!(images(|m| m.nitro.clear()).contains("measurements: expected"));
    assert!(images(|m| m.nitro[0].pcr2 = Pcr::new([0; 48])).contains("debug enclave"));
    assert!(
        refused(|m| m.agreement.server.learning_rate = f64::INFINITY).contains("learning_rate")
    );
    assert!(refused(|m| m.agreement.data.features[0].range = None).contains("range"));
    assert!(
        refused(|m| m.agreement.data.features[0].missing_share = 2.0).contains("missing_share")
    );
    for origin in ["", "a b", "a+b", "a\nb", &"a".repeat(129)] {
        let found = refused(|m| m.agreement.log.origin = origin.to_owned());
        assert!(found.contains("log.origin"), "{origin}");
    }
}

/// Lines that look like terms, sequences that hide them, and marks that turn
/// words around are refused in every text that a person reads before signing.
#[test]
fn texts_that_people_cannot_read_are_refused_by_field() {
    type Place = fn(&mut Manifest) -> &mut String;
    let places: [(&str, Place); 9] = [
        ("study.name", |m| &mut m.agreement.study.name),
        ("study.purpose", |m| &mut m.agreement.study.purpose),
        ("study.intended_use", |m| &mut m.agreement.study.intended_use),
        ("data.cohort", |m| &mut m.agreement.data.cohort),
        ("data.outcome.column", |m| &mut m.agreement.data.outcome.column),
        ("data.feature.name", |m| &mut m.agreement.data.features[0].name),
        ("data.feature.unit", |m| &mut m.agreement.data.features[0].unit),
        ("model.tensor.name", |m| &mut m.terms.model.tensors[0].name),
        ("log.origin", |m| &mut m.agreement.log.origin),
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

/// A promise that does not hold is named, or the manifest is refused with what
/// giving it up means.
#[test]
fn promises_that_are_given_up_are_named_at_the_top() {
    let median = [("rule = \"weighted-mean\"", "rule = \"median\"")];
    let error = read(&median).unwrap_err();
    assert_eq!(field(&error), "accepts");
    let said = error.to_string();
    assert!(said.contains("selective-rule") && said.contains("1 hospital"), "{said}");
    let named = [median[0], ("format = 2", "format = 2\naccepts = [\"selective-rule\"]")];
    let manifest = read(&named).unwrap();
    assert_eq!(manifest.terms.accepts, [Weakness::SelectiveRule]);
    assert_eq!(manifest.terms.aggregation.update_type, UpdateType::Float32);
    let words = in_words::describe(&manifest, &Digest::new([1; 32]));
    assert!(words.contains("WEAKER (selective-rule): median is a selective rule"), "{words}");
    let needless = [("format = 2", "format = 2\naccepts = [\"selective-rule\"]")];
    assert!(read(&needless).unwrap_err().to_string().contains("does not keep: none"));
    let permission = [("format = 2", "format = 2\naccepts = [\"changing-attendance\"]")];
    let words = in_words::describe(&read(&permission).unwrap(), &Digest::new([1; 32]));
    assert!(words.contains("WEAKER (changing-attendance): sites may come and go"), "{words}");
    let unknown = [("format = 2", "format = 2\naccepts = [\"fewer-sites-than-roster\"]")];
    assert!(read(&unknown).unwrap_err().to_string().contains("selective-rule, dominant-weight"));
}

/// A change of a manifest.
type Change = fn(&mut Manifest);

/// The two parts belong together, whoever put them together.
#[test]
fn terms_and_agreement_that_contradict_each_other_are_refused() {
    let evaluated = read(&[("[quorum]", "[evaluation]\nbins = 4\n\n[quorum]")]).unwrap();
    assert_eq!(evaluated.terms.last_round(), 21);
    let changes: [(_, Change); 8] = [
        ("channel", |m| m.terms.channels.clear()),
        ("channel", |m| m.agreement.evaluation = None),
        ("evaluation", |m| m.terms.channels[0].length = 6),
        ("evaluation", |m| m.terms.channels[0].step = 0.5),
        ("evaluation", |m| m.agreement.evaluation = Some(Evaluation { bins: 5 })),
        ("privacy.epsilon", |m| {
            m.agreement.claim = Some(Claim { epsilon: 1.0, delta: 1e-5, sampling_rate: None });
        }),
        ("channel", |m| m.agreement.metrics.push(Metric { name: "loss".into() })),
        ("channel", |m| {
            let channel = Channel { name: "more".into(), ..m.terms.channels[0].clone() };
            m.terms.channels.push(channel);
        }),
    ];
    for (expected, change) in changes {
        let mut changed = evaluated.clone();
        change(&mut changed);
        changed.terms.check().unwrap();
        assert_eq!(field(&changed.check().unwrap_err()), expected);
    }
    let noise = Noise { clip: 1.0, step: 1e-5, noise_multiplier: 30.0, adaptive_clip: None };
    let claim = Claim { epsilon: 3.0, delta: 1e-5, sampling_rate: None };
    let mut unclaimed = private(noise, claim, 1);
    unclaimed.check().unwrap();
    unclaimed.agreement.claim = None;
    assert_eq!(field(&unclaimed.check().unwrap_err()), "privacy.epsilon");
}

#[test]
fn a_metric_is_two_channels_of_values_and_of_who_gave_one() {
    let metric = "[[metric]]\nname = \"loss\"\nrange = [0, 10]\n\n[[site]]";
    let manifest = read(&[("[[site]]", metric)]).unwrap();
    let [value, present] = manifest.terms.channels.as_slice() else { panic!() };
    assert_eq!((value.name.as_str(), present.name.as_str()), ("loss", "loss-present"));
    // A power of two with at most 2^20 steps up to 10.
    assert_eq!(value.step, 2f64.powi(-16));
    assert_eq!((value.least, value.most), (0, 655_360));
    assert_eq!((present.step, present.least, present.most), (1.0, 0, 1));
    let again = Manifest::from_toml(&manifest.to_toml().unwrap()).unwrap();
    assert_eq!(again, manifest);
    let zeros = metric.replace("[0, 10]", "[0, 0]");
    assert!(
        read(&[("[[site]]", &zeros)])
            .unwrap_err()
            .to_string()
            .contains("the lowest value, then the highest")
    );
    let apart = metric.replace("10]", "10]\nper_site = true");
    assert!(read(&[("[[site]]", &apart)]).unwrap_err().to_string().contains("per-site-metrics"));
    let odd = metric.replace("10]", "1]\nstep = 0.1");
    let odd = read(&[("[[site]]", &odd)]).unwrap();
    assert_eq!(odd.terms.channels[0].most, 10);
    assert_eq!(Manifest::from_toml(&odd.to_toml().unwrap()).unwrap(), odd);
}

/// The step that a manifest leaves out is one with which everything fits.
#[test]
fn steps_that_are_left_out_suit_the_limit_the_weights_and_the_format() {
    let manifest = manifest();
    let step = manifest.terms.model.tensors[0].step.unwrap();
    assert_eq!(step, 2f64.powi(-26));
    let sums = manifest.terms.largest_value() * 4;
    assert!(sums <= 0x7fff_ffff && sums > 0x3fff_ffff, "{sums}");
    for (name, least, most) in [("int8", 50.0, 127.0), ("int16", 256.0, 512.0)] {
        let update_type = format!("norm_limit = 5.0\nupdate_type = \"{name}\"");
        let narrow = read(&[("norm_limit = 5.0", &update_type)]).unwrap();
        let average = 5.0 / 12f64.sqrt() / narrow.terms.model.tensors[0].step.unwrap();
        assert!(average >= least && average <= most, "{name}: {average}");
    }
    for (given, words) in [("1.0", "at most 0.02"), ("1e-12", "at least 0.0000000006")] {
        let step = format!("norm_limit = 5.0\nstep = {given}");
        let said = read(&[("norm_limit = 5.0", &step)]).unwrap_err().to_string();
        assert!(said.contains(words), "{said}");
    }
}

proptest::proptest! {
    /// Whatever the agreement says, an enclave reads the same terms.
    #[test]
    fn no_agreement_changes_what_an_enclave_reads(
        agreement in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..2000),
    ) {
        let terms = manifest().terms;
        let of = |agreement: Vec<u8>| TermsOnly {
            format: sealfold_protocol::manifest::FORMAT,
            terms: terms.clone(),
            agreement: agreement.into(),
        };
        let signed = MultiSigned::sign(of(agreement.clone()), &keys()[0]).unwrap();
        let opened = TermsOnly::open(&signed.envelope().unwrap()).unwrap();
        proptest::prop_assert_eq!(&opened.statement().terms, &terms);
        // Its digest does change, so that no site signs one and runs another.
        let other = MultiSigned::sign(of([agreement, vec![0]].concat()), &keys()[0]).unwrap();
        proptest::prop_assert_ne!(signed.digest(), other.digest());
    }
}
