//! The record door: the enclave reads sealed updates here and writes sealed
//! aggregates. One thread for each connection; file to socket in the kernel.

use crate::staging::Staging;
use metrics::counter;
use rustix::net::sockopt::set_socket_send_buffer_size;
use sealfold_protocol::door::{Operation, Request, Status};
use sealfold_protocol::endpoint::{Endpoint, Stream};
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The most connections at a time; an enclave makes one a thread.
const MAX_CONNECTIONS: usize = 256;
/// The send buffer of a connection in bytes: several records.
const SEND_BUFFER: usize = 4 << 20;
/// The most files that a connection keeps open.
const MAX_FILES: usize = 256;

/// Listens and answers in threads of its own.
///
/// # Errors
/// If the endpoint cannot be listened on.
pub fn serve(endpoint: &Endpoint, staging: &Staging) -> io::Result<()> {
    let listener = endpoint.listen()?;
    let staging = staging.clone();
    let open = Arc::new(AtomicUsize::new(0));
    std::thread::Builder::new().name("door".to_owned()).spawn(move || {
        loop {
            match listener.accept() {
                Ok(_) if open.load(Ordering::Relaxed) >= MAX_CONNECTIONS => {
                    tracing::warn!("too many connections at the record door");
                }
                Ok(stream) => {
                    open.fetch_add(1, Ordering::Relaxed);
                    let (staging, open) = (staging.clone(), open.clone());
                    std::thread::spawn(move || {
                        if let Err(error) = converse(staging, stream) {
                            tracing::debug!(%error, "a connection at the record door ended");
                        }
                        open.fetch_sub(1, Ordering::Relaxed);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "the record door does not accept");
                    std::thread::sleep(std::time::Duration::from_millis(50));
                }
            }
        }
    })?;
    Ok(())
}

/// Answers one connection until its other end closes it.
///
/// # Errors
/// As the stream gives them; requests that are none.
pub fn converse(staging: Staging, stream: Stream) -> io::Result<()> {
    Connection::new(staging, stream).answer()
}

struct Connection {
    staging: Staging,
    stream: BufReader<Stream>,
    /// Updates and aggregates that this connection has open.
    updates: HashMap<[u8; 32], File>,
    aggregates: HashMap<[u8; 32], File>,
    buffer: Vec<u8>,
}

impl Connection {
    fn new(staging: Staging, stream: Stream) -> Self {
        // With the usual 208 KiB a record does not fit, and sender and receiver
        // take turns at every piece; with room for several the same transfer
        // was measured four times as fast. The system may grant less.
        let granted = match &stream {
            Stream::Unix(stream) => set_socket_send_buffer_size(stream, SEND_BUFFER),
            Stream::Tcp(stream) => set_socket_send_buffer_size(stream, SEND_BUFFER),
            Stream::Vsock(_) => Ok(()),
        };
        if let Err(error) = granted {
            tracing::debug!(%error, "the record door keeps the usual send buffer");
        }
        let (updates, aggregates) = (HashMap::new(), HashMap::new());
        let stream = BufReader::new(stream);
        Self { staging, stream, updates, aggregates, buffer: Vec::new() }
    }

    fn answer(mut self) -> io::Result<()> {
        while let Some(request) = Request::read_from(&mut self.stream)? {
            match request.operation {
                Operation::Read => self.read(&request)?,
                Operation::Write => self.write(&request)?,
                Operation::Finish => {
                    self.aggregates.remove(&request.object);
                    let done = self.staging.finish_aggregate(&request.object, request.offset);
                    self.status(done)?;
                }
            }
        }
        Ok(())
    }

    fn status(&mut self, done: io::Result<()>) -> io::Result<()> {
        let status = match done {
            Ok(()) => Status::Done,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Status::NotFound,
            Err(error) => {
                tracing::error!(%error, "the record door's store failed");
                Status::Failed
            }
        };
        status.write_to(self.stream.get_mut())
    }

    fn read(&mut self, request: &Request) -> io::Result<()> {
        // A read and a write were measured faster than `io::copy`, which moves
        // pages within the kernel one by one. The status goes with the bytes.
        self.buffer.resize(1 + request.length as usize, 0);
        self.buffer[0] = Status::Done as u8;
        if let Err(error) = self.read_update(request) {
            return self.status(Err(error));
        }
        self.stream.get_mut().write_all(&self.buffer)?;
        counter!("sealfold_door_read_bytes_total").increment(u64::from(request.length));
        Ok(())
    }

    /// Reads what is asked for behind the status, if the file reaches far enough.
    fn read_update(&mut self, request: &Request) -> io::Result<()> {
        let outside = || io::Error::from(io::ErrorKind::NotFound);
        let length = u64::from(request.length);
        let ends = request.offset.checked_add(length).is_some_and(|end| i64::try_from(end).is_ok());
        if !ends {
            return Err(outside());
        }
        if !self.updates.contains_key(&request.object) {
            if self.updates.len() >= MAX_FILES {
                self.updates.clear();
            }
            let file = File::open(self.staging.update(&request.object))?;
            self.updates.insert(request.object, file);
        }
        let read =
            self.updates[&request.object].read_exact_at(&mut self.buffer[1..], request.offset);
        read.map_err(|e| if e.kind() == io::ErrorKind::UnexpectedEof { outside() } else { e })
    }

    fn write(&mut self, request: &Request) -> io::Result<()> {
        self.buffer.resize(request.length as usize, 0);
        let mut buffer = std::mem::take(&mut self.buffer);
        self.stream.read_exact(&mut buffer)?;
        let done = self.write_aggregate(request, &buffer);
        self.buffer = buffer;
        counter!("sealfold_door_written_bytes_total").increment(u64::from(request.length));
        self.status(done)
    }

    fn write_aggregate(&mut self, request: &Request, bytes: &[u8]) -> io::Result<()> {
        let object = &request.object;
        if !self.aggregates.contains_key(object) {
            self.aggregates.clear();
            self.aggregates.insert(*object, self.staging.write_aggregate(object)?);
        }
        self.staging.write_at(object, &self.aggregates[object], request.offset, bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_read_and_aggregates_written() {
        let folder = tempfile::tempdir().unwrap();
        let staging = Staging::open(folder.path()).unwrap();
        staging.append(&[1; 32], 0, b"sealed bytes").unwrap();
        let endpoint = Endpoint::Unix(folder.path().join("door.sock"));
        serve(&endpoint, &staging).unwrap();
        let mut stream = endpoint.connect().unwrap();
        let mut ask = |operation, object: u8, offset, length, bytes: &[u8]| {
            let request = Request { operation, object: [object; 32], offset, length };
            stream.write_all(&request.encode()).unwrap();
            stream.write_all(bytes).unwrap();
            let status = Status::read_from(&mut stream).unwrap();
            let mut answer = Vec::new();
            if operation == Operation::Read && status == Status::Done {
                answer.resize(length as usize, 0);
                stream.read_exact(&mut answer).unwrap();
            }
            (status, answer)
        };
        assert_eq!(ask(Operation::Read, 1, 7, 5, b""), (Status::Done, b"bytes".to_vec()));
        assert_eq!(ask(Operation::Read, 1, 8, 5, b"").0, Status::NotFound);
        assert_eq!(ask(Operation::Read, 1, u64::MAX, 5, b"").0, Status::NotFound);
        assert_eq!(ask(Operation::Read, 2, 0, 1, b"").0, Status::NotFound);
        assert_eq!(ask(Operation::Write, 3, 2, 2, b"cd").0, Status::Done);
        assert_eq!(ask(Operation::Write, 3, 0, 2, b"ab").0, Status::Done);
        assert_eq!(ask(Operation::Finish, 3, 5, 0, b"").0, Status::Failed);
        assert_eq!(ask(Operation::Finish, 3, 4, 0, b"").0, Status::Done);
        assert_eq!(std::fs::read(staging.aggregate(&[3; 32])).unwrap(), b"abcd");
    }

    #[test]
    fn nonsense_ends_the_connection_and_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let staging = Staging::open(folder.path()).unwrap();
        let endpoint = Endpoint::Unix(folder.path().join("door.sock"));
        serve(&endpoint, &staging).unwrap();
        let mut stream = endpoint.connect().unwrap();
        stream.write_all(&[9; 45]).unwrap();
        assert_eq!(stream.read(&mut [0]).unwrap(), 0);
        assert!(endpoint.connect().is_ok());
    }
}
