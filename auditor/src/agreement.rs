//! What a study's sites agreed to, against what the auditor's policy asks for.

use crate::finding::{Check, Finding};
use sealfold_attestation::{CheckName, Claims, Policy, confidential_space, nitro};
use sealfold_protocol::manifest::{Manifest, Measurements};
use sealfold_protocol::{MultiSigned, VerifyingKey};

/// Holds a manifest against the policy, as a site does before it takes part.
#[must_use]
pub fn against_policy(manifest: &MultiSigned<Manifest>, policy: &Policy) -> Vec<Finding> {
    let mut findings = Vec::new();
    let statement = manifest.statement();
    let quorum = &statement.quorum;
    if quorum.smallest_roster < policy.smallest_roster() {
        let expected = format!("at least {}", policy.smallest_roster());
        findings.push(Finding::new(Check::SmallestRoster, expected, quorum.smallest_roster));
    }
    if quorum.colluders < policy.colluders() {
        let expected = format!("at least {}", policy.colluders());
        findings.push(Finding::new(Check::Colluders, expected, quorum.colluders));
    }
    if let Some(peers) = policy.peers() {
        for site in &statement.sites {
            match peers.get(site.name.as_str()) {
                Some(key) if *key == site.signing_key.as_bytes() => {}
                Some(key) => findings.push(Finding::new(
                    Check::Peers,
                    format!("{} with key {}", site.name, VerifyingKey::new(**key)),
                    site.signing_key,
                )),
                None => {
                    findings.push(Finding::new(Check::Peers, "the policy's peers", &site.name));
                }
            }
        }
    }
    let signers = manifest.signers();
    let known = policy.approvers().filter(|key| signers.contains(&VerifyingKey::new(**key)));
    let (found, required) = (known.count(), policy.required_approvals());
    if found < required {
        let expected = format!("signatures of {required} approvers of the policy");
        findings.push(Finding::new(Check::Approvers, expected, format!("{found} of them")));
    }
    findings
}

/// What names an image: the first register of a Nitro image, or the digest of a
/// Confidential Space image. In hex.
#[must_use]
pub fn image(claims: &Claims) -> String {
    let name = match claims.platform() {
        nitro::NAME => CheckName::Pcr0,
        _ => CheckName::ImageDigest,
    };
    hex::encode(claims.measurement(name))
}

/// Whether verified measurements are those of an image that a manifest lists
/// for its platform.
#[must_use]
pub fn lists(listed: &Measurements, claims: &Claims) -> bool {
    let is = |name, bytes: &[u8]| claims.measurement(name) == bytes;
    match claims.platform() {
        nitro::NAME => listed.nitro.iter().any(|image| {
            is(CheckName::Pcr0, image.pcr0.as_bytes())
                && is(CheckName::Pcr1, image.pcr1.as_bytes())
                && is(CheckName::Pcr2, image.pcr2.as_bytes())
        }),
        confidential_space::NAME => {
            let mut images = listed.confidential_space.iter();
            images.any(|image| is(CheckName::ImageDigest, image.image_digest.as_bytes()))
        }
        _ => false,
    }
}
