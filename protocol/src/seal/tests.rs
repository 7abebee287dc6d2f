//! The bulk format against an independent implementation, and every change,
//! cut, swap, repeat and splice of records.

use super::*;
use proptest::prelude::*;
use std::io::{Read, Write};

const CONTEXT: &[u8] = b"context";
const SEALED_RECORD: usize = RECORD / CHUNK * (CHUNK + TAG);

fn key() -> InputKey {
    InputKey::new([7; 32])
}

fn plaintext(length: usize) -> Vec<u8> {
    (0..length).map(|i| u8::try_from(i * 31 % 251).unwrap()).collect()
}

fn seal(key: &InputKey, context: &[u8], plain: &[u8]) -> Vec<u8> {
    let mut writer = SealingWriter::new(key, context, plain.len() as u64, Vec::new()).unwrap();
    writer.write_all(plain).unwrap();
    writer.finish().unwrap()
}

fn open(key: &InputKey, context: &[u8], length: usize, sealed: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut plain = Vec::new();
    OpeningReader::new(key, context, length as u64, sealed)?.read_to_end(&mut plain)?;
    Ok(plain)
}

/// Lengths around every boundary.
fn lengths() -> Vec<usize> {
    vec![
        0,
        1,
        CHUNK - 1,
        CHUNK,
        CHUNK + 1,
        RECORD - 1,
        RECORD,
        RECORD + 1,
        2 * RECORD,
        3 * RECORD + 5,
    ]
}

#[test]
fn what_is_sealed_opens_again_and_has_the_length_that_was_foretold() {
    for length in lengths() {
        let plain = plaintext(length);
        let sealed = seal(&key(), CONTEXT, &plain);
        assert_eq!(sealed_len(length as u64), Some(sealed.len() as u64));
        assert_eq!(plain_len(sealed.len() as u64), Some(length as u64));
        assert_eq!(open(&key(), CONTEXT, length, &sealed).unwrap(), plain);
    }
}

#[test]
fn the_independent_implementation_opens_ours_and_we_open_its() {
    let theirs = cobblestone::Key256::from_bytes(key().as_bytes());
    for length in lengths() {
        let plain = plaintext(length);
        let ours = seal(&key(), CONTEXT, &plain);
        assert_eq!(cobblestone::decrypt(&theirs, CONTEXT, &ours).unwrap(), plain);
        let sealed = cobblestone::encrypt(&theirs, CONTEXT, &plain).unwrap();
        assert_eq!(open(&key(), CONTEXT, length, &sealed).unwrap(), plain);
    }
}

#[test]
fn records_open_in_any_order() {
    let length = 3 * RECORD + 5;
    let (plain, sealed) = (plaintext(length), seal(&key(), CONTEXT, &plaintext(length)));
    let header = sealed.first_chunk().unwrap();
    let opener = Opener::new(&key(), CONTEXT, header, length as u64).unwrap();
    for record in [2, 0, 3, 1, 2] {
        let range = record_range(length as u64, record);
        let range = usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap();
        let mut bytes = sealed[range].to_vec();
        let mut seen = Vec::new();
        opener
            .open_record(record, &mut bytes, |offset, chunk| {
                assert_eq!(offset, seen.len());
                seen.extend_from_slice(chunk);
            })
            .unwrap();
        let start = usize::try_from(record).unwrap() * RECORD;
        assert_eq!(seen, plain[start..(start + RECORD).min(length)]);
    }
    assert!(opener.open_record(4, &mut [], |_, _| ()).is_err());
}

#[test]
fn chunks_are_those_of_their_record_and_beyond_the_last_there_are_none() {
    for length in lengths() {
        let length = length as u64;
        let records = record_count(length);
        let chunks: Vec<_> = (0..records).flat_map(|j| record_chunks(length, j)).collect();
        assert_eq!(chunks, (0..=length / CHUNK as u64).collect::<Vec<_>>());
        for beyond in [records, records + 1, u64::MAX] {
            assert!(record_chunks(length, beyond).is_empty());
            assert!(record_range(length, beyond).is_empty());
        }
        for j in 0..records {
            let (record, chunks) = (record_range(length, j), record_chunks(length, j));
            let parts: Vec<_> = chunks.map(|c| chunks_range(length, &(c..c + 1))).collect();
            assert_eq!(record, parts[0].start..parts[parts.len() - 1].end);
            assert!(parts.windows(2).all(|pair| pair[0].end == pair[1].start));
        }
    }
}

