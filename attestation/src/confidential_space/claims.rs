//! What a token says, not verified by itself.
//!
//! The dates must be there, since nothing can be checked without them. Every
//! other claim may be missing here and is then refused by its own check. Claims
//! that are not known are passed over, as JWT demands (RFC 7519, section 4),
//! but not inside `submods.container` and `monitoring_enabled`: what changes
//! the workload or looks into it must be understood.

use super::json;
use super::token::{TokenError, error};
use crate::verdict::CheckName;
use serde::{Deserialize, Deserializer};
use std::collections::BTreeMap;

/// Documented limits: six nonces of at most 88 bytes.
const MAX_NONCES: usize = 6;
const MAX_NONCE: usize = 88;
/// The last second of the year 9999.
const LAST_DATE: u64 = 253_402_300_799;

/// A token's claims.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct TokenClaims {
    /// Who issued the token.
    pub iss: Option<String>,
    /// For whom it is.
    pub aud: Option<String>,
    /// When it was issued, in seconds since 1970.
    pub iat: u64,
    /// When it becomes valid.
    pub nbf: u64,
    /// When it ceases to be valid.
    pub exp: u64,
    /// The nonces that the workload asked with, one or several.
    #[serde(default, deserialize_with = "one_or_several")]
    pub eat_nonce: Vec<String>,
    /// Whether the machine booted with Secure Boot.
    pub secboot: Option<bool>,
    /// The model of the confidential hardware.
    pub hwmodel: Option<String>,
    /// What the machine runs.
    pub swname: Option<String>,
    /// Whether it can be debugged.
    pub dbgstat: Option<String>,
    /// What was measured below the token.
    #[serde(default)]
    pub submods: Submods,
}

/// What was measured.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct Submods {
    /// The machine's image.
    #[serde(default)]
    pub confidential_space: ConfidentialSpace,
    /// The workload.
    #[serde(default)]
    pub container: Container,
}

/// The machine's image.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct ConfidentialSpace {
    /// How Google supports it: `LATEST`, `STABLE`, `USABLE`; none for debug images.
    #[serde(default)]
    pub support_attributes: Vec<String>,
    /// What is monitored, by name; `memory` is the one that is documented.
    #[serde(default)]
    pub monitoring_enabled: BTreeMap<String, bool>,
}

/// The workload.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Container {
    /// Where the image was taken from.
    pub image_reference: Option<String>,
    /// The image's digest, `sha256:` and 64 hex digits.
    pub image_digest: Option<String>,
    /// The digest of its configuration.
    pub image_id: Option<String>,
    /// Whether the workload is started again.
    pub restart_policy: Option<String>,
    /// Signatures of the image; sealfold goes by the digest.
    pub image_signatures: Option<serde_json::Value>,
    /// The whole command line: entry point and arguments.
    pub args: Option<Vec<String>>,
    /// The arguments that the operator set in place of the image's.
    pub cmd_override: Option<Vec<String>>,
    /// The whole environment.
    pub env: Option<BTreeMap<String, String>>,
    /// The variables that the operator set.
    pub env_override: Option<BTreeMap<String, String>>,
}

impl TokenClaims {
    /// Reads a token's second part, decoded.
    ///
    /// # Errors
    /// [`TokenError`] naming `payload` or `field-limits`.
    pub fn parse(payload: &[u8]) -> Result<Self, TokenError> {
        let claims: Self = json::read(payload)
            .map_err(|e| error(CheckName::Payload, "claims as Google documents them", e))?;
        let dates = [claims.iat, claims.nbf, claims.exp];
        let limit = |expected, found: usize| error(CheckName::FieldLimits, expected, found);
        if dates.into_iter().any(|date| date > LAST_DATE) {
            return Err(error(CheckName::FieldLimits, "dates before the year 10000", "another"));
        }
        if claims.eat_nonce.len() > MAX_NONCES {
            return Err(limit("at most 6 nonces", claims.eat_nonce.len()));
        }
        if let Some(nonce) = claims.eat_nonce.iter().find(|nonce| nonce.len() > MAX_NONCE) {
            return Err(limit("nonces of at most 88 bytes", nonce.len()));
        }
        Ok(claims)
    }

    /// When it was issued, in milliseconds.
    #[must_use]
    pub fn issued_ms(&self) -> u64 {
        self.iat.saturating_mul(1000)
    }

