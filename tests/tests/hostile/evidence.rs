//! Evidence that is forged, stale, or about something else: no site seals
//! anything to the enclave behind it.

use sealfold_attestation::simulation::{DocumentFields, SimulationRoot};
use sealfold_attestation::{binding, nonce_hash};
use sealfold_protocol::access::Role;
use sealfold_protocol::api::{EnvelopeBody, EvidenceReply, EvidenceRequest, RoundStatus};
use sealfold_protocol::bytes::Envelope;
use sealfold_protocol::offer::Offer;
use sealfold_protocol::{Digest, Signed, SigningKey, seal};
use sealfold_tests::elsewhere::Elsewhere;
use sealfold_tests::http::{call, call_as};
use sealfold_tests::liar::{Asked, Liar};
use sealfold_tests::process::{self, Server};
use sealfold_tests::study::Options;
use sealfold_tests::system::System;
use std::collections::BTreeMap;
use std::io::Write;
use std::sync::Mutex;

const SITE: &str = "site-000";

/// A host that changes the evidence that sites ask for.
fn with_evidence(
    system: &System,
    lie: impl Fn(&EvidenceRequest, &mut EvidenceReply) + Send + Sync + 'static,
) -> Liar {
    Liar::before(&system.endpoint(), move |asked: &Asked, reply| {
        if asked.method != "POST" || !asked.path.ends_with("/evidence") {
            return false;
        }
        let request = serde_json::from_slice(&asked.body).unwrap();
        let mut evidence: EvidenceReply = serde_json::from_slice(reply).unwrap();
        lie(&request, &mut evidence);
        *reply = serde_json::to_vec(&evidence).unwrap();
        true
    })
}

/// The site refuses by that check, and has given nothing away.
fn expect_refused(system: &System, liar: &Liar, checks: &[&str]) {
    let update = system.update(1.0);
    let refused = system.submit_file(SITE, &update, &liar.url);
    assert!(checks.contains(&refused.check().as_str()), "{refused:?}");
    assert!(liar.lies() > 0, "nothing was changed");
    let round = system.round(1);
    assert!(round.uploads.is_empty() && round.release.is_none(), "{round:?}");
}

/// What the platform would say of this build's enclave, for a document that a
/// test signs with the platform's key.
fn fields(system: &System, offer: Digest, request: &EvidenceRequest) -> DocumentFields {
    let policy = process::simulation_policy(system.folder.path());
    let pcr = |index: u8| {
        let line = policy.lines().find(|line| line.starts_with(&format!("pcr{index}"))).unwrap();
        (index, hex::decode(line.split('"').nth(1).unwrap()).unwrap())
    };
    DocumentFields {
        pcrs: (0..3).map(pcr).collect::<BTreeMap<_, _>>(),
        user_data: Some(binding(offer.as_bytes()).to_vec()),
        nonce: Some(nonce_hash(request.nonce.as_bytes()).to_vec()),
        ..DocumentFields::now()
    }
}

/// A host that has the platform sign a document of which it changes the fields.
fn with_document(system: &System, change: fn(&mut DocumentFields)) -> Liar {
    let pem = std::fs::read_to_string(system.folder.path().join("simulation-root.pem")).unwrap();
    let root = SimulationRoot::from_pem(&pem).unwrap();
    let genuine = EvidenceRequest { nonce: sealfold_tests::site::nonce() };
    let template = fields(system, Digest::new([0; 32]), &genuine);
    with_evidence(system, move |request, reply| {
        let mut document = template.clone();
        document.user_data = Some(binding(reply.offer.as_bytes()).to_vec());
        document.nonce = Some(nonce_hash(request.nonce.as_bytes()).to_vec());
        document.timestamp = DocumentFields::now().timestamp;
        change(&mut document);
        reply.document = Envelope(root.issue(&document).unwrap());
    })
}

#[test]
fn a_document_of_the_platforms_own_is_accepted() {
    // What the other tests change is all that is wrong with theirs.
    let system = System::start(&Options::default());
    let liar = with_document(&system, |_| ());
    let _ = system.submit_file(SITE, &system.update(1.0), &liar.url).good();
    assert_eq!((liar.lies(), system.round(1).uploads.len()), (1, 1));
}

#[test]
fn forged_evidence() {
    let system = System::start(&Options::default());
    for place in [0.5, 1.0] {
        let liar = with_evidence(&system, move |_, reply| {
            let bytes = &mut reply.document.0;
            #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation)]
            #[allow(clippy::cast_sign_loss)]
            let place = ((bytes.len() - 1) as f64 * place) as usize;
            bytes[place] ^= 1;
        });
        expect_refused(&system, &liar, &["signature", "envelope", "payload", "chain"]);
    }
    // A document in every byte, under another root.
    let stranger = SimulationRoot::generate().unwrap();
    let template = fields(
        &system,
        Digest::new([0; 32]),
        &EvidenceRequest { nonce: sealfold_tests::site::nonce() },
    );
    let liar = with_evidence(&system, move |request, reply| {
        let mut document = template.clone();
        document.user_data = Some(binding(reply.offer.as_bytes()).to_vec());
        document.nonce = Some(nonce_hash(request.nonce.as_bytes()).to_vec());
        reply.document = Envelope(stranger.issue(&document).unwrap());
    });
    expect_refused(&system, &liar, &["root", "chain", "simulation"]);
}

