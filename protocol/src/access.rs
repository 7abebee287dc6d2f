//! Requests to a host, signed: HTTP message signatures (RFC 9421) with Ed25519.
//!
//! They tell a host whom it serves, so that one site can neither see, replace
//! nor block what is another's, and they keep metadata from strangers. Nothing
//! in the protocol rests on them: a host is not believed, and the enclave never
//! hears of them. What a site says to the enclave or to other sites is a
//! statement in a COSE envelope.
//!
//! The profile is narrow. One signature under the label `sealfold` covers
//! `@method`, `@authority`, `@path` and `@query`, and of the fields
//! `content-digest` (RFC 9530) and `upload-offset` each that the request has. It
//! has the parameters `created`, `expires`, `nonce`, `alg`, `keyid` and `tag`, all
//! of them and no other. What is signed begins with a quotation mark, as no COSE
//! structure, no signed note and no cosignature does, and ends with the tag: a
//! signature of a request can be taken for nothing else that the same key signs.

use crate::keys::random;
use crate::refusal::{Check, Refusal};
use crate::{Digest, Result, SigningKey, VerifyingKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use jiff::Timestamp;
use sfv::{BareItem, Dictionary, InnerList, ListEntry, ListSerializer, Parser};
use std::collections::BTreeSet;

/// The label of the signature that a host reads; others are not its business.
pub const LABEL: &str = "sealfold";
/// The field with the covered components and the parameters.
pub const INPUT: &str = "signature-input";
/// The field with the signature.
pub const SIGNATURE: &str = "signature";
/// The field with the digest of the body, RFC 9530, by SHA-256.
pub const CONTENT_DIGEST: &str = "content-digest";
/// How far a signer's clock may be from the host's, in seconds, either way.
pub const CLOCK: i64 = 300;
/// How long a signature may be valid, in seconds; long enough for a proxy that
/// takes in a whole piece over a slow line before it passes it on.
pub const LIFETIME: i64 = 600;
/// The length of a nonce in bytes.
pub const NONCE: usize = 16;

/// Whose key signs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// A site's, an approver's or a witness's: a party of a study.
    Party,
    /// The operator's.
    Operator,
}

impl Role {
    /// The tag of signatures in this role.
    #[must_use]
    pub const fn tag(self) -> &'static str {
        match self {
            Self::Party => "sealfold/v1/party",
            Self::Operator => "sealfold/v1/operator",
        }
    }

    fn of_tag(tag: &str) -> Option<Self> {
        [Self::Party, Self::Operator].into_iter().find(|role| role.tag() == tag)
    }
}

/// What of a request is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head<'a> {
    /// The method, in capital letters.
    pub method: &'a str,
    /// The host's name, and its port unless it is the scheme's own.
    pub authority: &'a str,
    /// The path, and behind a question mark the query.
    pub target: &'a str,
    /// The field `content-digest`.
    pub content_digest: Option<&'a str>,
    /// The field `upload-offset`.
    pub upload_offset: Option<&'a str>,
}

impl Head<'_> {
    /// The covered components with their values, in the order in which we sign.
    fn components(&self) -> Vec<(&'static str, String)> {
        let (path, query) = self.target.split_once('?').unwrap_or((self.target, ""));
        let fields = [(CONTENT_DIGEST, self.content_digest), ("upload-offset", self.upload_offset)];
        let mut components = vec![
            ("@method", self.method.to_owned()),
            ("@authority", self.authority.to_ascii_lowercase()),
            ("@path", path.to_owned()),
            ("@query", format!("?{query}")),
        ];
        let present = |(name, value): (_, Option<&str>)| Some((name, value?.trim().to_owned()));
        components.extend(fields.into_iter().filter_map(present));
        components
    }
}

/// The value of a `content-digest` field for a body.
#[must_use]
pub fn content_digest(body: &[u8]) -> String {
    format!("sha-256=:{}:", BASE64.encode(Digest::of(&[body]).as_bytes()))
}

/// The two fields of a signed request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fields {
    /// The value of `signature-input`.
    pub input: String,
    /// The value of `signature`.
    pub signature: String,
}

/// Signs a request, with a nonce drawn now.
///
/// # Errors
/// [`crate::Error::Key`] if the system has no randomness.
pub fn sign(head: &Head<'_>, key: &SigningKey, role: Role, now: Timestamp) -> Result<Fields> {
    let mut nonce = [0; NONCE];
    nonce.copy_from_slice(&random()?[..NONCE]);
    Ok(sign_with(head, key, role, now.as_second(), &nonce))
}

