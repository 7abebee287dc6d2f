//! Exactness: no order, split, size or cancellation changes a bit.

use super::*;
use crate::accumulate::weighted_sum;
use crate::quantise::read_integers;
use proptest::prelude::*;

const FORMATS: [Format; 3] = [Format::Int8, Format::Int16, Format::Int32];
const WORDS: [Words; 2] = [Words::Bits32, Words::Bits64];

/// The low bytes of integers, as they travel.
fn bytes(format: Format, values: &[i32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()[..format.width()].to_vec()).collect()
}

/// The integers that such bytes are.
fn wrapped(format: Format, value: i32) -> i32 {
    match format {
        Format::Int8 => i32::from(value as i8),
        Format::Int16 => i32::from(value as i16),
        _ => value,
    }
}

fn sums(row: &IntegerRow) -> Vec<i64> {
    let mut out = vec![0; 8 * row.len()];
    row.write(Words::Bits64, &mut out).unwrap();
    let mut sums = vec![0; row.len()];
    read_integers(Words::Bits64, &out, &mut sums).unwrap();
    sums
}

/// The most negative integers, the largest, and any between, so that a hostile
/// site is among them.
fn values(count: usize) -> impl Strategy<Value = Vec<i32>> {
    let odd = prop::sample::select(vec![i32::MIN, i32::MAX, 0, -1, 128, 127, -32768, 32767]);
    prop::collection::vec(prop_oneof![any::<i32>(), odd], count)
}

fn site(count: usize) -> impl Strategy<Value = (u32, Option<f64>, Vec<i32>)> {
    (1u32..40, prop::option::of(prop_oneof![1e-9f64..1.0, Just(1.0)]), values(count))
}

