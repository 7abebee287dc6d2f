//! A text that is no manifest: which field, on which line, what belongs there,
//! in words of the manifest and not of the program that reads it.

use sealfold_protocol::Error;
use std::ops::Range;
use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

/// What to do about a text that is no TOML.
const SYNTAX: &str = "correct that line; a manifest is written in TOML, https://toml.io";
/// What to do about a draft of a query.
const PLAN: &str = "add it; for a draft, sealfold query plan prints the sections [model], \
[aggregation] and [privacy]";
/// What to do about a manifest that asks for no statistics.
const STATISTICS: &str = "add the statistics that are asked for, each as [[query.statistic]]: \
docs/site.md explains them";
/// Fields of a table inside `[privacy]`, whose errors are told of `[privacy]`.
const ADAPTIVE: [&str; 3] = ["quantile", "learning_rate", "count_noise"];

/// The refusal of a text that does not read as a manifest, or as its draft.
pub(crate) fn error(text: &str, error: &toml::de::Error) -> Error {
    let span = error.span().unwrap_or_default();
    // On one line: only what is foreign may have to be escaped.
    let message = error.message().lines().collect::<Vec<_>>().join("; ");
    let Ok(root) = DeTable::parse(text) else {
        let number = line(text, span.start);
        let words: String =
            text.lines().nth(number - 1).unwrap_or_default().trim().chars().take(60).collect();
        return Error::Manifest {
            field: format!("line {number}"),
            expected: "TOML".to_owned(),
            found: format!("{words:?}: {message}"),
            next: Some(SYNTAX),
        };
    };
    let mut places = Vec::new();
    places_of_table(root.get_ref(), "", &mut places);
    let place = places.iter().rev().find(|place| place.value == span || place.key == span);
    let mut told = Told::of(&message, place, &places);
    if told.next.is_none() && told.field == "query" {
        told.next = Some(STATISTICS);
    }
    let is_drafted = ["model", "aggregation", "privacy"].contains(&told.field.as_str());
    if told.is_missing && is_drafted && root.get_ref().contains_key("query") {
        told.next = Some(PLAN);
    }
    let at = told.at.unwrap_or(span.start);
    let found = match (told.found, told.is_missing && place.is_none()) {
        (found, true) => found,
        (found, false) => format!("{found}, in line {}", line(text, at)),
    };
    Error::Manifest { field: told.field, expected: told.expected, found, next: told.next }
}

/// The number of the line of a place in a text.
fn line(text: &str, at: usize) -> usize {
    text.get(..at).unwrap_or_default().matches('\n').count() + 1
}

/// A value of the text.
struct Place<'a> {
    /// Its dotted path.
    path: String,
    key: Range<usize>,
    value: Range<usize>,
    /// What it is.
    content: &'a DeValue<'a>,
}

fn places_of_table<'a>(table: &'a DeTable<'a>, path: &str, places: &mut Vec<Place<'a>>) {
    for (key, value) in table {
        let path = match path {
            "" => key.get_ref().to_string(),
            path => format!("{path}.{}", key.get_ref()),
        };
        place(&path, key.span(), value, places);
    }
}

fn places_of_array<'a>(array: &'a DeArray<'a>, path: &str, places: &mut Vec<Place<'a>>) {
    for value in array {
        place(path, value.span(), value, places);
    }
}

fn place<'a>(
    path: &str,
    key: Range<usize>,
    value: &'a Spanned<DeValue<'a>>,
    places: &mut Vec<Place<'a>>,
) {
    let content = value.get_ref();
    places.push(Place { path: path.to_owned(), key, value: value.span(), content });
    match content {
        DeValue::Table(table) => places_of_table(table, path, places),
        DeValue::Array(array) => places_of_array(array, path, places),
        _ => {}
    }
}

/// What a reader's message says.
struct Told {
    field: String,
    expected: String,
    found: String,
    is_missing: bool,
    next: Option<&'static str>,
    /// Where the value begins, if it is not where the reader says.
    at: Option<usize>,
}

