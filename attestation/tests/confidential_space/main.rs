//! Confidential Space tokens: the real one, and every way to spoil one that a
//! test authority signs over the real one's layout.
#![allow(clippy::unwrap_used)]

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::{SignedDuration, Timestamp};
use sealfold_attestation::confidential_space::{NAME, Token};
use sealfold_attestation::simulation::SimulationRoot;
use sealfold_attestation::simulation::token::TokenAuthority;
use sealfold_attestation::{
    CheckName, Evidence, Outcome, Policy, State, Verdict, binding, nonce_hash, verify_document,
    verify_live, verify_replay,
};
use serde_json::{Value, json};

mod claims;

const REAL: &str = include_str!("../vectors/confidential-space/gcs_pki_token_20250905.jwt");
const OFFER: [u8; 32] = [7; 32];
const NONCE: [u8; 32] = [8; 32];

/// What the section says to accept the real token.
const SECTION: &str = r#"
[confidential-space]
audience = "z08381475938604996746"
roots = ["148b293821bb0c6a317f413c8ba475814091cb22d49b9e3c94198db8e8f86c39"]
hardware_models = ["GCP_INTEL_TDX"]
support = "STABLE"
[[confidential-space.measurements]]
name = "ctf_sha2"
image_digest = "e2e5e3672f416ac9ca71aa639abf86db0b713729a48c125a925af6c808b20b5d"
args = ["/usr/local/bin/ctf_sha2"]
env = { PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", SSL_CERT_FILE = "/etc/ssl/certs/ca-certificates.crt" }
operator_env = ["HOSTNAME", "SEALFOLD_DOOR"]
"#;

fn policy(section: &str) -> Policy {
    let start = Policy::example().find("[nitro]").unwrap();
    Policy::from_toml(&format!("{}{section}", &Policy::example()[..start])).unwrap()
}

fn authority() -> TokenAuthority {
    TokenAuthority::from_keys(
        include_str!("../vectors/confidential-space/test-authority/root.pem"),
        include_str!("../vectors/confidential-space/test-authority/intermediate.pem"),
        include_str!("../vectors/confidential-space/test-authority/signer.pem"),
    )
    .unwrap()
}

/// The section under the test authority's root.
fn simulation(authority: &TokenAuthority) -> String {
    let section = SECTION.replace("confidential-space", "simulation.confidential-space");
    let section: Vec<_> = section.lines().filter(|line| !line.starts_with("roots")).collect();
    format!(
        "[simulation]\nroot = \"{}\"\ncertificate = \"\"\"\n{}\"\"\"\n{}\n",
        hex::encode(authority.fingerprint()),
        authority.certificate_pem(),
        section.join("\n"),
    )
}

fn claims_of(token: &str) -> Value {
    let payload = URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap();
    serde_json::from_slice(&payload).unwrap()
}

fn now() -> Timestamp {
    Timestamp::from_second(claims_of(REAL)["iat"].as_i64().unwrap()).unwrap()
}

/// The real token's claims, with nonces of ours.
fn claims() -> Value {
    let mut claims = claims_of(REAL);
    claims["eat_nonce"] = json!([hex::encode(binding(&OFFER)), hex::encode(nonce_hash(&NONCE))]);
    claims
}

fn state(verdict: &Verdict, name: CheckName) -> State {
    verdict.checks().iter().find(|check| check.name == name).unwrap().state
}

fn failed(verdict: &Verdict) -> Vec<CheckName> {
    let checks = verdict.checks().iter();
    checks.filter(|check| check.state == State::Failed).map(|check| check.name).collect()
}

fn real(policy: &Policy, at: Timestamp) -> Verdict {
    verify_document(&Evidence::from_confidential_space(REAL.as_bytes()), policy, at, None)
}

fn live(policy: &Policy, token: &str, at: Timestamp) -> Verdict {
    let evidence = Evidence::from_confidential_space(token.as_bytes());
    verify_live(&evidence, policy, &OFFER, &NONCE, at)
}

#[test]
fn the_real_token_verifies_offline_at_its_own_time_and_not_later() {
    let policy = policy(SECTION);
    let verdict = real(&policy, now());
    // Without an offer the best verdict is undecided.
    assert_eq!(verdict.outcome(), Outcome::Undecided, "{:?}", verdict.checks());
    for check in verdict.checks() {
        let open = [CheckName::Binding, CheckName::Nonce].contains(&check.name);
        let expected = if open { State::NotMade } else { State::Passed };
        assert_eq!(check.state, expected, "{check:?}");
    }
    assert_eq!(verdict.checks().len(), 28);
    let hours = |hours| now() + SignedDuration::from_hours(hours);
    assert_eq!(failed(&real(&policy, hours(2))), [CheckName::Expiry, CheckName::Age]);
    assert_eq!(failed(&real(&policy, hours(-2))), [CheckName::NotBefore, CheckName::Age]);
    // The leaf lives for sixty days.
    let later = [CheckName::Validity, CheckName::Expiry, CheckName::Age];
    assert_eq!(failed(&real(&policy, hours(24 * 61))), later);
    // An auditor's question is about the token's own time: all but the binding
    // of an offer that it never knew.
    let evidence = Evidence::from_confidential_space(REAL.as_bytes());
    assert_eq!(failed(&verify_replay(&evidence, &policy, &OFFER)), [CheckName::Binding]);
}

#[test]
fn a_policy_without_the_section_refuses_by_the_check_platform() {
    let nitro = Policy::from_toml(Policy::example()).unwrap();
    let verdict = real(&nitro, now());
    assert_eq!(failed(&verdict), [CheckName::Platform]);
    assert_eq!(verdict.into_claims().unwrap_err().check, CheckName::Platform);
    // And the other way round.
    let document = include_bytes!("../vectors/nitro/20251225-dstack-prod-5e983e.bin");
    let evidence = Evidence::from_nitro(document);
    let verdict = verify_document(&evidence, &policy(SECTION), now(), None);
    assert_eq!(failed(&verdict), [CheckName::Platform]);
}

#[test]
fn every_single_byte_change_of_the_real_token_is_refused() {
    let policy = policy(SECTION);
    for place in 0..REAL.len() {
        // The last bit as well: it is the one that base64 may leave unused.
        for change in [1, 1 << (place % 7)] {
            let mut token = REAL.as_bytes().to_vec();
            token[place] ^= change;
            let evidence = Evidence::from_confidential_space(&token);
            let verdict = verify_document(&evidence, &policy, now(), None);
            assert_eq!(verdict.outcome(), Outcome::Refused, "byte {place} ^ {change:02x}");
        }
    }
    for length in (0..REAL.len()).step_by(97) {
        let evidence = Evidence::from_confidential_space(&REAL.as_bytes()[..length]);
        let verdict = verify_document(&evidence, &policy, now(), None);
        assert_eq!(verdict.outcome(), Outcome::Refused, "cut to {length}");
    }
}

#[test]
fn both_kinds_are_accepted_live_and_replayed() {
    let authority = authority();
    let policy = policy(&simulation(&authority));
    let verdict = live(&policy, &authority.pki(&claims()).unwrap(), now());
    assert_eq!(verdict.outcome(), Outcome::Accepted, "{:?}", verdict.checks());
    let accepted = verdict.into_claims().unwrap();
    assert!(accepted.is_simulated());
    assert_eq!(accepted.platform(), NAME);
    let digest = hex::encode(accepted.measurement(CheckName::ImageDigest));
    assert!(SECTION.contains(&digest) && digest.len() == 64);
    assert_eq!(accepted.signed_at(), u64::try_from(now().as_millisecond()).unwrap());

    // The OIDC kind, with its key in a file beside the policy, or in the policy.
    let section = SECTION.replace("roots", "# roots");
    let file = section.replace("support", "jwks = \"google.json\"\nsupport");
    let key_set = authority.key_set();
    let jwk = key_set["keys"][0].as_object().unwrap().iter();
    let jwk: Vec<_> = jwk.map(|(name, value)| format!("{name} = {value}\n")).collect();
    let start = Policy::example().find("[nitro]").unwrap();
    let text = format!("{}{file}", &Policy::example()[..start]);
    let read = |name: &str| match name {
        "google.json" => Ok(key_set.to_string().into_bytes()),
        _ => Err("no such file".to_owned()),
    };
    let beside = Policy::from_toml_with(&text, &read).unwrap();
    let inside = self::policy(&format!("{section}[[confidential-space.keys]]\n{}", jwk.concat()));
    let token = authority.oidc(&claims()).unwrap();
    for policy in [&beside, &inside] {
        let verdict = live(policy, &token, now());
        assert_eq!(verdict.outcome(), Outcome::Accepted, "{:?}", verdict.checks());
        assert_eq!(state(&verdict, CheckName::Chain), State::NotMade);
        assert!(!verdict.into_claims().unwrap().is_simulated());
        // Long after, a replay still answers; a site does not.
        let evidence = Evidence::from_confidential_space(token.as_bytes());
        assert_eq!(verify_replay(&evidence, policy, &OFFER).outcome(), Outcome::Accepted);
        let late = live(policy, &token, now() + SignedDuration::from_hours(9));
        assert_eq!(failed(&late), [CheckName::Expiry, CheckName::Age]);
        // A policy that takes keys alone takes no certificates.
        assert_eq!(failed(&real(policy, now())), [CheckName::Root]);
    }
    // A file that is not read is an error, not an empty set.
    assert!(Policy::from_toml(&text).unwrap_err().to_string().contains("google.json"));
}

#[test]
fn who_signed_is_checked_by_name() {
    let authority = authority();
    let token = authority.pki(&claims()).unwrap();
    // A throw-away root under a production policy.
    assert_eq!(failed(&live(&policy(SECTION), &token, now())), [CheckName::Simulation]);
    // A genuine token under a policy for the throw-away root alone.
    let simulated = policy(&simulation(&authority));
    assert_eq!(failed(&real(&simulated, now())), [CheckName::Root]);
    // A key that the policy does not have, also under the name of one that it has.
    let oidc = authority.oidc(&claims()).unwrap();
    assert_eq!(failed(&live(&simulated, &oidc, now())), [CheckName::Root]);
    let other = TokenAuthority::from_keys(
        include_str!("../vectors/confidential-space/test-authority/root.pem"),
        include_str!("../vectors/confidential-space/test-authority/signer.pem"),
        include_str!("../vectors/confidential-space/test-authority/intermediate.pem"),
    )
    .unwrap();
    let mut set = other.key_set();
    set["keys"][0]["kid"] = authority.key_set()["keys"][0]["kid"].clone();
    let section = SECTION.replace("roots", "jwks = \"set\"\n# roots");
    let start = Policy::example().find("[nitro]").unwrap();
    let text = format!("{}{section}", &Policy::example()[..start]);
    let policy = Policy::from_toml_with(&text, &|_| Ok(set.to_string().into_bytes())).unwrap();
    assert_eq!(failed(&live(&policy, &oidc, now())), [CheckName::Signature]);
    // Another's certificates over the claims.
    let header = other.pki(&claims()).unwrap().split_once('.').unwrap().0.to_owned();
    let header = URL_SAFE_NO_PAD.decode(header).unwrap();
    let mixed =
        authority.sign(std::str::from_utf8(&header).unwrap(), &claims().to_string()).unwrap();
    assert_eq!(failed(&live(&simulated, &mixed, now())), [CheckName::Signature]);
    // Certificates in another order, or without the one between.
    let mut header: Value =
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(token.split('.').next().unwrap()).unwrap())
            .unwrap();
    for keep in [vec![0, 2], vec![1, 0, 2], vec![2], vec![0]] {
        let x5c = header["x5c"].clone();
        header["x5c"] = keep.iter().map(|index| x5c[*index].clone()).collect();
        let token = authority.sign(&header.to_string(), &claims().to_string()).unwrap();
        let failed = failed(&live(&simulated, &token, now()));
        assert!(failed == [CheckName::Root] || failed == [CheckName::Chain], "{keep:?} {failed:?}");
        header["x5c"] = x5c;
    }
    // The root that a token brings is not used: without it the chain is the same.
    header["x5c"].as_array_mut().unwrap().pop();
    let token = authority.sign(&header.to_string(), &claims().to_string()).unwrap();
    assert_eq!(live(&simulated, &token, now()).outcome(), Outcome::Accepted);
}