/// More places than are held at a time, and a rest.
const PLACES: usize = 700;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_order_split_or_word_changes_a_bit(
        sites in prop::collection::vec(site(PLACES), 1..6), cuts in [0..PLACES, 0..PLACES], turn in 0usize..6,
    ) {
        for format in FORMATS {
            // The sums of 32 bits: modulo 2^32 where the words are too short.
            let expected: Vec<i128> = (0..PLACES).map(|place| {
                let term = |(weight, factor, values): &(u32, Option<f64>, Vec<i32>)| {
                    let value = f64::from(wrapped(format, values[place]));
                    let rounded = (value * factor.unwrap_or(1.0)).round_ties_even() as i128;
                    i128::from(*weight) * rounded
                };
                sites.iter().map(term).sum()
            }).collect();
            for words in WORDS {
                let mut row = IntegerRow::new(words);
                let term = |site: &(u32, Option<f64>, Vec<i32>)| match site.1 {
                    Some(factor) => Term::new(site.0, factor).unwrap(),
                    None => Term::whole(site.0).unwrap(),
                };
                let terms: Vec<_> = sites.iter().map(term).collect();
                let sent: Vec<_> = sites.iter().map(|site| bytes(format, &site.2)).collect();
                let chunks: Vec<_> = sent.iter().map(Vec::as_slice).collect();
                // All sites at once.
                row.reset(PLACES);
                row.add_sites(0, &terms, format, &chunks).unwrap();
                let together = sums(&row);
                // One after the other in another order, each in three pieces.
                row.reset(PLACES);
                let turn = turn % sites.len();
                let (low, high) = (cuts[0].min(cuts[1]), cuts[0].max(cuts[1]));
                for site in (turn..sites.len()).chain(0..turn).rev() {
                    for piece in [high..PLACES, 0..low, low..high] {
                        let width = format.width();
                        let chunk = &sent[site][piece.start * width..piece.end * width];
                        row.add(piece.start, terms[site], format, chunk).unwrap();
                    }
                }
                prop_assert_eq!(&together, &sums(&row));
                let expected: Vec<_> = expected.iter().map(|sum| match words {
                    Words::Bits32 => i64::from(*sum as i32),
                    Words::Bits64 => *sum as i64,
                }).collect();
                prop_assert_eq!(together, expected);
            }
        }
    }

    #[test]
    fn a_factor_of_one_changes_nothing(weight: u32, values in values(100)) {
        let weight = weight.max(1);
        for format in FORMATS {
            let found = [Term::whole(weight).unwrap(), Term::new(weight, 1.0).unwrap()].map(|term| {
                let mut row = IntegerRow::new(Words::Bits64);
                row.reset(100);
                row.add(0, term, format, &bytes(format, &values)).unwrap();
                sums(&row)
            });
            prop_assert_eq!(&found[0], &found[1]);
            let of = |value: &i32| i64::from(weight).wrapping_mul(wrapped(format, *value).into());
            prop_assert_eq!(&found[0], &values.iter().map(of).collect::<Vec<_>>());
        }
    }

    #[test]
    fn norms_and_ranges_are_exact(values in (0usize..3000).prop_flat_map(values), cut in 0usize..3000) {
        for format in FORMATS {
            let integers: Vec<_> = values.iter().map(|value| wrapped(format, *value)).collect();
            let sent = bytes(format, &values);
            let expected: i128 = integers.iter().map(|value| i128::from(*value).pow(2)).sum();
            prop_assert_eq!(sum_of_squares(format, &sent).unwrap(), expected.cast_unsigned());
            let cut = cut.min(values.len()) * format.width();
            let pieces = [&sent[..cut], &sent[cut..]];
            let sum: u128 = pieces.iter().map(|piece| sum_of_squares(format, piece).unwrap()).sum();
            prop_assert_eq!(sum, expected.cast_unsigned());
            let ends = pieces.map(|piece| range(format, piece).unwrap());
            let found = (ends[0].0.min(ends[1].0), ends[0].1.max(ends[1].1));
            let least = integers.iter().copied().min().unwrap_or(i32::MAX);
            prop_assert_eq!(found, (least, integers.iter().copied().max().unwrap_or(i32::MIN)));
        }
    }

    #[test]
    fn clipped_integers_are_no_longer_than_their_bound(
        values in prop::collection::vec(-100_000i32..100_000, 1..400), share in 1e-3f64..2.0,
    ) {
        for format in FORMATS {
            let sent = bytes(format, &values);
            let norm = (sum_of_squares(format, &sent).unwrap() as f64).sqrt();
            let clip = norm.max(1.0) * share;
            let factor = clip_factor(norm, clip);
            prop_assert_eq!(factor == 1.0, norm <= clip);
            let mut row = IntegerRow::new(Words::Bits64);
            row.reset(values.len());
            row.add(0, Term::new(1, factor).unwrap(), format, &sent).unwrap();
            let squares: i128 = sums(&row).iter().map(|sum| i128::from(*sum).pow(2)).sum();
            let rounding = if norm <= clip { 0.0 } else { (values.len() as f64).sqrt() / 2.0 };
            prop_assert!((squares as f64).sqrt() <= clip * (1.0 + 2f64.powi(-50)) + rounding);
        }
    }

    /// What a manifest promises: no update of any site makes a sum wrap.
    #[test]
    fn words_that_are_said_to_hold_the_sums_do(weights in prop::collection::vec(1u32..1 << 22, 1..20), low: bool) {
        for format in FORMATS {
            let (total, bound) = (weights.iter().map(|w| u64::from(*w)).sum(), format.bound().unwrap());
            let Some(words) = words_for(total, bound.into()) else { continue };
            let extreme = if low { -i64::from(bound) } else { i64::from(bound) - 1 };
            let mut row = IntegerRow::new(words);
            row.reset(1);
            for weight in &weights {
                let sent = bytes(format, &[extreme as i32]);
                row.add(0, Term::whole(*weight).unwrap(), format, &sent).unwrap();
            }
            prop_assert_eq!(sums(&row), [extreme * total.cast_signed()]);
        }
    }
}

/// Five sites in the roster's order: a, b, c1, c2, z. c1 and c2 are one hostile
/// party and send opposite values, so large that a floating-point sum forgets
/// what came before; only z, behind them, would be left. An exact sum is a + b +
/// z, whatever they send.
#[test]
fn no_pair_of_sites_makes_the_sum_forget_others() {
    let (a, b, z) = (3, -5, 7);
    for format in FORMATS {
        let most = format.largest().unwrap();
        let updates = [a, b, most, -most, z].map(|value| bytes(format, &[value; 70]));
        let chunks: Vec<_> = updates.iter().map(Vec::as_slice).collect();
        let words = words_for(5 * 9, format.bound().unwrap().into()).unwrap();
        let mut row = IntegerRow::new(words);
        for term in [Term::whole(9).unwrap(), Term::new(9, 1.0).unwrap()] {
            row.reset(70);
            row.add_sites(0, &[term; 5], format, &chunks).unwrap();
            assert_eq!(sums(&row), [i64::from(9 * (a + b + z)); 70]);
        }
    }
    let floats = [a as f32, b as f32, 1e20, -1e20, z as f32].map(f32::to_le_bytes);
    let rows: Vec<_> = floats.iter().map(<[u8; 4]>::as_slice).collect();
    let mut out = [0; 4];
    weighted_sum(&[1.0; 5], &rows, &mut out).unwrap();
    assert_eq!(f32::from_le_bytes(out), z as f32);
}

