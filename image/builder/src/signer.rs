//! Who signs an image: a P-384 key and its certificate.

use anyhow::{Context, ensure};
use aws_nitro_enclaves_image_format::utils::eif_signer::SignKeyData;
use openssl::nid::Nid;
use openssl::pkey::PKey;
use openssl::x509::X509;
use std::path::Path;

/// Reads key (a PEM file, or the ARN of a KMS key) and certificate. What is
/// wrong with them is said here: the crate that signs ends with a panic.
pub fn open(key: &str, certificate: &Path) -> anyhow::Result<SignKeyData> {
    let pem = std::fs::read(certificate)
        .with_context(|| format!("cannot read {}", certificate.display()))?;
    let parsed = X509::from_pem(&pem).with_context(|| {
        format!("{}: expected a certificate in PEM, found something else", certificate.display())
    })?;
    // What some readers skip and others take is refused, so that everybody sees
    // the same certificate in the image.
    let text = String::from_utf8_lossy(&pem);
    ensure!(
        text.matches("-----BEGIN").count() == 1
            && text.starts_with("-----BEGIN CERTIFICATE-----")
            && text.trim_end().ends_with("-----END CERTIFICATE-----"),
        "{}: expected one CERTIFICATE block in PEM and nothing else",
        certificate.display()
    );
    let public = parsed.public_key()?;
    let curve = public.ec_key().ok().and_then(|key| key.group().curve_name());
    ensure!(
        curve == Some(Nid::SECP384R1),
        "{}: expected a key on P-384, found another kind",
        certificate.display()
    );
    if !key.starts_with("arn:") {
        let pem = std::fs::read(key).with_context(|| format!("cannot read {key}"))?;
        let private = PKey::private_key_from_pem(&pem)
            .with_context(|| format!("{key}: expected a private key in PEM"))?;
        ensure!(
            private.public_eq(&public),
            "{key}: expected the private key of {}, found another one",
            certificate.display()
        );
    }
    SignKeyData::new(key, certificate).map_err(anyhow::Error::msg)
}