/// The section under the test authority's root, which takes its OIDC key as well.
fn both_kinds(authority: &TokenAuthority) -> String {
    let key_set = authority.key_set();
    let jwk = key_set["keys"][0].as_object().unwrap().iter();
    let jwk: Vec<_> = jwk.map(|(name, value)| format!("{name} = {value}\n")).collect();
    let keys = format!("[[simulation.confidential-space.keys]]\n{}", jwk.concat());
    format!("{}{keys}", simulation(authority))
}

#[test]
fn a_site_whose_clock_is_a_little_behind_is_served() {
    let authority = authority();
    let policy = policy(&simulation(&authority));
    let token = authority.pki(&claims()).unwrap();
    let seconds = |seconds| now() + SignedDuration::from_secs(seconds);
    for (at, expected) in [
        (seconds(-30), vec![]),
        (seconds(-90), vec![CheckName::NotBefore, CheckName::Age]),
        (seconds(299), vec![]),
        (seconds(301), vec![CheckName::Age]),
    ] {
        assert_eq!(failed(&live(&policy, &token, at)), expected, "{at}");
    }
}

#[test]
fn a_section_that_is_incomplete_is_refused_by_name() {
    let start = Policy::example().find("[nitro]").unwrap();
    let refused = |from: &str, to: &str| {
        assert!(SECTION.contains(from), "{from}");
        let section = SECTION.replacen(from, to, 1);
        let text = format!("{}{section}", &Policy::example()[..start]);
        Policy::from_toml(&text).unwrap_err().to_string()
    };
    for field in
        ["audience", "hardware_models", "support", "image_digest", "args", "env", "operator_env"]
    {
        let line = SECTION.lines().find(|line| line.starts_with(&format!("{field} ="))).unwrap();
        let error = refused(line, "");
        assert!(error.contains(&format!("`{field}`")), "{error}");
    }
    let roots = SECTION.lines().find(|line| line.starts_with("roots")).unwrap();
    assert!(refused(roots, "").contains("roots, keys or jwks"));
    assert!(refused("148b", "158b").contains("Google's"));
    assert!(refused("STABLE", "EXPERIMENTAL").contains("EXPERIMENTAL"));
    assert!(refused("GCP_INTEL_TDX", "GCP_SHIELDED_VM").contains("hardware_models"));
    assert!(refused("[\"GCP_INTEL_TDX\"]", "[]").contains("hardware_models"));
    assert!(refused("z08381475938604996746", "").contains("audience"));
    assert!(refused("[\"/usr/local/bin/ctf_sha2\"]", "[]").contains("no args"));
    assert!(refused("\"HOSTNAME\"", "\"PATH\"").contains("PATH in both"));
    assert!(refused("support", "surprise = 1\nsupport").contains("surprise"));
    let image = &SECTION[SECTION.find("[[").unwrap()..];
    assert!(refused(image, "").contains("measurements"));
    assert!(refused(image, &format!("{image}{image}")).contains("one twice"));
    // A simulation names its root once.
    let authority = authority();
    let twice = simulation(&authority).replace("support", &format!("{roots}\nsupport"));
    let text = format!("{}{twice}", &Policy::example()[..start]);
    assert!(Policy::from_toml(&text).unwrap_err().to_string().contains("simulation.root"));
}

#[test]
fn another_reader_finds_the_same_in_the_real_token() {
    let token = Token::parse(REAL.as_bytes()).unwrap();
    let (ours, theirs) = (token.claims(), claims_of(REAL));
    assert_eq!(json!(ours.iss), theirs["iss"]);
    assert_eq!(json!(ours.exp), theirs["exp"]);
    assert_eq!(json!(ours.eat_nonce[0]), theirs["eat_nonce"]);
    assert_eq!(json!(ours.submods.container.env), theirs["submods"]["container"]["env"]);
}
