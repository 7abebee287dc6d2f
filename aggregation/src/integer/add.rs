//! The loops of [`super::IntegerRow`], for each width of values and sums.

// What a loop calls must be compiled for the same processor as the loop, which
// it is only where it is inlined. Closures may not be.
#![allow(clippy::inline_always)]

use super::{ROUNDER, Term};
use crate::format::Format;
use multiversion::multiversion;

/// A sum at one place. It wraps, so whatever stands in between, a sum that fits
/// at the end is right.
pub trait Sum: Copy {
    /// The sum and an integer.
    fn plus(self, value: i32) -> Self;
    /// The sum and an integer that counts `weight` times.
    fn plus_times(self, weight: u32, value: i32) -> Self;
}

impl Sum for i32 {
    #[inline(always)]
    fn plus(self, value: i32) -> Self {
        self.wrapping_add(value)
    }

    #[inline(always)]
    fn plus_times(self, weight: u32, value: i32) -> Self {
        self.wrapping_add(value.wrapping_mul(weight.cast_signed()))
    }
}

impl Sum for i64 {
    #[inline(always)]
    fn plus(self, value: i32) -> Self {
        self.wrapping_add(i64::from(value))
    }

    #[inline(always)]
    fn plus_times(self, weight: u32, value: i32) -> Self {
        self.wrapping_add(i64::from(value).wrapping_mul(i64::from(weight)))
    }
}

/// What is done with a value.
trait Operation {
    /// The sum and the value of a term.
    fn add<S: Sum>(term: &Term, sum: S, value: i32) -> S;
}

/// Weights of 1.
struct Plain;

impl Operation for Plain {
    #[inline(always)]
    fn add<S: Sum>(_: &Term, sum: S, value: i32) -> S {
        sum.plus(value)
    }
}

/// Weights alone.
struct Weighted;

impl Operation for Weighted {
    #[inline(always)]
    fn add<S: Sum>(term: &Term, sum: S, value: i32) -> S {
        sum.plus_times(term.weight, value)
    }
}

/// Factors and weights. A factor of 1, which a term without one has, changes no
/// value.
struct Clipped;

impl Operation for Clipped {
    #[inline(always)]
    fn add<S: Sum>(term: &Term, sum: S, value: i32) -> S {
        let rounded = f64::from(value) * term.factor.unwrap_or(1.0) + ROUNDER;
        // The product is no larger than the value, so the low half holds it.
        #[allow(clippy::cast_possible_truncation)]
        sum.plus_times(term.weight, (rounded.to_bits() as u32).cast_signed())
    }
}

/// A little-endian integer.
pub trait Value: Copy {
    /// Its value.
    fn value(self) -> i32;
}

impl Value for [u8; 1] {
    #[inline(always)]
    fn value(self) -> i32 {
        i32::from(i8::from_le_bytes(self))
    }
}

impl Value for [u8; 2] {
    #[inline(always)]
    fn value(self) -> i32 {
        i32::from(i16::from_le_bytes(self))
    }
}

impl Value for [u8; 4] {
    #[inline(always)]
    fn value(self) -> i32 {
        i32::from_le_bytes(self)
    }
}

/// Adds whole integers of each term's site, as many as there are sums.
pub fn add<S: Sum>(sums: &mut [S], terms: &[Term], format: Format, chunks: &[&[u8]]) {
    match format {
        Format::Int8 if size_of::<S>() == 4 => {
            add_values::<S, 1, 256, 512>(sums, terms, chunks);
        }
        Format::Int8 => add_values::<S, 1, 256, 256>(sums, terms, chunks),
        Format::Int16 => add_values::<S, 2, 128, 128>(sums, terms, chunks),
        Format::Int32 => add_values::<S, 4, 64, 64>(sums, terms, chunks),
        // The row has refused them.
        Format::Float32 | Format::Bfloat16 | Format::Float16 => {}
    }
}

/// Adds values of `W` bytes, `N` places of all sites at a time, or `M` with
/// factors. These numbers are the fastest where updates come from memory.
fn add_values<S: Sum, const W: usize, const N: usize, const M: usize>(
    sums: &mut [S],
    terms: &[Term],
    chunks: &[&[u8]],
) where
    [u8; W]: Value,
{
    if terms.iter().any(|term| term.factor.is_some()) {
        block_by_block::<S, Clipped, W, M>(sums, terms, chunks);
    } else if terms.iter().any(|term| term.weight != 1) {
        block_by_block::<S, Weighted, W, N>(sums, terms, chunks);
    } else {
        block_by_block::<S, Plain, W, N>(sums, terms, chunks);
    }
}

/// Adds to `N` sums after the other what all sites have there: sums are loaded
/// and stored once, and each site's bytes are read in runs.
#[multiversion(targets(
    "x86_64+avx512f+avx512bw+avx512dq+avx512vl",
    "x86_64+avx2",
    "aarch64+neon"
))]
fn block_by_block<S: Sum, O: Operation, const W: usize, const N: usize>(
    sums: &mut [S],
    terms: &[Term],
    chunks: &[&[u8]],
) where
    [u8; W]: Value,
{
    let (blocks, rest) = sums.as_chunks_mut::<N>();
    let behind = blocks.len() * N;
    for (block, sums) in blocks.iter_mut().enumerate() {
        let mut held = *sums;
        for (term, chunk) in terms.iter().zip(chunks) {
            let values = &chunk.as_chunks::<W>().0.as_chunks::<N>().0[block];
            for (sum, value) in held.iter_mut().zip(values) {
                *sum = O::add(term, *sum, value.value());
            }
        }
        *sums = held;
    }
    for (term, chunk) in terms.iter().zip(chunks) {
        for (sum, value) in rest.iter_mut().zip(&chunk.as_chunks::<W>().0[behind..]) {
            *sum = O::add(term, *sum, value.value());
        }
    }
}

pub fn write_32(sums: &[i32], out: &mut [u8]) {
    for (out, sum) in out.as_chunks_mut().0.iter_mut().zip(sums) {
        *out = sum.to_le_bytes();
    }
}

pub fn write_64(sums: &[i64], out: &mut [u8]) {
    for (out, sum) in out.as_chunks_mut().0.iter_mut().zip(sums) {
        *out = sum.to_le_bytes();
    }
}

#[multiversion(targets("x86_64+avx512f+avx512vl", "x86_64+avx2", "aarch64+neon"))]
pub fn widen_64(sums: &[i32], out: &mut [u8]) {
    for (out, sum) in out.as_chunks_mut().0.iter_mut().zip(sums) {
        *out = i64::from(*sum).to_le_bytes();
    }
}

#[multiversion(targets("x86_64+avx512f+avx512vl", "x86_64+avx2", "aarch64+neon"))]
#[allow(clippy::cast_possible_truncation)] // clamped
pub fn saturate_32(sums: &[i64], out: &mut [u8]) {
    for (out, sum) in out.as_chunks_mut().0.iter_mut().zip(sums) {
        *out = ((*sum).clamp(i32::MIN.into(), i32::MAX.into()) as i32).to_le_bytes();
    }
}
