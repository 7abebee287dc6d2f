//! The host's store as files: sealed updates that are read, and the sealed
//! aggregate that is written, each through the operating system as the host
//! itself does it.

use sealfold_enclave::door::{DoorError, Doors, RecordDoor};
use std::collections::{HashMap, VecDeque};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Open files of a round.
pub struct Files {
    updates: HashMap<[u8; 32], File>,
    aggregate: File,
}

impl Files {
    /// A store without updates, and with an empty aggregate at that path.
    pub fn new(aggregate: &Path) -> std::io::Result<Self> {
        let mut open = OpenOptions::new();
        let aggregate = open.read(true).write(true).create(true).truncate(true).open(aggregate)?;
        Ok(Self { updates: HashMap::new(), aggregate })
    }

    /// Keeps a sealed update. It is on the disk when this returns, so that
    /// writing it back does not disturb what is measured later.
    pub fn keep(&mut self, name: [u8; 32], path: &Path, sealed: &[u8]) -> std::io::Result<()> {
        let mut file = File::create(path)?;
        file.write_all(sealed)?;
        file.sync_all()?;
        self.updates.insert(name, File::open(path)?);
        Ok(())
    }

    /// The aggregate, emptied for the next fold.
    pub fn empty_aggregate(&self) -> std::io::Result<()> {
        self.aggregate.set_len(0)
    }
}

/// A connection to these files.
pub struct FileDoor<'a> {
    files: &'a Files,
    asked: VecDeque<(&'a File, u64, usize)>,
}

impl<'a> Doors for &'a Files {
    type Door = FileDoor<'a>;

    fn open(&self) -> Result<FileDoor<'a>, DoorError> {
        Ok(FileDoor { files: self, asked: VecDeque::new() })
    }
}

impl RecordDoor for FileDoor<'_> {
    fn ask(&mut self, object: &[u8; 32], offset: u64, length: usize) -> Result<(), DoorError> {
        let file = self.files.updates.get(object);
        let file = file.ok_or_else(|| DoorError("an update that was not kept".to_owned()))?;
        self.asked.push_back((file, offset, length));
        Ok(())
    }

    fn take(&mut self, buffer: &mut Vec<u8>) -> Result<(), DoorError> {
        let asked = self.asked.pop_front();
        let (file, offset, length) =
            asked.ok_or_else(|| DoorError("nothing was asked for".to_owned()))?;
        buffer.resize(length, 0);
        Ok(file.read_exact_at(buffer, offset)?)
    }

    fn write(&mut self, _: &[u8; 32], offset: u64, bytes: &[u8]) -> Result<(), DoorError> {
        Ok(self.files.aggregate.write_all_at(bytes, offset)?)
    }

    fn settle(&mut self) -> Result<(), DoorError> {
        Ok(())
    }

    fn finish(&mut self, _: &[u8; 32], length: u64) -> Result<(), DoorError> {
        let found = self.files.aggregate.metadata()?.len();
        if found == length {
            return Ok(());
        }
        Err(DoorError(format!("the aggregate has {found} bytes, expected {length}")))
    }
}
