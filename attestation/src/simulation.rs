//! Simulated evidence: a Nitro document in every byte, under a throw-away root;
//! tokens of a simulated Confidential Space are made in [`token`].
//!
//! Exists because CI has no Nitro hardware. The chain has the shape of AWS's
//! (root, intermediate, leaf on P-384), so that the verifier runs the same
//! code on it. The shipped enclave is built without this module.

use crate::chain::{SIMULATION_ROOT_NAME, fingerprint};
use crate::nitro::document::PROTECTED;
use crate::nitro::signature::{byte_string_head, to_be_signed};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use std::collections::BTreeMap;
use time::{Duration, OffsetDateTime};

pub mod token;

/// Why there is no simulated evidence.
#[derive(Debug, thiserror::Error)]
#[error("simulation root: {0}")]
pub struct SimulationError(String);

/// A throw-away root with its key.
pub struct SimulationRoot {
    key_pem: String,
    certificate_pem: String,
    certificate: Vec<u8>,
}

/// What a document is to say; see [`crate::nitro::Document`].
#[derive(Debug, Clone)]
pub struct DocumentFields {
    /// The NSM's identity.
    pub module_id: String,
    /// When it is signed, in milliseconds since 1970.
    pub timestamp: u64,
    /// Platform configuration registers by index.
    pub pcrs: BTreeMap<u8, Vec<u8>>,
    /// A public key.
    pub public_key: Option<Vec<u8>>,
    /// User data.
    pub user_data: Option<Vec<u8>>,
    /// The asker's nonce.
    pub nonce: Option<Vec<u8>>,
}

impl DocumentFields {
    /// Fields of a document signed now, without registers.
    #[must_use]
    pub fn now() -> Self {
        let now = OffsetDateTime::now_utc().unix_timestamp_nanos() / 1_000_000;
        Self {
            module_id: "i-sealfold-simulation".to_owned(),
            timestamp: u64::try_from(now).unwrap_or(0),
            pcrs: BTreeMap::new(),
            public_key: None,
            user_data: None,
            nonce: None,
        }
    }
}

impl SimulationRoot {
    /// Makes a root that is valid for thirty years.
    ///
    /// # Errors
    /// [`SimulationError`] if the platform makes no key.
    pub fn generate() -> Result<Self, SimulationError> {
        let key = new_key()?;
        let now = OffsetDateTime::now_utc();
        let params = authority(&root_name(), now - Duration::days(1), Duration::days(10_950));
        let certificate = params.self_signed(&key).map_err(wrong)?;
        Ok(Self {
            key_pem: key.serialize_pem(),
            certificate_pem: certificate.pem(),
            certificate: certificate.der().to_vec(),
        })
    }

    /// Reads what [`SimulationRoot::to_pem`] wrote.
    ///
    /// # Errors
    /// [`SimulationError`] if it is something else.
    pub fn from_pem(pem: &str) -> Result<Self, SimulationError> {
        let start = pem
            .find("-----BEGIN CERTIFICATE-----")
            .ok_or_else(|| SimulationError("expected a key and a certificate".to_owned()))?;
        let (key_pem, certificate_pem) = pem.split_at(start);
        KeyPair::from_pem(key_pem).map_err(wrong)?;
        let certificate = CertificateDer::from_pem_slice(certificate_pem.as_bytes())
            .map_err(|error| SimulationError(format!("certificate: {error:?}")))?;
        Ok(Self {
            key_pem: key_pem.to_owned(),
            certificate_pem: certificate_pem.to_owned(),
            certificate: certificate.to_vec(),
        })
    }

    /// Key and certificate, to be kept where only the simulated NSM reads.
    #[must_use]
    pub fn to_pem(&self) -> String {
        format!("{}{}", self.key_pem, self.certificate_pem)
    }

    /// SHA-256 of the certificate, for a policy.
    #[must_use]
    pub fn fingerprint(&self) -> [u8; 32] {
        fingerprint(&self.certificate)
    }

