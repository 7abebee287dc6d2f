//! A workload as the launcher of a Confidential Space starts and measures it:
//! the image's own settings, and what the operator sets as the machine's metadata
//! within the image's launch policy.
//!
//! It reads images by itself, so that what `sealfold measure` reads of the same
//! image is compared with another reading.

use ring::digest::{SHA256, digest};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The name of the machine, which the launcher sets as `HOSTNAME`.
pub const HOSTNAME: &str = "sealfold-enclave-1";

/// A workload that was started.
#[derive(Debug, Clone)]
pub struct Workload {
    /// `sha256:` and the digest of the image's manifest.
    pub image_digest: String,
    /// The same of its configuration.
    pub image_id: String,
    /// The command line.
    pub args: Vec<String>,
    /// The whole environment.
    pub env: BTreeMap<String, String>,
    /// What of it the operator set.
    pub env_override: BTreeMap<String, String>,
}

impl Workload {
    /// Starts from an image, with environment variables of the operator.
    ///
    /// # Errors
    /// In the launcher's words, if the image's launch policy does not allow it.
    pub fn launch(layout: &Path, operator: &[(&str, &str)]) -> Result<Self, String> {
        let (image_digest, manifest) = manifest(layout);
        let image_id = manifest["config"]["digest"].as_str().unwrap().to_owned();
        let config = &json_of(&blob(layout, &image_id))["config"];
        let label = |name: &str| config["Labels"][format!("tee.launch_policy.{name}")].as_str();
        let allowed: Vec<_> = label("allow_env_override").unwrap_or_default().split(',').collect();
        let pair = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let env_override: BTreeMap<_, _> = operator.iter().map(pair).collect();
        if let Some(name) = env_override.keys().find(|name| !allowed.contains(&name.as_str())) {
            return Err(format!(
                "env var {name} is not allowed to be overridden on this image; allowed envs to be \
                 overridden: {allowed:?}"
            ));
        }
        let texts = |list: &Value| -> Vec<String> {
            let list = list.as_array().into_iter().flatten();
            list.map(|text| text.as_str().unwrap().to_owned()).collect()
        };
        let own = texts(&config["Env"]);
        let own = own.iter().map(|line| pair(&line.split_once('=').unwrap()));
        let args = [texts(&config["Entrypoint"]), texts(&config["Cmd"])].concat();
        Ok(Self { image_digest, image_id, args, ..Self::of(own.collect(), env_override) })
    }

    /// A process that no image was made of: its binary is measured in the place
    /// of one.
    #[must_use]
    pub fn process(binary: &Path, args: &[&str], operator: &[(&str, &str)]) -> Self {
        let measured = hex::encode(digest(&SHA256, &std::fs::read(binary).unwrap()));
        let mut all = vec![binary.to_str().unwrap().to_owned()];
        all.extend(args.iter().map(|text| (*text).to_owned()));
        let operator = operator.iter().map(|(name, value)| ((*name).into(), (*value).into()));
        Self {
            image_digest: format!("sha256:{measured}"),
            image_id: format!("sha256:{}", "1d".repeat(32)),
            args: all,
            ..Self::of(BTreeMap::new(), operator.collect())
        }
    }

    fn of(own: BTreeMap<String, String>, env_override: BTreeMap<String, String>) -> Self {
        let mut env = own;
        env.extend(env_override.clone());
        env.insert("HOSTNAME".to_owned(), HOSTNAME.to_owned());
        let none = String::new();
        Self { image_digest: none.clone(), image_id: none, args: Vec::new(), env, env_override }
    }

    /// The claims of a token: those of the published token, with this workload,
    /// this audience, these nonces and this time.
    #[must_use]
    pub fn claims(&self, audience: &str, nonces: &[String], now: i64) -> Value {
        let nonce = match nonces {
            [only] => json!(only),
            several => json!(several),
        };
        let reference =
            format!("europe-docker.pkg.dev/project/sealfold/enclave@{}", self.image_digest);
        let mut container = json!({
            "image_reference": reference, "image_digest": self.image_digest,
            "restart_policy": "Always", "image_id": self.image_id, "args": self.args,
            "env": self.env,
        });
        if !self.env_override.is_empty() {
            container["env_override"] = json!(self.env_override);
        }
        let mut claims = json!({
            "aud": audience, "exp": now + 3600, "iat": now,
            "iss": "https://confidentialcomputing.googleapis.com", "nbf": now,
            "sub": format!("https://www.googleapis.com/compute/v1/projects/project/zones/\
                            europe-west4-a/instances/{HOSTNAME}"),
            "eat_nonce": nonce,
            "eat_profile": "https://cloud.google.com/confidential-computing/confidential-space/\
                            docs/reference/token-claims",
            "secboot": true, "oemid": 11129, "hwmodel": "GCP_INTEL_TDX",
            "swname": "CONFIDENTIAL_SPACE", "swversion": ["250800"],
            "attester_tcb": ["INTEL"], "dbgstat": "disabled-since-boot",
            "submods": {
                "confidential_space": {
                    "support_attributes": ["LATEST", "STABLE", "USABLE"],
                    "monitoring_enabled": { "memory": false },
                },
                "container": container,
                "gce": {
                    "zone": "europe-west4-a", "project_id": "project",
                    "project_number": "724467010559", "instance_name": HOSTNAME,
                    "instance_id": "3087957179640521392",
                },
            },
            "tdx": {
                "gcp_attester_tcb_status": "UpToDate",
                "gcp_attester_tcb_date": "2024-03-13T00:00:00Z",
            },
            "google_service_accounts": ["sealfold-enclave@project.iam.gserviceaccount.com"],
        });
        if nonces.is_empty() {
            claims.as_object_mut().unwrap().remove("eat_nonce");
        }
        claims
    }

