//! Sealed bytes under way: uploads until their round is released, and
//! aggregates until they are in the store. Files in a local folder, because
//! they are written piece by piece and synced before anything is acknowledged.

use crate::disk::{Disk, System};
use crate::store::failed;
use rustix::fs::{Advice, fadvise};
use sealfold_protocol::refusal::{Check, Refusal};
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Seek, SeekFrom};
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The folder of bytes under way.
#[derive(Debug, Clone)]
pub struct Staging {
    folder: PathBuf,
    disk: Arc<dyn Disk>,
}

impl Staging {
    /// Opens the folder, made if it is not there.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn open(folder: &Path) -> std::io::Result<Self> {
        Self::on(folder, Arc::new(System))
    }

    /// As [`Staging::open`], on a disk of the caller's.
    ///
    /// # Errors
    /// As [`Staging::open`].
    pub fn on(folder: &Path, disk: Arc<dyn Disk>) -> std::io::Result<Self> {
        fs::create_dir_all(folder.join("updates"))?;
        fs::create_dir_all(folder.join("aggregates"))?;
        let temporary = folder.join("temporary");
        match fs::remove_dir_all(&temporary) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => fs::create_dir(&temporary)?,
        }
        Ok(Self { folder: folder.to_owned(), disk })
    }

    /// The folder of temporary files, which a start empties.
    #[must_use]
    pub fn temporary(&self) -> PathBuf {
        self.folder.join("temporary")
    }

    /// Where the sealed bytes of an update are.
    #[must_use]
    pub fn update(&self, header: &[u8; 32]) -> PathBuf {
        self.folder.join("updates").join(hex::encode(header))
    }

    /// Where a finished aggregate is.
    #[must_use]
    pub fn aggregate(&self, object: &[u8; 32]) -> PathBuf {
        self.folder.join("aggregates").join(hex::encode(object))
    }

    fn part(&self, object: &[u8; 32]) -> PathBuf {
        self.folder.join("aggregates").join(format!("{}.part", hex::encode(object)))
    }

    /// How many bytes of an update are on disk.
    #[must_use]
    pub fn received(&self, header: &[u8; 32]) -> u64 {
        fs::metadata(self.update(header)).map_or(0, |meta| meta.len())
    }

    /// Appends to an update at an offset and syncs. Returns the new length.
    ///
    /// # Errors
    /// A refusal by `upload-offset` if the file does not end there, by
    /// `storage` otherwise; what was there before is there still.
    pub fn append(&self, header: &[u8; 32], offset: u64, piece: &[u8]) -> Result<u64, Refusal> {
        let path = self.update(header);
        let is_new = !path.exists();
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(failed)?;
        let end = file.seek(SeekFrom::End(0)).map_err(failed)?;
        if end != offset {
            return Err(Refusal::new(Check::UploadOffset, end, offset)
                .next("go on from the offset that was expected"));
        }
        let written = self.disk.write_at(&path, &file, end, piece);
        if let Err(error) = written.and_then(|()| self.disk.sync(&path, &file)) {
            // What is not acknowledged must not be counted later.
            let _ = file.set_len(end);
            return Err(failed(error));
        }
        if is_new {
            sync_folder(&path).map_err(failed)?;
        }
        Ok(end + piece.len() as u64)
    }

    /// Forgets an update's bytes.
    pub fn forget_update(&self, header: &[u8; 32]) {
        let _ = fs::remove_file(self.update(header));
    }

    /// Forgets an aggregate that is in the store now.
    pub fn forget_aggregate(&self, object: &[u8; 32]) {
        let _ = fs::remove_file(self.aggregate(object));
    }

    /// Opens an aggregate for writing.
    ///
    /// # Errors
    /// As the system gives them.
    pub fn write_aggregate(&self, object: &[u8; 32]) -> std::io::Result<File> {
        OpenOptions::new().create(true).truncate(false).write(true).open(self.part(object))
    }

    /// Writes at an offset of an aggregate that is open for writing.
    /// The system begins to put them on disk: the sync at the end then waits for
    /// the last piece only, and reports a failure of the disk in between.
    ///
    /// # Errors
    /// As the system gives them.
    pub fn write_at(
        &self,
        object: &[u8; 32],
        file: &File,
        offset: u64,
        bytes: &[u8],
    ) -> std::io::Result<()> {
        self.disk.write_at(&self.part(object), file, offset, bytes)?;
        // Linux begins to write pages that are not needed in memory soon, and
        // does not wait. What is still on its way to the disk stays in memory.
        let _ = fadvise(file, offset, NonZeroU64::new(bytes.len() as u64), Advice::DontNeed);
        Ok(())
    }

    /// Checks a written aggregate's length, syncs it and gives it its name.
    ///
    /// # Errors
    /// As the system gives them; [`ErrorKind::InvalidData`] for another length.
    pub fn finish_aggregate(&self, object: &[u8; 32], length: u64) -> std::io::Result<()> {
        let path = self.part(object);
        let file = OpenOptions::new().write(true).open(&path)?;
        if file.metadata()?.len() != length {
            return Err(ErrorKind::InvalidData.into());
        }
        self.disk.sync(&path, &file)?;
        let finished = self.aggregate(object);
        fs::rename(&path, &finished)?;
        sync_folder(&finished)
    }

    /// Forgets the bytes of updates and aggregates that are not to be kept, by
    /// their names: those that belong to no upload, and what a fold never finished.
    pub fn sweep(&self, update: impl Fn(&str) -> bool, aggregate: impl Fn(&str) -> bool) {
        clear(&self.folder.join("updates"), update);
        clear(&self.folder.join("aggregates"), aggregate);
    }
}

