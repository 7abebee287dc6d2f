//! What only a misbehaving site does: seal two plaintexts under the same keys
//! and nonces. Written here from the specification, because the project's own
//! sealer does not let anybody do it.

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use ring::hkdf::{HKDF_SHA512, KeyType, Prk};
use sealfold_protocol::seal::{CHUNK, InputKey};

struct Length;
impl KeyType for Length {
    fn len(&self) -> usize {
        76
    }
}

/// Seals an object under a salt that was used before.
#[must_use]
pub fn seal_again(key: &InputKey, context: &[u8], plain: &[u8], salt: &[u8]) -> Vec<u8> {
    let label = b"c2sp.org/chunked-encryption@v1+AEAD_AES_256_GCM\0";
    let mut derived = [0; 76];
    Prk::new_less_safe(HKDF_SHA512, key.as_bytes())
        .expand(&[label, salt, context], Length)
        .unwrap()
        .fill(&mut derived)
        .unwrap();
    let cipher = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &derived[..32]).unwrap());
    let mut sealed = [salt, &derived[44..]].concat();
    let last: &[u8] =
        if plain.len().is_multiple_of(CHUNK) { &[] } else { &plain[plain.len() / CHUNK * CHUNK..] };
    let full = plain.chunks_exact(CHUNK);
    for (index, chunk) in (0u64..).zip(full.chain([last])) {
        let mut nonce: [u8; 12] = derived[32..44].try_into().unwrap();
        nonce[7..].iter_mut().zip(&index.to_be_bytes()[3..]).for_each(|(n, i)| *n ^= i);
        let mut chunk = chunk.to_vec();
        cipher
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::empty(), &mut chunk)
            .unwrap();
        sealed.extend(chunk);
    }
    sealed
}