    /// What a policy says to accept it: from the claims, for tests that have no
    /// image to measure.
    #[must_use]
    pub fn measurements(&self, table: &str) -> String {
        let digits = self.image_digest.strip_prefix("sha256:").unwrap();
        let open: Vec<_> =
            self.env_override.keys().map(String::as_str).chain(["HOSTNAME"]).collect();
        let own = self.env.iter().filter(|(name, _)| !open.contains(&name.as_str()));
        let own: Vec<_> = own.map(|(name, value)| format!("{name} = {}", json!(value))).collect();
        format!(
            "[[{table}.measurements]]\nimage_digest = \"{digits}\"\nargs = {}\nenv = {{ {} }}\n\
             operator_env = {}\n",
            json!(self.args),
            own.join(", "),
            json!(open),
        )
    }
}

fn json_of(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn blob(layout: &Path, digest: &str) -> PathBuf {
    layout.join("blobs/sha256").join(digest.strip_prefix("sha256:").unwrap())
}

/// The digest of the one manifest in a layout, and the manifest.
fn manifest(layout: &Path) -> (String, Value) {
    let index = json_of(&layout.join("index.json"));
    let digest = index["manifests"][0]["digest"].as_str().unwrap().to_owned();
    let manifest = json_of(&blob(layout, &digest));
    (digest, manifest)
}

/// The layers of the image in a layout, in the order in which they are unpacked.
#[must_use]
pub fn layers(layout: &Path) -> Vec<PathBuf> {
    let (_, manifest) = manifest(layout);
    let layers = manifest["layers"].as_array().unwrap().iter();
    layers.map(|layer| blob(layout, layer["digest"].as_str().unwrap())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;

    /// The names in a JSON value, with the type behind each.
    fn shape(value: &Value, at: &str, names: &mut Vec<String>) {
        match value {
            // These have a workload's own names in them.
            Value::Object(_) if at.ends_with("/env") => names.push(format!("{at} object")),
            Value::Object(fields) => {
                for (name, value) in fields {
                    shape(value, &format!("{at}/{name}"), names);
                }
            }
            Value::Array(_) => names.push(format!("{at} array")),
            Value::String(_) => names.push(format!("{at} string")),
            Value::Number(_) => names.push(format!("{at} number")),
            Value::Bool(_) => names.push(format!("{at} bool")),
            Value::Null => names.push(format!("{at} null")),
        }
    }

    #[test]
    fn claims_have_the_exact_shape_of_the_published_token() {
        let token = include_str!(
            "../../attestation/tests/vectors/confidential-space/gcs_pki_token_20250905.jwt"
        );
        let payload = URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap();
        let published: Value = serde_json::from_slice(&payload).unwrap();
        let workload = Workload::process(Path::new("/proc/self/exe"), &[], &[]);
        let ours = workload.claims("us", &["ab".repeat(32)], 1_757_060_250);
        let [mut theirs, mut made] = [Vec::new(), Vec::new()];
        shape(&published, "", &mut theirs);
        shape(&ours, "", &mut made);
        theirs.sort_unstable();
        made.sort_unstable();
        assert_eq!(made, theirs);
        assert_eq!(ours["exp"].as_i64().unwrap() - ours["iat"].as_i64().unwrap(), 3600);
        for name in ["iss", "eat_profile", "hwmodel", "swname", "dbgstat", "secboot", "oemid"] {
            assert_eq!(ours[name], published[name], "{name}");
        }
        // Several nonces are an array, none are no claim.
        assert!(workload.claims("us", &vec!["a".to_owned(); 2], 0)["eat_nonce"].is_array());
        assert!(workload.claims("us", &[], 0).get("eat_nonce").is_none());
    }
}
