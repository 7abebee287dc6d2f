//! Two builds of one source, part by part.

use anyhow::{Context, bail};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// What is compared.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// A folder with sealfold.eif, measurements.json and bom.json.
    first: PathBuf,
    /// Another one.
    second: PathBuf,
}

/// Prints what is the same; fails with the names of what is not.
pub fn print(options: &Options) -> anyhow::Result<()> {
    let (first, second) = (report(&options.first)?, report(&options.second)?);
    let mut moved = moved(&first, &second);
    for file in ["sealfold.eif", "bom.json"] {
        let read = |folder: &Path| {
            let path = folder.join(file);
            std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))
        };
        if read(&options.first)? != read(&options.second)? {
            moved.push(format!("{file}: the files differ"));
        }
    }
    if !moved.is_empty() {
        bail!("not reproducible; what moved:\n  {}", moved.join("\n  "));
    }
    println!("the two builds are the same, byte for byte:");
    for (name, value) in leaves("", &first) {
        println!("  {name}: {value}");
    }
    Ok(())
}

fn report(folder: &Path) -> anyhow::Result<Value> {
    let path = folder.join("measurements.json");
    let text = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_slice(&text).with_context(|| format!("{} is no JSON", path.display()))
}

/// Every value of two reports that is not the same in both, by name.
fn moved(first: &Value, second: &Value) -> Vec<String> {
    let (first, second) = (leaves("", first), leaves("", second));
    let mut moved = Vec::new();
    for (name, value) in &first {
        match second.iter().find(|(other, _)| other == name) {
            Some((_, other)) if other == value => {}
            Some((_, other)) => moved.push(format!("{name}: {value} and {other}")),
            None => moved.push(format!("{name}: {value} and nothing")),
        }
    }
    for (name, value) in &second {
        if !first.iter().any(|(other, _)| other == name) {
            moved.push(format!("{name}: nothing and {value}"));
        }
    }
    moved
}

/// The values of an object and of the objects in it, with their paths.
fn leaves(path: &str, value: &Value) -> Vec<(String, Value)> {
    let Some(object) = value.as_object() else { return vec![(path.to_owned(), value.clone())] };
    let inner = |(name, value): (&String, &Value)| {
        leaves(&if path.is_empty() { name.clone() } else { format!("{path}.{name}") }, value)
    };
    object.iter().flat_map(inner).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_moved_is_named() {
        let first = json!({ "measurements": { "pcr0": "aa", "pcr1": "bb" }, "bytes": 1 });
        assert_eq!(moved(&first, &first), Vec::<String>::new());
        let second = json!({ "measurements": { "pcr0": "aa", "pcr1": "cc", "pcr8": "dd" } });
        assert_eq!(
            moved(&first, &second),
            [
                "bytes: 1 and nothing",
                "measurements.pcr1: \"bb\" and \"cc\"",
                "measurements.pcr8: nothing and \"dd\"",
            ]
        );
    }
}
