use super::*;
use crate::bytes::Random;
use crate::vectors;
use httpsig::prelude::message_component::HttpMessageComponent;
use httpsig::prelude::{
    AlgorithmName, HttpSignatureBase, HttpSignatureHeaders, HttpSignatureParams, PublicKey,
    SecretKey,
};
use proptest::prelude::*;
use serde::{Deserialize, Serialize};

const NOW: i64 = 1_800_000_000;

fn now() -> Timestamp {
    Timestamp::from_second(NOW).unwrap()
}

fn key() -> SigningKey {
    SigningKey::from_seed(&[7; 32]).unwrap()
}

fn head(digest: &str) -> Head<'_> {
    Head {
        method: "PATCH",
        authority: "host.example:8443",
        target: "/v1/uploads/ab?x=1",
        content_digest: Some(digest),
        upload_offset: Some("8388608"),
    }
}

fn get() -> Head<'static> {
    Head {
        method: "GET",
        authority: "host.example",
        target: "/v1/studies",
        content_digest: None,
        upload_offset: None,
    }
}

fn check(head: &Head<'_>, fields: &Fields) -> std::result::Result<Verified, Refusal> {
    verify(head, &fields.input, &fields.signature)
}

#[test]
fn a_signature_says_who_asked_for_what_and_when() {
    let digest = content_digest(b"piece");
    let fields = sign(&head(&digest), &key(), Role::Party, now()).unwrap();
    let verified = check(&head(&digest), &fields).unwrap();
    assert_eq!((verified.key, verified.role), (key().verifying_key(), Role::Party));
    assert_eq!((verified.created, verified.expires), (NOW, NOW + LIFETIME));
    verified.expect_time(now()).unwrap();
    verified.expect_body(b"piece").unwrap();
    let refusal = verified.expect_body(b"other").unwrap_err();
    assert_eq!(refusal.check, Check::Access);
    let again = sign(&head(&digest), &key(), Role::Party, now()).unwrap();
    assert_ne!(check(&head(&digest), &again).unwrap().nonce, verified.nonce);
}

#[test]
fn whatever_is_covered_cannot_be_changed() {
    let (digest, other) = (content_digest(b"piece"), content_digest(b"other"));
    let fields = sign(&head(&digest), &key(), Role::Party, now()).unwrap();
    let good = head(&digest);
    for changed in [
        Head { method: "GET", ..good },
        Head { authority: "other.example", ..good },
        Head { target: "/v1/uploads/cd?x=1", ..good },
        Head { target: "/v1/uploads/ab?x=2", ..good },
        Head { target: "/v1/uploads/ab", ..good },
        Head { content_digest: Some(&other), ..good },
        Head { content_digest: None, ..good },
        Head { upload_offset: Some("0"), ..good },
        Head { upload_offset: None, ..good },
    ] {
        assert_eq!(check(&changed, &fields).unwrap_err().check, Check::Access, "{changed:?}");
    }
    // A field that was added is not covered, and so refused as well.
    let bare = sign(&get(), &key(), Role::Party, now()).unwrap();
    let refusal = check(&Head { upload_offset: Some("0"), ..get() }, &bare).unwrap_err();
    assert!(refusal.found.contains("upload-offset"), "{refusal}");
    // A host's name is the same in capitals.
    check(&Head { authority: "HOST.example:8443", ..good }, &fields).unwrap();
    // Tag, times and nonce are covered too.
    for (from, to) in
        [("party", "operator"), ("=1800000000;", "=1800000001;"), ("nonce=\"", "nonce=\"AA")]
    {
        let input = fields.input.replacen(from, to, 1);
        assert_ne!(input, fields.input);
        assert!(verify(&good, &input, &fields.signature).is_err(), "{input}");
    }
}

