//! The keys under which OIDC tokens are accepted: a JSON web key set (RFC 7517).
//!
//! A key id says which key is meant and proves nothing, so a policy holds the
//! keys themselves.

use super::json;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents};
use serde::Deserialize;
use std::collections::BTreeMap;

/// The largest key set in bytes, and the most keys in it.
pub(super) const MAX_SET: usize = 64 << 10;
const MAX_KEYS: usize = 32;

/// One key as a key set has it. The same fields stand in a policy.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Jwk {
    kid: String,
    kty: String,
    alg: Option<String>,
    #[serde(rename = "use")]
    usage: Option<String>,
    n: String,
    e: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Set {
    keys: Vec<Jwk>,
}

/// An RSA key.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Key {
    modulus: Vec<u8>,
    exponent: Vec<u8>,
}

/// Keys by their ids.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Keys(BTreeMap<String, Key>);

impl Jwk {
    fn key(&self) -> Result<Key, String> {
        let is = |name: &str, found: Option<&str>, wanted: &str| match found {
            Some(found) if found != wanted => {
                Err(format!("key {:?}: {name} {found:?} in place of {wanted:?}", self.kid))
            }
            _ => Ok(()),
        };
        is("kty", Some(&self.kty), "RSA")?;
        is("alg", self.alg.as_deref(), "RS256")?;
        is("use", self.usage.as_deref(), "sig")?;
        let number = |name: &str, text: &str| {
            let bytes = URL_SAFE_NO_PAD.decode(text);
            let bytes = bytes.map_err(|error| format!("key {:?}: {name}: {error}", self.kid))?;
            // RFC 7518, section 6.3.1: no leading zero.
            if bytes.first().is_none_or(|first| *first == 0) {
                return Err(format!("key {:?}: {name} of no bytes or with a zero first", self.kid));
            }
            Ok(bytes)
        };
        let key = Key { modulus: number("n", &self.n)?, exponent: number("e", &self.e)? };
        if !(256..=1024).contains(&key.modulus.len()) {
            return Err(format!("key {:?}: {} bytes in n", self.kid, key.modulus.len()));
        }
        Ok(key)
    }
}

impl Keys {
    /// Keys of a policy and of a key set beside it.
    pub fn of(listed: &[Jwk], set: Option<&[u8]>) -> Result<Self, String> {
        let mut all = listed.to_vec();
        if let Some(set) = set {
            if set.len() > MAX_SET {
                return Err(format!("a key set of {} bytes", set.len()));
            }
            let set: Set = json::read(set).map_err(|error| error.to_string())?;
            all.extend(set.keys);
        }
        if all.len() > MAX_KEYS {
            return Err(format!("{} keys", all.len()));
        }
        let mut keys = BTreeMap::new();
        for jwk in &all {
            if keys.insert(jwk.kid.clone(), jwk.key()?).is_some() {
                return Err(format!("the key {:?} twice", jwk.kid));
            }
        }
        Ok(Self(keys))
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn contains(&self, id: &str) -> bool {
        self.0.contains_key(id)
    }

    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// Verifies an RS256 signature under one of the keys.
    pub fn verify(&self, id: &str, signed: &[u8], signature: &[u8]) -> Result<(), String> {
        let key = self.0.get(id).ok_or_else(|| "no such key".to_owned())?;
        RsaPublicKeyComponents { n: &key.modulus, e: &key.exponent }
            .verify(&RSA_PKCS1_2048_8192_SHA256, signed, signature)
            .map_err(|_| "a signature that does not verify".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(keys: &str) -> Result<Keys, String> {
        Keys::of(&[], Some(format!("{{\"keys\":[{keys}]}}").as_bytes()))
    }

    fn jwk(kid: &str, more: &str) -> String {
        let n = URL_SAFE_NO_PAD.encode([0xff; 256]);
        format!(r#"{{"kid":"{kid}","kty":"RSA","n":"{n}","e":"AQAB"{more}}}"#)
    }

    #[test]
    fn a_set_has_rsa_keys_each_once() {
        let two = format!("{},{}", jwk("a", r#","alg":"RS256","use":"sig""#), jwk("b", ""));
        let keys = set(&two).unwrap();
        assert_eq!(keys.ids().collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(keys.verify("c", b"", b"").unwrap_err(), "no such key");
        assert!(keys.verify("a", b"x", &[1; 256]).is_err());
        assert!(Keys::of(&[], None).unwrap().is_empty());
        for (keys, why) in [
            (format!("{0},{0}", jwk("a", "")), "twice"),
            (jwk("a", r#","alg":"RS512""#), "RS512"),
            (jwk("a", r#","use":"enc""#), "enc"),
            (jwk("a", r#","d":"AQAB""#), "unknown field"),
            (jwk("a", "").replace("RSA", "EC"), "EC"),
            (jwk("a", "").replace("AQAB", ""), "e of no bytes"),
            (jwk("a", "").replace("AQAB", "AAAB"), "zero first"),
            (jwk("a", "").replace("____", ""), "bytes in n"),
            (jwk("a", "").replace("AQAB", "AQAB="), "e: "),
            (vec![jwk("a", ""); 33].join(","), "33 keys"),
        ] {
            let error = set(&keys).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
        assert!(Keys::of(&[], Some(&vec![b' '; MAX_SET + 1])).unwrap_err().contains("65537 bytes"));
        assert!(Keys::of(&[], Some(b"{\"keys\":[],\"keys\":[]}")).unwrap_err().contains("twice"));
    }
}
