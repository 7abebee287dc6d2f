//! Sealing and opening whole objects from front to back in constant memory:
//! an update at a site, an aggregate on its way into a file.

use super::SealError;
use super::chunked::{
    HEADER, InputKey, Opener, RECORD, RecordSeal, Sealer, record_count, record_plain_len,
    record_range,
};
use std::io::{self, Read, Write};
use zeroize::Zeroizing;

/// Seals what is written to it.
pub struct SealingWriter<W> {
    inner: W,
    records: Box<dyn Iterator<Item = RecordSeal> + Send>,
    current: Option<RecordSeal>,
    plain: u64,
    written: u64,
    buffer: Zeroizing<Vec<u8>>,
    sealed: Vec<u8>,
}

impl<W: Write> SealingWriter<W> {
    /// Writes the header of an object whose plaintext will be `plain` bytes.
    ///
    /// # Errors
    /// As `inner` gives them, and [`SealError`]s.
    pub fn new(key: &InputKey, context: &[u8], plain: u64, inner: W) -> io::Result<Self> {
        let (sealer, header) = Sealer::new(key, context, plain).map_err(other)?;
        Self::start(sealer, header, plain, inner)
    }

    pub(crate) fn start(
        sealer: Sealer,
        header: [u8; HEADER],
        plain: u64,
        mut inner: W,
    ) -> io::Result<Self> {
        inner.write_all(&header)?;
        let mut records: Box<dyn Iterator<Item = RecordSeal> + Send> = Box::new(sealer.records());
        let current = records.next();
        let buffer = Zeroizing::new(Vec::with_capacity(RECORD));
        Ok(Self { inner, records, current, plain, written: 0, buffer, sealed: Vec::new() })
    }

    /// Seals the last record.
    ///
    /// # Errors
    /// [`SealError::Length`] if fewer bytes were written than announced.
    pub fn finish(mut self) -> io::Result<W> {
        if self.written != self.plain {
            return Err(other(SealError::Length {
                what: "plaintext",
                expected: self.plain,
                found: self.written,
            }));
        }
        // An empty object has one record, which holds an empty chunk.
        if self.current.is_some() {
            self.seal_record()?;
        }
        self.inner.flush()?;
        Ok(self.inner)
    }

    fn seal_record(&mut self) -> io::Result<()> {
        let Some(seal) = self.current.take() else {
            return Err(other(SealError::Length {
                what: "plaintext",
                expected: self.plain,
                found: self.written,
            }));
        };
        self.sealed.clear();
        seal.seal(&self.buffer, &mut self.sealed).map_err(other)?;
        self.inner.write_all(&self.sealed)?;
        self.buffer.clear();
        self.current = self.records.next();
        Ok(())
    }
}

impl<W: Write> Write for SealingWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.is_empty() {
            return Ok(0);
        }
        let left = self.plain - self.written;
        if left == 0 {
            let (expected, found) = (self.plain, self.plain + bytes.len() as u64);
            return Err(other(SealError::Length { what: "plaintext", expected, found }));
        }
        let room = RECORD - self.buffer.len();
        let take = room.min(bytes.len()).min(usize::try_from(left).unwrap_or(usize::MAX));
        self.buffer.extend_from_slice(&bytes[..take]);
        self.written += take as u64;
        if self.buffer.len() == RECORD || self.written == self.plain {
            self.seal_record()?;
        }
        Ok(take)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Opens what is read through it. Bytes that were read are genuine; that the
/// object is complete is known when the end has been read without an error.
pub struct OpeningReader<R> {
    inner: R,
    opener: Opener,
    plain: u64,
    next: u64,
    record: Zeroizing<Vec<u8>>,
    position: usize,
}

impl<R: Read> OpeningReader<R> {
    /// Reads the header of an object whose plaintext is `plain` bytes long.
    ///
    /// # Errors
    /// As `inner` gives them; [`SealError::Commitment`] as
    /// [`io::ErrorKind::InvalidData`].
    pub fn new(key: &InputKey, context: &[u8], plain: u64, mut inner: R) -> io::Result<Self> {
        let mut header = [0; HEADER];
        inner.read_exact(&mut header)?;
        let opener = Opener::new(key, context, &header, plain).map_err(other)?;
        let record = Zeroizing::new(Vec::new());
        Ok(Self { inner, opener, plain, next: 0, record, position: 0 })
    }

    fn open_next(&mut self) -> io::Result<()> {
        let range = record_range(self.plain, self.next);
        let length = usize::try_from(range.end - range.start).map_err(io::Error::other)?;
        let plain =
            usize::try_from(record_plain_len(self.plain, self.next)).map_err(io::Error::other)?;
        let mut sealed = Zeroizing::new(vec![0; length]);
        self.inner.read_exact(&mut sealed)?;
        let mut record = Zeroizing::new(Vec::with_capacity(plain));
        self.opener
            .open_record(self.next, &mut sealed, |_, chunk| record.extend_from_slice(chunk))
            .map_err(other)?;
        self.next += 1;
        if self.next == record_count(self.plain) && self.inner.read(&mut [0])? != 0 {
            let expected = range.end;
            let longer = SealError::Length { what: "object", expected, found: expected + 1 };
            return Err(other(longer));
        }
        self.record = record;
        self.position = 0;
        Ok(())
    }
}

impl<R: Read> Read for OpeningReader<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.position == self.record.len() {
            if self.next >= record_count(self.plain) {
                return Ok(0);
            }
            self.open_next()?;
        }
        let take = out.len().min(self.record.len() - self.position);
        out[..take].copy_from_slice(&self.record[self.position..self.position + take]);
        self.position += take;
        Ok(take)
    }
}

fn other(error: SealError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}