impl Told {
    fn new(field: &str, expected: impl Into<String>, found: impl Into<String>) -> Self {
        let (field, expected, found) = (field.to_owned(), expected.into(), found.into());
        Self { field, expected, found, is_missing: false, next: None, at: None }
    }

    /// In the words in which serde and this library's types refuse.
    fn of(message: &str, place: Option<&Place>, places: &[Place]) -> Self {
        let path = place.map_or("", |place| place.path.as_str());
        let named = if path.is_empty() { "manifest" } else { path };
        if let Some(field) = quoted_after(message, "missing field `") {
            return Self::missing(path, field);
        }
        if let Some(field) = quoted_after(message, "unknown field `") {
            let section = match path.rsplit_once('.') {
                // The place is that of the key itself.
                Some((section, last)) if last == field => section,
                None if path == field => "manifest",
                _ => named,
            };
            let at = key_in(places, place, field);
            let expected = match message.split_once(", expected ") {
                Some((_, others)) => format!("no field but {}", plain(others)),
                None => format!("no field but {}", tag(place)),
            };
            return Self { at, ..Self::new(section, expected, field) };
        }
        if let Some(variant) = quoted_after(message, "unknown variant `") {
            let expected = message.split_once(", expected ").map_or("", |(_, others)| others);
            return Self::new(named, plain(expected), format!("{variant:?}"));
        }
        for start in ["invalid type: ", "invalid value: "] {
            let rest = message.strip_prefix(start).and_then(|rest| rest.rsplit_once(", expected "));
            if let Some((found, expected)) = rest {
                // The reader of a table that has kinds tells only of the table.
                let leaf = place.and_then(|place| only_leaf(places, place, found));
                let named = leaf.map_or(named, |leaf| leaf.path.as_str());
                let at = leaf.map(|leaf| leaf.value.start);
                return Self { at, ..Self::new(named, kind(expected), value(found)) };
            }
        }
        let own = message.strip_prefix("expected ").and_then(|rest| rest.split_once(", found "));
        let (expected, found) = match (own, message.strip_prefix("invalid length ")) {
            (Some((expected, found)), _) => (expected.to_owned(), found.to_owned()),
            (None, Some(rest)) => match rest.split_once(", expected ") {
                Some((length, expected)) => (kind(expected), format!("a list of {length}")),
                None => (kind("a sequence"), format!("a list of {rest}")),
            },
            _ if path.starts_with("study.valid_") => {
                ("a time such as \"2026-01-31T00:00:00Z\"".to_owned(), message.to_owned())
            }
            _ => ("a value that can be read".to_owned(), message.to_owned()),
        };
        Self::new(named, expected, found)
    }

    fn missing(path: &str, field: &str) -> Self {
        let (named, expected) = match path {
            "" if field == "format" => (field.to_owned(), "a value".to_owned()),
            "" if field == "site" => (field.to_owned(), "a section [[site]] for each".to_owned()),
            "" => (field.to_owned(), format!("a section [{field}]")),
            "privacy" if ADAPTIVE.contains(&field) => {
                (format!("privacy.adaptive_clip.{field}"), "a value".to_owned())
            }
            path => (format!("{path}.{field}"), "a value".to_owned()),
        };
        Self { is_missing: true, ..Self::new(&named, expected, "none") }
    }
}

/// What stands in backticks behind a beginning.
fn quoted_after<'a>(message: &'a str, start: &str) -> Option<&'a str> {
    message.strip_prefix(start)?.split('`').next()
}

/// Names without backticks.
fn plain(names: &str) -> String {
    names.replace('`', "")
}

/// What says of which kind a table is.
fn tag(place: Option<&Place>) -> String {
    let table = place.and_then(|place| place.content.as_table());
    let tags = ["unit", "kind"].into_iter().find_map(|key| {
        let value = table?.get(key)?.get_ref().as_str()?;
        Some(format!("{key} beside {key} = {value:?}"))
    });
    tags.unwrap_or_else(|| "those of its kind".to_owned())
}

/// Where a key stands inside a place, if it stands there once.
fn key_in(places: &[Place], within: Option<&Place>, key: &str) -> Option<usize> {
    let within = within?;
    let mut inside =
        inside(places, within).filter(|place| place.path.ends_with(&format!(".{key}")));
    let only = inside.next()?;
    inside.next().is_none().then_some(only.key.start)
}

