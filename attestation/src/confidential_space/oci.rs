//! What an OCI image is to a policy, without running it.
//!
//! So that a site need not believe what an operator says of an image: it has
//! the image's layout, or builds it, and reads off what a token will say. The
//! labels of Google's launch policy say what an operator may change; an image
//! that leaves more open than environment variables is refused here.
//!
//! Sources: OCI image layout and image specification 1.1; Confidential Space,
//! "Launch policies".

use super::json;
use ring::digest::{Context, SHA256};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// The longest index, manifest or configuration in bytes.
const MAX_JSON: u64 = 256 << 10;
/// The most layers of an image.
const MAX_LAYERS: usize = 128;
/// What the labels of a launch policy begin with.
const LABEL: &str = "tee.launch_policy.";
/// The variable that the launcher itself sets, to the machine's name.
const HOSTNAME: &str = "HOSTNAME";

/// Why a folder is no image for a policy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("OCI image: {what}: expected {expected}, found {found}")]
pub struct OciError {
    /// Which part.
    pub what: String,
    /// What it must be.
    pub expected: String,
    /// What it is.
    pub found: String,
}

fn wrong(what: impl ToString, expected: impl ToString, found: impl ToString) -> OciError {
    OciError { what: what.to_string(), expected: expected.to_string(), found: found.to_string() }
}

/// What a token says of a workload from this image, as a policy writes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workload {
    /// SHA-256 of the image's manifest.
    pub image_digest: [u8; 32],
    /// The whole command line.
    pub args: Vec<String>,
    /// The image's own environment.
    pub env: BTreeMap<String, String>,
    /// The variables that the operator, or the launcher, may set.
    pub operator_env: BTreeSet<String>,
}

#[derive(Deserialize)]
struct Index {
    manifests: Vec<Descriptor>,
}

#[derive(Deserialize)]
struct Manifest {
    config: Descriptor,
    layers: Vec<Descriptor>,
}

#[derive(Deserialize)]
struct Descriptor {
    digest: String,
    size: u64,
}

