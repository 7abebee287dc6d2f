//! The disk under the staging folder: what puts bytes there and makes them stay.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Writes and syncs files. The system's disk, or one that a simulation fills,
/// and that forgets at a loss of power whatever was not synced.
pub trait Disk: fmt::Debug + Send + Sync {
    /// Writes at an offset of the file at that path.
    ///
    /// # Errors
    /// As the system gives them; some of the bytes may be there then.
    fn write_at(&self, path: &Path, file: &File, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Returns when what was written to the file is durable.
    ///
    /// # Errors
    /// As the system gives them.
    fn sync(&self, path: &Path, file: &File) -> io::Result<()>;
}

/// The system's disk.
#[derive(Debug)]
pub struct System;

impl Disk for System {
    fn write_at(&self, _: &Path, file: &File, offset: u64, bytes: &[u8]) -> io::Result<()> {
        file.write_all_at(bytes, offset)
    }

    fn sync(&self, _: &Path, file: &File) -> io::Result<()> {
        file.sync_all()
    }
}
