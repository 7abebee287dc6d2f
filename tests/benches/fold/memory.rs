//! Sealed updates in memory, in place of a host.

use sealfold_enclave::door::{DoorError, Doors, RecordDoor};
use sealfold_protocol::seal;
use std::collections::{HashMap, VecDeque};
use std::hint::black_box;
use std::ops::Range;
use std::sync::{Arc, Mutex};

/// Sealed updates in memory, in place of a host. What is taken is moved, not
/// copied: to bring bytes to the enclave is the transport's work, which the run
/// through the real processes counts.
pub struct Memory {
    objects: Arc<HashMap<[u8; 32], Vec<u8>>>,
    laid_out: HashMap<([u8; 32], u64), Slot>,
}

/// A range of an object.
pub struct Slot {
    length: usize,
    object: [u8; 32],
    offset: u64,
    bytes: Mutex<Vec<u8>>,
}

impl Memory {
    /// Objects of that length, laid out in runs of so many chunks.
    pub fn new(objects: Arc<HashMap<[u8; 32], Vec<u8>>>, plain: u64, run: u64) -> Self {
        let mut laid_out = HashMap::new();
        let mut lay = |name, range: Range<u64>| {
            let length = usize::try_from(range.end - range.start).unwrap();
            let (object, offset, bytes) = (name, range.start, Mutex::default());
            laid_out.insert((name, range.start), Slot { length, object, offset, bytes });
        };
        for name in objects.keys() {
            lay(*name, 0..seal::HEADER as u64);
            for chunks in (0..seal::record_count(plain)).map(|j| seal::record_chunks(plain, j)) {
                (chunks.start..chunks.end).step_by(usize::try_from(run).unwrap()).for_each(
                    |start| {
                        let run = start..chunks.end.min(start + run);
                        lay(*name, seal::chunks_range(plain, &run));
                    },
                );
            }
        }
        Self { objects, laid_out }
    }

    /// Lays the sealed bytes out, again after they were taken.
    pub fn restore(&self) {
        for ((name, offset), slot) in &self.laid_out {
            let mut bytes = slot.bytes.lock().unwrap();
            bytes.clear();
            let offset = usize::try_from(*offset).unwrap();
            bytes.extend_from_slice(&self.objects[name][offset..offset + slot.length]);
        }
    }
}

pub struct MemoryDoor<'a> {
    memory: &'a Memory,
    asked: VecDeque<&'a Slot>,
}

impl<'a> Doors for &'a Memory {
    type Door = MemoryDoor<'a>;
    fn open(&self) -> Result<MemoryDoor<'a>, DoorError> {
        Ok(MemoryDoor { memory: self, asked: VecDeque::new() })
    }
}

impl RecordDoor for MemoryDoor<'_> {
    fn ask(&mut self, object: &[u8; 32], offset: u64, length: usize) -> Result<(), DoorError> {
        let slot = &self.memory.laid_out[&(*object, offset)];
        assert_eq!(slot.length, length);
        self.asked.push_back(slot);
        Ok(())
    }
    fn take(&mut self, buffer: &mut Vec<u8>) -> Result<(), DoorError> {
        let slot = self.asked.pop_front().unwrap();
        let mut bytes = slot.bytes.lock().unwrap();
        // A rule that takes a second pass gets copies, which it pays for.
        if bytes.is_empty() {
            let start = usize::try_from(slot.offset).unwrap();
            let object = &self.memory.objects[&slot.object];
            buffer.clear();
            buffer.extend_from_slice(&object[start..start + slot.length]);
        } else {
            std::mem::swap(buffer, &mut bytes);
            bytes.clear();
        }
        Ok(())
    }
    fn write(&mut self, _: &[u8; 32], _: u64, bytes: &[u8]) -> Result<(), DoorError> {
        black_box(bytes);
        Ok(())
    }
    fn settle(&mut self) -> Result<(), DoorError> {
        Ok(())
    }
    fn finish(&mut self, _: &[u8; 32], _: u64) -> Result<(), DoorError> {
        Ok(())
    }
}
