//! Simulated evidence runs through the same checks, under its own root.
#![allow(clippy::unwrap_used)]

use jiff::{SignedDuration, Timestamp};
use sealfold_attestation::simulation::{DocumentFields, SimulationRoot};
use sealfold_attestation::{
    CheckName, Evidence, Outcome, Policy, State, Verdict, binding, nonce_hash, verify_document,
    verify_live, verify_replay,
};
use std::collections::BTreeMap;

const OFFER: [u8; 32] = [7; 32];
const NONCE: [u8; 32] = [8; 32];

fn fields() -> DocumentFields {
    DocumentFields {
        pcrs: BTreeMap::from([0, 1, 2, 8].map(|index| (index, vec![index + 1; 48]))),
        user_data: Some(binding(&OFFER).to_vec()),
        nonce: Some(nonce_hash(&NONCE).to_vec()),
        ..DocumentFields::now()
    }
}

fn policy(root: &SimulationRoot, more: &str) -> Policy {
    let start = Policy::example().find("[nitro]").unwrap();
    let text = format!(
        "{}[simulation]\nroot = \"{}\"\ncertificate = \"\"\"\n{}\"\"\"\n\
         [[simulation.measurements]]\npcr0 = \"{}\"\npcr1 = \"{}\"\npcr2 = \"{}\"\n{more}\n",
        &Policy::example()[..start],
        hex::encode(root.fingerprint()),
        root.certificate_pem(),
        "01".repeat(48),
        "02".repeat(48),
        "03".repeat(48),
    );
    Policy::from_toml(&text).unwrap()
}

fn failed(verdict: &Verdict) -> Vec<CheckName> {
    let checks = verdict.checks().iter();
    checks.filter(|check| check.state == State::Failed).map(|check| check.name).collect()
}

fn live(root: &SimulationRoot, policy: &Policy, fields: &DocumentFields) -> Verdict {
    let evidence = Evidence::from_nitro(&root.issue(fields).unwrap());
    verify_live(&evidence, policy, &OFFER, &NONCE, Timestamp::now())
}

#[test]
fn a_policy_that_names_the_root_accepts() {
    let root = SimulationRoot::generate().unwrap();
    let verdict = live(&root, &policy(&root, ""), &fields());
    assert_eq!(verdict.outcome(), Outcome::Accepted, "{:?}", verdict.checks());
    let claims = verdict.into_claims().unwrap();
    assert!(claims.is_simulated());
    assert_eq!(claims.measurement(CheckName::Pcr0), [1; 48]);
}

#[test]
fn the_example_policy_refuses_by_the_check_simulation() {
    let root = SimulationRoot::generate().unwrap();
    let policy = Policy::from_toml(Policy::example()).unwrap();
    let verdict = live(&root, &policy, &fields());
    assert_eq!(failed(&verdict), [CheckName::Simulation]);
    assert_eq!(verdict.into_claims().unwrap_err().check, CheckName::Simulation);
}

#[test]
fn another_simulation_root_is_refused_by_the_check_root() {
    let (ours, theirs) = (SimulationRoot::generate().unwrap(), SimulationRoot::generate().unwrap());
    let verdict = live(&theirs, &policy(&ours, ""), &fields());
    // The name is the same, so the certificate's signature is what differs.
    let failed = failed(&verdict);
    assert!(failed == [CheckName::Root] || failed == [CheckName::Chain], "{failed:?}");
}

#[test]
fn a_root_is_kept_in_a_file() {
    let root = SimulationRoot::generate().unwrap();
    let again = SimulationRoot::from_pem(&root.to_pem()).unwrap();
    assert_eq!(again.fingerprint(), root.fingerprint());
    assert_eq!(live(&again, &policy(&root, ""), &fields()).outcome(), Outcome::Accepted);
    assert!(SimulationRoot::from_pem("nonsense").is_err());
}

