//! A token's bytes: one strict reading of the compact JWS (RFC 7515).
//!
//! Exactly three parts, each base64url without padding and in its one
//! spelling, so that no two texts are the same token. Header and claims are
//! signed as they stand, so any spelling of JSON will do there, but no key may
//! stand twice. The algorithm is not the token's to choose: it is RS256.

use super::MAX_TOKEN;
use super::claims::TokenClaims;
use super::json;
use crate::verdict::CheckName;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde::Deserialize;

/// The certificates of a PKI token: a leaf, those between, perhaps the root.
const CERTIFICATES: std::ops::RangeInclusive<usize> = 1..=5;
/// No genuine key id comes near.
const MAX_KEY_ID: usize = 256;
/// RSA keys of 2,048 to 8,192 bits sign.
const SIGNATURE: std::ops::RangeInclusive<usize> = 256..=1024;

/// A token taken apart; nothing is verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// The first two parts with the dot between, which the signature covers.
    signed: String,
    signature: Vec<u8>,
    key_id: Option<String>,
    certificates: Vec<Vec<u8>>,
    claims: TokenClaims,
}

/// Why bytes are no token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{check}: expected {expected}, found {found}")]
pub struct TokenError {
    /// The check that failed.
    pub check: CheckName,
    /// What was expected.
    pub expected: String,
    /// What was found.
    pub found: String,
}

pub(super) fn error(check: CheckName, expected: &str, found: impl ToString) -> TokenError {
    TokenError { check, expected: expected.to_owned(), found: found.to_string() }
}

/// RFC 7515, section 4.1, as Google uses it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    alg: String,
    typ: String,
    kid: Option<String>,
    x5c: Option<Vec<String>>,
}

impl Token {
    /// Reads a token.
    ///
    /// # Errors
    /// [`TokenError`] naming `envelope`, `algorithm`, `payload` or `field-limits`.
    pub fn parse(bytes: &[u8]) -> Result<Self, TokenError> {
        let wrong = |expected, found: &str| error(CheckName::Envelope, expected, found);
        if bytes.len() > MAX_TOKEN {
            return Err(wrong("at most 32,768 bytes", "more"));
        }
        let text = std::str::from_utf8(bytes).map_err(|_| wrong("a text", "other bytes"))?;
        let parts: Vec<_> = text.split('.').collect();
        let &[header, claims, signature] = parts.as_slice() else {
            return Err(wrong("three parts", &format!("{}", parts.len())));
        };
        let decoded = |part: &str, what| {
            URL_SAFE_NO_PAD.decode(part).map_err(|found| {
                error(
                    CheckName::Envelope,
                    "base64url in its one spelling",
                    format!("{what}: {found}"),
                )
            })
        };
        let signed = &text[..header.len() + 1 + claims.len()];
        let header = decoded(header, "header")?;
        let payload = decoded(claims, "claims")?;
        let signature = decoded(signature, "signature")?;
        let (key_id, certificates) = read_header(&header)?;
        if !SIGNATURE.contains(&signature.len()) {
            let found = format!("{} bytes", signature.len());
            return Err(error(CheckName::FieldLimits, "a signature of 256 to 1,024 bytes", found));
        }
        let claims = TokenClaims::parse(&payload)?;
        Ok(Self { signed: signed.to_owned(), signature, key_id, certificates, claims })
    }

    /// The bytes that the signature covers.
    #[must_use]
    pub fn signed(&self) -> &[u8] {
        self.signed.as_bytes()
    }

    /// The signature.
    #[must_use]
    pub fn signature(&self) -> &[u8] {
        &self.signature
    }

    /// The name of the signing key. An OIDC token always has one.
    #[must_use]
    pub fn key_id(&self) -> Option<&str> {
        self.key_id.as_deref()
    }

    /// The certificates of a PKI token, leaf first, DER; none in an OIDC token.
    #[must_use]
    pub fn certificates(&self) -> &[Vec<u8>] {
        &self.certificates
    }

    /// What the token says.
    #[must_use]
    pub fn claims(&self) -> &TokenClaims {
        &self.claims
    }
}

/// The key's name and the certificates.
fn read_header(bytes: &[u8]) -> Result<(Option<String>, Vec<Vec<u8>>), TokenError> {
    let header: Header = json::read(bytes)
        .map_err(|e| error(CheckName::Envelope, "a header of alg, typ, kid, x5c", e))?;
    if header.alg != "RS256" {
        return Err(error(CheckName::Algorithm, "RS256", short(&header.alg)));
    }
    if header.typ != "JWT" {
        return Err(error(CheckName::Envelope, "typ JWT", short(&header.typ)));
    }
    if header.kid.as_ref().is_some_and(|kid| kid.is_empty() || kid.len() > MAX_KEY_ID) {
        return Err(error(CheckName::FieldLimits, "a kid of 1 to 256 bytes", "another"));
    }
    let Some(certificates) = header.x5c else {
        if header.kid.is_none() {
            return Err(error(CheckName::Envelope, "a kid or x5c", "neither"));
        }
        return Ok((header.kid, Vec::new()));
    };
    if !CERTIFICATES.contains(&certificates.len()) {
        return Err(error(CheckName::FieldLimits, "1 to 5 certificates", certificates.len()));
    }
    // RFC 7515, section 4.1.6: base64, not base64url.
    let certificates =
        certificates.iter().map(|text| STANDARD.decode(text)).collect::<Result<_, _>>();
    let certificates =
        certificates.map_err(|e| error(CheckName::Envelope, "certificates in base64", e))?;
    Ok((header.kid, certificates))
}

