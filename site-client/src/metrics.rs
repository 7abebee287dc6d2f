//! Metrics: what a training command says of itself, and what of it the manifest
//! declares and a release sums.

use crate::error::SiteRefusal;
use crate::{Error, Result};
use sealfold_protocol::terms::Channel;
use sealfold_study::Metric;
use serde_json::{Map, Value};
use std::path::Path;

/// What a training command reports, by name. What the manifest declares is sealed
/// with the update; the rest stays at the site.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Metrics(Map<String, Value>);

impl Metrics {
    /// Reads a metrics file, `{"loss": 0.5}` or `{"metrics": {"loss": 0.5}}`. No file
    /// is no metrics.
    ///
    /// # Errors
    /// A refusal by `metric` if it names a number of examples; [`Error::File`] if it
    /// is no JSON object.
    pub fn read(path: &Path) -> Result<Self> {
        if !path.exists() {
            return Ok(Self::default());
        }
        Self::parse(path, &crate::home::read_text(path)?)
    }

    fn parse(path: &Path, text: &str) -> Result<Self> {
        let wrong = |found: &dyn std::fmt::Display| {
            Error::file(path, format!("expected numbers by name, {{\"loss\": 0.5}}: {found}"))
        };
        let value = serde_json::from_str(text).or_else(|error| {
            // Python writes numbers that JSON does not have.
            serde_json::from_str(&quoted(text)).map_err(|_| wrong(&error))
        })?;
        let Value::Object(mut found) = value else { return Err(wrong(&"no object")) };
        if found.contains_key("examples") {
            return Err(SiteRefusal::new("metric", "metrics by name", "\"examples\"")
                .next(
                    "leave \"examples\" out: the weight of a site stands in the manifest now, as \
                     weight of its [[site]]",
                )
                .into());
        }
        if let Some(Value::Object(_)) = found.get("metrics")
            && let Some(Value::Object(nested)) = found.remove("metrics")
        {
            found.extend(nested);
        }
        Ok(Self(found))
    }

    /// The names of those that the manifest does not declare.
    pub fn undeclared<'a>(&'a self, declared: &'a [Metric]) -> impl Iterator<Item = &'a str> {
        let names = self.0.keys().map(String::as_str);
        names.filter(|name| declared.iter().all(|metric| metric.name != *name))
    }

    /// The declared ones that the training command did not report.
    pub fn absent<'a>(&'a self, declared: &'a [Metric]) -> impl Iterator<Item = &'a str> {
        let names = declared.iter().map(|metric| metric.name.as_str());
        names.filter(|name| !self.0.contains_key(*name))
    }

    /// A declared metric in steps of its channel; none if it was not reported.
    ///
    /// # Errors
    /// A refusal by `metric` for what is no finite number within the channel's range.
    pub fn in_steps(&self, channel: &Channel) -> Result<Option<i64>> {
        let name = &channel.name;
        let Some(value) = self.0.get(name) else { return Ok(None) };
        let steps = value.as_f64().and_then(|value| in_steps(channel, value));
        let steps = steps.ok_or_else(|| {
            let [least, most] = range(channel);
            let expected = format!("{name} from {least} to {most}");
            SiteRefusal::new("metric", expected, format!("{name} = {value}")).next(
                "correct the metrics that the training command writes, or ask for a manifest with \
                 a wider range",
            )
        })?;
        Ok(Some(steps))
    }
}

/// Puts the words for numbers that JSON does not have in quotes.
fn quoted(text: &str) -> String {
    let (mut out, mut within) = (String::new(), false);
    for (place, part) in text.split('"').enumerate() {
        // A quote behind a backslash does not end a text.
        let escaped = out.len() - out.trim_end_matches('\\').len();
        if place > 0 {
            within ^= !(within && escaped % 2 == 1);
            out.push('"');
        }
        if within {
            out.push_str(part);
            continue;
        }
        let part = part.replace("-Infinity", "\u{0}").replace("Infinity", "\"Infinity\"");
        out.push_str(&part.replace('\u{0}', "\"-Infinity\"").replace("NaN", "\"NaN\""));
    }
    out
}

