//! HTTP/1.1 over any endpoint, one request a connection.

use sealfold_protocol::endpoint::{Endpoint, Stream};
use sealfold_protocol::refusal::Refusal;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io::{Read, Write};
use std::time::Duration;

/// How long a test waits for a reply.
const TIMEOUT: Duration = Duration::from_mins(3);

/// A reply: its status and its body.
pub struct Reply {
    /// The HTTP status.
    pub status: u16,
    /// The body.
    pub body: Vec<u8>,
}

/// Sends one request.
///
/// # Errors
/// As the stream gives them.
pub fn send(
    endpoint: &Endpoint,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> std::io::Result<Reply> {
    let mut stream = write(endpoint, method, path, headers, body)?;
    let mut reply = Vec::new();
    stream.read_to_end(&mut reply)?;
    let text = String::from_utf8_lossy(&reply);
    let status = text.split(' ').nth(1).and_then(|s| s.parse().ok());
    let end = reply.windows(4).position(|w| w == b"\r\n\r\n");
    let (Some(status), Some(end)) = (status, end) else {
        return Err(std::io::Error::other(format!("no HTTP reply: {text:?}")));
    };
    Ok(Reply { status, body: reply[end + 4..].to_vec() })
}

/// Writes one request, and leaves the reply unread.
///
/// # Errors
/// As the stream gives them.
pub fn write(
    endpoint: &Endpoint,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> std::io::Result<Stream> {
    let mut stream = endpoint.connect()?;
    stream.set_timeout(Some(TIMEOUT))?;
    let mut head = format!(
        "{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: {}\r\n",
        body.len()
    );
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    stream.write_all(head.as_bytes())?;
    stream.write_all(body)?;
    Ok(stream)
}

/// Sends JSON and reads JSON, or the refusal.
///
/// # Errors
/// The refusal that came back.
pub fn call<B: Serialize, T: DeserializeOwned>(
    endpoint: &Endpoint,
    method: &str,
    path: &str,
    body: &B,
) -> Result<T, Refusal> {
    let body = serde_json::to_vec(body).unwrap();
    let headers = [("content-type", "application/json")];
    let reply = send(endpoint, method, path, &headers, &body)
        .unwrap_or_else(|e| panic!("{method} {path} at {endpoint}: {e}"));
    let text = String::from_utf8_lossy(&reply.body);
    if reply.status < 300 {
        Ok(serde_json::from_slice(&reply.body).unwrap_or_else(|e| panic!("{path}: {e}: {text}")))
    } else {
        Err(serde_json::from_slice(&reply.body)
            .unwrap_or_else(|e| panic!("{path}: status {}: {e}: {text}", reply.status)))
    }
}