#[derive(Deserialize)]
struct Image {
    config: Config,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Config {
    #[serde(default)]
    entrypoint: Vec<String>,
    #[serde(default)]
    cmd: Vec<String>,
    #[serde(default)]
    env: Vec<String>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
}

/// Reads an OCI layout of one image. Every blob is read and compared with its
/// digest.
///
/// # Errors
/// [`OciError`] naming the part.
pub fn measure(folder: &Path) -> Result<Workload, OciError> {
    let name = "index.json";
    let mut bytes = Vec::new();
    let path = folder.join(name);
    let file = File::open(&path).map_err(|e| wrong(path.display(), "an OCI layout", e))?;
    file.take(MAX_JSON + 1).read_to_end(&mut bytes).map_err(|e| wrong(name, "its bytes", e))?;
    let index: Index = parse(name, &bytes)?;
    let [only] = index.manifests.as_slice() else {
        return Err(wrong(name, "one image", index.manifests.len()));
    };
    let (manifest, image_digest): (Manifest, _) = document(folder, "manifest", only)?;
    if manifest.layers.len() > MAX_LAYERS {
        return Err(wrong("manifest", format!("{MAX_LAYERS} layers"), manifest.layers.len()));
    }
    for layer in &manifest.layers {
        blob(folder, "layer", layer, &mut |_| ())?;
    }
    let (image, _): (Image, _) = document(folder, "configuration", &manifest.config)?;
    let Config { entrypoint, cmd, env, labels } = image.config;
    let args = [entrypoint, cmd].concat();
    if args.is_empty() {
        return Err(wrong("configuration", "an entry point", "none"));
    }
    let env = env.iter().map(|line| {
        let pair = line.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
        pair.ok_or_else(|| wrong("configuration", "an environment of NAME=VALUE", line))
    });
    let operator_env = launch_policy(&labels)?;
    Ok(Workload { image_digest, args, env: env.collect::<Result<_, _>>()?, operator_env })
}

/// The variables that a launch policy leaves open, if it leaves nothing else.
fn launch_policy(labels: &BTreeMap<String, String>) -> Result<BTreeSet<String>, OciError> {
    let mut open = BTreeSet::from([HOSTNAME.to_owned()]);
    for (label, value) in labels {
        let Some(rule) = label.strip_prefix(LABEL) else { continue };
        let (expected, holds) = match rule {
            "allow_env_override" => {
                open.extend(value.split(',').filter(|name| !name.is_empty()).map(str::to_owned));
                continue;
            }
            "allow_cmd_override" | "allow_capabilities" | "allow_cgroups" => {
                ("false", value == "false")
            }
            "allow_mount_destinations" => ("none", value.is_empty()),
            "hardened_monitoring" => ("none", value.eq_ignore_ascii_case("none")),
            "monitoring_memory_allow" => {
                ("never or debugonly", ["never", "debugonly"].contains(&value.as_str()))
            }
            // What an enclave prints is its own affair; on a debug image, which
            // no site accepts, nothing is.
            "log_redirect" | "debug_monitoring" => continue,
            _ => ("a launch policy that this version knows", false),
        };
        if !holds {
            return Err(wrong(label, expected, value));
        }
    }
    Ok(open)
}

fn parse<T: DeserializeOwned>(what: &str, bytes: &[u8]) -> Result<T, OciError> {
    if bytes.len() as u64 > MAX_JSON {
        return Err(wrong(what, format!("at most {MAX_JSON} bytes"), "more"));
    }
    json::read(bytes).map_err(|error| wrong(what, "its JSON", error))
}

/// A blob of JSON, and its digest.
fn document<T: DeserializeOwned>(
    folder: &Path,
    what: &str,
    of: &Descriptor,
) -> Result<(T, [u8; 32]), OciError> {
    if of.size > MAX_JSON {
        return Err(wrong(what, format!("at most {MAX_JSON} bytes"), of.size));
    }
    let mut bytes = Vec::new();
    let digest = blob(folder, what, of, &mut |piece| bytes.extend_from_slice(piece))?;
    Ok((parse(what, &bytes)?, digest))
}

/// Reads a blob, which must have the size and the digest that it is named by.
fn blob(
    folder: &Path,
    what: &str,
    of: &Descriptor,
    take: &mut dyn FnMut(&[u8]),
) -> Result<[u8; 32], OciError> {
    let mut named = [0; 32];
    let digits = of.digest.strip_prefix("sha256:").unwrap_or_default();
    hex::decode_to_slice(digits, &mut named)
        .map_err(|_| wrong(what, "sha256: and 64 hex digits", &of.digest))?;
    // The name on disk is made of the bytes, never of foreign text.
    let path = folder.join("blobs/sha256").join(hex::encode(named));
    let unread = |error: std::io::Error| wrong(what, path.display(), error);
    let mut file = File::open(&path).map_err(unread)?.take(of.size.saturating_add(1));
    let (mut context, mut size) = (Context::new(&SHA256), 0_u64);
    let mut piece = vec![0; 64 << 10];
    loop {
        let read = file.read(&mut piece).map_err(unread)?;
        if read == 0 {
            break;
        }
        size += read as u64;
        if size > of.size {
            break;
        }
        context.update(&piece[..read]);
        take(&piece[..read]);
    }
    if size != of.size {
        return Err(wrong(what, format!("{} bytes", of.size), format!("{size} or more")));
    }
    let found = context.finish();
    if found.as_ref() != named {
        return Err(wrong(what, &of.digest, hex::encode(found)));
    }
    Ok(named)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};
    use tempfile::TempDir;

    fn put(folder: &Path, bytes: &[u8]) -> Value {
        let digest = hex::encode(ring::digest::digest(&SHA256, bytes));
        std::fs::write(folder.join("blobs/sha256").join(&digest), bytes).unwrap();
        json!({ "digest": format!("sha256:{digest}"), "size": bytes.len() })
    }