/// Removes the files of a folder whose names are not to be kept.
fn clear(folder: &Path, keep: impl Fn(&str) -> bool) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if !entry.file_name().to_str().is_some_and(&keep) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Syncs the folder of a file, so that its name survives a crash.
///
/// # Errors
/// As the system gives them.
pub fn sync_folder(path: &Path) -> std::io::Result<()> {
    path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upload_goes_on_where_it_stopped_and_nowhere_else() {
        let folder = tempfile::tempdir().unwrap();
        let staging = Staging::open(folder.path()).unwrap();
        let header = [1; 32];
        assert_eq!(staging.append(&header, 0, b"abc").unwrap(), 3);
        let error = staging.append(&header, 0, b"abc").unwrap_err();
        assert_eq!((error.check, error.expected.as_str()), (Check::UploadOffset, "3"));
        assert_eq!(staging.append(&header, 3, b"de").unwrap(), 5);
        let again = Staging::open(folder.path()).unwrap();
        assert_eq!(again.received(&header), 5);
    }

    #[test]
    fn an_aggregate_gets_its_name_when_it_is_whole() {
        let folder = tempfile::tempdir().unwrap();
        let staging = Staging::open(folder.path()).unwrap();
        let file = staging.write_aggregate(&[2; 32]).unwrap();
        staging.write_at(&[2; 32], &file, 2, b"cd").unwrap();
        staging.write_at(&[2; 32], &file, 0, b"ab").unwrap();
        assert!(staging.finish_aggregate(&[2; 32], 5).is_err());
        staging.finish_aggregate(&[2; 32], 4).unwrap();
        assert_eq!(fs::read(staging.aggregate(&[2; 32])).unwrap(), b"abcd");
        staging.append(&[3; 32], 0, b"abc").unwrap();
        staging.append(&[4; 32], 0, b"abc").unwrap();
        staging.sweep(|name| name == hex::encode([3; 32]), |_| true);
        assert!(staging.aggregate(&[2; 32]).exists());
        assert_eq!((staging.received(&[3; 32]), staging.received(&[4; 32])), (3, 0));
        staging.sweep(|_| true, |_| false);
        assert!(!staging.aggregate(&[2; 32]).exists());
    }
}
