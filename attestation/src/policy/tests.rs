use super::*;
use crate::log::NoteSigner;

/// The example with the section that stands there as a comment.
fn of_both_platforms() -> Policy {
    let (first, second) = Policy::example().split_once("# [confidential-space]").unwrap();
    let second: Vec<_> = second.lines().map(|line| line.trim_start_matches("# ")).collect();
    Policy::from_toml(&format!("{first}[confidential-space]{}\n", second.join("\n"))).unwrap()
}

#[test]
fn the_example_parses_and_allows_no_simulation() {
    let policy = Policy::from_toml(Policy::example()).unwrap();
    assert!(!policy.allows_simulation());
    assert!(policy.peers().is_none());
    assert_eq!(policy.smallest_roster(), 3);
    assert_eq!(policy.max_age(), Duration::from_mins(5));
}

#[test]
fn the_examples_second_platform_parses() {
    let policy = of_both_platforms();
    assert_eq!((policy.nitro().len(), policy.confidential_space().len()), (1, 1));
    let policy = Policy::from_toml(Policy::example()).unwrap();
    assert_eq!((policy.nitro().len(), policy.confidential_space().len()), (1, 0));
}

#[test]
fn an_image_is_listed_under_its_platform_with_all_its_measurements() {
    let policy = of_both_platforms();
    let nitro = policy.nitro()[0].accepted[0].clone();
    let space = policy.confidential_space()[0].section.measurements[0].image_digest;
    let other = [7; 48];
    let of_nitro: [(&str, &[u8]); 3] =
        [("pcr0", &nitro.pcr0.0), ("pcr1", &nitro.pcr1.0), ("pcr2", &nitro.pcr2.0)];
    let of_space: [(&str, &[u8]); 1] = [("image-digest", &space.0)];
    assert!(policy.lists("nitro", &of_nitro));
    assert!(policy.lists("confidential-space", &of_space));
    for (platform, image) in [
        ("nitro", &of_space[..]),
        ("confidential-space", &of_nitro),
        ("nitro", &[of_nitro[0], of_nitro[1], ("pcr2", &other)]),
        ("confidential-space", &[("image-digest", &other[..32])]),
        ("nitro", &[]),
        ("tdx", &of_nitro),
    ] {
        assert!(!policy.lists(platform, image), "{platform} {image:?}");
    }
    // Without the section no image of the platform is.
    let policy = Policy::from_toml(Policy::example()).unwrap();
    assert!(!policy.lists("confidential-space", &of_space));
}

#[test]
fn a_log_is_named_by_its_key() {
    let with = |log: &str| Policy::from_toml(&format!("{}\n[log]\n{log}", Policy::example()));
    let key = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
    let policy = with(&format!("key = \"{key}\"")).unwrap();
    assert_eq!(policy.log().unwrap().to_string(), key);
    assert!(policy.witnesses().is_empty());
    assert!(Policy::from_toml(Policy::example()).unwrap().log().is_none());
    let refused = |log: &str| with(log).unwrap_err().to_string();
    assert!(refused("key = \"x\"").contains("NAME+HASH+KEY"));
    let own = refused(&format!("key = \"{key}\"\nwitnesses = [\"{key}\"]"));
    assert!(own.contains("log.witnesses"), "{own}");
    assert!(refused("witnesses = []").contains("key"));
    let signer = |seed: u8| {
        NoteSigner::from_seed("w", KeyKind::CosignatureV1, &[seed; 32]).unwrap().key().to_string()
    };
    let watched = |witnesses: &str, required: usize| {
        with(&format!("key = \"{key}\"\nwitnesses = [{witnesses}]\nrequired = {required}"))
    };
    let two = format!("\"{}\", \"{}\"", signer(1), signer(2));
    assert_eq!(watched(&two, 2).unwrap().required_witnesses(), 2);
    assert!(watched(&two, 3).unwrap_err().to_string().contains("log.required"));
    let twice = format!("\"{}\", \"{}\"", signer(1), signer(1));
    assert!(watched(&twice, 1).unwrap_err().to_string().contains("each witness once"));
}

#[test]
fn what_is_missing_or_unknown_is_refused_by_name() {
    let refused = |from: &str, to: &str| {
        let text = Policy::example();
        assert!(text.contains(from), "{from}");
        Policy::from_toml(&text.replacen(from, to, 1)).unwrap_err().to_string()
    };
    for pcr in ["pcr0", "pcr1", "pcr2"] {
        let line = Policy::example().lines().find(|line| line.starts_with(pcr)).unwrap();
        assert!(refused(line, "").contains(pcr));
    }
    assert!(refused("[round]", "[round]\nsurprise = 1").contains("surprise"));
    let budget = "[budgets]\nregister = { epsilon = 0, delta = 1e-5 }\n[round]";
    assert!(refused("[round]", budget).contains("budgets"));
    assert!(refused("max_age_seconds = 300", "max_age_seconds = 0").contains("max_age"));
    assert!(refused("required = 1", "required = 3").contains("approval.required"));
    assert!(refused("\"641a", "\"741a").contains("nitro.roots"));
    assert!(refused("smallest_roster = 3", "").contains("smallest_roster"));
    let zeros = "0".repeat(96);
    assert!(refused(&"1".repeat(96), &zeros).contains("debug"));
    assert!(refused(&"1".repeat(96), "11").contains("96 hex digits"));
    let text = Policy::example();
    let start = text.find("[[nitro.measurements]]").unwrap();
    let empty = text[..start].replace("[nitro]", "[nitro]\nmeasurements = []");
    let error = Policy::from_toml(&empty).unwrap_err().to_string();
    assert!(error.contains("nitro.measurements"), "{error}");
    let none = &text[..text.find("[nitro]").unwrap()];
    assert!(Policy::from_toml(none).unwrap_err().to_string().contains("nitro"));
}