#[test]
fn each_field_is_checked_by_its_name() {
    let root = SimulationRoot::generate().unwrap();
    let policy = policy(&root, &format!("pcr8 = \"{}\"", "09".repeat(48)));
    assert_eq!(live(&root, &policy, &fields()).outcome(), Outcome::Accepted);
    let fails = |change: fn(&mut DocumentFields)| {
        let mut changed = fields();
        change(&mut changed);
        failed(&live(&root, &policy, &changed))
    };
    for (index, name) in
        [(0, CheckName::Pcr0), (1, CheckName::Pcr1), (2, CheckName::Pcr2), (8, CheckName::Pcr8)]
    {
        let mut changed = fields();
        changed.pcrs.insert(index, vec![0xee; 48]);
        assert_eq!(failed(&live(&root, &policy, &changed)), [name]);
    }
    assert_eq!(fails(|f| f.user_data = None), [CheckName::Binding]);
    assert_eq!(fails(|f| f.nonce = Some(vec![])), [CheckName::Nonce]);
    // An offer's digest passed off as a nonce, and the other way round.
    let swap = |f: &mut DocumentFields| std::mem::swap(&mut f.nonce, &mut f.user_data);
    assert_eq!(fails(swap), [CheckName::Binding, CheckName::Nonce]);
    assert_eq!(fails(|f| f.nonce = Some(binding(&NONCE).to_vec())), [CheckName::Nonce]);
    assert_eq!(fails(|f| f.public_key = Some(vec![1])), [CheckName::PublicKey]);
    assert_eq!(fails(|f| f.timestamp -= 400_000), [CheckName::Age]);
    assert_eq!(fails(|f| f.timestamp += 400_000).last(), Some(&CheckName::Age));
    let zeros = |f: &mut DocumentFields| _ = f.pcrs.insert(0, vec![0; 48]);
    assert_eq!(fails(zeros), [CheckName::DebugMode, CheckName::Pcr0]);
    assert_eq!(fails(|f| f.user_data = Some(vec![0; 513])), [CheckName::FieldLimits]);
    assert_eq!(fails(|f| f.public_key = Some(vec![])), [CheckName::FieldLimits]);
    assert_eq!(fails(|f| _ = f.pcrs.insert(3, vec![0; 47])), [CheckName::FieldLimits]);
}

#[test]
fn a_replay_checks_at_the_documents_own_time() {
    let root = SimulationRoot::generate().unwrap();
    let mut old = fields();
    old.timestamp -= 1000 * 3600 * 10;
    let evidence = Evidence::from_nitro(&root.issue(&old).unwrap());
    let verdict = verify_replay(&evidence, &policy(&root, ""), &OFFER);
    assert_eq!(verdict.outcome(), Outcome::Accepted, "{:?}", verdict.checks());
    let live = verify_live(&evidence, &policy(&root, ""), &OFFER, &NONCE, Timestamp::now());
    assert_eq!(failed(&live), [CheckName::Validity, CheckName::Age]);
    let other = verify_replay(&evidence, &policy(&root, ""), &[1; 32]);
    assert_eq!(failed(&other), [CheckName::Binding]);
}

#[test]
fn a_site_whose_clock_is_a_little_behind_is_served() {
    let root = SimulationRoot::generate().unwrap();
    let evidence = Evidence::from_nitro(&root.issue(&fields()).unwrap());
    let behind = Timestamp::now() - SignedDuration::from_secs(30);
    let verdict = verify_live(&evidence, &policy(&root, ""), &OFFER, &NONCE, behind);
    assert_eq!(verdict.outcome(), Outcome::Accepted);
    let far = Timestamp::now() - SignedDuration::from_secs(90);
    let verdict = verify_live(&evidence, &policy(&root, ""), &OFFER, &NONCE, far);
    assert_eq!(failed(&verdict), [CheckName::Age]);
}

#[test]
fn a_bare_document_is_undecided_at_best() {
    let root = SimulationRoot::generate().unwrap();
    let evidence = Evidence::from_nitro(&root.issue(&fields()).unwrap());
    let verdict = verify_document(&evidence, &policy(&root, ""), Timestamp::now(), None);
    assert_eq!(verdict.outcome(), Outcome::Undecided);
    assert_eq!(verdict.into_claims().unwrap_err().check, CheckName::Binding);
}
