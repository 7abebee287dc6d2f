//! What a study's sites agreed to, against what the auditor's policy asks for.

use crate::finding::{Check, Finding};
use sealfold_attestation::Policy;
use sealfold_protocol::{MultiSigned, VerifyingKey};
use sealfold_study::Manifest;

/// Holds a manifest against the policy, as a site does before it takes part.
#[must_use]
pub fn against_policy(manifest: &MultiSigned<Manifest>, policy: &Policy) -> Vec<Finding> {
    let mut findings = Vec::new();
    let statement = manifest.statement();
    let quorum = &statement.terms.quorum;
    if quorum.smallest_roster < policy.smallest_roster() {
        let expected = format!("at least {}", policy.smallest_roster());
        findings.push(Finding::new(Check::SmallestRoster, expected, quorum.smallest_roster));
    }
    if quorum.colluders < policy.colluders() {
        let expected = format!("at least {}", policy.colluders());
        findings.push(Finding::new(Check::Colluders, expected, quorum.colluders));
    }
    if let Some(peers) = policy.peers() {
        for site in &statement.terms.sites {
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
    if let Some(log) = policy.log() {
        let terms = &statement.agreement.log;
        if (terms.origin.as_str(), terms.key.as_bytes()) != (log.name(), log.key()) {
            let of = |name: &str, key: VerifyingKey| format!("log {name} with key {key}");
            let expected = of(log.name(), VerifyingKey::new(*log.key()));
            findings.push(Finding::new(Check::Log, expected, of(&terms.origin, terms.key)));
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
