//! The enclave's side of the record door, the one connection that it opens.
//!
//! Whatever comes through it is sealed and proves itself when it is opened;
//! whatever goes out is sealed.

use sealfold_protocol::door::{Operation, Request, Status};
use sealfold_protocol::endpoint::{Endpoint, Stream};
use sealfold_protocol::refusal::{Check, Refusal};
use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::time::{Duration, Instant};

/// How long the host may take for one record, however it hands it out.
const RECORD: Duration = Duration::from_mins(1);

/// The parent's record door, for one pass over a round's records.
#[derive(Debug)]
pub struct Parent<'a> {
    /// Where it is.
    pub endpoint: &'a Endpoint,
    /// When the round ends; nothing is read or written after that, so that a
    /// slow host cannot keep a round's keys alive.
    pub until: Option<Instant>,
}

/// A connection to the record door.
#[derive(Debug)]
pub struct Door {
    stream: Stream,
    /// Requests that were not sent yet.
    requests: Vec<u8>,
    /// Lengths of the reads that were asked for and not yet taken.
    asked: VecDeque<usize>,
    /// Whether a write was not answered yet.
    writing: bool,
    until: Option<Instant>,
}

/// The door failed: the host's affair, not a site's.
#[derive(Debug, thiserror::Error)]
#[error("record door: {0}")]
pub struct DoorError(pub String);

impl From<io::Error> for DoorError {
    fn from(error: io::Error) -> Self {
        Self(error.to_string())
    }
}

impl From<DoorError> for Refusal {
    fn from(error: DoorError) -> Self {
        Self::new(Check::Door, "the object at the host's record door", error)
            .next("the host tries again when its store answers")
    }
}

/// Where connections to a record door come from: the parent's endpoint, or, in
/// a benchmark, memory.
pub trait Doors: Sync {
    /// A connection.
    type Door: RecordDoor;

    /// Opens one.
    ///
    /// # Errors
    /// If the parent does not listen.
    fn open(&self) -> Result<Self::Door, DoorError>;
}

impl Doors for Parent<'_> {
    type Door = Door;

    fn open(&self) -> Result<Door, DoorError> {
        let stream = self.endpoint.connect()?;
        stream.set_timeout(Some(RECORD))?;
        let (requests, asked) = (Vec::new(), VecDeque::new());
        Ok(Door { stream, requests, asked, writing: false, until: self.until })
    }
}

/// A stream of which every byte of one record has to pass in time. The
/// stream's own timeout bounds each call; this bounds their sum.
struct InTime<'a> {
    stream: &'a mut Stream,
    start: Instant,
    until: Option<Instant>,
}

impl InTime<'_> {
    fn check(&self) -> io::Result<()> {
        let now = Instant::now();
        let late = |what| Err(io::Error::new(io::ErrorKind::TimedOut, what));
        if self.until.is_some_and(|until| now >= until) {
            return late("the round is over");
        }
        if now.duration_since(self.start) >= RECORD {
            return late("expected a record within 60 s, the host is slower");
        }
        Ok(())
    }
}

impl Read for InTime<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.check()?;
        self.stream.read(buffer)
    }
}

impl Write for InTime<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.check()?;
        self.stream.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

impl Door {
    /// Sends the requests that were made, all at once.
    fn send(&mut self) -> io::Result<()> {
        if !self.requests.is_empty() {
            let requests = std::mem::take(&mut self.requests);
            self.in_time().write_all(&requests)?;
        }
        Ok(())
    }

    fn in_time(&mut self) -> InTime<'_> {
        InTime { stream: &mut self.stream, start: Instant::now(), until: self.until }
    }
}

/// A connection to a record door, used by one thread.
pub trait RecordDoor {
    /// Asks for a range of an object; the bytes are [taken](Door::take) later,
    /// in the order in which they were asked for. The request is sent with the
    /// next take at the latest.
    ///
    /// # Errors
    /// As the stream gives them.
    fn ask(&mut self, object: &[u8; 32], offset: u64, length: usize) -> Result<(), DoorError>;

