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

const REAL: &str = include_str!("vectors/confidential-space/gcs_pki_token_20250905.jwt");
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
        include_str!("vectors/confidential-space/test-authority/root.pem"),
        include_str!("vectors/confidential-space/test-authority/intermediate.pem"),
        include_str!("vectors/confidential-space/test-authority/signer.pem"),
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
    let document = include_bytes!("vectors/nitro/20251225-dstack-prod-5e983e.bin");
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
        include_str!("vectors/confidential-space/test-authority/root.pem"),
        include_str!("vectors/confidential-space/test-authority/signer.pem"),
        include_str!("vectors/confidential-space/test-authority/intermediate.pem"),
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

/// The checks that fail when a claim has another value, whichever kind of token
/// says it; `Null` takes it away.
fn changed(
    authority: &TokenAuthority,
    policy: &Policy,
    path: &str,
    value: Value,
) -> Vec<CheckName> {
    let mut claims = claims();
    let (parent, name) = path.rsplit_once('/').unwrap();
    let parent = claims.pointer_mut(parent).unwrap().as_object_mut().unwrap();
    match value {
        Value::Null => assert!(parent.remove(name).is_some(), "{path}"),
        value => _ = parent.insert(name.to_owned(), value),
    }
    let by_certificates = failed(&live(policy, &authority.pki(&claims).unwrap(), now()));
    let by_key = failed(&live(policy, &authority.oidc(&claims).unwrap(), now()));
    assert_eq!(by_certificates, by_key, "{path}");
    by_key
}

#[test]
fn each_claim_is_checked_by_its_name() {
    use CheckName as Name;
    let authority = authority();
    let policy = policy(&both_kinds(&authority));
    let hour = 3600;
    let iat = now().as_second();
    let container = "/submods/container";
    let args = format!("{container}/args");
    let space = "/submods/confidential_space";
    for (path, value, expected) in [
        ("/iss", json!("https://accounts.google.com"), vec![Name::Issuer]),
        ("/iss", Value::Null, vec![Name::Issuer]),
        ("/aud", json!("https://sts.googleapis.com"), vec![Name::Audience]),
        ("/aud", Value::Null, vec![Name::Audience]),
        ("/exp", json!(iat), vec![Name::Expiry]),
        ("/exp", json!(iat - hour), vec![Name::Expiry]),
        ("/exp", Value::Null, vec![Name::Payload]),
        ("/nbf", json!(iat + 1), vec![Name::NotBefore]),
        ("/nbf", Value::Null, vec![Name::Payload]),
        ("/iat", json!(iat - hour), vec![Name::Age]),
        ("/dbgstat", json!("enabled"), vec![Name::DebugMode]),
        ("/dbgstat", Value::Null, vec![Name::DebugMode]),
        ("/secboot", json!(false), vec![Name::SecureBoot]),
        ("/secboot", Value::Null, vec![Name::SecureBoot]),
        ("/swname", json!("GCE"), vec![Name::Software]),
        ("/swname", Value::Null, vec![Name::Software]),
        ("/hwmodel", json!("GCP_AMD_SEV"), vec![Name::HardwareModel]),
        ("/hwmodel", json!("GCP_SHIELDED_VM"), vec![Name::HardwareModel]),
        ("/hwmodel", Value::Null, vec![Name::HardwareModel]),
        (&format!("{space}/support_attributes"), json!(["USABLE"]), vec![Name::Support]),
        (&format!("{space}/support_attributes"), json!([]), vec![Name::Support]),
        (&format!("{space}/support_attributes"), Value::Null, vec![Name::Support]),
        (&format!("{space}/monitoring_enabled"), json!({"memory": true}), vec![Name::Monitoring]),
        (&format!("{space}/monitoring_enabled"), Value::Null, vec![Name::Monitoring]),
        (
            &format!("{space}/monitoring_enabled"),
            json!({"memory": false, "disk": true}),
            vec![Name::Monitoring],
        ),
        (
            &format!("{container}/image_digest"),
            json!(format!("sha256:{}", "0".repeat(64))),
            vec![Name::ImageDigest],
        ),
        (&format!("{container}/image_digest"), json!("latest"), vec![Name::ImageDigest]),
        (&format!("{container}/image_digest"), Value::Null, vec![Name::ImageDigest]),
        (&args, json!(["/usr/local/bin/ctf_sha2", "--verbose"]), vec![Name::Args]),
        (&args, json!([]), vec![Name::Args]),
        (&args, Value::Null, vec![Name::Args]),
        (&format!("{container}/cmd_override"), json!(["--verbose"]), vec![Name::CmdOverride]),
        (&format!("{container}/env"), Value::Null, vec![Name::Env]),
        (&format!("{container}/env/PATH"), json!("/tmp"), vec![Name::Env]),
        (&format!("{container}/env/PATH"), Value::Null, vec![Name::Env]),
        (&format!("{container}/env/LD_PRELOAD"), json!("/tmp/x.so"), vec![Name::Env]),
        (&format!("{container}/env_override"), json!({"PATH": "/tmp"}), vec![Name::EnvOverride]),
        (&format!("{container}/mounts"), json!([]), vec![Name::Payload]),
        ("/eat_nonce", json!(hex::encode(binding(&OFFER))), vec![Name::Binding, Name::Nonce]),
        ("/eat_nonce", Value::Null, vec![Name::Binding, Name::Nonce]),
    ] {
        assert_eq!(changed(&authority, &policy, path, value.clone()), expected, "{path} {value}");
    }
}

