//! A plain byte relay between any two endpoints.

use sealfold_protocol::endpoint::Endpoint;
use std::io;
use std::sync::Arc;
use tokio::io::copy_bidirectional;
use tokio::sync::Semaphore;

/// The most connections at a time.
const MAX_CONNECTIONS: usize = 256;

/// Relays until the process ends. Says where it listens.
///
/// # Errors
/// If `from` cannot be listened on.
pub async fn relay(from: &Endpoint, to: &Endpoint) -> io::Result<()> {
    let listener = from.listen_async()?;
    eprintln!("listening on {}", listener.place(from));
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return Ok(()) };
        let mut near = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "the relay does not accept");
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                continue;
            }
        };
        let to = to.clone();
        tokio::spawn(async move {
            match to.connect_async().await {
                Ok(mut far) => {
                    if let Err(error) = copy_bidirectional(&mut near, &mut far).await {
                        tracing::debug!(%error, "a relayed connection ended");
                    }
                }
                Err(error) => tracing::warn!(%error, %to, "the other side does not answer"),
            }
            drop(place);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn bytes_pass_both_ways() {
        let folder = tempfile::tempdir().unwrap();
        let from = Endpoint::Unix(folder.path().join("from.sock"));
        let to = Endpoint::Unix(folder.path().join("to.sock"));
        let echo = to.listen().unwrap();
        std::thread::spawn(move || {
            let mut stream = echo.accept().unwrap();
            let mut bytes = [0; 5];
            stream.read_exact(&mut bytes).unwrap();
            bytes.reverse();
            stream.write_all(&bytes).unwrap();
        });
        let listening = from.clone();
        tokio::spawn(async move { relay(&listening, &to).await });
        let answer = tokio::task::spawn_blocking(move || {
            let mut stream = loop {
                match from.connect() {
                    Ok(stream) => break stream,
                    Err(_) => std::thread::sleep(std::time::Duration::from_millis(5)),
                }
            };
            stream.write_all(b"hello").unwrap();
            let mut bytes = [0; 5];
            stream.read_exact(&mut bytes).unwrap();
            bytes
        });
        assert_eq!(&answer.await.unwrap(), b"olleh");
    }
}
