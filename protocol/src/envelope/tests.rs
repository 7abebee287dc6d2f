use super::*;
use coset::CoseSign;
use proptest::prelude::*;
use serde::Deserialize;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Note {
    text: String,
}
impl Statement for Note {
    const NAME: &'static str = "note";
    const CONTENT_TYPE: &'static str = "application/vnd.sealfold.note.v1+cbor";
    const LIMIT: usize = 1024;
}
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Other {
    text: String,
}
impl Statement for Other {
    const NAME: &'static str = "other";
    const CONTENT_TYPE: &'static str = "application/vnd.sealfold.other.v1+cbor";
    const LIMIT: usize = 1024;
}

fn note() -> Note {
    Note { text: "hello".to_owned() }
}

#[test]
fn signed_statements_open_only_as_what_they_are() {
    let key = SigningKey::from_seed(&[1; 32]).unwrap();
    let stranger = SigningKey::from_seed(&[2; 32]).unwrap();
    let signed = Signed::sign(note(), &key).unwrap();
    let opened = Signed::<Note>::open(signed.envelope(), &key.verifying_key()).unwrap();
    assert_eq!(opened.statement(), &note());
    assert_eq!(opened.digest(), signed.digest());
    assert!(matches!(
        Signed::<Other>::open(signed.envelope(), &key.verifying_key()),
        Err(Error::ContentType { .. })
    ));
    assert!(matches!(
        Signed::<Note>::open(signed.envelope(), &stranger.verifying_key()),
        Err(Error::Signature { .. })
    ));
}

#[test]
fn a_statement_keeps_its_digest_when_signatures_are_added() {
    let keys: Vec<_> = (1..4).map(|i| SigningKey::from_seed(&[i; 32]).unwrap()).collect();
    let public: Vec<_> = keys.iter().map(SigningKey::verifying_key).collect();
    let mut first = MultiSigned::sign(note(), &keys[0]).unwrap();
    let second = MultiSigned::sign(note(), &keys[1]).unwrap();
    let digest = first.digest();
    first.merge(&second).unwrap();
    first.merge(&second).unwrap();
    let opened = MultiSigned::<Note>::open(&first.envelope().unwrap()).unwrap();
    assert_eq!(opened.digest(), digest);
    assert_eq!(opened.signers().len(), 2);
    assert_eq!(opened.expect_approvals(&public, 2).unwrap(), 2);
    assert!(matches!(
        opened.expect_approvals(&public, 3),
        Err(Error::Approvals { required: 3, found: 2, .. })
    ));
    // A list that names one approver twice does not count it twice.
    assert!(opened.expect_approvals(&[public[0], public[0]], 2).is_err());
}

#[test]
fn what_is_not_verified_yet_can_lose_signatures_and_nothing_else() {
    let keys: Vec<_> = (1..=3).map(|i| SigningKey::from_seed(&[i; 32]).unwrap()).collect();
    let public: Vec<_> = keys.iter().map(SigningKey::verifying_key).collect();
    let mut signed = MultiSigned::sign(note(), &keys[0]).unwrap();
    signed.add_signature(&keys[1]).unwrap();
    // A signature that does not hold is dropped with its key, or refused.
    signed.insert(public[2], vec![0; 64]).unwrap();
    let envelope = signed.envelope().unwrap();
    assert!(matches!(MultiSigned::<Note>::open(&envelope), Err(Error::Signature { .. })));
    let mut decoded = Unverified::<Note>::decode(&envelope).unwrap();
    assert_eq!((decoded.claimed().len(), decoded.digest()), (3, signed.digest()));
    decoded.keep(&public[1..2].iter().copied().collect());
    let verified = decoded.clone().verify().unwrap();
    assert_eq!(verified.signers(), BTreeSet::from([public[1]]));
    decoded.keep(&BTreeSet::new());
    assert!(matches!(decoded.verify(), Err(Error::Approvals { .. })));
}

#[test]
fn the_signature_input_is_the_one_that_other_libraries_make() {
    let key = SigningKey::from_seed(&[1; 32]).unwrap();
    let signed = MultiSigned::sign(note(), &key).unwrap();
    let cose = CoseSign::from_tagged_slice(&signed.envelope().unwrap()).unwrap();
    cose.verify_signature(0, b"", |signature, message| {
        key.verifying_key().verifies(message, signature).then_some(()).ok_or(())
    })
    .unwrap();
}

proptest! {
    #[test]
    fn any_changed_bit_is_refused(at in 0usize..10_000, bit in 0u8..8) {
        let key = SigningKey::from_seed(&[1; 32]).unwrap();
        let mut one = Signed::sign(note(), &key).unwrap().envelope().to_vec();
        let place = at % one.len();
        one[place] ^= 1 << bit;
        prop_assert!(Signed::<Note>::open(&one, &key.verifying_key()).is_err());
        let mut many = MultiSigned::sign(note(), &key).unwrap().envelope().unwrap();
        let place = at % many.len();
        many[place] ^= 1 << bit;
        prop_assert!(MultiSigned::<Note>::open(&many).is_err());
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
        let key = VerifyingKey::new([0; 32]);
        prop_assert!(Signed::<Note>::open(&bytes, &key).is_err());
        prop_assert!(MultiSigned::<Note>::open(&bytes).is_err());
    }
}