/// What a stranger wrote, short enough for a table.
pub(super) fn short(text: &str) -> String {
    text.chars().take(96).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const REAL: &str =
        include_str!("../../tests/vectors/confidential-space/gcs_pki_token_20250905.jwt");

    fn refused(text: &str) -> CheckName {
        Token::parse(text.as_bytes()).unwrap_err().check
    }

    /// The real token with another header.
    fn with_header(header: &str) -> String {
        let (_, rest) = REAL.split_once('.').unwrap();
        format!("{}.{rest}", URL_SAFE_NO_PAD.encode(header))
    }

    #[test]
    fn the_real_token_is_read() {
        let token = Token::parse(REAL.as_bytes()).unwrap();
        assert_eq!(token.certificates().len(), 3);
        assert_eq!(token.key_id(), Some("tBvfKLw3ee1p4Uak5wCdr23m-1P71an7qz1EdlDu82g"));
        assert_eq!(token.signature().len(), 256);
        assert_eq!([token.signed(), b"."].concat(), REAL.as_bytes()[..=token.signed().len()]);
    }

    #[test]
    fn other_spellings_are_refused() {
        let parts: Vec<_> = REAL.split('.').collect();
        for text in [
            format!("{REAL}\n"),
            format!(" {REAL}"),
            format!("{REAL}="),
            format!("{REAL}."),
            format!(".{REAL}"),
            parts[..2].join("."),
            parts.join(".."),
            REAL.replace('-', "+"),
            // The last character's unused bits set: other text, same bytes.
            format!("{}h", &REAL[..REAL.len() - 1]),
        ] {
            assert_eq!(refused(&text), CheckName::Envelope, "{:?}", &text[text.len() - 9..]);
        }
        assert!(REAL.ends_with('g'));
        assert_eq!(Token::parse(&[0xff; 9]).unwrap_err().check, CheckName::Envelope);
        assert_eq!(refused(&"e".repeat(MAX_TOKEN + 1)), CheckName::Envelope);
    }

    #[test]
    fn a_header_says_rs256_and_nothing_unknown() {
        let header = |text: &str| refused(&with_header(text));
        for alg in ["none", "HS256", "RS384", "PS256", "rs256", ""] {
            let text = format!(r#"{{"alg":"{alg}","typ":"JWT","kid":"a"}}"#);
            assert_eq!(header(&text), CheckName::Algorithm, "{alg}");
        }
        for text in [
            r#"{"alg":"RS256","typ":"at+jwt","kid":"a"}"#,
            r#"{"alg":"RS256","typ":"JWT"}"#,
            r#"{"alg":"RS256","kid":"a"}"#,
            r#"{"alg":"RS256","typ":"JWT","kid":"a","jwk":{}}"#,
            r#"{"alg":"RS256","typ":"JWT","kid":"a","crit":["b64"],"b64":false}"#,
            r#"{"alg":"RS256","alg":"RS256","typ":"JWT","kid":"a"}"#,
            r#"{"alg":"RS256","typ":"JWT","kid":7}"#,
            r#"{"alg":"RS256","typ":"JWT","x5c":["%"]}"#,
            r#"["RS256"]"#,
            "",
        ] {
            assert_eq!(header(text), CheckName::Envelope, "{text}");
        }
        let kid = "k".repeat(257);
        for text in [
            format!(r#"{{"alg":"RS256","typ":"JWT","kid":"{kid}"}}"#),
            r#"{"alg":"RS256","typ":"JWT","kid":""}"#.to_owned(),
            r#"{"alg":"RS256","typ":"JWT","x5c":[]}"#.to_owned(),
            r#"{"alg":"RS256","typ":"JWT","x5c":["","","","","",""]}"#.to_owned(),
        ] {
            assert_eq!(header(&text), CheckName::FieldLimits, "{text}");
        }
        let short = REAL.rsplit_once('.').unwrap().0.to_owned() + ".AAAA";
        assert_eq!(refused(&short), CheckName::FieldLimits);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let _ = Token::parse(&bytes);
            let _ = read_header(&bytes);
            let _ = TokenClaims::parse(&bytes);
        }
    }
}
