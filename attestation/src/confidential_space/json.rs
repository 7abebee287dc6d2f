//! JSON in which every key of an object stands once.
//!
//! RFC 8259 leaves open what a key that stands twice means, and `serde_json`
//! keeps the last: two readers could see two tokens. Here it is an error, also
//! in objects that nobody looks at.

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};
use std::fmt;

/// Reads one JSON value and nothing after it. Nesting beyond 128 is refused.
pub(super) fn read<T: de::DeserializeOwned>(bytes: &[u8]) -> Result<T, serde_json::Error> {
    let Once(value) = serde_json::from_slice(bytes)?;
    serde_json::from_value(value)
}

struct Once(Value);

impl<'de> Deserialize<'de> for Once {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reader).map(Self)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut array = Vec::new();
        while let Some(Once(item)) = items.next_element()? {
            array.push(item);
        }
        Ok(Value::Array(array))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some((key, Once(value))) = entries.next_entry::<String, Once>()? {
            if object.contains_key(&key) {
                return Err(de::Error::custom(format!("the key {key:?} twice")));
            }
            object.insert(key, value);
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn value(text: &str) -> Result<Value, String> {
        read(text.as_bytes()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_key_stands_once_at_every_depth() {
        assert!(value(r#"{"a": 1, "a": 1}"#).unwrap_err().contains("\"a\" twice"));
        assert!(value(r#"{"x": [{"b": {"c": 1, "\u0063": 2}}]}"#).unwrap_err().contains("twice"));
        assert!(value(r#"{"a": {"a": 1}, "b": [{"a": 1}, {"a": 2}]}"#).is_ok());
    }

    #[test]
    fn other_spellings_of_nothing_are_refused() {
        for text in ["", "{}x", "{} {}", "{\"a\":1,}", "{a:1}", "[NaN]", "[01]", "\u{feff}{}"] {
            assert!(value(text).is_err(), "{text}");
        }
        assert!(value(&"[".repeat(10_000)).is_err());
    }

    proptest! {
        #[test]
        fn objects_without_a_key_twice_read_as_serde_json_reads_them(
            text in ".{0,40}", number: i64, float in -1e9..1e9f64,
        ) {
            let object = Map::from_iter([(text.clone(), number.into())]);
            let written = Value::from(vec![
                Value::Object(object), text.into(), float.into(), true.into(), Value::Null,
            ]).to_string();
            let theirs: Value = serde_json::from_str(&written).unwrap();
            prop_assert_eq!(value(&written).unwrap(), theirs);
        }
    }
}
