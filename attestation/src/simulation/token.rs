//! Simulated Confidential Space tokens, PKI and OIDC, under a throw-away root.
//!
//! Exists because CI has no Google Cloud. The certificates have the shape of
//! Google's: RSA, an intermediate that names a usage, a leaf that names none.
//! `ring` makes no RSA keys, so the keys are given.

use super::{SimulationError, authority, named, root_name, wrong};
use crate::chain::fingerprint;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, Issuer, KeyPair, SerialNumber};
use ring::digest::{SHA256, digest};
use ring::rand::SystemRandom;
use ring::signature::{RSA_PKCS1_SHA256, RsaKeyPair, RsaPublicKeyComponents};
use serde_json::{Value, json};
use time::{Duration, OffsetDateTime};

/// What Google's intermediate certificate may be used for (2.23.133.8.1).
const USAGE: [u64; 5] = [2, 23, 133, 8, 1];
/// 2024-01-01, when the throw-away root begins; fixed, so that the same keys
/// give the same root.
const START: i64 = 1_704_067_200;

/// An authority that signs tokens as Google's attestation service does.
pub struct TokenAuthority {
    root: CertificateParams,
    root_key: KeyPair,
    intermediate_key: KeyPair,
    leaf_key: KeyPair,
    signer: RsaKeyPair,
    certificate_pem: String,
    certificate: Vec<u8>,
}

impl TokenAuthority {
    /// Takes three RSA keys (PKCS #8, PEM): the root's, the intermediate's and
    /// the one that signs tokens.
    ///
    /// # Errors
    /// [`SimulationError`] if one is no RSA key of 2,048 bits or more.
    pub fn from_keys(root: &str, between: &str, signer: &str) -> Result<Self, SimulationError> {
        let key = |pem: &str| KeyPair::from_pem(pem).map_err(wrong);
        let (root_key, intermediate_key, leaf_key) = (key(root)?, key(between)?, key(signer)?);
        let signer = RsaKeyPair::from_pkcs8(leaf_key.serialized_der()).map_err(wrong)?;
        let start = OffsetDateTime::from_unix_timestamp(START).map_err(wrong)?;
        let mut root = authority(&root_name(), start, Duration::days(10_950));
        root.serial_number = Some(SerialNumber::from(1_u64));
        let certificate = root.self_signed(&root_key).map_err(wrong)?;
        Ok(Self {
            root,
            root_key,
            intermediate_key,
            leaf_key,
            signer,
            certificate_pem: certificate.pem(),
            certificate: certificate.der().to_vec(),
        })
    }

    /// SHA-256 of the root, for a policy.
    #[must_use]
    pub fn fingerprint(&self) -> [u8; 32] {
        fingerprint(&self.certificate)
    }

    /// The root, for a policy.
    #[must_use]
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// The set with the OIDC key, for a policy. The key's name is its thumbprint
    /// (RFC 7638), as in Google's tokens.
    #[must_use]
    pub fn key_set(&self) -> Value {
        json!({ "keys": [self.jwk()] })
    }

    fn jwk(&self) -> Value {
        let key = RsaPublicKeyComponents::<Vec<u8>>::from(self.signer.public());
        let (n, e) = (URL_SAFE_NO_PAD.encode(key.n), URL_SAFE_NO_PAD.encode(key.e));
        let thumbprint =
            digest(&SHA256, format!(r#"{{"e":"{e}","kty":"RSA","n":"{n}"}}"#).as_bytes());
        let kid = URL_SAFE_NO_PAD.encode(thumbprint);
        json!({ "alg": "RS256", "e": e, "kid": kid, "kty": "RSA", "n": n, "use": "sig" })
    }

    /// A token that names its key.
    ///
    /// # Errors
    /// [`SimulationError`] if the platform makes no signature.
    pub fn oidc(&self, claims: &Value) -> Result<String, SimulationError> {
        let header = json!({ "alg": "RS256", "kid": self.jwk()["kid"], "typ": "JWT" });
        self.sign(&header.to_string(), &claims.to_string())
    }

    /// A token that brings its certificates, with a leaf of the age of `iat`.
    ///
    /// # Errors
    /// [`SimulationError`] if the platform makes no signature, or there is no
    /// `iat`.
    pub fn pki(&self, claims: &Value) -> Result<String, SimulationError> {
        let issued = claims["iat"].as_i64().ok_or_else(|| wrong("claims without iat"))?;
        let start = OffsetDateTime::from_unix_timestamp(issued).map_err(wrong)?;
        let start = start - Duration::minutes(5);
        let root = Issuer::from_params(&self.root, &self.root_key);
        let mut between =
            authority("sealfold simulation intermediate", start, Duration::days(1095));
        between.extended_key_usages = vec![ExtendedKeyUsagePurpose::Other(USAGE.to_vec())];
        let certificate = between.signed_by(&self.intermediate_key, &root).map_err(wrong)?;
        let issuer = Issuer::from_params(&between, &self.intermediate_key);
        let leaf = named("sealfold simulation leaf", start, Duration::days(60));
        let leaf = leaf.signed_by(&self.leaf_key, &issuer).map_err(wrong)?;
        let chain = [leaf.der(), certificate.der(), &self.certificate[..]];
        let x5c: Vec<_> = chain.iter().map(|der| STANDARD.encode(der)).collect();
        let kid = &self.jwk()["kid"];
        let header = json!({ "alg": "RS256", "kid": kid, "typ": "JWT", "x5c": x5c });
        self.sign(&header.to_string(), &claims.to_string())
    }

    /// Signs any two texts, also ones that no token has.
    ///
    /// # Errors
    /// [`SimulationError`] if the platform makes no signature.
    pub fn sign(&self, header: &str, claims: &str) -> Result<String, SimulationError> {
        let text = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
        let mut signature = vec![0; self.signer.public().modulus_len()];
        self.signer
            .sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), text.as_bytes(), &mut signature)
            .map_err(wrong)?;
        Ok(format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }
}