/// Signs a request with a nonce that is given.
#[must_use]
pub fn sign_with(
    head: &Head<'_>,
    key: &SigningKey,
    role: Role,
    created: i64,
    nonce: &[u8; NONCE],
) -> Fields {
    let components = head.components();
    let names: Vec<_> = components.iter().map(|(name, _)| format!("\"{name}\"")).collect();
    let parameters = format!(
        "({});created={created};expires={};nonce=\"{}\";alg=\"ed25519\";keyid=\"{}\";tag=\"{}\"",
        names.join(" "),
        created + LIFETIME,
        BASE64.encode(nonce),
        key.verifying_key(),
        role.tag(),
    );
    let signature = key.sign(base(components, &parameters).as_bytes());
    Fields {
        input: format!("{LABEL}={parameters}"),
        signature: format!("{LABEL}=:{}:", BASE64.encode(signature)),
    }
}

/// The signature base of RFC 9421, section 2.5.
fn base(components: Vec<(&str, String)>, parameters: &str) -> String {
    let mut base = String::new();
    for (name, value) in components {
        base.push_str(&format!("\"{name}\": {value}\n"));
    }
    base + "\"@signature-params\": " + parameters
}

/// A request's signature that verified. It says which key signed, and not yet
/// whether that key may do what was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// The key.
    pub key: VerifyingKey,
    /// The role that the tag names.
    pub role: Role,
    /// When it was made, by the signer's clock: seconds since 1970.
    pub created: i64,
    /// When it ends, by the signer's clock.
    pub expires: i64,
    /// Drawn anew for each request.
    pub nonce: [u8; NONCE],
    /// The SHA-256 of the body, if the request has the field.
    pub content_digest: Option<Digest>,
}

fn refused(expected: impl ToString, found: impl ToString) -> Refusal {
    Refusal::new(Check::Access, expected, found)
        .next("sign the request as docs/protocol.md says; sealfold does so by itself")
}

/// Verifies the signature of a request.
///
/// # Errors
/// A refusal by `access` that says what is wrong with it. Its time is not looked
/// at: [`Verified::expect_time`].
pub fn verify(
    head: &Head<'_>,
    input: &str,
    signature: &str,
) -> std::result::Result<Verified, Refusal> {
    let parse = |name: &str, value: &str| -> std::result::Result<ListEntry, Refusal> {
        let fields: Dictionary = Parser::new(value)
            .parse()
            .map_err(|error| refused(format!("a dictionary in {name} (RFC 9651)"), error))?;
        let own = fields.get(LABEL).cloned();
        own.ok_or_else(|| refused(format!("a signature {LABEL} in {name}"), "none"))
    };
    let ListEntry::InnerList(list) = parse(INPUT, input)? else {
        return Err(refused("a list of covered components", "another value"));
    };
    let signature = match parse(SIGNATURE, signature)? {
        ListEntry::Item(item) => match item.bare_item {
            BareItem::ByteSequence(bytes) => bytes,
            _ => return Err(refused("a signature's bytes", "another value")),
        },
        ListEntry::InnerList(_) => return Err(refused("a signature's bytes", "a list")),
    };
    let components = covered(head, &list)?;
    let parameters = Parameters::of(&list)?;
    let key = parameters.text("keyid")?;
    let key: VerifyingKey = key.parse().map_err(|error| refused("keyid: a public key", error))?;
    let alg = parameters.text("alg")?;
    if alg != "ed25519" {
        return Err(refused("alg \"ed25519\"", alg));
    }
    let tag = parameters.text("tag")?;
    let role = Role::of_tag(tag).ok_or_else(|| {
        refused(format!("tag {:?} or {:?}", Role::Party.tag(), Role::Operator.tag()), tag)
    })?;
    let nonce = BASE64.decode(parameters.text("nonce")?).ok().and_then(|n| n.try_into().ok());
    let nonce =
        nonce.ok_or_else(|| refused(format!("nonce: {NONCE} bytes in base64"), "another"))?;
    let mut serializer = ListSerializer::new();
    let mut inner = serializer.inner_list();
    inner.items(&list.items);
    let _ = inner.finish().parameters(&list.params);
    let serialized = serializer.finish().unwrap_or_default();
    if !key.verifies(base(components, &serialized).as_bytes(), &signature) {
        return Err(Refusal::new(
            Check::Access,
            format!("a signature of the request by {key}"),
            "another",
        )
        .next("a proxy in between may not change method, host name, path, query or body"));
    }
    let content_digest = head.content_digest.map(parse_digest).transpose()?;
    let (created, expires) = (parameters.number("created")?, parameters.number("expires")?);
    Ok(Verified { key, role, created, expires, nonce, content_digest })
}

