//! One pass over an update's integers: how long it is, and between which
//! values. What runs depends on the number of values alone.

// What a loop calls must be compiled for the same processor as the loop, which
// it is only where it is inlined.
#![allow(clippy::inline_always)]

use super::add::Value;
use super::whole;
use crate::Result;
use crate::format::Format;
use multiversion::multiversion;

/// The exact sum of the squares of a chunk's integers, in steps squared. Sums of
/// several chunks may be added. The norm is the root of the sum of all.
///
/// # Errors
/// [`crate::Error::Format`] for values that are no integers;
/// [`crate::Error::Length`] for a chunk that is no whole number of values.
pub fn sum_of_squares(format: Format, chunk: &[u8]) -> Result<u128> {
    whole(format, chunk)?;
    Ok(match format {
        // At most 2^16 squares of 2^14: below 2^32.
        Format::Int8 => chunk.chunks(1 << 16).map(|block| u128::from(squares_8(block))).sum(),
        // A pair of squares is at most 2^31.
        Format::Int16 => {
            let (pairs, rest) = chunk.as_chunks::<4>();
            let rest = rest.first_chunk::<2>().map_or(0, |value| value.value());
            let blocks = pairs.chunks(1 << 30).map(|pairs| u128::from(squares_16(pairs)));
            blocks.sum::<u128>() + square(rest)
        }
        _ => {
            let (pairs, rest) = chunk.as_chunks::<8>();
            let rest = rest.first_chunk::<4>().map_or(0, |value| value.value());
            pairs.chunks(1 << 30).map(squares_32).sum::<u128>() + square(rest)
        }
    })
}

fn square(value: i32) -> u128 {
    u128::from(value.unsigned_abs()).pow(2)
}

/// Four equal parts and what is left. Looked at side by side, they bring more of
/// the memory on its way than one part would.
fn quarters<T>(all: &[T]) -> ([&[T]; 4], &[T]) {
    let quarter = all.len() / 4;
    let (first, rest) = all.split_at(quarter);
    let (second, rest) = rest.split_at(quarter);
    let (third, rest) = rest.split_at(quarter);
    let (fourth, rest) = rest.split_at(quarter);
    ([first, second, third, fourth], rest)
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl", "x86_64+avx2", "aarch64+neon"))]
fn squares_8(values: &[u8]) -> u32 {
    let mut sum = 0u32;
    let ([first, second, third, fourth], rest) = quarters(values);
    for (((first, second), third), fourth) in first.iter().zip(second).zip(third).zip(fourth) {
        for value in [first, second, third, fourth] {
            sum = sum.wrapping_add(square_8(*value));
        }
    }
    for value in rest {
        sum = sum.wrapping_add(square_8(*value));
    }
    sum
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl", "x86_64+avx2", "aarch64+neon"))]
fn squares_16(pairs: &[[u8; 4]]) -> u64 {
    let mut sum = 0u64;
    let ([first, second, third, fourth], rest) = quarters(pairs);
    for (((first, second), third), fourth) in first.iter().zip(second).zip(third).zip(fourth) {
        for pair in [first, second, third, fourth] {
            sum = sum.wrapping_add(square_pair_16(*pair).into());
        }
    }
    for pair in rest {
        sum = sum.wrapping_add(square_pair_16(*pair).into());
    }
    sum
}

/// The squares of at most 2^32 pairs. A pair of squares is at most 2^63. All of
/// them are added modulo 2^64, and the high halves alone: from these two follow
/// the low halves, whose sum is below 2^64.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl", "x86_64+avx2", "aarch64+neon"))]
fn squares_32(pairs: &[[u8; 8]]) -> u128 {
    let (mut all, mut high) = (0u64, 0u64);
    let ([first, second, third, fourth], rest) = quarters(pairs);
    for (((first, second), third), fourth) in first.iter().zip(second).zip(third).zip(fourth) {
        for pair in [first, second, third, fourth] {
            let squares = square_pair_32(*pair);
            all = all.wrapping_add(squares);
            high = high.wrapping_add(squares >> 32);
        }
    }
    for pair in rest {
        let squares = square_pair_32(*pair);
        all = all.wrapping_add(squares);
        high = high.wrapping_add(squares >> 32);
    }
    let low = all.wrapping_sub(high << 32);
    (u128::from(high) << 32) + u128::from(low)
}

#[inline(always)]
fn square_8(value: u8) -> u32 {
    let value = i32::from(value.cast_signed());
    (value * value).cast_unsigned()
}

#[inline(always)]
fn square_pair_16(pair: [u8; 4]) -> u32 {
    let pair = i32::from_le_bytes(pair);
    // Shifts extend the signs, which keeps both halves in their lane.
    let (low, high) = (pair << 16 >> 16, pair >> 16);
    low.wrapping_mul(low).wrapping_add(high.wrapping_mul(high)).cast_unsigned()
}

#[inline(always)]
fn square_pair_32(pair: [u8; 8]) -> u64 {
    let pair = i64::from_le_bytes(pair);
    let (low, high) = (pair << 32 >> 32, pair >> 32);
    low.wrapping_mul(low).wrapping_add(high.wrapping_mul(high)).cast_unsigned()
}

/// The smallest and the largest of a chunk's integers; of none, the largest and
/// the smallest int32, so that ranges of chunks may be joined.
///
/// # Errors
/// [`crate::Error::Format`] for values that are no integers;
/// [`crate::Error::Length`] for a chunk that is no whole number of values.
pub fn range(format: Format, chunk: &[u8]) -> Result<(i32, i32)> {
    whole(format, chunk)?;
    Ok(match format {
        Format::Int8 => range_of(chunk.as_chunks::<1>().0),
        Format::Int16 => range_of(chunk.as_chunks::<2>().0),
        _ => range_of(chunk.as_chunks::<4>().0),
    })
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl", "x86_64+avx2", "aarch64+neon"))]
fn range_of<V: Value>(values: &[V]) -> (i32, i32) {
    let (mut smallest, mut largest) = (i32::MAX, i32::MIN);
    for value in values {
        smallest = smallest.min(value.value());
        largest = largest.max(value.value());
    }
    (smallest, largest)
}
