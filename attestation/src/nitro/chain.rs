//! The chain from the document's leaf to a pinned root, and its signature.

use super::document::{Document, Envelope, PROTECTED};
use ring::digest::{SHA256, digest};
use ring::signature::{ECDSA_P384_SHA384_FIXED, UnparsedPublicKey};
use rustls_pki_types::{CertificateDer, TrustAnchor, UnixTime};
use std::time::Duration;
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};

/// The AWS Nitro Enclaves root G1, DER, from
/// <https://aws-nitro-enclaves.amazonaws.com/AWS_NitroEnclaves_Root-G1.zip>.
pub const AWS_ROOT_G1: &[u8] = include_bytes!("../../roots/aws_nitro_root_g1.der");

/// What stands before the point of a P-384 key in a `SubjectPublicKeyInfo`.
const P384_SPKI: [u8; 23] = [
    0x30, 0x76, 0x30, 0x10, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x05, 0x2b,
    0x81, 0x04, 0x00, 0x22, 0x03, 0x62, 0x00,
];

/// SHA-256 of a certificate's DER.
pub fn fingerprint(der: &[u8]) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(digest(&SHA256, der).as_ref());
    bytes
}

/// How the certificates fared.
#[derive(Debug, PartialEq, Eq)]
pub enum ChainError {
    /// They do not lead to the root.
    Unknown,
    /// One of them is not valid at the time.
    NotValid(String),
    /// They are malformed or do not fit.
    Broken(String),
}

/// Verifies the document's certificates up to `root` at a time in milliseconds.
pub fn verify(document: &Document, root: &[u8], at: u64) -> Result<(), ChainError> {
    let broken = |error: webpki::Error| ChainError::Broken(error.to_string());
    let root = CertificateDer::from(root);
    let anchor: TrustAnchor<'_> = anchor_from_trusted_cert(&root).map_err(broken)?;
    let leaf = CertificateDer::from(document.certificate.as_slice());
    let leaf = EndEntityCert::try_from(&leaf).map_err(broken)?;
    let bundle: Vec<_> =
        document.cabundle.iter().map(|der| CertificateDer::from(der.as_slice())).collect();
    leaf.verify_for_usage(
        &[webpki::ring::ECDSA_P384_SHA384],
        &[anchor],
        // The first is the root that the document brings: not asked for.
        bundle.get(1..).unwrap_or_default(),
        UnixTime::since_unix_epoch(Duration::from_millis(at)),
        KeyUsage::client_auth(),
        None,
        None,
    )
    .map(|_| ())
    .map_err(|error| match error {
        webpki::Error::UnknownIssuer => ChainError::Unknown,
        webpki::Error::CertExpired { .. } | webpki::Error::CertNotValidYet { .. } => {
            ChainError::NotValid(error.to_string())
        }
        other => broken(other),
    })
}

/// Verifies the envelope's signature under the leaf's key (RFC 9052, section
/// 4.4: the bytes signed are the `Sig_structure`).
pub fn verify_signature(envelope: &Envelope<'_>, document: &Document) -> Result<(), String> {
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
pub fn to_be_signed(payload: &[u8]) -> Vec<u8> {
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
pub fn byte_string_head(length: usize) -> Vec<u8> {
    let [.., high, low] = length.to_be_bytes();
    match length {
        0..=23 => vec![0x40 | low],
        24..=255 => vec![0x58, low],
        _ => vec![0x59, high, low],
    }
}