#[test]
fn the_profile_is_narrow() {
    let good = sign_with(&get(), &key(), Role::Party, NOW, &[1; NONCE]);
    let signed = |parameters: &str| {
        let base = base(get().components(), parameters);
        let signature = BASE64.encode(key().sign(base.as_bytes()));
        verify(&get(), &format!("sealfold={parameters}"), &format!("sealfold=:{signature}:"))
    };
    let parameters = good.input.strip_prefix("sealfold=").unwrap();
    signed(parameters).unwrap();
    for (from, to, found) in [
        (";created=1800000000", "", "created"),
        (";expires=1800000600", "", "expires"),
        (";alg=\"ed25519\"", ";alg=\"hmac-sha256\"", "hmac-sha256"),
        (";alg=\"ed25519\"", "", "alg"),
        ("sealfold/v1/party", "sealfold/v2/party", "sealfold/v2/party"),
        ("sealfold/v1/party", "", "tag"),
        (";tag=", ";more=1;tag=", "more"),
        ("\"@query\"", "\"@query\";req", "@query as well"),
        ("\"@query\"", "\"@query\" \"@query\"", "@query as well"),
        (" \"@query\"", "", "no @query"),
        ("\"@query\"", "\"date\"", "date as well"),
        ("AQEBAQEBAQEBAQEBAQEBAQ==", "AQEB", "another"),
    ] {
        let changed = parameters.replacen(from, to, 1);
        assert_ne!(changed, parameters, "{from}");
        let refusal = signed(&changed).unwrap_err();
        assert_eq!(refusal.check, Check::Access);
        assert!(refusal.to_string().contains(found), "{from}: {refusal}");
    }
    // Another order of parameters is as good; another label is not ours.
    let (list, rest) = parameters.split_once(";created=1800000000").unwrap();
    signed(&format!("{list}{rest};created=1800000000")).unwrap();
    let renamed = good.input.replacen("sealfold", "sig1", 1);
    assert!(verify(&get(), &renamed, &good.signature).unwrap_err().expected.contains("sealfold"));
    // One beside ours is nobody's business here.
    let beside = format!("proxy=(\"date\");created=1, {}", good.input);
    verify(&get(), &beside, &format!("proxy=:AA==:, {}", good.signature)).unwrap();
}

#[test]
fn a_clock_that_is_wrong_is_told_with_both_times() {
    let at = |created| {
        let fields = sign_with(&get(), &key(), Role::Party, created, &[1; NONCE]);
        check(&get(), &fields).unwrap().expect_time(now())
    };
    for created in [NOW, NOW - CLOCK, NOW + CLOCK] {
        at(created).unwrap();
    }
    let refusal = at(NOW - 7200).unwrap_err();
    assert_eq!(refusal.check, Check::Clock);
    let text = refusal.to_string();
    assert!(
        text.contains("2027-01-15T08:00:00Z") && text.contains("2027-01-15T06:00:00Z"),
        "{text}"
    );
    assert!(text.contains("7200 s before") && text.contains("NTP"), "{text}");
    assert!(at(NOW + 301).unwrap_err().found.contains("301 s after"));
    for created in [-999_999_999_000_000, 999_999_999_000_000, 0] {
        assert_eq!(at(created).unwrap_err().check, Check::Clock);
    }
    let mut verified = check(&get(), &sign(&get(), &key(), Role::Party, now()).unwrap()).unwrap();
    verified.expires = NOW;
    assert_eq!(verified.expect_time(now()).unwrap_err().check, Check::Clock);
    verified.expires = NOW + LIFETIME + 1;
    assert_eq!(verified.expect_time(now()).unwrap_err().check, Check::Access);
}

/// A signature of a request is none of a statement, of a note or of a
/// cosignature, and the other way round.
#[test]
fn no_other_signature_of_the_key_is_one_of_a_request() {
    let digest = content_digest(b"");
    for head in [head(&digest), get()] {
        let components = head.components();
        assert!(base(components, "()").starts_with('"'));
    }
    // RFC 9052: the structure that COSE signs is an array of four or five items.
    let commit = crate::Signed::sign(
        crate::report::ModelReport {
            study: Digest::of(&[]),
            round: 1,
            release: Digest::of(&[]),
            site: "a".to_owned(),
            model: Digest::of(&[]),
        },
        &key(),
    )
    .unwrap();
    let envelope = commit.envelope();
    let signature = BASE64.encode(&envelope[envelope.len() - 64..]);
    let good = sign(&get(), &key(), Role::Party, now()).unwrap();
    let refusal = verify(&get(), &good.input, &format!("sealfold=:{signature}:")).unwrap_err();
    assert_eq!(refusal.check, Check::Access);
}

/// Another implementation verifies what we sign, and we what it signs.
#[test]
fn an_independent_implementation_agrees() {
    let digest = content_digest(b"piece");
    let head = head(&digest);
    let fields = sign_with(&head, &key(), Role::Operator, NOW, &[9; NONCE]);
    let lines: Vec<_> = head
        .components()
        .iter()
        .map(|(name, value)| {
            HttpMessageComponent::try_from(format!("\"{name}\": {value}").as_str()).unwrap()
        })
        .collect();
    let theirs = HttpSignatureHeaders::try_parse(&fields.signature, &fields.input).unwrap();
    let theirs = theirs.get(LABEL).unwrap();
    let their_base = HttpSignatureBase::try_new(&lines, theirs.signature_params()).unwrap();
    let public = PublicKey::from_bytes(&AlgorithmName::Ed25519, key().verifying_key().as_bytes());
    their_base.verify_signature_headers(&public.unwrap(), theirs).unwrap();

    let parameters = fields.input.strip_prefix("sealfold=").unwrap();
    let parameters = HttpSignatureParams::try_from(parameters).unwrap();
    let der = [hex::decode("302e020100300506032b657004220420").unwrap(), vec![7; 32]].concat();
    let secret = SecretKey::from_der(&AlgorithmName::Ed25519, &der).unwrap();
    let signed = HttpSignatureBase::try_new(&lines, &parameters).unwrap();
    let signed = signed.build_signature_headers(&secret, Some(LABEL)).unwrap();
    let input = signed.signature_input_header_value();
    let verified = verify(&head, &input, &signed.signature_header_value()).unwrap();
    assert_eq!((verified.role, verified.nonce), (Role::Operator, [9; NONCE]));
}

