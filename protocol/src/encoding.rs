//! CBOR in one encoding.
//!
//! Payloads are maps with text keys in the order of the fields, of definite
//! length, with shortest integers and floats (as `ciborium` writes them). A
//! payload is accepted only if encoding what was read gives the same bytes.

use crate::{Error, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// How deep a payload may nest.
const DEPTH: usize = 16;

/// Encodes a value.
///
/// # Errors
/// [`Error::Malformed`] if the value has no CBOR form.
pub fn to_vec<T: Serialize>(value: &T) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    write(value, &mut bytes)?;
    Ok(bytes)
}

/// Encodes a value into a buffer of the caller's, behind what it holds.
pub(crate) fn write<T: Serialize>(value: &T, bytes: &mut Vec<u8>) -> Result<()> {
    ciborium::into_writer(value, bytes).map_err(|e| Error::malformed("value", e))
}

/// Decodes a value of at most `limit` bytes that is in its one encoding.
///
/// # Errors
/// [`Error::TooLarge`] above the limit, before anything is read;
/// [`Error::Malformed`] if the bytes do not decode, or are another spelling.
pub fn from_slice<T: Serialize + DeserializeOwned>(
    what: &'static str,
    bytes: &[u8],
    limit: usize,
) -> Result<T> {
    if bytes.len() > limit {
        return Err(Error::TooLarge { what, limit, found: bytes.len() });
    }
    let value: T = ciborium::de::from_reader_with_recursion_limit(bytes, DEPTH)
        .map_err(|e| Error::malformed(what, e))?;
    if to_vec(&value)? != bytes {
        return Err(Error::malformed(what, "not in its one encoding"));
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Pair {
        a: u32,
        b: Option<f64>,
    }

    #[test]
    fn one_spelling_only() {
        let bytes = to_vec(&Pair { a: 1, b: Some(0.5) }).unwrap();
        assert_eq!(from_slice::<Pair>("pair", &bytes, 100).unwrap().a, 1);
        // {"a": 1, "b": null}, then the same with 1 in two bytes, with fields
        // swapped, with a key twice, and with trailing bytes.
        let good = [0xa2, 0x61, b'a', 1, 0x61, b'b', 0xf6];
        assert!(from_slice::<Pair>("pair", &good, 100).is_ok());
        let long: &[u8] = &[0xa2, 0x61, b'a', 0x18, 1, 0x61, b'b', 0xf6];
        let swapped: &[u8] = &[0xa2, 0x61, b'b', 0xf6, 0x61, b'a', 1];
        let twice: &[u8] = &[0xa3, 0x61, b'a', 1, 0x61, b'a', 1, 0x61, b'b', 0xf6];
        let trailing: &[u8] = &[0xa2, 0x61, b'a', 1, 0x61, b'b', 0xf6, 0];
        for bad in [long, swapped, twice, trailing] {
            assert!(from_slice::<Pair>("pair", bad, 100).is_err(), "{bad:?}");
        }
        assert!(matches!(from_slice::<Pair>("pair", &good, 3), Err(Error::TooLarge { .. })));
    }
}
