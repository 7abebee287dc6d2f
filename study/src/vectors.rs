//! The vectors of manifests in `protocol/vectors/`, from which a second
//! implementation can be written; with `SEALFOLD_WRITE_VECTORS=1` they are written
//! instead of compared. The crate `sealfold-protocol` reads them as an enclave
//! does.

use crate::tests::{keys, manifest};
use crate::{Agreement, Manifest};
use sealfold_protocol::bytes::{Envelope, Random};
use sealfold_protocol::manifest::{FORMAT, Manifested};
use sealfold_protocol::terms::{Amends, Terms};
use sealfold_protocol::{Digest, MultiSigned, Statement, encoding};
use serde::{Deserialize, Serialize};

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Vector {
    object: String,
    content_type: String,
    /// Ed25519 seeds of the signers.
    signers: Vec<Random>,
    statement: Parts,
    /// The agreement as it stands in the payload, hex.
    agreement_cbor: String,
    digest: Digest,
    payload: String,
    envelope: Envelope,
}

/// What the payload says, its agreement decoded.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Parts {
    format: u32,
    terms: Terms,
    agreement: Agreement,
}

fn hex(bytes: &[u8]) -> String {
    let digits: Vec<_> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    digits.concat()
}

fn vector(manifest: &Manifest) -> Vector {
    let mut signed = MultiSigned::sign(manifest.clone(), &keys()[0]).unwrap();
    keys()[1..].iter().for_each(|key| signed.add_signature(key).unwrap());
    Vector {
        object: Manifest::NAME.to_owned(),
        content_type: Manifest::CONTENT_TYPE.to_owned(),
        signers: (1..5).map(|i| Random::new([i; 32])).collect(),
        statement: Parts {
            format: FORMAT,
            terms: manifest.terms.clone(),
            agreement: manifest.agreement.clone(),
        },
        agreement_cbor: hex(&encoding::to_vec(&manifest.agreement).unwrap()),
        digest: signed.digest(),
        payload: hex(&encoding::to_vec(manifest).unwrap()),
        envelope: Envelope(signed.envelope().unwrap()),
    }
}

/// Checks (or writes) a vector, and gives what its envelope says.
fn checked(name: &str, manifest: &Manifest) -> MultiSigned<Manifest> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../protocol/vectors");
    let path = format!("{folder}/{name}.json");
    let expected = vector(manifest);
    if std::env::var("SEALFOLD_WRITE_VECTORS").is_ok_and(|which| which == "1" || which == name) {
        std::fs::write(&path, serde_json::to_string_pretty(&expected).unwrap() + "\n").unwrap();
    }
    let found: Vector = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    assert_eq!(found, expected);
    Manifest::open(&found.envelope.0).unwrap()
}

#[test]
fn manifests_have_vectors_that_hold() {
    let first = checked("manifest", &manifest());
    let mut amended = manifest();
    amended.terms.rounds = 30;
    amended.terms.amends = Some(Amends { study: first.digest(), predecessor: first.digest() });
    let amendment = checked("amendment", &amended);
    assert_eq!(amendment.statement(), &amended);
}
