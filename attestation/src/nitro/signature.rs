//! The signature over a document, under the key of its leaf.

use super::document::{Document, Envelope, PROTECTED};
use crate::chain::Chain;
use ring::signature::{ECDSA_P384_SHA384_FIXED, UnparsedPublicKey};
use rustls_pki_types::CertificateDer;
use webpki::{EndEntityCert, KeyUsage};

/// What stands before the point of a P-384 key in a `SubjectPublicKeyInfo`.
const P384_SPKI: [u8; 23] = [
    0x30, 0x76, 0x30, 0x10, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x05, 0x2b,
    0x81, 0x04, 0x00, 0x22, 0x03, 0x62, 0x00,
];

/// The document's certificates.
pub(super) fn chain(document: &Document) -> Chain<'_> {
    let mut bundle = document.cabundle.iter().map(Vec::as_slice);
    Chain {
        leaf: &document.certificate,
        // The first is the root that the document brings.
        brought_root: bundle.next().unwrap_or_default(),
        intermediates: bundle.collect(),
        algorithm: webpki::ring::ECDSA_P384_SHA384,
        usage: KeyUsage::client_auth(),
    }
}

/// Verifies the envelope's signature under the leaf's key (RFC 9052, section
/// 4.4: the bytes signed are the `Sig_structure`).
pub(super) fn verify(envelope: &Envelope<'_>, document: &Document) -> Result<(), String> {
    let leaf = CertificateDer::from(document.certificate.as_slice());
    let leaf = EndEntityCert::try_from(&leaf).map_err(|error| error.to_string())?;
    let spki = leaf.subject_public_key_info();
    let point = spki
        .as_ref()
        .strip_prefix(&P384_SPKI)
        .ok_or_else(|| "a leaf whose key is not on P-384".to_owned())?;
    UnparsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, point)
        .verify(&to_be_signed(envelope.payload), envelope.signature)
        .map_err(|_| "a signature that does not verify".to_owned())
}

/// `["Signature1", protected, h'', payload]`
pub(crate) fn to_be_signed(payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x84, 0x6a];
    bytes.extend_from_slice(b"Signature1");
    bytes.push(0x44);
    bytes.extend_from_slice(&PROTECTED);
    bytes.push(0x40);
    bytes.extend(byte_string_head(payload.len()));
    bytes.extend_from_slice(payload);
    bytes
}

/// The head of a byte string, as short as possible. Payloads are below 2^16.
pub(crate) fn byte_string_head(length: usize) -> Vec<u8> {
    let [.., high, low] = length.to_be_bytes();
    match length {
        0..=23 => vec![0x40 | low],
        24..=255 => vec![0x58, low],
        _ => vec![0x59, high, low],
    }
}
