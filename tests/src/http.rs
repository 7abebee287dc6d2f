//! HTTP/1.1 over any endpoint, one request a connection.

use jiff::Timestamp;
use sealfold_protocol::SigningKey;
use sealfold_protocol::access::{self, CONTENT_DIGEST, Head, INPUT, Role, SIGNATURE};
use sealfold_protocol::api::UPLOAD_OFFSET;
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
    /// The head, in lower case.
    pub head: String,
}

impl Reply {
    /// The check of a refusal; empty if it is none.
    #[must_use]
    pub fn check(&self) -> String {
        let refusal: serde_json::Value = serde_json::from_slice(&self.body).unwrap_or_default();
        refusal["check"].as_str().unwrap_or_default().to_owned()
    }

    /// A field of its head.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines();
        lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':').map(str::trim))
    }
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
    let head = String::from_utf8_lossy(&reply[..end]).to_lowercase();
    Ok(Reply { status, body: reply[end + 4..].to_vec(), head })
}

/// The fields that sign a request to a host on this machine.
#[must_use]
pub fn signature(
    (key, role): (&SigningKey, Role),
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Vec<(&'static str, String)> {
    signature_at((key, role), Timestamp::now(), method, path, headers, body)
}

/// The same, made at another time.
#[must_use]
pub fn signature_at(
    (key, role): (&SigningKey, Role),
    now: Timestamp,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Vec<(&'static str, String)> {
    let offset = headers.iter().find(|(name, _)| *name == UPLOAD_OFFSET).map(|(_, value)| *value);
    let digest = (!body.is_empty()).then(|| access::content_digest(body));
    let head = Head {
        method,
        authority: "localhost",
        target: path,
        content_digest: digest.as_deref(),
        upload_offset: offset,
    };
    let fields = access::sign(&head, key, role, now).unwrap();
    let mut signed = vec![(INPUT, fields.input), (SIGNATURE, fields.signature)];
    signed.extend(digest.map(|digest| (CONTENT_DIGEST, digest)));
    signed
}

/// As [`send`], signed.
///
/// # Errors
/// As the stream gives them.
pub fn send_as(
    signer: (&SigningKey, Role),
    endpoint: &Endpoint,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> std::io::Result<Reply> {
    let signed = signature(signer, method, path, headers, body);
    let signed: Vec<_> = signed.iter().map(|(name, value)| (*name, value.as_str())).collect();
    send(endpoint, method, path, &[headers, &signed].concat(), body)
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
    let reply = send(endpoint, method, path, &JSON, &body)
        .unwrap_or_else(|e| panic!("{method} {path} at {endpoint}: {e}"));
    answer(path, &reply)
}

/// As [`call`], signed.
///
/// # Errors
/// The refusal that came back.
pub fn call_as<B: Serialize, T: DeserializeOwned>(
    signer: (&SigningKey, Role),
    endpoint: &Endpoint,
    method: &str,
    path: &str,
    body: &B,
) -> Result<T, Refusal> {
    let body = serde_json::to_vec(body).unwrap();
    let reply = send_as(signer, endpoint, method, path, &JSON, &body)
        .unwrap_or_else(|e| panic!("{method} {path} at {endpoint}: {e}"));
    answer(path, &reply)
}

const JSON: [(&str, &str); 1] = [("content-type", "application/json")];

fn answer<T: DeserializeOwned>(path: &str, reply: &Reply) -> Result<T, Refusal> {
    let text = String::from_utf8_lossy(&reply.body);
    if reply.status < 300 {
        Ok(serde_json::from_slice(&reply.body).unwrap_or_else(|e| panic!("{path}: {e}: {text}")))
    } else {
        Err(serde_json::from_slice(&reply.body)
            .unwrap_or_else(|e| panic!("{path}: status {}: {e}: {text}", reply.status)))
    }
}
