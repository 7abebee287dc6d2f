//! The log's own key: a file of one line in the host's data folder, mode 0600.
//!
//! It signs checkpoints and nothing else. Who steals it can sign a fork, which
//! any two readers notice; who loses it cannot carry the log on.

use anyhow::{Context, bail};
use sealfold_attestation::log::note::KeyKind;
use sealfold_attestation::log::{NoteKey, NoteSigner};
use sealfold_protocol::refusal::{Check, Refusal};
use sealfold_protocol::{Digest, SigningKey, VerifyingKey};
use sealfold_study::LogTerms;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The longest key file.
const MAX_FILE: u64 = 4096;

/// What `sealfold-host log-key` was asked for.
#[derive(Debug, clap::Args)]
pub struct Print {
    /// The host's data folder, where the key is kept.
    #[arg(long, value_name = "FOLDER", default_value = "data")]
    data: PathBuf,
    /// The log's name, such as log.hospital.example/heart; chosen once.
    #[arg(long, value_name = "NAME")]
    log_origin: Option<String>,
    /// The section of a policy, in place of that of a manifest.
    #[arg(long)]
    policy: bool,
}

impl Print {
    /// The section `[log]` as TOML.
    ///
    /// # Errors
    /// As [`open`].
    pub fn section(&self) -> anyhow::Result<String> {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.data)?;
        // The key of a log that is there is not made anew by serve either.
        let signer = open(&self.data.join("log.key"), self.log_origin.as_deref(), false)?;
        let key = signer.key();
        if self.policy {
            return Ok(format!("[log]\nkey = \"{key}\"\n"));
        }
        let public = VerifyingKey::new(*key.key());
        Ok(format!("[log]\norigin = \"{}\"\nkey = \"{public}\"\n", key.name()))
    }
}

/// Reads the key, or makes one under the origin that is given, by default one
/// that is made from the key itself. A key is not made for a log that is there.
///
/// # Errors
/// If the file cannot be read or made, is no key, or is of another origin.
pub fn open(path: &Path, origin: Option<&str>, has_log: bool) -> anyhow::Result<NoteSigner> {
    let at = || format!("the log's key {}", path.display());
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            if has_log {
                bail!(
                    "expected {} of the log that is in the store, found none; restore it, or \
                     move the store's log away to begin another",
                    at()
                );
            }
            return make(path, origin).with_context(at);
        }
        Err(error) => return Err(error).with_context(at),
    };
    let mut text = String::new();
    file.take(MAX_FILE).read_to_string(&mut text).with_context(at)?;
    let (name, seed) = text.trim_end().split_once(' ').with_context(at)?;
    let mut bytes = [0; 32];
    hex::decode_to_slice(seed, &mut bytes).ok().with_context(|| format!("{}: no seed", at()))?;
    if let Some(origin) = origin.filter(|origin| *origin != name) {
        bail!("{} is of the log {name}, expected {origin} (--log-origin)", at());
    }
    Ok(NoteSigner::from_seed(name, KeyKind::Ed25519, &bytes)?)
}

fn make(path: &Path, origin: Option<&str>) -> anyhow::Result<NoteSigner> {
    let key = SigningKey::generate()?;
    let own = || format!("sealfold/{}", Digest::of(&[key.verifying_key().as_bytes()]).short());
    let name = origin.map_or_else(own, str::to_owned);
    let signer = NoteSigner::from_seed(&name, KeyKind::Ed25519, &key.seed())?;
    let new = path.with_extension("new");
    let mut options = OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    writeln!(file, "{name} {}", hex::encode(*key.seed()))?;
    file.sync_all()?;
    std::fs::rename(&new, path)?;
    File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()?;
    Ok(signer)
}

/// Expects a manifest's log to be that of this key.
///
/// # Errors
/// A refusal by `manifest`.
pub fn expect_own(key: &NoteKey, terms: &LogTerms) -> Result<(), Refusal> {
    if terms.origin == key.name() && terms.key.as_bytes() == key.key() {
        return Ok(());
    }
    let of = |name: &str, key: VerifyingKey| format!("log {name} with key {key}");
    let expected = of(key.name(), VerifyingKey::new(*key.key()));
    Err(Refusal::new(Check::Manifest, expected, of(&terms.origin, terms.key)).next(
        "the manifest's [log] is what sealfold-host log-key prints for the host that runs the study",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_key_is_made_once_and_is_its_owners() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log.key");
        let made = open(&path, None, false).unwrap();
        assert!(made.key().name().starts_with("sealfold/"));
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(open(&path, None, true).unwrap().key(), made.key());
        let other = open(&path, Some("log.example"), true).unwrap_err().to_string();
        assert!(other.contains("expected log.example"), "{other}");
        std::fs::write(&path, "x").unwrap();
        assert!(open(&path, None, true).is_err());
        std::fs::write(&path, "x 00").unwrap();
        assert!(open(&path, None, true).is_err());
        std::fs::remove_file(&path).unwrap();
        assert!(open(&path, None, true).is_err());
        assert!(open(&path, Some("a b"), false).is_err());
    }
}