    /// The image's digest, if it is a SHA-256 in the one spelling.
    #[must_use]
    pub fn image_digest(&self) -> Option<[u8; 32]> {
        let digits = self.submods.container.image_digest.as_deref()?.strip_prefix("sha256:")?;
        let mut digest = [0; 32];
        hex::decode_to_slice(digits, &mut digest).ok()?;
        (hex::encode(digest) == digits).then_some(digest)
    }
}

/// `eat_nonce` is a string for one nonce and an array for several.
fn one_or_several<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Nonces {
        One(String),
        Several(Vec<String>),
    }
    Ok(match Nonces::deserialize(deserializer)? {
        Nonces::One(nonce) => vec![nonce],
        Nonces::Several(nonces) => nonces,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(more: &str) -> Result<TokenClaims, TokenError> {
        TokenClaims::parse(format!("{{\"iat\":1,\"nbf\":1,\"exp\":2{more}}}").as_bytes())
    }

    fn refused(more: &str) -> CheckName {
        parse(more).unwrap_err().check
    }

    #[test]
    fn nonces_come_alone_or_in_a_list() {
        assert!(parse("").unwrap().eat_nonce.is_empty());
        assert_eq!(parse(r#","eat_nonce":"a""#).unwrap().eat_nonce, ["a"]);
        assert_eq!(parse(r#","eat_nonce":["a","b"]"#).unwrap().eat_nonce, ["a", "b"]);
        assert_eq!(refused(r#","eat_nonce":[["a"]]"#), CheckName::Payload);
        assert_eq!(refused(r#","eat_nonce":["","","","","","",""]"#), CheckName::FieldLimits);
        let long = format!(",\"eat_nonce\":\"{}\"", "a".repeat(89));
        assert_eq!(refused(&long), CheckName::FieldLimits);
    }

    #[test]
    fn dates_are_whole_numbers_and_there() {
        for claims in [
            "{}",
            r#"{"iat":1,"nbf":1}"#,
            r#"{"iat":1,"exp":2}"#,
            r#"{"nbf":1,"exp":2}"#,
            r#"{"iat":1,"nbf":1,"exp":"2"}"#,
            r#"{"iat":1,"nbf":1,"exp":2.5}"#,
            r#"{"iat":1,"nbf":1,"exp":2e0}"#,
            r#"{"iat":-1,"nbf":1,"exp":2}"#,
            r#"{"iat":1,"nbf":1,"exp":null}"#,
            r#"{"iat":1,"nbf":1,"exp":2,"exp":3}"#,
            "[1,1,2]",
            "",
        ] {
            let refused = TokenClaims::parse(claims.as_bytes()).unwrap_err();
            assert_eq!(refused.check, CheckName::Payload, "{claims}");
        }
        let late = br#"{"iat":1,"nbf":1,"exp":253402300800}"#;
        assert_eq!(TokenClaims::parse(late).unwrap_err().check, CheckName::FieldLimits);
    }

    #[test]
    fn unknown_claims_are_passed_over_except_where_they_change_the_workload() {
        assert!(parse(r#","new":1,"submods":{"new":{},"confidential_space":{"new":1}}"#).is_ok());
        assert_eq!(refused(r#","new":{"a":1,"a":2}"#), CheckName::Payload);
        assert_eq!(refused(r#","submods":{"container":{"mounts":[]}}"#), CheckName::Payload);
        let monitoring = |flags: &str| {
            format!(",\"submods\":{{\"confidential_space\":{{\"monitoring_enabled\":{flags}}}}}")
        };
        assert!(parse(&monitoring(r#"{"memory":false,"disk":true}"#)).is_ok());
        assert_eq!(refused(&monitoring(r#"{"memory":0}"#)), CheckName::Payload);
    }

    #[test]
    fn an_image_digest_has_one_spelling() {
        let digest = |text: &str| {
            let claims = format!(",\"submods\":{{\"container\":{{\"image_digest\":\"{text}\"}}}}");
            parse(&claims).unwrap().image_digest()
        };
        assert_eq!(digest(&format!("sha256:{}", "ab".repeat(32))), Some([0xab; 32]));
        for text in ["AB".repeat(32), "ab".repeat(31), "ab".repeat(33)] {
            assert_eq!(digest(&format!("sha256:{text}")), None, "{text}");
        }
        assert_eq!(digest(&"ab".repeat(32)), None);
        assert_eq!(digest(&format!("sha512:{}", "ab".repeat(32))), None);
    }
}