/// RFC 9421, appendix B.2.6, and RFC 9530, appendix D.
#[test]
fn base_and_digest_are_those_of_the_standards() {
    let seed = hex::decode("9f8362f87a484a954e6e740c5b4c0e84229139a20aa8ab56ff66586f6a7d29c5");
    let key = SigningKey::from_seed(&seed.unwrap().try_into().unwrap()).unwrap();
    let components = [
        ("date", "Tue, 20 Apr 2021 02:07:55 GMT"),
        ("@method", "POST"),
        ("@path", "/foo"),
        ("@authority", "example.com"),
        ("content-type", "application/json"),
        ("content-length", "18"),
    ];
    let parameters = "(\"date\" \"@method\" \"@path\" \"@authority\" \"content-type\" \
        \"content-length\");created=1618884473;keyid=\"test-key-ed25519\"";
    let components = components.map(|(name, value)| (name, value.to_owned())).to_vec();
    let signature = BASE64.encode(key.sign(base(components, parameters).as_bytes()));
    assert_eq!(
        signature,
        "wqcAqbmYJ2ji2glfAMaRy4gruYYnx2nEFN2HN6jrnDnQCK1u02Gb04v9EDgwUPiu4A0w6vuQv5lIp5WPpBKRCw=="
    );
    let digest = content_digest(b"{\"hello\": \"world\"}\n");
    assert_eq!(digest, "sha-256=:RK/0qy18MlBSVnWgjwz6lZEWjP/lF5HF9bvEF8FabDg=:");
    assert!(parse_digest("sha-512=:AA==:").is_err());
    assert!(parse_digest(&format!("sha-512=:AA==:, {digest}")).is_ok());
}

/// A vector of `protocol/vectors/signed-request.json`.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Vector {
    seed: Random,
    role: String,
    method: String,
    authority: String,
    target: String,
    body: Option<String>,
    upload_offset: Option<String>,
    created: i64,
    nonce: String,
    content_digest: Option<String>,
    signature_base: String,
    signature_input: String,
    signature: String,
}

/// A request, signed for a vector.
fn vector(
    role: Role,
    method: &str,
    target: &str,
    body: Option<&str>,
    offset: Option<&str>,
) -> Vector {
    let digest = body.map(|body| content_digest(body.as_bytes()));
    let head = Head {
        method,
        authority: "host.example:8443",
        target,
        content_digest: digest.as_deref(),
        upload_offset: offset,
    };
    let nonce = [0xa5; NONCE];
    let fields = sign_with(&head, &key(), role, NOW, &nonce);
    check(&head, &fields).unwrap();
    let parameters = fields.input.strip_prefix("sealfold=").unwrap();
    Vector {
        seed: Random::new([7; 32]),
        role: format!("{role:?}").to_lowercase(),
        method: method.to_owned(),
        authority: head.authority.to_owned(),
        target: target.to_owned(),
        body: body.map(str::to_owned),
        upload_offset: offset.map(str::to_owned),
        created: NOW,
        nonce: hex::encode(nonce),
        signature_base: base(head.components(), parameters),
        content_digest: digest.clone(),
        signature_input: fields.input,
        signature: fields.signature,
    }
}

#[test]
fn vectors_of_signed_requests() {
    let made = vec![
        vector(Role::Party, "GET", "/v1/studies", None, None),
        vector(Role::Party, "PATCH", "/v1/uploads/00?x=1", Some("sealed bytes"), Some("8388608")),
        vector(Role::Operator, "POST", "/v1/operator/studies", Some("{}"), None),
    ];
    if vectors::writing("signed-request") {
        vectors::write("signed-request", &made);
    }
    assert_eq!(vectors::read::<Vec<Vector>>("signed-request"), made);
}

proptest! {
    #[test]
    fn arbitrary_fields_are_refused_and_nothing_worse(input in ".{0,300}", signature in ".{0,100}") {
        let _ = verify(&get(), &input, &signature);
        let _ = parse_digest(&input);
    }
}