/// The only value inside a place that a reader's words describe.
fn only_leaf<'a>(places: &'a [Place<'a>], within: &Place, found: &str) -> Option<&'a Place<'a>> {
    within.content.as_table()?;
    let mut inside = inside(places, within).filter(|place| described(place.content, found));
    let only = inside.next()?;
    inside.next().is_none().then_some(only)
}

/// What lies inside a place of the same list.
fn inside<'a>(places: &'a [Place<'a>], within: &Place) -> impl Iterator<Item = &'a Place<'a>> {
    let start = places.iter().position(|place| std::ptr::eq(place.content, within.content));
    let prefix = format!("{}.", within.path);
    let after = places.iter().skip(start.map_or(places.len(), |start| start + 1));
    after.take_while(move |place| place.path.starts_with(&prefix))
}

/// Whether serde would describe a value so.
fn described(content: &DeValue, found: &str) -> bool {
    match content {
        DeValue::String(text) => found == format!("string {text:?}"),
        DeValue::Integer(number) => found == format!("integer `{}`", number.as_str()),
        DeValue::Float(number) => {
            let value = found.strip_prefix("floating point `").and_then(|v| v.strip_suffix('`'));
            let parsed = value.and_then(|value| value.parse::<f64>().ok());
            parsed.is_some_and(|v| {
                number.as_str().parse().is_ok_and(|n: f64| n.total_cmp(&v).is_eq())
            })
        }
        DeValue::Boolean(is_so) => found == format!("boolean `{is_so}`"),
        DeValue::Array(_) => found == "sequence",
        DeValue::Table(_) => found == "map",
        DeValue::Datetime(_) => false,
    }
}

/// What a type is, in words of people.
fn kind(expected: &str) -> String {
    let words = match expected {
        "u8" | "u16" | "u32" | "u64" | "usize" => "a whole number, 0 or more",
        "i8" | "i16" | "i32" | "i64" => "a whole number",
        "f32" | "f64" => "a number",
        "a string" | "string" => "a text in quotes",
        "a boolean" => "true or false",
        "a sequence" => "a list in [ ]",
        "an array of length 2" => "a list of two values",
        other if other.starts_with("struct ") || other.contains("enum ") => "a table of fields",
        other => return plain(other),
    };
    words.to_owned()
}

/// A value as serde describes it, without the name of its type.
fn value(found: &str) -> String {
    match found {
        "map" => return "a table".to_owned(),
        "sequence" => return "a list".to_owned(),
        _ => {}
    }
    let words = ["string ", "integer ", "floating point ", "boolean "];
    let value = words.iter().find_map(|word| found.strip_prefix(word)).unwrap_or(found);
    value.trim_matches('`').to_owned()
}

#[cfg(test)]
mod tests {
    use crate::Manifest;
    use crate::query::Draft;
    use crate::tests::manifest;
    use sealfold_protocol::Error;

    /// The refusal of the manifest with one text in place of another: field,
    /// expected, found without the line, and the line's own words.
    fn misread(from: &str, to: &str) -> [String; 4] {
        let text = manifest().to_toml().unwrap();
        assert!(text.contains(from), "{from}: {text}");
        misread_text(&text.replacen(from, to, 1))
    }

