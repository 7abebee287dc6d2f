//! A copy of a log on disk: the folder that a host serves under `/log/`.
//!
//! The copy may come from anybody and be cut, changed or huge: nothing is read
//! that is longer than it can be, and only regular files are.

use sealfold_attestation::log::tile::narrow;
use sealfold_attestation::log::{LogError, NoteKey, Tile, TileReader};
use sealfold_protocol::leaf::Held;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

/// The longest checkpoint, in bytes.
pub const MAX_CHECKPOINT: usize = sealfold_attestation::log::note::MAX_NOTE;

/// A copy of a log.
#[derive(Debug, Clone)]
pub struct LogCopy {
    folder: PathBuf,
}

impl LogCopy {
    /// The copy in a folder.
    #[must_use]
    pub fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned() }
    }

    /// The checkpoint beside the tiles.
    ///
    /// # Errors
    /// [`LogError::Unreadable`].
    pub fn checkpoint(&self) -> Result<Vec<u8>, LogError> {
        self.file("checkpoint", MAX_CHECKPOINT)?.ok_or_else(|| missing("checkpoint"))
    }

    /// The largest checkpoint that a witness has cosigned; nothing if the copy has
    /// none.
    #[must_use]
    pub fn cosigned(&self, witness: &NoteKey) -> Option<Vec<u8>> {
        let path = format!("cosigned/{}", hex::encode(witness.digest()));
        self.file(&path, MAX_CHECKPOINT).ok().flatten()
    }

    /// The bytes of what a leaf holds or names.
    ///
    /// # Errors
    /// [`LogError::Unreadable`] if the object is not there,
    /// [`LogError::Malformed`] if it is another.
    pub fn held(&self, held: &Held) -> Result<Vec<u8>, LogError> {
        let object = match held {
            Held::Inline(bytes) => return Ok(bytes.clone()),
            Held::Object(object) => object,
        };
        let path = format!("objects/{}", object.digest);
        let limit = usize::try_from(object.length).unwrap_or(usize::MAX);
        let bytes = self.file(&path, limit)?.ok_or_else(|| missing(&path))?;
        object.expect(&bytes).map_err(|error| LogError::Malformed {
            what: path,
            expected: format!("the {} bytes of that digest", object.length),
            found: error.to_string(),
        })?;
        Ok(bytes)
    }

    fn file(&self, path: &str, limit: usize) -> Result<Option<Vec<u8>>, LogError> {
        read_file(&self.folder.join(path), limit)
            .map_err(|reason| LogError::Unreadable { path: path.to_owned(), reason })
    }
}

fn missing(path: &str) -> LogError {
    LogError::Unreadable { path: path.to_owned(), reason: "no such file".to_owned() }
}

/// A regular file of at most so many bytes; nothing if there is none.
fn read_file(path: &Path, limit: usize) -> Result<Option<Vec<u8>>, String> {
    let wrong = |error: std::io::Error| error.to_string();
    // Looked at first: to open a pipe waits for who writes into it.
    match std::fs::metadata(path) {
        Ok(metadata) if metadata.is_file() => {}
        Ok(_) => return Err("not a regular file".to_owned()),
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(wrong(error)),
    }
    let file = File::open(path).map_err(wrong)?;
    let mut bytes = Vec::new();
    file.take(limit as u64 + 1).read_to_end(&mut bytes).map_err(wrong)?;
    if bytes.len() > limit {
        return Err(format!("longer than {limit} bytes"));
    }
    Ok(Some(bytes))
}

impl TileReader for LogCopy {
    /// A tile; where a partial one has made way for the full one, what that one
    /// begins with.
    fn read(&self, tile: &Tile) -> Result<Vec<u8>, LogError> {
        let path = tile.to_string();
        if let Some(bytes) = self.file(&path, tile.longest())? {
            return Ok(bytes);
        }
        if tile.is_full() {
            return Err(missing(&path));
        }
        let full = tile.filled();
        let bytes = self.file(&full.to_string(), full.longest())?.ok_or_else(|| missing(&path))?;
        narrow(tile, &full, &bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sealfold_attestation::log::Edge;
    use sealfold_protocol::Digest;
    use sealfold_protocol::leaf::Object;

    #[test]
    fn a_partial_tile_is_found_in_the_full_one_and_objects_are_what_they_are_called() {
        let folder = tempfile::tempdir().unwrap();
        let copy = LogCopy::new(folder.path());
        let (mut edge, mut written) = (Edge::new(), Vec::new());
        let mut partial = Vec::new();
        for i in 0..256u32 {
            edge.push(&i.to_be_bytes(), &mut written).unwrap();
            if i == 99 {
                partial = edge.partial();
            }
        }
        for (tile, bytes) in written {
            let path = folder.path().join(tile.to_string());
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, bytes).unwrap();
        }
        for (tile, bytes) in partial {
            assert_eq!(copy.read(&tile).unwrap(), bytes, "{tile}");
        }
        let later = Tile::parse("tile/0/001.p/3").unwrap();
        let error = copy.read(&later).unwrap_err().to_string();
        assert!(error.contains("tile/0/001.p/3") && error.contains("no such file"), "{error}");

        let bytes = vec![7; 2000];
        let held = Held::new(&bytes);
        let Held::Object(Object { digest, .. }) = held else { panic!() };
        assert!(matches!(copy.held(&held), Err(LogError::Unreadable { .. })));
        std::fs::create_dir(folder.path().join("objects")).unwrap();
        let path = folder.path().join(format!("objects/{digest}"));
        for (content, holds) in [(&bytes[..], true), (&bytes[1..], false), (&[7; 2001], false)] {
            std::fs::write(&path, content).unwrap();
            assert_eq!(copy.held(&held).is_ok(), holds);
        }
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        assert!(copy.held(&held).is_err());
        assert_eq!(digest, Digest::of(&[&bytes]));
    }
}
