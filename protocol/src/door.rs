//! The record door: how the enclave reads and writes sealed bytes at its parent.
//!
//! A connection carries requests of 45 bytes, all integers little-endian:
//!
//! | bytes | field |
//! | --- | --- |
//! | 1 | operation: 1 read, 2 write, 3 finish |
//! | 32 | object: an update's header digest (read), or a name that the enclave drew (write, finish) |
//! | 8 | offset in the object (read, write) or its whole length (finish) |
//! | 4 | length of what is read or written; 0 for finish |
//!
//! A write is followed by its bytes. Each request is answered by one status
//! byte (0: done, 1: no such object or range, 2: storage failed), in order; a
//! read that succeeded by its bytes after it. Requests may be sent ahead of
//! the answers. *Finish* is answered when the object is on disk.

use std::io::{self, Read, Write};

/// The length of a request in bytes.
pub const REQUEST: usize = 45;
/// The most bytes of one read or write: the longest sealed record, and more.
pub const MAX_LENGTH: u32 = 320 << 10;

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// Bytes of an update.
    Read,
    /// Bytes of an aggregate; they follow the request.
    Write,
    /// The aggregate is complete: put it on disk.
    Finish,
}

/// One request at the door.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request {
    /// What is asked for.
    pub operation: Operation,
    /// Of which object.
    pub object: [u8; 32],
    /// From where on; for [`Operation::Finish`] the whole length.
    pub offset: u64,
    /// How many bytes.
    pub length: u32,
}

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// As asked.
    Done = 0,
    /// There is no such object, or not that range of it.
    NotFound = 1,
    /// The store failed.
    Failed = 2,
}

impl Request {
    /// Encodes the request.
    #[must_use]
    pub fn encode(&self) -> [u8; REQUEST] {
        let mut bytes = [0; REQUEST];
        bytes[0] = match self.operation {
            Operation::Read => 1,
            Operation::Write => 2,
            Operation::Finish => 3,
        };
        bytes[1..33].copy_from_slice(&self.object);
        bytes[33..41].copy_from_slice(&self.offset.to_le_bytes());
        bytes[41..].copy_from_slice(&self.length.to_le_bytes());
        bytes
    }

    /// Decodes a request.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidData`] for an unknown operation or a length
    /// above [`MAX_LENGTH`].
    pub fn decode(bytes: &[u8; REQUEST]) -> io::Result<Self> {
        let invalid = |what| io::Error::new(io::ErrorKind::InvalidData, what);
        let operation = match bytes[0] {
            1 => Operation::Read,
            2 => Operation::Write,
            3 => Operation::Finish,
            _ => return Err(invalid("unknown operation at the record door")),
        };
        let (mut object, mut offset, mut length) = ([0; 32], [0; 8], [0; 4]);
        object.copy_from_slice(&bytes[1..33]);
        offset.copy_from_slice(&bytes[33..41]);
        length.copy_from_slice(&bytes[41..]);
        let length = u32::from_le_bytes(length);
        if length > MAX_LENGTH || (operation == Operation::Finish && length != 0) {
            return Err(invalid("length is beyond the record door's limit"));
        }
        Ok(Self { operation, object, offset: u64::from_le_bytes(offset), length })
    }

    /// Reads the next request; `None` where the other side hung up between two.
    ///
    /// # Errors
    /// As the stream gives them, and as [`Request::decode`].
    pub fn read_from(stream: &mut impl Read) -> io::Result<Option<Self>> {
        let mut bytes = [0; REQUEST];
        if stream.read(&mut bytes[..1])? == 0 {
            return Ok(None);
        }
        stream.read_exact(&mut bytes[1..])?;
        Self::decode(&bytes).map(Some)
    }
}

impl Status {
    /// Reads an answer's status.
    ///
    /// # Errors
    /// As the stream gives them; [`io::ErrorKind::InvalidData`] for another byte.
    pub fn read_from(stream: &mut impl Read) -> io::Result<Self> {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        match byte[0] {
            0 => Ok(Self::Done),
            1 => Ok(Self::NotFound),
            2 => Ok(Self::Failed),
            _ => Err(io::Error::new(io::ErrorKind::InvalidData, "unknown status at the door")),
        }
    }

    /// Writes an answer's status.
    ///
    /// # Errors
    /// As the stream gives them.
    pub fn write_to(self, stream: &mut impl Write) -> io::Result<()> {
        stream.write_all(&[self as u8])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn requests_come_back(op in 0usize..3, object: [u8; 32], offset: u64, length in 0..=MAX_LENGTH) {
            let operation = [Operation::Read, Operation::Write, Operation::Finish][op];
            let length = if operation == Operation::Finish { 0 } else { length };
            let request = Request { operation, object, offset, length };
            prop_assert_eq!(Request::decode(&request.encode()).unwrap(), request);
        }

        #[test]
        fn arbitrary_requests_never_ask_for_too_much(bytes in proptest::array::uniform32(any::<u8>()), tail: [u8; 13]) {
            let mut all = [0; REQUEST];
            all[..32].copy_from_slice(&bytes);
            all[32..].copy_from_slice(&tail);
            if let Ok(request) = Request::decode(&all) {
                prop_assert!(request.length <= MAX_LENGTH);
            }
        }
    }
}
