//! Vectors of what is sealed.

use super::{INSTANCE, pattern, read, write, writing};
use crate::bytes::Random;
use crate::offer::Offer;
use crate::seal::{self, Encapsulation, InputKey, RoundSecret, Sealer};
use crate::update::UpdateHeader;
use crate::{Digest, Signed};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

#[derive(Serialize, Deserialize)]
pub(super) struct Sealing {
    /// The seed of the X-Wing key.
    seed: Random,
    pub(super) public_key: seal::PublicKey,
    /// HPKE's info, hex.
    info: String,
    pub(super) encapsulation: Encapsulation,
    /// HPKE's export, the input key of the bulk.
    input_key: Random,
    objects: Vec<SealedObject>,
}

#[derive(Serialize, Deserialize, PartialEq, Debug)]
struct SealedObject {
    /// hex.
    context: String,
    /// hex.
    salt: String,
    /// The plaintext is so long; byte i is i * 31 mod 251.
    plain_length: u64,
    sealed_length: u64,
    /// Salt and commitment, hex.
    header: String,
    /// SHA-256 of the sealed object.
    sealed_sha256: Digest,
}

fn sealed_object(key: &InputKey, length: usize) -> SealedObject {
    let (context, salt) = (b"sealfold test vector".as_slice(), [5; 24]);
    let (sealer, header) = Sealer::with_salt(key, context, length as u64, salt).unwrap();
    let plain = pattern(length);
    let mut object = header.to_vec();
    for (record, part) in sealer.records().zip(plain.chunks(seal::RECORD).chain([&[][..]])) {
        record.seal(part, &mut object).unwrap();
    }
    SealedObject {
        context: hex::encode(context),
        salt: hex::encode(salt),
        plain_length: length as u64,
        sealed_length: object.len() as u64,
        header: hex::encode(header),
        sealed_sha256: Digest::of(&[&object]),
    }
}

pub(super) fn sealing() -> Sealing {
    let lengths = [0, 1, seal::CHUNK, seal::RECORD - 1, seal::RECORD, 2 * seal::RECORD + 17];
    let objects = |key: &InputKey| -> Vec<SealedObject> {
        lengths.map(|length| sealed_object(key, length)).into()
    };
    let secret = RoundSecret::from_seed(&INSTANCE);
    if writing("sealing") {
        let public_key = secret.public_key().unwrap();
        let info = Offer::seal_info(&Digest::new([3; 32]));
        let (encapsulation, key) = seal::encapsulate(&public_key, &info).unwrap();
        let sealing = Sealing {
            seed: Random::new(INSTANCE),
            public_key,
            info: hex::encode(info),
            encapsulation,
            input_key: Random::new(*key.as_bytes()),
            objects: objects(&key),
        };
        write("sealing", &sealing);
    }
    let vector: Sealing = read("sealing");
    assert_eq!(secret.public_key().unwrap(), vector.public_key);
    let info = hex::decode(&vector.info).unwrap();
    let key = secret.decapsulate(&vector.encapsulation, &info).unwrap();
    assert_eq!(key.as_bytes(), vector.input_key.as_bytes());
    let expected = objects(&key);
    assert_eq!(expected, vector.objects);
    vector
}

/// A whole small update under the vectors' own offer and header: the enclave's
/// key gives the input key, and the sealed bytes open to the plaintext.
pub(super) fn sealed_update(offer: &Signed<Offer>, header: &Signed<UpdateHeader>) {
    let info = Offer::seal_info(&offer.digest());
    let secret = RoundSecret::from_seed(&INSTANCE);
    let key = secret.decapsulate(&header.statement().encapsulation, &info).unwrap();
    let plain: Vec<u8> = (0..12i32).flat_map(|i| (1000 * i - 4000).to_le_bytes()).collect();
    let (length, context, salt) = (plain.len() as u64, header.digest(), [5; 24]);
    assert_eq!(length, header.statement().plain_length);
    let (sealer, start) = Sealer::with_salt(&key, context.as_bytes(), length, salt).unwrap();
    let mut sealed = start.to_vec();
    sealer.records().for_each(|record| record.seal(&plain, &mut sealed).unwrap());
    let vector = json!({
        "update_key_seed": Random::new(INSTANCE),
        "info": hex::encode(info),
        "input_key": Random::new(*key.as_bytes()),
        "context": context,
        "salt": hex::encode(salt),
        "plain": hex::encode(&plain),
        "sealed": hex::encode(&sealed),
    });
    if writing("sealed-update") {
        write("sealed-update", &vector);
    }
    assert_eq!(read::<Value>("sealed-update"), vector);
    let mut reader = seal::OpeningReader::new(&key, context.as_bytes(), length, &*sealed).unwrap();
    let mut opened = Vec::new();
    std::io::Read::read_to_end(&mut reader, &mut opened).unwrap();
    assert_eq!(opened, plain);
}