    fn misread_text(text: &str) -> [String; 4] {
        match Manifest::from_toml(text).unwrap_err() {
            Error::Manifest { field, expected, found, .. } => {
                let (what, at) = found.rsplit_once(", in line ").unwrap_or((&found, "0"));
                let number: usize = at.parse().unwrap();
                let words = number.checked_sub(1).and_then(|n| text.lines().nth(n));
                [field, expected, what.to_owned(), words.unwrap_or_default().to_owned()]
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_value_of_another_type_is_told_with_field_and_line() {
        let whole = "a whole number, 0 or more";
        let told = misread("rounds = 20", "rounds = 0.5");
        assert_eq!(told, ["study.rounds", whole, "0.5", "rounds = 0.5"]);
        let told = misread("rounds = 20", "rounds = -3");
        assert_eq!(told, ["study.rounds", whole, "-3", "rounds = -3"]);
        let told = misread("rule = \"weighted-mean\"", "trim = 0.2\nrule = \"trimmed-mean\"");
        assert_eq!(told, ["aggregation.trim", whole, "0.2", "trim = 0.2"]);
        let told = misread("name = \"example\"", "name = 3");
        assert_eq!(told, ["study.name", "a text in quotes", "3", "name = 3"]);
        let told = misread("range = [0.0, 120.0]", "range = [0.0]");
        let range = ["data.feature.range", "a list of two values", "a list of 1", "range = [0.0]"];
        assert_eq!(told, range);
        let told = misread("unit = \"none\"", "unit = \"patient\"\nclip = \"long\"\nstep = 1");
        assert_eq!(told, ["privacy.clip", "a number", "\"long\"", "clip = \"long\""]);
        let told = misread("initial = \"00", "initial = \"0x");
        assert_eq!(told[..2], ["model.initial", "64 hex digits"]);
        let told = misread("valid_from = \"2026-01-01T", "valid_from = \"1 January ");
        assert_eq!(told[..2], ["study.valid_from", "a time such as \"2026-01-31T00:00:00Z\""]);
    }

    #[test]
    fn a_field_too_many_or_too_few_is_told_with_its_section() {
        let told = misread("rounds = 20", "");
        assert_eq!(told, ["study.rounds", "a value", "none", "[study]"]);
        let told = misread("colluders = 0", "coluders = 0");
        let others = "no field but smallest_roster or colluders";
        assert_eq!(told, ["quorum", others, "coluders", "coluders = 0"]);
        let told = misread("[quorum]", "[quorums]");
        assert_eq!((told[0].as_str(), told[2].as_str()), ("manifest", "quorums"));
        let told = misread("unit = \"none\"", "unit = \"none\"\nclip = 1");
        let expected = "no field but unit beside unit = \"none\"";
        assert_eq!(told, ["privacy", expected, "clip", "clip = 1"]);
        let told = misread("readers = \"sites\"", "readers = \"all\"");
        let expected = "everyone or sites";
        assert_eq!(told, ["release.readers", expected, "\"all\"", "readers = \"all\""]);
        let adaptive = "unit = \"site\"\nclip = 1\nstep = 1\nnoise_multiplier = 1\nepsilon = 1\n\
                        delta = 0.1\nadaptive_clip = { quantile = 0.5, learning_rate = 0.2 }";
        let told = misread("unit = \"none\"", adaptive);
        assert_eq!(told[..2], ["privacy.adaptive_clip.count_noise", "a value"]);
    }

    #[test]
    fn what_to_do_next_fits_what_is_wrong() {
        let next = |text: &str| match Manifest::from_toml(text).unwrap_err() {
            Error::Manifest { field, found, next, .. } => (field, found, next.unwrap_or("")),
            other => panic!("{other:?}"),
        };
        let text = manifest().to_toml().unwrap();
        let (field, found, syntax) = next(&text.replace("rounds = 20", "rounds = 20 weeks"));
        assert!(
            field.starts_with("line ") && found.contains("rounds = 20 weeks"),
            "{field} {found}"
        );
        assert!(syntax.contains("TOML"), "{syntax}");
        let start = text.find("[model]").unwrap();
        let end = text.find("[quorum]").unwrap();
        let draft = [&text[..start], &text[end..], "[[query.statistic]]\nkind = \"count\"\n"];
        let (field, found, plan) = next(&draft.concat());
        assert_eq!((field.as_str(), found.as_str()), ("model", "none"));
        assert!(plan.contains("sealfold query plan"), "{plan}");
        // A study that trains a model has nothing to plan.
        assert_eq!(next(&draft[..2].concat()).2, "");
        match Draft::from_toml(&text).unwrap_err() {
            Error::Manifest { field, expected, next, .. } => {
                assert_eq!((field.as_str(), expected.as_str()), ("query", "a section [query]"));
                assert!(next.unwrap().contains("[[query.statistic]]"));
            }
            other => panic!("{other:?}"),
        }
    }
}
