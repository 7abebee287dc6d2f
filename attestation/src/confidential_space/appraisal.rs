//! The checks of a Confidential Space token.

use super::claims::TokenClaims;
use super::section::{Accepted, Section, Workload, expected};
use super::token::{Token, TokenError, short};
use super::{ISSUER, NAME};
use crate::Policy;
use crate::chain::{Chain, Trusted, simulation};
use crate::verdict::{CheckName as Name, Claims, Collector};
use crate::verify::{Question, time};
use rustls_pki_types::CertificateDer;
use std::collections::BTreeMap;
use subtle::ConstantTimeEq;
use webpki::ring::RSA_PKCS1_2048_8192_SHA256;
use webpki::{EndEntityCert, KeyUsage};

/// The checks that are made, in the order of the table.
pub(crate) const CHECKS: &[Name] = &[
    Name::Platform,
    Name::Envelope,
    Name::Payload,
    Name::FieldLimits,
    Name::Algorithm,
    Name::Chain,
    Name::Root,
    Name::Validity,
    Name::Signature,
    Name::Simulation,
    Name::Issuer,
    Name::Audience,
    Name::NotBefore,
    Name::Expiry,
    Name::DebugMode,
    Name::SecureBoot,
    Name::Software,
    Name::HardwareModel,
    Name::Support,
    Name::Monitoring,
    Name::ImageDigest,
    Name::Args,
    Name::CmdOverride,
    Name::Env,
    Name::EnvOverride,
    Name::Binding,
    Name::Nonce,
    Name::Age,
];

/// The usage that Google's certificates name where they name one
/// (2.23.133.8.1, TCG's endorsement key certificate). The leaf names none.
const USAGE: KeyUsage = KeyUsage::required_if_present(&[0x67, 0x81, 0x05, 0x08, 0x01]);

/// Makes the checks; the claims, if the platform's part holds.
pub(crate) fn appraise(
    collector: &mut Collector,
    bytes: &[u8],
    policy: &Policy,
    question: &Question,
) -> Option<Claims> {
    let accepted = policy.confidential_space();
    if !collector.platform(NAME, !accepted.is_empty(), &expected()) {
        return None;
    }
    let token = form(collector, bytes)?;
    let accepted = if token.certificates().is_empty() {
        by_key(collector, accepted, &token)?
    } else {
        by_certificates(collector, accepted, &token, question)?
    };
    let claims = token.claims();
    let signed = claims.issued_ms();
    addressed(collector, accepted.section, claims);
    dates(collector, question, claims);
    machine(collector, accepted.section, claims);
    workload(collector, accepted.section, claims);
    let nonces = places(claims, question.ours);
    question.bound(collector, nonces[0], nonces[1]);
    question.age(collector, policy, signed);
    let digest = claims.image_digest()?;
    Some(Claims {
        platform: NAME,
        simulated: accepted.simulated,
        signed_at: signed,
        measurements: BTreeMap::from([(Name::ImageDigest, digest.to_vec())]),
    })
}

/// The checks of form.
fn form(collector: &mut Collector, bytes: &[u8]) -> Option<Token> {
    match Token::parse(bytes) {
        Ok(token) => {
            collector.well_formed([
                "a compact JWS in its one spelling",
                "claims with every key once",
                "the documented limits",
                "RS256",
            ]);
            Some(token)
        }
        Err(TokenError { check, expected, found }) => {
            collector.check(check, false, expected, short(&found));
            None
        }
    }
}