#[test]
fn what_the_policy_leaves_open_is_accepted() {
    let authority = authority();
    let policy = policy(&both_kinds(&authority));
    let none: Vec<CheckName> = Vec::new();
    for (path, value) in [
        ("/submods/container/env/HOSTNAME", json!("elsewhere")),
        ("/submods/container/env/SEALFOLD_DOOR", json!("tcp://10.0.0.2:5001")),
        ("/submods/container/env_override", json!({"SEALFOLD_DOOR": "tcp://10.0.0.2:5001"})),
        ("/submods/container/env_override", json!({})),
        ("/submods/container/cmd_override", json!([])),
        ("/submods/container/restart_policy", json!("Always")),
        ("/submods/gce", Value::Null),
        ("/tomorrow", json!({"a": [1, 2.5]})),
    ] {
        assert_eq!(changed(&authority, &policy, path, value), none, "{path}");
    }
}

#[test]
fn a_site_may_pin_what_the_operator_sets() {
    let authority = authority();
    // The record door's address, moved from what is left open to what is fixed.
    let pinned = both_kinds(&authority)
        .replace("env = { ", "env = { SEALFOLD_DOOR = \"tcp://10.0.0.2:5001\", ")
        .replace("\"HOSTNAME\", \"SEALFOLD_DOOR\"", "\"HOSTNAME\"");
    let policy = policy(&pinned);
    let told = |env: &str, set: &str| {
        let mut claims = claims();
        let container = claims.pointer_mut("/submods/container").unwrap();
        container["env"]["SEALFOLD_DOOR"] = json!(env);
        container["env_override"] = json!({ "SEALFOLD_DOOR": set });
        failed(&live(&policy, &authority.pki(&claims).unwrap(), now()))
    };
    assert!(told("tcp://10.0.0.2:5001", "tcp://10.0.0.2:5001").is_empty());
    let elsewhere = told("tcp://10.9.9.9:5001", "tcp://10.9.9.9:5001");
    assert_eq!(elsewhere, [CheckName::Env, CheckName::EnvOverride]);
    assert_eq!(told("tcp://10.0.0.2:5001", "tcp://10.9.9.9:5001"), [CheckName::EnvOverride]);
    // Not set at all, it is not what was pinned.
    assert_eq!(failed(&live(&policy, &authority.pki(&claims()).unwrap(), now())), [CheckName::Env]);
}

#[test]
fn a_simulation_may_have_a_root_for_tokens_beside_the_one_for_documents() {
    let authority = authority();
    let documents = SimulationRoot::generate().unwrap();
    let tokens = format!("certificate = \"\"\"\n{}\"\"\"\n", authority.certificate_pem());
    let simulated = simulation(&authority);
    let section = &simulated[simulated.find("[simulation.conf").unwrap()..];
    let with = |certificate: &str| {
        let section = section.replace("audience", &format!("{certificate}audience"));
        format!(
            "[simulation]\nroot = \"{}\"\ncertificate = \"\"\"\n{}\"\"\"\n{section}\n",
            hex::encode(documents.fingerprint()),
            documents.certificate_pem(),
        )
    };
    let token = authority.pki(&claims()).unwrap();
    let verdict = live(&policy(&with(&tokens)), &token, now());
    assert!(verdict.into_claims().unwrap().is_simulated());
    // The roots have the same name, so the certificates look for it in vain.
    assert_eq!(failed(&live(&policy(&with("")), &token, now())), [CheckName::Chain]);
    // It must be one, and a genuine section takes none.
    let start = Policy::example().find("[nitro]").unwrap();
    let refused = |section: &str| {
        let text = format!("{}{section}", &Policy::example()[..start]);
        Policy::from_toml(&text).unwrap_err().to_string()
    };
    assert!(refused(&with("certificate = \"x\"\n")).contains("a certificate in PEM"));
    let genuine = SECTION.replace("audience", &format!("{tokens}audience"));
    assert!(refused(&genuine).contains("none outside a simulation"));
}

#[test]
fn nonces_are_compared_by_position() {
    let authority = authority();
    let policy = policy(&both_kinds(&authority));
    let fails = |nonces: &[&str]| changed(&authority, &policy, "/eat_nonce", json!(nonces));
    let (first, second) = (hex::encode(binding(&OFFER)), hex::encode(nonce_hash(&NONCE)));
    let (first, second) = (first.as_str(), second.as_str());
    let other = "00".repeat(32);
    assert!(fails(&[first, second]).is_empty());
    assert_eq!(fails(&[first, &other]), [CheckName::Nonce]);
    assert_eq!(fails(&[&other, second]), [CheckName::Binding]);
    let both = [CheckName::Binding, CheckName::Nonce];
    assert_eq!(fails(&[second, first]), both);
    // An offer's digest passed off as a nonce: another label, another value.
    let passed_off = hex::encode(binding(&NONCE));
    assert_eq!(fails(&[first, &passed_off]), [CheckName::Nonce]);
    assert_eq!(fails(&[first, &second.to_uppercase()]), [CheckName::Nonce]);
    // Ours asks with two; a third could be anybody's.
    assert_eq!(fails(&[first, second, &other]), both);
    assert_eq!(fails(&[first]), both);
    // A bare token is compared in the same places.
    let token = authority.pki(&claims()).unwrap();
    let evidence = Evidence::from_confidential_space(token.as_bytes());
    let with = |nonce: &[u8]| verify_document(&evidence, &policy, now(), Some(nonce));
    assert_eq!(state(&with(&nonce_hash(&NONCE)), CheckName::Nonce), State::Passed);
    assert_eq!(failed(&with(&binding(&OFFER))), [CheckName::Nonce]);
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