#[test]
fn another_key_or_context_is_refused_by_the_commitment() {
    let sealed = seal(&key(), CONTEXT, b"update");
    let header = sealed.first_chunk().unwrap();
    let refused =
        |key: &InputKey, context: &[u8]| Opener::new(key, context, header, 6).unwrap_err();
    assert_eq!(refused(&InputKey::new([8; 32]), CONTEXT), SealError::Commitment);
    assert_eq!(refused(&key(), b"another header"), SealError::Commitment);
}

#[test]
fn a_writer_takes_exactly_what_was_announced() {
    let mut writer = SealingWriter::new(&key(), CONTEXT, 3, Vec::new()).unwrap();
    writer.write_all(b"ab").unwrap();
    assert!(writer.finish().is_err());
    let mut writer = SealingWriter::new(&key(), CONTEXT, 3, Vec::new()).unwrap();
    assert!(writer.write_all(b"abcd").is_err());
    assert!(Sealer::new(&key(), CONTEXT, MAX_PLAIN + 1).is_err());
    assert_eq!(sealed_len(MAX_PLAIN + 1), None);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn lengths_and_ranges_tile_the_object(length in 0..u64::MAX) {
        if let Some(sealed) = sealed_len(length) {
            prop_assert_eq!(plain_len(sealed), Some(length));
            let last = record_count(length) - 1;
            prop_assert_eq!(record_range(length, 0).start, HEADER as u64);
            prop_assert_eq!(record_range(length, last).end, sealed);
            let middle = last / 2;
            prop_assert_eq!(record_range(length, middle).end,
                if middle == last { sealed } else { record_range(length, middle + 1).start });
        } else {
            prop_assert!(length > MAX_PLAIN);
        }
    }

    #[test]
    fn any_changed_bit_is_refused(length in 0..3 * RECORD, at: prop::sample::Index, bit in 0..8) {
        let mut sealed = seal(&key(), CONTEXT, &plaintext(length));
        let at = at.index(sealed.len());
        sealed[at] ^= 1u8 << bit;
        prop_assert!(open(&key(), CONTEXT, length, &sealed).is_err());
    }

    #[test]
    fn any_cut_or_addition_is_refused(length in 0..2 * RECORD, cut: prop::sample::Index, more in 1..70_000usize) {
        let sealed = seal(&key(), CONTEXT, &plaintext(length));
        let cut = cut.index(sealed.len());
        prop_assert!(open(&key(), CONTEXT, length, &sealed[..cut]).is_err());
        let longer = [sealed.as_slice(), &vec![0; more]].concat();
        prop_assert!(open(&key(), CONTEXT, length, &longer).is_err());
        // Nor does an announced length that fits the cut help.
        if let Some(shorter) = plain_len(cut as u64) {
            let shorter = usize::try_from(shorter).unwrap();
            prop_assert!(open(&key(), CONTEXT, shorter, &sealed[..cut]).is_err());
        }
    }

    #[test]
    fn swapped_repeated_and_spliced_records_are_refused(
        records in 2..5usize, from in 0..4usize, to in 0..4usize, chunks: bool,
    ) {
        let (from, to) = (from % records, to % records);
        prop_assume!(from != to);
        let size = if chunks { CHUNK + TAG } else { SEALED_RECORD };
        // Equal records, so that nothing but their place tells them apart.
        let plain = vec![5; records * RECORD];
        let sealed = seal(&key(), CONTEXT, &plain);
        let part = |index: usize| HEADER + index * size..HEADER + (index + 1) * size;
        let mut repeated = sealed.clone();
        repeated.copy_within(part(from), part(to).start);
        prop_assert!(open(&key(), CONTEXT, plain.len(), &repeated).is_err());
        let mut swapped = repeated;
        swapped[part(from)].copy_from_slice(&sealed[part(to)]);
        prop_assert!(open(&key(), CONTEXT, plain.len(), &swapped).is_err());
        // The same plaintext sealed again under the same key and context.
        let again = seal(&key(), CONTEXT, &plain);
        let mut spliced = sealed.clone();
        spliced[part(to)].copy_from_slice(&again[part(to)]);
        prop_assert!(open(&key(), CONTEXT, plain.len(), &spliced).is_err());
    }
}