    fn layout(config: &Value) -> TempDir {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join("blobs/sha256")).unwrap();
        let layer = put(folder.path(), b"a layer");
        let config = put(folder.path(), json!({ "config": config }).to_string().as_bytes());
        let manifest = json!({ "schemaVersion": 2, "config": config, "layers": [layer] });
        let manifest = put(folder.path(), manifest.to_string().as_bytes());
        let index = json!({ "schemaVersion": 2, "manifests": [manifest] });
        std::fs::write(folder.path().join("index.json"), index.to_string()).unwrap();
        folder
    }

    fn ours() -> Value {
        json!({
            "Entrypoint": ["/a"], "Cmd": ["b"], "Env": ["PATH=/bin:/x=y"], "User": "0:0",
            "Labels": {
                "tee.launch_policy.allow_cmd_override": "false",
                "tee.launch_policy.allow_env_override": "SEALFOLD_DOOR,SEALFOLD_TOKEN",
                "tee.launch_policy.monitoring_memory_allow": "never",
                "tee.launch_policy.log_redirect": "debugonly",
                "org.example": "what it likes",
            },
        })
    }

    #[test]
    fn an_image_says_what_a_token_will() {
        let folder = layout(&ours());
        let workload = measure(folder.path()).unwrap();
        assert_eq!(workload.args, ["/a", "b"]);
        assert_eq!(workload.env["PATH"], "/bin:/x=y");
        let open: Vec<_> = workload.operator_env.iter().map(String::as_str).collect();
        assert_eq!(open, ["HOSTNAME", "SEALFOLD_DOOR", "SEALFOLD_TOKEN"]);
        let index = std::fs::read(folder.path().join("index.json")).unwrap();
        let index: Value = serde_json::from_slice(&index).unwrap();
        let digest = format!("sha256:{}", hex::encode(workload.image_digest));
        assert_eq!(index["manifests"][0]["digest"], digest);
    }

    #[test]
    fn an_image_that_leaves_more_open_is_refused_by_the_label() {
        for (rule, value) in [
            ("allow_cmd_override", "true"),
            ("allow_capabilities", "true"),
            ("allow_cgroups", "1"),
            ("allow_mount_destinations", "/data"),
            ("monitoring_memory_allow", "always"),
            ("hardened_monitoring", "all"),
            ("allow_what_comes_next", "false"),
        ] {
            let mut config = ours();
            config["Labels"][format!("{LABEL}{rule}")] = json!(value);
            let error = measure(layout(&config).path()).unwrap_err();
            assert_eq!(error.what, format!("{LABEL}{rule}"));
            assert_eq!(error.found, value);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let folder = tempfile::tempdir().unwrap();
            std::fs::create_dir_all(folder.path().join("blobs/sha256")).unwrap();
            std::fs::write(folder.path().join("index.json"), &bytes).unwrap();
            assert!(measure(folder.path()).is_err());
            // As the manifest that an index names, too.
            let index = json!({ "manifests": [put(folder.path(), &bytes)] });
            std::fs::write(folder.path().join("index.json"), index.to_string()).unwrap();
            assert!(measure(folder.path()).is_err());
        }
    }

    #[test]
    fn what_is_no_whole_image_is_refused_by_its_part() {
        let refused = |change: &dyn Fn(&Path)| {
            let folder = layout(&ours());
            change(folder.path());
            measure(folder.path()).unwrap_err().to_string()
        };
        let blobs = |folder: &Path| {
            let blobs = std::fs::read_dir(folder.join("blobs/sha256")).unwrap();
            blobs.map(|blob| blob.unwrap().path()).collect::<Vec<_>>()
        };
        let layer = |folder: &Path| {
            let is = |path: &std::path::PathBuf| std::fs::read(path).unwrap() == b"a layer";
            blobs(folder).into_iter().find(is).unwrap()
        };
        let text = refused(&|folder| std::fs::write(layer(folder), b"a lever").unwrap());
        assert!(text.contains("layer: expected sha256:"), "{text}");
        let text = refused(&|folder| std::fs::write(layer(folder), b"a layer!").unwrap());
        assert!(text.contains("layer: expected 7 bytes"), "{text}");
        let text = refused(&|folder| std::fs::remove_file(layer(folder)).unwrap());
        assert!(text.contains("OCI image: layer"), "{text}");
        let index = |text: &str| {
            let text = text.to_owned();
            refused(&move |folder| std::fs::write(folder.join("index.json"), &text).unwrap())
        };
        assert!(index(r#"{"manifests":[]}"#).contains("expected one image, found 0"));
        assert!(index("[").contains("index.json: expected its JSON"));
        assert!(index(&" ".repeat(300_000)).contains("at most 262144 bytes"));
        let climb = r#"{"manifests":[{"digest":"sha256:../../../etc/passwd","size":9}]}"#;
        assert!(index(climb).contains("manifest: expected sha256: and 64 hex digits"));
        assert!(refused(&|f| std::fs::remove_file(f.join("index.json")).unwrap()).contains("OCI"));
        for (field, value, expected) in
            [("Entrypoint", json!([]), "entry point"), ("Env", json!(["A"]), "NAME=VALUE")]
        {
            let mut config = ours();
            config[field] = value;
            config["Cmd"] = json!([]);
            let error = measure(layout(&config).path()).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
