//! Every claim that is missing or has another value, by the name of its check; and
//! what a policy may leave open.

use super::*;

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
