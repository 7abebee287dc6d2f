//! The bill of materials of what runs inside the enclave: CycloneDX 1.5.

use anyhow::Context;
use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, Package, PackageId};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;

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
    for package in linked(&metadata, &options.roots)? {
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

/// The packages that are linked into the roots: normal dependencies only.
fn linked<'a>(metadata: &'a Metadata, roots: &[String]) -> anyhow::Result<Vec<&'a Package>> {
    let resolve = metadata.resolve.as_ref().context("cargo metadata resolved nothing")?;
    let nodes: HashMap<&PackageId, _> = resolve.nodes.iter().map(|node| (&node.id, node)).collect();
    let mut open: Vec<&PackageId> = metadata
        .packages
        .iter()
        .filter(|package| roots.iter().any(|root| package.name.as_str() == root))
        .map(|package| &package.id)
        .collect();
    anyhow::ensure!(open.len() == roots.len(), "expected the packages {roots:?}");
    let mut seen = BTreeSet::new();
    while let Some(id) = open.pop() {
        if !seen.insert(id) {
            continue;
        }
        for dependency in nodes.get(id).map(|node| &node.deps).into_iter().flatten() {
            if dependency.dep_kinds.iter().any(|kind| kind.kind == DependencyKind::Normal) {
                open.push(&dependency.pkg);
            }
        }
    }
    let mut packages: Vec<_> =
        metadata.packages.iter().filter(|package| seen.contains(&package.id)).collect();
    packages.sort_by_key(|package| (package.name.to_string(), package.version.clone()));
    Ok(packages)
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
