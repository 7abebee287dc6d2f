//! Sums of carry-less products, on whatever the processor has for them.
#![allow(unsafe_code)]
// Carry-less multiplication exists as processor instructions only. `unsafe`
// here is of two kinds, and nothing else in this crate needs it:
//
// - calling a function that was compiled for instructions which the processor
//   must have: each call stands behind the run-time check for exactly those;
// - loading 16, 32 or 64 bytes from a slice: each load takes a pointer from a
//   slice of that length, and the instructions used need no alignment.

/// The pairs by which the second sum's keys are shifted: as many as one
/// instruction multiplies, so that its loads are aligned, and the keys of its
/// next step are the second sum's of this one.
pub const SHIFT: usize = 4;

/// The two sums of one chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sums(pub [u128; 2]);

/// How products are computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Product {
    /// In plain integer arithmetic, without branches on data.
    Portable,
    /// One product an instruction (PCLMULQDQ).
    #[cfg(target_arch = "x86_64")]
    Pclmul,
    /// Two products an instruction (VPCLMULQDQ on 256 bits).
    #[cfg(target_arch = "x86_64")]
    Vpclmul256,
    /// Four products an instruction (VPCLMULQDQ on 512 bits).
    #[cfg(target_arch = "x86_64")]
    Vpclmul512,
}