#[test]
fn evidence_of_another_image() {
    let system = System::start(&Options::default());
    // The same program with one byte more, run for real.
    let folder = system.folder.path();
    let patched = folder.join("patched-enclave");
    std::fs::copy(process::binaries().join("sealfold-enclave"), &patched).unwrap();
    std::fs::OpenOptions::new().append(true).open(&patched).unwrap().write_all(b"!").unwrap();
    let at = sealfold_protocol::endpoint::Endpoint::Unix(folder.join("patched.sock"));
    let mut command = std::process::Command::new(&patched);
    command.args(["--listen", &at.to_string(), "--door"]);
    command.arg(format!("unix://{}", folder.join("elsewhere-door.sock").display()));
    command.arg("--simulation-root").arg(folder.join("simulation-root.pem"));
    let _enclave = Server::start(command, &folder.join("patched.log"));
    let elsewhere = Elsewhere::in_front_of(&system, at);
    elsewhere.wait_for("an offer", |round| round.offer.is_some());
    let refused = system.submit_file(SITE, &system.update(1.0), &elsewhere.url);
    assert_eq!(refused.check(), "pcr0");
    assert!(elsewhere.round().uploads.is_empty());
}

#[test]
fn evidence_of_a_debug_image() {
    let system = System::start(&Options::default());
    let liar = with_document(&system, |document| {
        document.pcrs.values_mut().for_each(|pcr| pcr.fill(0));
    });
    expect_refused(&system, &liar, &["debug-mode"]);
}

#[test]
fn simulated_evidence_under_a_production_policy() {
    let system = System::start(&Options::default());
    let example = sealfold_attestation::Policy::example();
    let nitro = &example[example.find("[nitro]").unwrap()..];
    std::fs::write(system.home(SITE).join("policy.toml"), system.policy(nitro)).unwrap();
    let liar = with_document(&system, |_| ());
    expect_refused(&system, &liar, &["simulation"]);
}

#[test]
fn stale_evidence() {
    let system = System::start(&Options::default());
    // Signed an hour ago, for the nonce that is asked with now.
    let liar = with_document(&system, |document| document.timestamp -= 3_600_000);
    expect_refused(&system, &liar, &["age"]);
    // Genuine, and made for an earlier request.
    let kept: Mutex<Option<Envelope>> = Mutex::default();
    let first: EvidenceReply = call_as(
        (&system.study.sites[0].key, Role::Party),
        &system.endpoint(),
        "POST",
        &format!("/v1/studies/{}/rounds/1/evidence", system.id()),
        &EvidenceRequest { nonce: sealfold_tests::site::nonce() },
    )
    .unwrap();
    *kept.lock().unwrap() = Some(first.document);
    let liar = with_evidence(&system, move |_, reply| {
        reply.document = kept.lock().unwrap().clone().unwrap();
    });
    expect_refused(&system, &liar, &["nonce"]);
}

#[test]
fn evidence_replayed_for_another_offer() {
    let system = System::start(&Options::default());
    // A second genuine instance, asked with the site's own nonce.
    let folder = system.folder.path();
    let door = sealfold_protocol::endpoint::Endpoint::Unix(folder.join("nowhere.sock"));
    let (_server, at) = process::enclave(folder, "second", &door);
    let _: EnvelopeBody = call(&at, "POST", "/v1/offer", &system.study.first_offer()).unwrap();
    let liar = with_evidence(&system, move |request, reply| {
        let other: EvidenceReply = call(&at, "POST", "/v1/evidence", request).unwrap();
        assert_ne!(other.offer, reply.offer);
        reply.document = other.document;
    });
    expect_refused(&system, &liar, &["binding"]);
}

#[test]
fn an_offers_digest_passed_off_as_a_sites_nonce() {
    let system = System::start(&Options::default());
    // The host asks with the offer's digest for a nonce, and gives the document
    // out as one that binds the offer.
    let path = format!("/v1/studies/{}/rounds/1/evidence", system.id());
    let endpoint = system.endpoint();
    let key = SigningKey::from_seed(&system.study.sites[0].key.seed()).unwrap();
    let liar = with_evidence(&system, move |_, reply| {
        let nonce = sealfold_protocol::bytes::Random::new(*reply.offer.as_bytes());
        let request = EvidenceRequest { nonce };
        let other: EvidenceReply =
            call_as((&key, Role::Party), &endpoint, "POST", &path, &request).unwrap();
        reply.document = other.document;
    });
    expect_refused(&system, &liar, &["nonce"]);
    let liar = with_document(&system, |document| {
        std::mem::swap(&mut document.user_data, &mut document.nonce);
    });
    expect_refused(&system, &liar, &["binding"]);
}

#[test]
fn an_offer_with_a_swapped_key() {
    let system = System::start(&Options::default());
    let ours = SigningKey::generate().unwrap();
    let liar = Liar::before(&system.endpoint(), move |asked, reply| {
        if !asked.path.ends_with("/rounds/1") {
            if asked.path.ends_with("/evidence") {
                // The host answers for the offer that it shows.
                let mut evidence: EvidenceReply = serde_json::from_slice(reply).unwrap();
                let shown = SHOWN.lock().unwrap().expect("an offer was shown");
                evidence.offer = shown;
                *reply = serde_json::to_vec(&evidence).unwrap();
            }
            return false;
        }
        let mut round: RoundStatus = serde_json::from_slice(reply).unwrap();
        let mut offer = Offer::open(&round.offer.unwrap().0).unwrap().statement().clone();
        offer.update_key = seal::public_of(&[9; 32]).unwrap();
        offer.instance_key = ours.verifying_key();
        let signed = Signed::sign(offer, &ours).unwrap();
        *SHOWN.lock().unwrap() = Some(signed.digest());
        round.offer = Some(Envelope(signed.envelope().to_vec()));
        *reply = serde_json::to_vec(&round).unwrap();
        true
    });
    expect_refused(&system, &liar, &["binding"]);
}

/// The offer that the host with the swapped key shows.
static SHOWN: Mutex<Option<Digest>> = Mutex::new(None);