/// A PKI token: certificates up to a pinned root, then the signature.
fn by_certificates<'a>(
    collector: &mut Collector,
    accepted: Vec<Accepted<'a>>,
    token: &Token,
    question: &Question,
) -> Option<Accepted<'a>> {
    let certificates = token.certificates();
    let (leaf, others) = certificates.split_first()?;
    let chain = Chain {
        leaf,
        intermediates: others.iter().map(Vec::as_slice).collect(),
        brought_root: certificates.last()?,
        algorithm: RSA_PKCS1_2048_8192_SHA256,
        usage: USAGE,
    };
    let trusted = accepted.into_iter().filter_map(|accepted| {
        Some(Trusted { root: accepted.root?, accepted, simulated: accepted.simulated })
    });
    let signed = token.claims().issued_ms();
    let trusted = chain.root(collector, trusted.collect(), signed)?;
    question.validity(collector, &chain, trusted.root, signed);
    let verified = EndEntityCert::try_from(&CertificateDer::from(leaf.as_slice()))
        .and_then(|leaf| {
            leaf.verify_signature(RSA_PKCS1_2048_8192_SHA256, token.signed(), token.signature())
        })
        .map_err(|error| error.to_string());
    signature(collector, verified);
    Some(trusted.accepted)
}

/// An OIDC token: a key of the policy's set, then the signature.
fn by_key<'a>(
    collector: &mut Collector,
    accepted: Vec<Accepted<'a>>,
    token: &Token,
) -> Option<Accepted<'a>> {
    let id = token.key_id().unwrap_or_default();
    let ids: Vec<_> = accepted.iter().flat_map(|accepted| accepted.section.key_set.ids()).collect();
    let expected = if ids.is_empty() {
        "a PKI token: the policy has no keys".to_owned()
    } else {
        format!("a key of the policy: {}", ids.join(" or "))
    };
    let found = accepted.iter().find(|accepted| accepted.section.key_set.contains(id)).copied();
    collector.check(Name::Root, found.is_some(), expected, short(id));
    for name in [Name::Chain, Name::Validity] {
        collector.not_made(name, "certificates", "an OIDC token has none");
    }
    let found = found?;
    simulation(collector, found.simulated);
    signature(collector, found.section.key_set.verify(id, token.signed(), token.signature()));
    Some(found)
}

fn signature(collector: &mut Collector, verified: Result<(), String>) {
    let expected = "a signature of the leaf's, or the named, key";
    let passed = verified.is_ok();
    let found = verified.err().unwrap_or_else(|| "one that verifies".to_owned());
    collector.check(Name::Signature, passed, expected, found);
}

/// Who issued the token, and for whom.
fn addressed(collector: &mut Collector, section: &Section, claims: &TokenClaims) {
    same(collector, Name::Issuer, ISSUER, claims.iss.as_deref());
    same(collector, Name::Audience, &section.audience, claims.aud.as_deref());
}

/// The token's own dates at the time in question.
fn dates(collector: &mut Collector, question: &Question, claims: &TokenClaims) {
    let at = question.time(claims.issued_ms());
    let (from, until) = (claims.nbf.saturating_mul(1000), claims.exp.saturating_mul(1000));
    let expected = format!("not after {}", time(at));
    collector.check(Name::NotBefore, from <= at, expected, time(from));
    let expected = format!("after {}", time(at));
    collector.check(Name::Expiry, at < until, expected, time(until));
}

/// The machine that the workload runs on.
fn machine(collector: &mut Collector, section: &Section, claims: &TokenClaims) {
    // Google's word for an image that nobody can log into.
    same(collector, Name::DebugMode, "disabled-since-boot", claims.dbgstat.as_deref());
    let secure = claims.secboot.map(|secure| secure.to_string());
    same(collector, Name::SecureBoot, "true", secure.as_deref());
    same(collector, Name::Software, "CONFIDENTIAL_SPACE", claims.swname.as_deref());
    let models = &section.hardware_models;
    let model = claims.hwmodel.as_deref();
    let accepted = model.is_some_and(|model| models.iter().any(|accepted| accepted == model));
    let found = short(model.unwrap_or("none"));
    collector.check(Name::HardwareModel, accepted, models.join(" or "), found);
    let space = &claims.submods.confidential_space;
    let wanted = section.support.name();
    let supported = space.support_attributes.iter().any(|attribute| attribute == wanted);
    let found = list(&space.support_attributes);
    collector.check(Name::Support, supported, wanted, found);
    let flags = &space.monitoring_enabled;
    // A monitor that is not known yet must be off as well.
    let off = flags.contains_key("memory") && !flags.values().any(|on| *on);
    let found = flags.iter().map(|(name, on)| format!("{name}: {on}")).collect::<Vec<_>>();
    collector.check(Name::Monitoring, off, "memory: false", list(&found));
}