impl Product {
    /// Every way that this processor knows, slowest first.
    pub fn available() -> Vec<Self> {
        #[cfg_attr(not(target_arch = "x86_64"), allow(unused_mut))]
        let mut ways = vec![Self::Portable];
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("pclmulqdq") {
                ways.push(Self::Pclmul);
            }
            if has_256() {
                ways.push(Self::Vpclmul256);
            }
            if has_512() {
                ways.push(Self::Vpclmul512);
            }
        }
        ways
    }

    /// The fastest of them.
    pub fn fastest() -> Self {
        Self::available().pop().unwrap_or(Self::Portable)
    }

    /// Both sums of a chunk. `keys` is [`SHIFT`] pairs longer than the chunk,
    /// rounded up to whole pairs.
    ///
    /// A [`Product`] other than `Portable` comes from [`Product::available`]
    /// only; the check is repeated here all the same, it costs one load.
    pub fn sums(self, keys: &[u8], chunk: &[u8]) -> Sums {
        assert!(keys.len() >= chunk.len().next_multiple_of(16) + 16 * SHIFT, "too few keys");
        match self {
            Self::Portable => portable(keys, chunk),
            #[cfg(target_arch = "x86_64")]
            Self::Pclmul => {
                assert!(is_x86_feature_detected!("pclmulqdq"));
                // SAFETY: the processor has the instructions.
                unsafe { x86::pclmul(keys, chunk) }
            }
            #[cfg(target_arch = "x86_64")]
            Self::Vpclmul256 => {
                assert!(has_256());
                // SAFETY: the processor has the instructions.
                unsafe { x86::vpclmul_256(keys, chunk) }
            }
            #[cfg(target_arch = "x86_64")]
            Self::Vpclmul512 => {
                assert!(has_512());
                // SAFETY: the processor has the instructions.
                unsafe { x86::vpclmul_512(keys, chunk) }
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
fn has_256() -> bool {
    is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("vpclmulqdq")
        && is_x86_feature_detected!("pclmulqdq")
}

#[cfg(target_arch = "x86_64")]
fn has_512() -> bool {
    is_x86_feature_detected!("avx512f") && has_256()
}

/// Zeros at the end complete the last pair.
fn portable(keys: &[u8], chunk: &[u8]) -> Sums {
    let mut sums = [0; 2];
    let (pairs, rest) = chunk.as_chunks::<16>();
    let mut last = [0; 16];
    last[..rest.len()].copy_from_slice(rest);
    let last = (!rest.is_empty()).then_some(&last);
    let (keys, _) = keys.as_chunks::<16>();
    for (place, pair) in pairs.iter().chain(last).enumerate() {
        let pair = u128::from_le_bytes(*pair);
        for (shift, sum) in sums.iter_mut().enumerate() {
            *sum ^= multiply_halves(pair ^ u128::from_le_bytes(keys[place + SHIFT * shift]));
        }
    }
    Sums(sums)
}

/// The carry-less product of the low and the high half.
#[allow(clippy::cast_possible_truncation)] // taking the halves is the purpose
fn multiply_halves(pair: u128) -> u128 {
    let (low, high) = (pair as u64, u128::from((pair >> 64) as u64));
    (0..64).fold(0, |sum, bit| sum ^ (high << bit & 0u128.wrapping_sub(u128::from(low >> bit & 1))))
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{SHIFT, Sums, portable};
    use std::arch::x86_64::{
        __m128i, __m256i, __m512i, _mm_clmulepi64_si128, _mm_loadu_si128, _mm_setzero_si128,
        _mm_storeu_si128, _mm_xor_si128, _mm256_clmulepi64_epi128, _mm256_loadu_si256,
        _mm256_setzero_si256, _mm256_storeu_si256, _mm256_xor_si256, _mm512_clmulepi64_epi128,
        _mm512_loadu_si512, _mm512_setzero_si512, _mm512_storeu_si512, _mm512_xor_si512,
    };

    // The second sum's keys of four pairs are the first's of the next four.
    const _: () = assert!(SHIFT * 16 == 64);

    /// Multiplies the low half of each pair by its high half.
    const LOW_BY_HIGH: i32 = 0x10;

    #[target_feature(enable = "pclmulqdq")]
    pub fn pclmul(keys: &[u8], chunk: &[u8]) -> Sums {
        let (pairs, rest) = chunk.as_chunks::<16>();
        let (key_pairs, _) = keys.as_chunks::<16>();
        let mut sums = [_mm_setzero_si128(); 2];
        for (place, pair) in pairs.iter().enumerate() {
            let pair = load(pair);
            for (shift, sum) in sums.iter_mut().enumerate() {
                let mixed = _mm_xor_si128(pair, load(&key_pairs[place + SHIFT * shift]));
                *sum = _mm_xor_si128(*sum, _mm_clmulepi64_si128::<LOW_BY_HIGH>(mixed, mixed));
            }
        }
        let Sums(mut total) = portable(&keys[pairs.len() * 16..], rest);
        for (total, sum) in total.iter_mut().zip(sums) {
            let mut bytes = [0; 16];
            // SAFETY: the pointer is to 16 bytes that are ours.
            unsafe { _mm_storeu_si128(bytes.as_mut_ptr().cast(), sum) };
            *total ^= u128::from_le_bytes(bytes);
        }
        Sums(total)
    }

    #[target_feature(enable = "sse2")]
    fn load(bytes: &[u8; 16]) -> __m128i {
        // SAFETY: the pointer is to 16 bytes; the load needs no alignment.
        unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) }
    }

    #[target_feature(enable = "avx2,vpclmulqdq,pclmulqdq")]
    pub fn vpclmul_256(keys: &[u8], chunk: &[u8]) -> Sums {
        let (quads, rest) = chunk.as_chunks::<64>();
        let (quad_keys, _) = keys.as_chunks::<64>();
        // Two sums each, so that no addition waits for the one before.
        let mut sums = [[_mm256_setzero_si256(); 2]; 2];
        for (quad, keys) in quads.iter().zip(quad_keys.array_windows::<2>()) {
            let (twos, _) = quad.as_chunks::<32>();
            for (sum, keys) in sums.iter_mut().zip(keys) {
                let (keys, _) = keys.as_chunks::<32>();
                for (sum, (two, key)) in sum.iter_mut().zip(twos.iter().zip(keys)) {
                    let mixed = _mm256_xor_si256(load_two(two), load_two(key));
                    let product = _mm256_clmulepi64_epi128::<LOW_BY_HIGH>(mixed, mixed);
                    *sum = _mm256_xor_si256(*sum, product);
                }
            }
        }
        let Sums(mut total) = pclmul(&keys[quads.len() * 64..], rest);
        for (total, [one, two]) in total.iter_mut().zip(sums) {
            let mut bytes = [0; 32];
            // SAFETY: the pointer is to 32 bytes that are ours.
            unsafe { _mm256_storeu_si256(bytes.as_mut_ptr().cast(), _mm256_xor_si256(one, two)) };
            let (products, _) = bytes.as_chunks::<16>();
            products.iter().for_each(|product| *total ^= u128::from_le_bytes(*product));
        }
        Sums(total)
    }

    #[target_feature(enable = "avx2")]
    fn load_two(bytes: &[u8; 32]) -> __m256i {
        // SAFETY: the pointer is to 32 bytes; the load needs no alignment.
        unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) }
    }

    #[target_feature(enable = "avx512f,vpclmulqdq,pclmulqdq")]
    pub fn vpclmul_512(keys: &[u8], chunk: &[u8]) -> Sums {
        let (eights, rest) = chunk.as_chunks::<128>();
        let (quad_keys, _) = keys.as_chunks::<64>();
        // Two sums each, so that no addition waits for the one before.
        let mut sums = [[_mm512_setzero_si512(); 2]; 2];
        for (eight, keys) in eights.iter().zip(quad_keys.array_windows::<3>().step_by(2)) {
            let (quads, _) = eight.as_chunks::<64>();
            for (shift, sum) in sums.iter_mut().enumerate() {
                for (sum, (quad, key)) in sum.iter_mut().zip(quads.iter().zip(&keys[shift..])) {
                    let mixed = _mm512_xor_si512(load_quad(quad), load_quad(key));
                    let product = _mm512_clmulepi64_epi128::<LOW_BY_HIGH>(mixed, mixed);
                    *sum = _mm512_xor_si512(*sum, product);
                }
            }
        }
        let Sums(mut total) = pclmul(&keys[eights.len() * 128..], rest);
        for (total, [one, two]) in total.iter_mut().zip(sums) {
            let mut bytes = [0; 64];
            // SAFETY: the pointer is to 64 bytes that are ours.
            unsafe { _mm512_storeu_si512(bytes.as_mut_ptr().cast(), _mm512_xor_si512(one, two)) };
            let (products, _) = bytes.as_chunks::<16>();
            products.iter().for_each(|product| *total ^= u128::from_le_bytes(*product));
        }
        Sums(total)
    }

    #[target_feature(enable = "avx512f")]
    fn load_quad(bytes: &[u8; 64]) -> __m512i {
        // SAFETY: the pointer is to 64 bytes; the load needs no alignment.
        unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) }
    }
}