#[test]
fn words_are_as_long_as_the_sums_need() {
    assert_eq!(words_for(1, (1 << 31) - 1), Some(Words::Bits32));
    assert_eq!(words_for(1, 1 << 31), Some(Words::Bits64));
    assert_eq!(words_for((1 << 24) - 1, 128), Some(Words::Bits32));
    assert_eq!(words_for(1 << 24, 128), Some(Words::Bits64));
    assert_eq!(words_for(1 << 31, 1 << 31), Some(Words::Bits64));
    assert_eq!(words_for((1 << 31) + 1, 1 << 31), None);
    assert_eq!(words_for(u64::MAX, u64::MAX), None);
    assert_eq!((Words::Bits32.width(), Words::Bits64.width()), (4, 8));
}

#[test]
fn sums_are_written_in_both_words() {
    let mut row = IntegerRow::new(Words::Bits64);
    row.reset(4);
    let noised = [i64::MAX, i64::MIN, -(1 << 31), (1 << 31) - 1];
    row.values_mut().unwrap().copy_from_slice(&noised);
    assert_eq!(sums(&row), noised);
    let mut out = [0; 16];
    row.write(Words::Bits32, &mut out).unwrap();
    let mut read = [0; 4];
    read_integers(Words::Bits32, &out, &mut read).unwrap();
    let (low, high) = (i32::MIN.into(), i32::MAX.into());
    assert_eq!(read, [high, low, low, high]);
    assert!(row.write(Words::Bits64, &mut out).is_err());

    let mut row = IntegerRow::new(Words::Bits32);
    row.reset(4);
    assert!(row.values_mut().is_none());
    let sent = bytes(Format::Int32, &[i32::MIN, i32::MAX, -1, 0]);
    row.add(0, Term::whole(1).unwrap(), Format::Int32, &sent).unwrap();
    assert_eq!(sums(&row), [low, high, -1, 0]);
    row.write(Words::Bits32, &mut out).unwrap();
    assert_eq!(out, sent[..]);
}

#[test]
fn what_does_not_belong_into_a_row_is_refused_and_changes_nothing() {
    let mut row = IntegerRow::new(Words::Bits32);
    row.reset(3);
    let one = Term::whole(1).unwrap();
    row.add(1, one, Format::Int16, &[1, 0, 2, 0]).unwrap();
    row.add(3, one, Format::Int16, &[]).unwrap();
    for (place, format, chunk) in [
        (2, Format::Int16, &[1, 0, 1, 0][..]),
        (usize::MAX, Format::Int16, &[1, 0]),
        (4, Format::Int16, &[]),
        (0, Format::Int16, &[1, 0, 1]),
        (0, Format::Int32, &[1, 0]),
    ] {
        let error = row.add(place, one, format, chunk).unwrap_err();
        assert!(matches!(error, Error::Length { .. }), "{error}");
    }
    let error = row.add(0, one, Format::Bfloat16, &[1, 0]).unwrap_err();
    assert!(matches!(error, Error::Format { .. }));
    let two: [&[u8]; 2] = [&[1, 0], &[1]];
    assert!(row.add_sites(0, &[one; 2], Format::Int8, &two).is_err());
    assert!(row.add_sites(0, &[one], Format::Int8, &two).is_err());
    row.add_sites(0, &[], Format::Int8, &[]).unwrap();
    assert_eq!(sums(&row), [0, 1, 2]);
    row.reset(5);
    assert_eq!(sums(&row), [0; 5]);
    for format in [Format::Float32, Format::Float16] {
        assert!(sum_of_squares(format, &[0; 4]).is_err());
        assert!(range(format, &[0; 4]).is_err());
    }
    assert!(sum_of_squares(Format::Int32, &[0; 5]).is_err());
}

#[test]
fn terms_that_cannot_be_are_refused() {
    assert_eq!(Term::whole(0), Err(Error::Empty { what: "weight of a site" }));
    assert_eq!(Term::new(0, 0.5), Err(Error::Empty { what: "weight of a site" }));
    for factor in [0.0, -0.5, 1f64.next_up(), f64::NAN, f64::INFINITY] {
        assert!(matches!(Term::new(1, factor), Err(Error::Factor { .. })), "{factor}");
    }
    Term::new(u32::MAX, f64::MIN_POSITIVE).unwrap();
    assert_eq!(clip_factor(0.0, 1.0), 1.0);
    assert_eq!(clip_factor(4.0, 1.0), 0.25);
}