    /// Takes the bytes of the oldest range that was asked for.
    ///
    /// # Errors
    /// If the host does not have them.
    fn take(&mut self, buffer: &mut Vec<u8>) -> Result<(), DoorError>;

    /// Writes bytes at an offset of an object that the enclave makes. That the
    /// host took them is known when the next write, or [`RecordDoor::settle`],
    /// returns; so the host writes while the enclave works.
    ///
    /// # Errors
    /// If the host did not take these bytes or those before.
    fn write(&mut self, object: &[u8; 32], offset: u64, bytes: &[u8]) -> Result<(), DoorError>;

    /// Waits until the host has taken everything that was written.
    ///
    /// # Errors
    /// If it did not.
    fn settle(&mut self) -> Result<(), DoorError>;

    /// Waits until the object of that length is on the host's disk.
    ///
    /// # Errors
    /// If the host cannot say so.
    fn finish(&mut self, object: &[u8; 32], length: u64) -> Result<(), DoorError>;
}

impl RecordDoor for Door {
    fn ask(&mut self, object: &[u8; 32], offset: u64, length: usize) -> Result<(), DoorError> {
        let short = u32::try_from(length).map_err(|_| DoorError("range too long".to_owned()))?;
        let request =
            Request { operation: Operation::Read, object: *object, offset, length: short };
        self.requests.extend(request.encode());
        self.asked.push_back(length);
        Ok(())
    }

    fn take(&mut self, buffer: &mut Vec<u8>) -> Result<(), DoorError> {
        let length =
            self.asked.pop_front().ok_or_else(|| DoorError("nothing was asked for".to_owned()))?;
        self.send()?;
        let mut stream = self.in_time();
        expect_done(Status::read_from(&mut stream)?)?;
        buffer.resize(length, 0);
        stream.read_exact(buffer)?;
        Ok(())
    }

    fn write(&mut self, object: &[u8; 32], offset: u64, bytes: &[u8]) -> Result<(), DoorError> {
        self.settle()?;
        self.send()?;
        let length =
            u32::try_from(bytes.len()).map_err(|_| DoorError("range too long".to_owned()))?;
        let request = Request { operation: Operation::Write, object: *object, offset, length };
        let mut stream = self.in_time();
        stream.write_all(&request.encode())?;
        stream.write_all(bytes)?;
        self.writing = true;
        Ok(())
    }

    fn settle(&mut self) -> Result<(), DoorError> {
        if std::mem::take(&mut self.writing) {
            expect_done(Status::read_from(&mut self.in_time())?)?;
        }
        Ok(())
    }

    fn finish(&mut self, object: &[u8; 32], length: u64) -> Result<(), DoorError> {
        self.settle()?;
        self.send()?;
        let request =
            Request { operation: Operation::Finish, object: *object, offset: length, length: 0 };
        self.in_time().write_all(&request.encode())?;
        expect_done(Status::read_from(&mut self.in_time())?)
    }
}

fn expect_done(status: Status) -> Result<(), DoorError> {
    match status {
        Status::Done => Ok(()),
        Status::NotFound => Err(DoorError("the host does not have that object".to_owned())),
        Status::Failed => Err(DoorError("the host's store failed".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_passes_after_the_rounds_end_or_after_a_records_time() {
        let (ours, _theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        let mut stream = Stream::Unix(ours);
        let now = Instant::now();
        let mut over = InTime { stream: &mut stream, start: now, until: Some(now) };
        let error = over.read(&mut [0]).unwrap_err();
        assert_eq!(error.to_string(), "the round is over");
        let start = now.checked_sub(RECORD).unwrap();
        let error = InTime { stream: &mut stream, start, until: None }.write(&[0]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        InTime { stream: &mut stream, start: now, until: None }.write_all(&[0]).unwrap();
    }
}