    /// The certificate, for a policy.
    #[must_use]
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// Signs a document under a fresh intermediate and leaf.
    ///
    /// # Errors
    /// [`SimulationError`] if the platform makes no key or no signature.
    pub fn issue(&self, fields: &DocumentFields) -> Result<Vec<u8>, SimulationError> {
        let seconds = i64::try_from(fields.timestamp / 1000).unwrap_or(0);
        let start =
            OffsetDateTime::from_unix_timestamp(seconds).map_err(wrong)? - Duration::minutes(5);
        let root_key = KeyPair::from_pem(&self.key_pem).map_err(wrong)?;
        let root = Issuer::new(authority(&root_name(), start, Duration::days(1)), root_key);
        let zonal_key = new_key()?;
        let zonal_params = authority("sealfold simulation zone", start, Duration::hours(24));
        let zonal = zonal_params.signed_by(&zonal_key, &root).map_err(wrong)?;
        let zone = Issuer::new(zonal_params, zonal_key);
        let leaf_key = new_key()?;
        let mut leaf = named("sealfold simulation nsm", start, Duration::hours(3));
        leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let leaf = leaf.signed_by(&leaf_key, &zone).map_err(wrong)?;
        let payload =
            payload(fields, leaf.der(), &[&self.certificate, zonal.der()]).map_err(wrong)?;
        let random = SystemRandom::new();
        let signer = EcdsaKeyPair::from_pkcs8(
            &ECDSA_P384_SHA384_FIXED_SIGNING,
            &leaf_key.serialize_der(),
            &random,
        )
        .map_err(wrong)?;
        let signature = signer.sign(&random, &to_be_signed(&payload)).map_err(wrong)?;
        let mut document = vec![0x84, 0x44];
        document.extend_from_slice(&PROTECTED);
        document.push(0xa0);
        document.extend(byte_string_head(payload.len()));
        document.extend_from_slice(&payload);
        document.extend_from_slice(&[0x58, 0x60]);
        document.extend_from_slice(signature.as_ref());
        Ok(document)
    }
}

fn payload(
    fields: &DocumentFields,
    leaf: &[u8],
    bundle: &[&[u8]],
) -> Result<Vec<u8>, minicbor::encode::Error<std::convert::Infallible>> {
    let mut bytes = Vec::new();
    let mut encoder = minicbor::Encoder::new(&mut bytes);
    encoder.map(9)?.str("module_id")?.str(&fields.module_id)?.str("digest")?.str("SHA384")?;
    encoder.str("timestamp")?.u64(fields.timestamp)?;
    encoder.str("pcrs")?.map(fields.pcrs.len() as u64)?;
    for (index, value) in &fields.pcrs {
        encoder.u8(*index)?.bytes(value)?;
    }
    encoder.str("certificate")?.bytes(leaf)?;
    encoder.str("cabundle")?.array(bundle.len() as u64)?;
    for certificate in bundle {
        encoder.bytes(certificate)?;
    }
    for (name, field) in [
        ("public_key", &fields.public_key),
        ("user_data", &fields.user_data),
        ("nonce", &fields.nonce),
    ] {
        encoder.str(name)?;
        match field {
            Some(value) => encoder.bytes(value)?,
            None => encoder.null()?,
        };
    }
    Ok(bytes)
}

fn new_key() -> Result<KeyPair, SimulationError> {
    KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).map_err(wrong)
}

fn root_name() -> String {
    String::from_utf8_lossy(SIMULATION_ROOT_NAME).into_owned()
}

fn named(name: &str, start: OffsetDateTime, length: Duration) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = start;
    params.not_after = start + length;
    params
}

fn authority(name: &str, start: OffsetDateTime, length: Duration) -> CertificateParams {
    let mut params = named(name, start, length);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    params
}

fn wrong(error: impl ToString) -> SimulationError {
    SimulationError(error.to_string())
}
