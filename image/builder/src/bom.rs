//! The bill of materials of what runs inside the enclave: CycloneDX 1.5.

use anyhow::Context;
use cargo_metadata::{Metadata, MetadataCommand, Package};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The target of the image.
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// What the bill is made from.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// The workspace's Cargo.toml.
    #[arg(long, value_name = "FILE")]
    manifest: PathBuf,
    /// Cargo.lock of the workspace, for the checksums.
    #[arg(long, value_name = "FILE")]
    lock: PathBuf,
    /// The folder of the kernel.
    #[arg(long, value_name = "FOLDER")]
    kernel: PathBuf,
    /// The packages whose dependencies are in the image.
    #[arg(long = "root", value_name = "PACKAGE", required = true)]
    roots: Vec<String>,
}

/// Prints it.
pub fn print(options: &Options) -> anyhow::Result<()> {
    let metadata = MetadataCommand::new()
        .manifest_path(&options.manifest)
        .other_options(vec!["--locked".into(), "--filter-platform".into(), TARGET.into()])
        .exec()?;
    let checksums = checksums(&std::fs::read_to_string(&options.lock)?);
    let source = std::fs::read_to_string(options.kernel.join("source.txt"))
        .with_context(|| format!("no source.txt in {}", options.kernel.display()))?;
    let mut components = vec![kernel(&source)];
    for package in linked(&metadata, &options.manifest, &options.roots)? {
        components.push(component(package, &checksums));
    }
    let bill = json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {
            "component": { "type": "firmware", "bom-ref": "sealfold.eif", "name": "sealfold.eif" },
        },
        "components": components,
    });
    println!("{}", serde_json::to_string_pretty(&bill)?);
    Ok(())
}

/// The packages that are linked into the roots, with the features that the
/// roots alone ask for. (`cargo metadata` unites the features of the whole
/// workspace, so that the simulation's packages would be listed.)
fn linked<'a>(
    metadata: &'a Metadata,
    manifest: &Path,
    roots: &[String],
) -> anyhow::Result<Vec<&'a Package>> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.arg("tree").arg("--manifest-path").arg(manifest).args(["--locked", "--target", TARGET]);
    command.args(["--edges", "normal,no-proc-macro", "--prefix", "none", "--format", "{p}"]);
    roots.iter().for_each(|root| _ = command.args(["--package", root]));
    let output = command.output().context("cargo tree does not start")?;
    let said = String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(output.status.success(), "cargo tree failed: {}", said.trim());
    let names = listed(&String::from_utf8(output.stdout)?);
    let is_listed = |package: &&Package| {
        names.contains(&(package.name.to_string(), package.version.to_string()))
    };
    let mut packages: Vec<_> = metadata.packages.iter().filter(is_listed).collect();
    anyhow::ensure!(packages.len() == names.len(), "cargo tree and cargo metadata disagree");
    packages.sort_by_key(|package| (package.name.to_string(), package.version.clone()));
    Ok(packages)
}

/// Names and versions from lines like `ring v0.17.14` or `a v0.1.0 (/path)`.
fn listed(tree: &str) -> BTreeSet<(String, String)> {
    let line = |line: &str| {
        let mut words = line.split_whitespace();
        Some((words.next()?.to_owned(), words.next()?.strip_prefix('v')?.to_owned()))
    };
    tree.lines().filter_map(line).collect()
}

fn component(package: &Package, checksums: &BTreeMap<(String, String), String>) -> Value {
    let (name, version) = (package.name.to_string(), package.version.to_string());
    let purl = format!("pkg:cargo/{name}@{version}");
    let mut component = json!({
        "type": "library",
        "bom-ref": purl,
        "name": name,
        "version": version,
        "purl": purl,
    });
    if let Some(license) = &package.license {
        // CycloneDX wants an SPDX expression; a slash is cargo's old `OR`.
        component["licenses"] = json!([{ "expression": license.replace('/', " OR ") }]);
    }
    if let Some(checksum) = checksums.get(&(name, version)) {
        component["hashes"] = json!([{ "alg": "SHA-256", "content": checksum }]);
    }
    component
}

fn kernel(source: &str) -> Value {
    let version = source.lines().next().and_then(|line| line.split(' ').nth(1)).unwrap_or_default();
    let checksum =
        source.lines().nth(1).and_then(|line| line.split(' ').nth(1)).unwrap_or_default();
    let purl = format!("pkg:deb/debian/linux-source-6.12@{version}?distro=bookworm");
    json!({
        "type": "operating-system",
        "bom-ref": purl,
        "name": "linux",
        "version": version,
        "purl": purl,
        "licenses": [{ "expression": "GPL-2.0-only WITH Linux-syscall-note" }],
        "hashes": [{ "alg": "SHA-256", "content": checksum }],
    })
}

/// Name and version to SHA-256, from a lock file.
fn checksums(lock: &str) -> BTreeMap<(String, String), String> {
    let mut found = BTreeMap::new();
    for entry in lock.split("[[package]]") {
        let field = |name: &str| {
            entry.lines().find_map(|line| {
                let value = line.strip_prefix(name)?.strip_prefix(" = ")?;
                Some(value.trim_matches('"').to_owned())
            })
        };
        if let (Some(name), Some(version), Some(checksum)) =
            (field("name"), field("version"), field("checksum"))
        {
            found.insert((name, version), checksum);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_names_packages_once() {
        let tree = "ring v0.17.14\nsealfold-init v0.1.0 (/a b/image/init)\nring v0.17.14 (*)\n\n";
        let pair = |name: &str, version: &str| (name.to_owned(), version.to_owned());
        let expected = BTreeSet::from([pair("ring", "0.17.14"), pair("sealfold-init", "0.1.0")]);
        assert_eq!(listed(tree), expected);
    }

    #[test]
    fn checksums_are_read_from_a_lock_file() {
        let lock = "[[package]]\nname = \"a\"\nversion = \"1.0.0\"\nchecksum = \"ab\"\n\n\
                    [[package]]\nname = \"own\"\nversion = \"0.1.0\"\n";
        let found = checksums(lock);
        assert_eq!(found.len(), 1);
        assert_eq!(found[&("a".to_owned(), "1.0.0".to_owned())], "ab");
    }
}
