//! What the hardware allows: the cipher alone, memory alone, a signature check
//! alone, on the same cores and in the same run.

use crate::figures::Bench;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P384_SHA384_FIXED, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, KeyPair,
    UnparsedPublicKey,
};
use sealfold_protocol::seal::CHUNK;
use std::hint::black_box;

fn on_threads(threads: usize, work: impl Fn() + Sync) {
    std::thread::scope(|scope| {
        (0..threads).for_each(|_| _ = scope.spawn(&work));
    });
}

/// AES-256-GCM alone: one chunk that lies in the cache, opened again and again
/// into the room before it, so that nothing is copied.
fn cipher(bytes: usize) {
    let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &[7; 32]).unwrap());
    let nonce = || Nonce::assume_unique_for_key([0; 12]);
    let mut sealed = vec![1; CHUNK];
    key.seal_in_place_append_tag(nonce(), Aad::empty(), &mut sealed).unwrap();
    let mut buffer = vec![0; CHUNK];
    buffer.append(&mut sealed);
    for _ in 0..bytes / CHUNK {
        black_box(key.open_within(nonce(), Aad::empty(), &mut buffer, CHUNK..).unwrap());
    }
}

/// AES-256-GCM alone, sealing.
pub fn sealing_cipher(bytes: usize) {
    let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &[7; 32]).unwrap());
    let mut chunk = vec![1; CHUNK];
    for _ in 0..bytes / CHUNK {
        let nonce = Nonce::assume_unique_for_key([0; 12]);
        _ = black_box(key.seal_in_place_separate_tag(nonce, Aad::empty(), &mut chunk).unwrap());
    }
}

/// What the hardware allows on so many threads.
#[derive(Clone, Copy)]
pub struct Limits {
    pub cipher: f64,
    pub memory: f64,
}

impl Limits {
    pub fn slower(self) -> (&'static str, f64) {
        if self.cipher < self.memory {
            ("AES-256-GCM alone", self.cipher)
        } else {
            ("memory read alone", self.memory)
        }
    }
}

pub fn measure(bench: &mut Bench, threads: usize) -> Limits {
    let bytes = 1 << 28;
    let all = (bytes * threads) as f64;
    let cipher =
        bench.speed(&format!("limit: AES-256-GCM alone, {threads} thread(s)"), all, None, || {
            on_threads(threads, || cipher(bytes));
        });
    let words: Vec<u64> = vec![1; 1 << 26];
    let size = (words.len() * 8) as f64;
    let memory =
        bench.speed(&format!("limit: memory read alone, {threads} thread(s)"), size, None, || {
            std::thread::scope(|scope| {
                for part in words.chunks(words.len() / threads) {
                    scope.spawn(move || {
                        black_box(part.iter().fold(0u64, |a, b| a.wrapping_add(*b)))
                    });
                }
            });
        });
    Limits { cipher, memory }
}

/// Seconds of one ES384 signature check alone.
pub fn signature_check(bench: &mut Bench) -> f64 {
    let random = SystemRandom::new();
    let signing = &ECDSA_P384_SHA384_FIXED_SIGNING;
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(signing, &random).unwrap();
    let pair = EcdsaKeyPair::from_pkcs8(signing, pkcs8.as_ref(), &random).unwrap();
    let message = [5; 4096];
    let signature = pair.sign(&random, &message).unwrap();
    let key = UnparsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, pair.public_key());
    bench.seconds("limit: one P-384 signature check alone", || {
        key.verify(&message, signature.as_ref()).unwrap();
    })
}