/// The covered components, in the order of the signature: exactly those that
/// the profile asks for.
fn covered(
    head: &Head<'_>,
    list: &InnerList,
) -> std::result::Result<Vec<(&'static str, String)>, Refusal> {
    let mut wanted = head.components();
    let names: Vec<_> = wanted.iter().map(|(name, _)| *name).collect();
    let expected = || format!("exactly the components {}", names.join(" "));
    let mut components = Vec::new();
    for item in &list.items {
        let name = item.bare_item.as_string().map_or("no text", |name| name.as_str());
        let place = wanted.iter().position(|(wanted, _)| *wanted == name);
        match place.filter(|_| item.params.is_empty()) {
            Some(place) => components.push(wanted.remove(place)),
            None => return Err(refused(expected(), format!("{name} as well"))),
        }
    }
    match wanted.first() {
        None => Ok(components),
        Some((missing, _)) => Err(refused(expected(), format!("no {missing}"))),
    }
}

/// A signature's parameters: those of the profile, and no other.
struct Parameters<'a>(&'a InnerList);

impl<'a> Parameters<'a> {
    fn of(list: &'a InnerList) -> std::result::Result<Self, Refusal> {
        let wanted = BTreeSet::from(["alg", "created", "expires", "keyid", "nonce", "tag"]);
        let found: BTreeSet<_> = list.params.keys().map(|key| key.as_str()).collect();
        if found == wanted {
            return Ok(Self(list));
        }
        let words = |set: BTreeSet<&str>| set.into_iter().collect::<Vec<_>>().join(" ");
        Err(refused(format!("the parameters {}", words(wanted)), words(found)))
    }

    fn text(&self, name: &str) -> std::result::Result<&'a str, Refusal> {
        let value = self.0.params.get(name).and_then(|value| value.as_string());
        value
            .map(sfv::StringRef::as_str)
            .ok_or_else(|| refused(format!("{name}: a text"), "another value"))
    }

    fn number(&self, name: &str) -> std::result::Result<i64, Refusal> {
        let value = self.0.params.get(name).and_then(BareItem::as_integer);
        value.map(i64::from).ok_or_else(|| refused(format!("{name}: a number"), "another value"))
    }
}

/// The SHA-256 in a `content-digest` field; other algorithms may stand beside it.
fn parse_digest(value: &str) -> std::result::Result<Digest, Refusal> {
    let wrong = |found: String| refused("sha-256 in content-digest (RFC 9530)", found);
    let fields: Dictionary = Parser::new(value).parse().map_err(|e| wrong(e.to_string()))?;
    let Some(ListEntry::Item(item)) = fields.get("sha-256") else {
        return Err(wrong("none".to_owned()));
    };
    let bytes = item.bare_item.as_byte_sequence().and_then(|bytes| bytes.try_into().ok());
    bytes.map(Digest::new).ok_or_else(|| wrong("not 32 bytes".to_owned()))
}

impl Verified {
    /// Whether the signature was made now, by the host's clock.
    ///
    /// # Errors
    /// A refusal by `clock` with both times.
    pub fn expect_time(&self, now: Timestamp) -> std::result::Result<(), Refusal> {
        let time = |seconds: i64| {
            Timestamp::from_second(seconds)
                .map_or_else(|_| format!("second {seconds}"), |time| time.to_string())
        };
        let host = now.as_second();
        let wrong = |found: String| {
            let expected =
                format!("a request signed within {CLOCK} s of this host's clock, {}", time(host));
            Err(Refusal::new(Check::Clock, expected, found).next(
                "set this machine's clock (NTP), or tell the operator that the host's is wrong",
            ))
        };
        let off = i128::from(self.created) - i128::from(host);
        if off.unsigned_abs() > CLOCK.unsigned_abs().into() {
            let side = if off < 0 { "before" } else { "after" };
            let off = off.unsigned_abs();
            return wrong(format!("one signed at {}, {off} s {side} it", time(self.created)));
        }
        if self.expires <= host {
            return wrong(format!("one that ended at {}", time(self.expires)));
        }
        if i128::from(self.expires) - i128::from(self.created) > LIFETIME.into() {
            let expected = format!("a signature that is valid for at most {LIFETIME} s");
            return Err(refused(expected, format!("one until {}", time(self.expires))));
        }
        Ok(())
    }

    /// Whether a body is the one that was signed.
    ///
    /// # Errors
    /// A refusal by `access`.
    pub fn expect_body(&self, body: &[u8]) -> std::result::Result<(), Refusal> {
        let found = Digest::of(&[body]);
        match self.content_digest {
            Some(expected) if expected == found => Ok(()),
            None if body.is_empty() => Ok(()),
            None => Err(refused("a signed content-digest of the body", "none")),
            Some(expected) => Err(Refusal::new(
                Check::Access,
                format!("the signed body, SHA-256 {expected}"),
                found,
            )
            .next("send it again; a proxy in between may not change bodies")),
        }
    }
}

#[cfg(test)]
mod tests;
