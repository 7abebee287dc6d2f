//! What ties evidence to an offer and to the one who asked.
//!
//! Each goes under its own label and into its own field, so that neither can
//! be passed off as the other. Keys never go into the document: a post-quantum
//! key is longer than the NSM's 1,024 bytes.

use ring::digest::{Context, SHA256};

const BINDING: &[u8] = b"sealfold/v1/evidence-binding\0";
const NONCE: &[u8] = b"sealfold/v1/evidence-nonce\0";

/// What stands in `user_data`: SHA-256 of a label and the offer's digest.
#[must_use]
pub fn binding(offer_digest: &[u8; 32]) -> [u8; 32] {
    labelled(BINDING, offer_digest)
}

/// What stands in `nonce`: SHA-256 of another label and the asker's nonce.
#[must_use]
pub fn nonce_hash(nonce: &[u8; 32]) -> [u8; 32] {
    labelled(NONCE, nonce)
}

fn labelled(label: &[u8], value: &[u8; 32]) -> [u8; 32] {
    let mut context = Context::new(&SHA256);
    context.update(label);
    context.update(value);
    let mut hash = [0; 32];
    hash.copy_from_slice(context.finish().as_ref());
    hash
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn an_offer_is_no_nonce() {
        let text = include_str!("../tests/vectors/binding.json");
        let vector: BTreeMap<String, String> = serde_json::from_str(text).unwrap();
        let bytes =
            |name: &str| -> [u8; 32] { hex::decode(&vector[name]).unwrap().try_into().unwrap() };
        assert_eq!(binding(&bytes("offer_digest")), bytes("user_data"));
        assert_eq!(nonce_hash(&bytes("asker_nonce")), bytes("nonce"));
        // The same 32 bytes, and yet another value.
        assert_eq!(bytes("offer_digest"), bytes("asker_nonce"));
        assert_ne!(bytes("user_data"), bytes("nonce"));
    }
}