/// The range of a channel, in its own unit.
#[allow(clippy::cast_precision_loss)] // below 2^31
pub(crate) fn range(channel: &Channel) -> [f64; 2] {
    [channel.least, channel.most].map(|steps| steps as f64 * channel.step)
}

/// A value in steps, if it is within the channel's range.
#[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation)] // compared before
pub(crate) fn in_steps(channel: &Channel, value: f64) -> Option<i64> {
    let steps = (value / channel.step).round_ties_even();
    // Also false for NaN.
    let within = steps >= channel.least as f64 && steps <= channel.most as f64;
    within.then_some(steps as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Metrics> {
        Metrics::parse(Path::new("metrics.json"), text)
    }

    fn loss(step: f64, least: i64, most: i64) -> Channel {
        Channel { name: "loss".to_owned(), length: 1, step, least, most, per_site: false }
    }

    fn declared(names: &[&str]) -> Vec<Metric> {
        names.iter().map(|name| Metric { name: (*name).to_owned() }).collect()
    }

    #[test]
    fn both_forms_are_read_and_other_things_are_kept() {
        let channel = loss(0.25, -4, 8);
        for text in ["{\"loss\": 0.5}", "{\"metrics\": {\"loss\": 0.5}}"] {
            assert_eq!(parse(text).unwrap().in_steps(&channel).unwrap(), Some(2));
        }
        assert_eq!(parse("{}").unwrap(), Metrics::default());
        let metrics = parse("{\"loss\": 1, \"own\": NaN, \"device\": \"cuda\"}").unwrap();
        let declared = declared(&["auc", "loss"]);
        assert_eq!(metrics.undeclared(&declared).collect::<Vec<_>>(), ["device", "own"]);
        assert_eq!(metrics.absent(&declared).collect::<Vec<_>>(), ["auc"]);
        assert_eq!(metrics.in_steps(&Channel { name: "auc".to_owned(), ..channel }).unwrap(), None);
        for wrong in ["[]", "3", "{", "{\"loss\": low}"] {
            let said = parse(wrong).unwrap_err().to_string();
            assert!(said.contains("expected numbers by name"), "{said}");
        }
    }

    #[test]
    fn a_number_of_examples_is_refused_with_where_weights_are() {
        let said = parse("{\"examples\": 3, \"metrics\": {}}").unwrap_err().to_string();
        assert!(said.contains("check metric") && said.contains("weight of its [[site]]"), "{said}");
    }

    #[test]
    fn what_is_no_number_of_the_range_is_refused_by_name() {
        let channel = loss(0.1, -3, 10);
        for (value, steps) in [("1", 10), ("-0.3", -3), ("1.04", 10), ("0", 0)] {
            let metrics = parse(&format!("{{\"loss\": {value}}}")).unwrap();
            assert_eq!(metrics.in_steps(&channel).unwrap(), Some(steps), "{value}");
        }
        for value in ["1.06", "-0.36", "NaN", "Infinity", "-Infinity", "null", "\"low\"", "true"] {
            let metrics = parse(&format!("{{\"loss\": {value}, \"a \\\" NaN\": 1}}")).unwrap();
            let said = metrics.in_steps(&channel).unwrap_err().to_string();
            let shown = value.trim_matches('"');
            assert!(
                said.contains("check metric: expected loss from -0.30000000000000004 to 1"),
                "{said}"
            );
            assert!(said.contains("found loss = ") && said.contains(shown), "{said}");
        }
    }

    #[test]
    fn only_what_is_outside_texts_is_quoted() {
        let text = r#"{"a\\": NaN, "b\" NaN": -Infinity, "c": [Infinity, 1]}"#;
        let expected = r#"{"a\\": "NaN", "b\" NaN": "-Infinity", "c": ["Infinity", 1]}"#;
        assert_eq!(quoted(text), expected);
    }
}
