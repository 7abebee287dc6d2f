//! A connection whose client has to take what it asked for.
//!
//! Replies wait in the host for a client that does not read them, and with them
//! its place. So the time that writes had to wait is counted, and bounded as that
//! of a body is: a minute, and beyond it the pace of a slow line.

use super::{GRACE, SLOWEST};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

/// A stream that ends with an error when its other end reads too slowly.
pub struct Taken<S> {
    inner: S,
    /// What was written.
    bytes: u64,
    /// How long writes have waited, all in all.
    waited: Duration,
    /// Since when one waits, and what ends it.
    waiting: Option<(Instant, Pin<Box<Sleep>>)>,
}

impl<S> Taken<S> {
    /// The same stream, bounded.
    #[must_use]
    pub fn new(inner: S) -> Self {
        Self { inner, bytes: 0, waited: Duration::ZERO, waiting: None }
    }

    /// How long writes may wait, all in all, by what was written so far.
    fn allowed(&self) -> Duration {
        GRACE + Duration::from_millis(self.bytes.saturating_mul(1000) / SLOWEST)
    }

    /// Counts the time until a write is ready, and ends one that waits too long.
    fn bounded<T>(
        &mut self,
        context: &mut Context<'_>,
        poll: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if poll.is_ready() {
            if let Some((since, _)) = self.waiting.take() {
                self.waited += since.elapsed();
            }
            return poll;
        }
        let left = self.allowed().saturating_sub(self.waited);
        let (_, alarm) =
            self.waiting.get_or_insert_with(|| (Instant::now(), Box::pin(sleep(left))));
        ready!(alarm.as_mut().poll(context));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client does not read")))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Taken<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Taken<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.inner).poll_write(context, bytes);
        if let Poll::Ready(Ok(written)) = &poll {
            self.bytes += *written as u64;
        }
        self.bounded(context, poll)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let poll = Pin::new(&mut self.inner).poll_flush(context);
        self.bounded(context, poll)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let poll = Pin::new(&mut self.inner).poll_shutdown(context);
        self.bounded(context, poll)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    #[tokio::test(start_paused = true)]
    async fn a_client_that_does_not_read_is_left_and_a_slow_one_is_not() {
        let (ours, mut theirs) = duplex(1 << 10);
        let mut ours = Taken::new(ours);
        let start = Instant::now();
        let error = ours.write_all(&[0; 2 << 10]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(start.elapsed().as_secs(), 60);
        // A byte now and then does not help.
        let reader = tokio::spawn(async move {
            loop {
                sleep(Duration::from_secs(10)).await;
                if theirs.read_u8().await.is_err() {
                    return;
                }
            }
        });
        assert!(ours.write_all(&[0; 2 << 10]).await.is_err());
        assert!(start.elapsed().as_secs() < 80, "{:?}", start.elapsed());
        drop(ours);
        reader.abort();
        // A slow line has all the time that it needs.
        let (ours, mut theirs) = duplex(16 << 10);
        let mut ours = Taken::new(ours);
        let reader = tokio::spawn(async move {
            let mut piece = vec![0; 16 << 10];
            while theirs.read_exact(&mut piece).await.is_ok() {
                sleep(Duration::from_millis(900)).await;
            }
        });
        let start = Instant::now();
        ours.write_all(&vec![0; 8 << 20]).await.unwrap();
        assert!(start.elapsed().as_secs() > 400, "{:?}", start.elapsed());
        drop(ours);
        reader.await.unwrap();
    }
}
