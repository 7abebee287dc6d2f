//! The site's folder: files written whole, synced, and kept to their owner.

use crate::{Error, Result};
use sealfold_attestation::{Policy, PolicyError};
use sealfold_protocol::Digest;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The largest small file that is read whole.
const MAX_FILE: u64 = 64 << 20;

/// The site's folder.
#[derive(Debug, Clone)]
pub struct Home {
    folder: PathBuf,
}

impl Home {
    /// A folder, made (mode 0700) if it is not there.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn open(folder: &Path) -> Result<Self> {
        make_folder(folder)?;
        Ok(Self { folder: folder.to_owned() })
    }

    /// A path in it.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// The folder of a study.
    #[must_use]
    pub fn study(&self, study: &Digest) -> PathBuf {
        self.folder.join("studies").join(study.to_string())
    }
}

/// Makes a folder and those above it, for their owner only.
///
/// # Errors
/// As the system gives them.
pub fn make_folder(folder: &Path) -> Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true).mode(0o700).create(folder).map_err(|e| Error::file(folder, e))
}

/// Writes a file as a whole: what was there stays until the new content is on
/// disk, and the name survives a crash.
///
/// # Errors
/// As the system gives them.
pub fn write_file(path: &Path, bytes: &[u8]) -> Result<()> {
    let wrong = |error| Error::file(path, error);
    let folder = path.parent().unwrap_or(Path::new("."));
    make_folder(folder)?;
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let new = folder.join(name);
    let mut options = OpenOptions::new();
    let mut file =
        options.write(true).create(true).truncate(true).mode(0o600).open(&new).map_err(wrong)?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(wrong)?;
    fs::rename(&new, path).map_err(wrong)?;
    sync_folder(path)
}

/// Syncs the folder of a file.
///
/// # Errors
/// As the system gives them.
pub fn sync_folder(path: &Path) -> Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(|e| Error::file(path, e))
}

/// Reads a small file; `None` if there is none.
///
/// # Errors
/// As the system gives them; a file that is too large is not read.
pub fn read_file(path: &Path) -> Result<Option<Vec<u8>>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::file(path, error)),
    };
    let mut bytes = Vec::new();
    file.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(|e| Error::file(path, e))?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(Error::file(path, "larger than 64 MiB"));
    }
    Ok(Some(bytes))
}

/// Reads a file that must be there, as text.
///
/// # Errors
/// As [`read_file`]; if there is none.
pub fn read_text(path: &Path) -> Result<String> {
    let bytes = read_file(path)?.ok_or_else(|| Error::file(path, "no such file"))?;
    String::from_utf8(bytes).map_err(|_| Error::file(path, "not a text"))
}

/// Reads a policy that must be there, and the key set that it may name, beside
/// it.
///
/// # Errors
/// As [`read_text`]; [`Error::Input`] by `policy` naming the field.
pub fn read_policy(path: &Path) -> Result<Policy> {
    let text = read_text(path)?;
    let beside = |name: &str| {
        let path = path.parent().unwrap_or(Path::new(".")).join(name);
        let bytes = read_file(&path).map_err(|error| error.to_string())?;
        bytes.ok_or_else(|| format!("no file {}", path.display()))
    };
    Policy::from_toml_with(&text, &beside).map_err(|error| {
        let at = path.display();
        let (expected, found) = match error {
            PolicyError::Field { field, expected, found } => {
                (format!("{field} in {at}: {expected}"), found)
            }
            PolicyError::Parse(reason) => (format!("a policy in {at}"), reason),
            other => (format!("a policy in {at}"), other.to_string()),
        };
        Error::input("policy", expected, found).next("correct the policy; docs/site.md explains it")
    })
}

/// Writes JSON as [`write_file`].
///
/// # Errors
/// As [`write_file`].
pub fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    let json = serde_json::to_vec_pretty(value).map_err(|e| Error::file(path, e))?;
    write_file(path, &json)
}

/// Reads JSON; `None` if there is no file.
///
/// # Errors
/// As [`read_file`]; if it does not parse.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    let Some(bytes) = read_file(path)? else { return Ok(None) };
    serde_json::from_slice(&bytes).map(Some).map_err(|e| Error::file(path, e))
}