/// The image, and what the operator said to it.
fn workload(collector: &mut Collector, section: &Section, claims: &TokenClaims) {
    let container = &claims.submods.container;
    let digest = claims.image_digest().unwrap_or_default();
    let is = |image: &&Workload| bool::from(image.image_digest.0.ct_eq(&digest));
    let image = section.measurements.iter().find(is);
    let accepted: Vec<_> = section
        .measurements
        .iter()
        .map(|image| format!("sha256:{:?}", image.image_digest))
        .collect();
    let found = short(container.image_digest.as_deref().unwrap_or("none"));
    collector.check(Name::ImageDigest, image.is_some(), accepted.join(" or "), found);
    let overridden = container.cmd_override.clone().unwrap_or_default();
    collector.check(Name::CmdOverride, overridden.is_empty(), "none", list(&overridden));
    let Some(image) = image else {
        for name in [Name::Args, Name::Env, Name::EnvOverride] {
            collector.not_made(name, "what the policy says of the image", "another image");
        }
        return;
    };
    let args = container.args.as_ref();
    let found = args.map_or("none".to_owned(), list);
    collector.check(Name::Args, args == Some(&image.args), list(&image.args), found);
    environment(collector, image, container.env.as_ref());
    let overridden = container.env_override.clone().unwrap_or_default();
    // What a site pins to the value that the operator set is not left open.
    let is_open =
        |(name, value)| image.operator_env.contains(name) || image.env.get(name) == Some(value);
    let open = overridden.iter().all(is_open);
    let names: Vec<_> = overridden.into_keys().collect();
    let expected = format!("at most {}", list(&image.operator_env));
    collector.check(Name::EnvOverride, open, expected, list(&names));
}

/// Every variable has its fixed value, or is one that is left open.
fn environment(
    collector: &mut Collector,
    image: &Workload,
    found: Option<&BTreeMap<String, String>>,
) {
    let expected = format!("{:?} and any of {}", image.env, list(&image.operator_env));
    let Some(found) = found else {
        collector.check(Name::Env, false, expected, "none");
        return;
    };
    let missing = image.env.keys().filter(|name| !found.contains_key(*name));
    let mut wrong: Vec<_> = missing.map(|name| format!("no {name}")).collect();
    for (name, value) in found {
        let fixed = image.env.get(name);
        if fixed.map_or(!image.operator_env.contains(name), |fixed| fixed != value) {
            wrong.push(format!("{name}={value}"));
        }
    }
    let passed = wrong.is_empty();
    let found = if passed { "as expected".to_owned() } else { list(&wrong) };
    collector.check(Name::Env, passed, expected, found);
}

/// The nonces by their places: the binding, then the asker's. An enclave of
/// ours asks with just these two.
fn places(claims: &TokenClaims, ours: bool) -> [Option<&str>; 2] {
    let place = |index| claims.eat_nonce.get(index).map(String::as_str);
    if ours && claims.eat_nonce.len() != 2 { [None, None] } else { [place(0), place(1)] }
}

/// A claim that must have one value.
fn same(collector: &mut Collector, name: Name, expected: &str, found: Option<&str>) {
    collector.check(name, found == Some(expected), expected, short(found.unwrap_or("none")));
}

fn list<'a>(items: impl IntoIterator<Item = &'a String>) -> String {
    let items: Vec<_> = items.into_iter().map(String::as_str).collect();
    if items.is_empty() { "none".to_owned() } else { short(&items.join(" ")) }
}
