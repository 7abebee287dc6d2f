//! What the hardware allows: the cipher alone, memory alone, a signature check
//! alone, on the same cores and in the same run.

use crate::figures::Bench;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P384_SHA384_FIXED, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, KeyPair,
    UnparsedPublicKey,
};
use sealfold_protocol::seal::{CHUNK, RECORD, TAG};
use std::cell::RefCell;
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
    let mut sealed = vec![1; CHUNK];
    key.seal_in_place_append_tag(zero_nonce(), Aad::empty(), &mut sealed).unwrap();
    let mut buffer = vec![0; CHUNK];
    buffer.append(&mut sealed);
    for _ in 0..bytes / CHUNK {
        black_box(key.open_within(zero_nonce(), Aad::empty(), &mut buffer, CHUNK..).unwrap());
    }
}

/// Sealed chunks that lie in memory one behind the other, in pieces as long as
/// records: more than any cache holds.
pub struct InMemory {
    key: LessSafeKey,
    sealed: Vec<u8>,
    records: Vec<Vec<u8>>,
}

impl InMemory {
    pub fn new(bytes: usize) -> Self {
        let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &[7; 32]).unwrap());
        let mut sealed = vec![1; CHUNK];
        key.seal_in_place_append_tag(zero_nonce(), Aad::empty(), &mut sealed).unwrap();
        let sealed = sealed.repeat(RECORD / CHUNK);
        let records = vec![sealed.clone(); bytes / RECORD];
        Self { key, sealed, records }
    }

    /// Lays the sealed chunks out again.
    pub fn restore(&mut self) {
        self.records.iter_mut().for_each(|record| record.copy_from_slice(&self.sealed));
    }

    /// The cipher alone over all of it, in place.
    pub fn open(&mut self, threads: usize) {
        let (key, each) = (&self.key, self.records.len().div_ceil(threads));
        std::thread::scope(|scope| {
            for part in self.records.chunks_mut(each) {
                scope.spawn(move || {
                    for chunk in part.iter_mut().flat_map(|record| record.chunks_mut(CHUNK + TAG)) {
                        black_box(key.open_in_place(zero_nonce(), Aad::empty(), chunk).unwrap());
                    }
                });
            }
        });
    }
}

fn zero_nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; 12])
}

/// AES-256-GCM alone, sealing.
pub fn sealing_cipher(bytes: usize) {
    let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &[7; 32]).unwrap());
    let mut chunk = vec![1; CHUNK];
    for _ in 0..bytes / CHUNK {
        _ = black_box(
            key.seal_in_place_separate_tag(zero_nonce(), Aad::empty(), &mut chunk).unwrap(),
        );
    }
}

/// What the hardware allows on so many threads.
#[derive(Clone, Copy)]
pub struct Limits {
    pub cipher: f64,
    /// The cipher when each byte comes from memory and goes back there.
    pub cipher_in_memory: f64,
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
    let in_memory = RefCell::new(InMemory::new(bytes * threads));
    let name = format!("limit: AES-256-GCM alone, on what lies in memory, {threads} thread(s)");
    let cipher_in_memory = bench.speed_after(
        &name,
        all,
        None,
        || in_memory.borrow_mut().restore(),
        || in_memory.borrow_mut().open(threads),
    );
    Limits { cipher, cipher_in_memory, memory }
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
