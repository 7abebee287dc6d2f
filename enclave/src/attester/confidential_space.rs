//! The launcher of a Google Confidential Space: a server on a Unix socket that
//! has Google's attestation service sign a token.
//!
//! `POST /v1/token` with the audience, the kind of token and the nonces: the
//! binding first, the asker's nonce second, each in hex, 64 bytes of the 10 to
//! 74 that every version of the service takes. The token is passed on as it came:
//! who verifies it is the site.
//!
//! Source: <https://cloud.google.com/confidential-computing/confidential-space/docs/connect-external-resources>
//! and the launcher's server (google/go-tpm-tools, `launcher/teeserver`).

use super::{Attester, EvidenceError};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use sealfold_attestation::confidential_space::{MAX_TOKEN, NAME};
use sealfold_protocol::Secret;
use sealfold_protocol::text::shown;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::net::UnixStream;

/// How long the launcher may take for one token. It asks the machine's TPM and a
/// service of Google, which takes a second or two.
const TIMEOUT: Duration = Duration::from_secs(20);
/// The longest audience that the service takes, in bytes.
const MAX_AUDIENCE: usize = 512;
/// The longest head of an answer in bytes.
const MAX_HEAD: usize = 16 << 10;
/// How much of an answer that is no token is passed on, in characters.
const SHOWN: usize = 300;

/// Which kind of token is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum TokenKind {
    /// Brings its certificates; can be verified years later.
    Pki,
    /// Names a key of a set that changes every few days.
    Oidc,
}

impl TokenKind {
    fn name(self) -> &'static str {
        match self {
            Self::Pki => "PKI",
            Self::Oidc => "OIDC",
        }
    }
}

/// A launcher.
#[derive(Debug)]
pub struct Launcher {
    socket: PathBuf,
    audience: String,
    kind: TokenKind,
    timeout: Duration,
}

fn failed(reason: impl Into<String>) -> EvidenceError {
    EvidenceError { source_name: "confidential space launcher", reason: reason.into() }
}

impl Launcher {
    /// The launcher behind that socket, to be asked for tokens of that kind and
    /// for that audience, which the sites' policies name.
    ///
    /// # Errors
    /// If there is no socket, or no audience of 1 to 512 bytes.
    pub fn open(socket: &Path, audience: &str, kind: TokenKind) -> Result<Self, EvidenceError> {
        if !(1..=MAX_AUDIENCE).contains(&audience.len()) {
            return Err(failed(format!(
                "expected an audience of 1 to {MAX_AUDIENCE} bytes, found {}; the operator sets \
                 tee-env-SEALFOLD_AUDIENCE to what the sites' policies name (--audience)",
                audience.len()
            )));
        }
        let launcher = Self {
            socket: socket.to_owned(),
            audience: audience.to_owned(),
            kind,
            timeout: TIMEOUT,
        };
        // One that is not there now does not come later.
        std::fs::symlink_metadata(socket).map_err(|error| launcher.away(&error))?;
        Ok(launcher)
    }

    /// Nobody answers at the socket.
    fn away(&self, error: &std::io::Error) -> EvidenceError {
        let why = match error.kind() {
            ErrorKind::NotFound => "none; is this a Confidential Space?".to_owned(),
            ErrorKind::ConnectionRefused => "one that nobody listens on".to_owned(),
            ErrorKind::PermissionDenied => {
                "one that this user may not write to; the image runs as root".to_owned()
            }
            _ => error.to_string(),
        };
        failed(format!("expected the launcher's socket at {}, found {why}", self.socket.display()))
    }

    /// Asks for a token with these nonces, in this order.
    async fn ask(&self, nonces: [String; 2]) -> Result<Vec<u8>, EvidenceError> {
        let body = serde_json::json!({
            "audience": self.audience, "token_type": self.kind.name(), "nonces": nonces,
        });
        let request = Request::post("/v1/token")
            .header(HOST, "localhost")
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body.to_string())))
            .map_err(|error| failed(error.to_string()))?;
        let stream = UnixStream::connect(&self.socket).await.map_err(|error| self.away(&error))?;
        let broken = |error: hyper::Error| failed(format!("expected an answer, found: {error}"));
        let (mut sender, connection) = hyper::client::conn::http1::Builder::new()
            .max_buf_size(MAX_HEAD)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(broken)?;
        // It ends with this runtime at the latest.
        tokio::spawn(connection);
        let (head, body) = sender.send_request(request).await.map_err(broken)?.into_parts();
        let body = Limited::new(body, MAX_TOKEN).collect().await.map_err(|error| {
            failed(format!("expected a token of at most {MAX_TOKEN} bytes, found: {error}"))
        })?;
        let body = body.to_bytes();
        if head.status != StatusCode::OK {
            return Err(failed(format!(
                "expected a token, found status {}: {}",
                head.status.as_u16(),
                beginning(&body)
            )));
        }
        let token = body.trim_ascii_end();
        if !is_compact(token) {
            return Err(failed(format!("expected a token, found {}", beginning(&body))));
        }
        Ok(token.to_vec())
    }
}

/// Whether this has the outer form of a token: three parts in base64url.
fn is_compact(token: &[u8]) -> bool {
    let is_digit = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_".contains(byte);
    let parts: Vec<_> = token.split(|byte| *byte == b'.').collect();
    parts.len() == 3 && parts.iter().all(|part| !part.is_empty() && part.iter().all(is_digit))
}

/// The beginning of a foreign text, fit to be printed.
fn beginning(text: &[u8]) -> String {
    let text: String = shown(&String::from_utf8_lossy(text)).chars().take(SHOWN).collect();
    if text.is_empty() { "nothing".to_owned() } else { text }
}

impl Attester for Launcher {
    fn attest(&self, user_data: &[u8; 32], nonce: &[u8; 32]) -> Result<Vec<u8>, EvidenceError> {
        let nonces = [hex::encode(user_data), hex::encode(nonce)];
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| failed(error.to_string()))?;
        let answer =
            runtime.block_on(async { tokio::time::timeout(self.timeout, self.ask(nonces)).await });
        answer.unwrap_or_else(|_| {
            let seconds = self.timeout.as_secs_f64();
            Err(failed(format!("expected a token within {seconds} s, found a slower launcher")))
        })
    }

    /// The launcher has none to give; the kernel's is seeded by the processor, in
    /// a machine whose memory the host cannot read.
    fn random(&self) -> Result<Secret, EvidenceError> {
        Secret::draw().map_err(|error| failed(error.to_string()))
    }

    fn platform(&self) -> &'static str {
        NAME
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixListener;
    use tempfile::TempDir;

    const TOKEN: &str = "eyJh.eyJi.c2ln";

    /// A launcher that says these bytes to the first who asks, and then what it
    /// was asked.
    fn saying(answer: Vec<u8>) -> (TempDir, Launcher, std::thread::JoinHandle<String>) {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("teeserver.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let asked = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut asked = Vec::new();
            while !asked.ends_with(b"]}") && !asked.ends_with(b"}") {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                asked.push(byte[0]);
            }
            // Who asked may have left.
            let _ = stream.write_all(&answer);
            String::from_utf8(asked).unwrap()
        });
        let launcher = Launcher::open(&socket, "https://sites", TokenKind::Pki).unwrap();
        (folder, launcher, asked)
    }

    fn http(status: &str, body: &str) -> Vec<u8> {
        format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}", body.len()).into_bytes()
    }

    fn reason(answer: Vec<u8>) -> String {
        let (_folder, launcher, asked) = saying(answer);
        let error = launcher.attest(&[1; 32], &[2; 32]).unwrap_err();
        asked.join().unwrap();
        error.to_string()
    }

    #[test]
    fn the_request_is_the_documented_one_with_the_binding_first() {
        let (_folder, launcher, asked) = saying(http("200 OK", TOKEN));
        assert_eq!(launcher.attest(&[1; 32], &[2; 32]).unwrap(), TOKEN.as_bytes());
        let asked = asked.join().unwrap();
        assert!(asked.starts_with("POST /v1/token HTTP/1.1\r\n"), "{asked}");
        assert!(asked.contains("content-type: application/json\r\n"), "{asked}");
        let (_, body) = asked.split_once("\r\n\r\n").unwrap();
        let body: serde_json::Value = serde_json::from_str(body).unwrap();
        let expected = serde_json::json!({
            "audience": "https://sites", "token_type": "PKI",
            "nonces": ["01".repeat(32), "02".repeat(32)],
        });
        assert_eq!(body, expected);
        assert_eq!(TokenKind::Oidc.name(), "OIDC");
        assert_eq!(launcher.platform(), "confidential-space");
    }

    #[test]
    fn an_error_of_the_launcher_is_passed_on_in_its_own_words_and_not_at_any_length() {
        let text = reason(http("400 Bad Request", "invalid \u{1b}[31m nonce"));
        assert!(text.contains(r"found status 400: invalid \u{1b}[31m nonce"), "{text}");
        assert!(!text.contains('\u{1b}'), "{text}");
        let text = reason(http("429 Too Many Requests", &"w".repeat(1000)));
        assert!(text.contains("status 429") && text.len() < 400, "{text}");
        let text = reason(http("500 Internal Server Error", ""));
        assert!(text.ends_with("status 500: nothing"), "{text}");
    }

    #[test]
    fn what_is_no_token_is_named() {
        for (answer, expected) in [
            (http("200 OK", "<html>sorry</html>"), "expected a token, found <html>"),
            (http("200 OK", ""), "expected a token, found nothing"),
            (http("200 OK", "eyJh.eyJi"), "expected a token, found eyJh.eyJi"),
            (http("200 OK", "eyJh..c2ln"), "expected a token, found eyJh..c2ln"),
            (http("200 OK", &"e".repeat(MAX_TOKEN + 1)), "at most 32768 bytes"),
            (b"SSH-2.0-x\r\n".to_vec(), "expected an answer"),
            (b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\neyJh".to_vec(), "at most 32768"),
            (format!("HTTP/1.1 200 OK\r\nx: {}", "x".repeat(MAX_HEAD)).into_bytes(), "an answer"),
            (Vec::new(), "expected an answer"),
        ] {
            let text = reason(answer);
            assert!(text.contains(expected), "{text}");
        }
    }

    #[test]
    fn a_launcher_that_is_missing_or_deaf_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("teeserver.sock");
        let missing = Launcher::open(&socket, "a", TokenKind::Pki).unwrap_err().to_string();
        assert!(missing.contains("teeserver.sock, found none"), "{missing}");
        drop(UnixListener::bind(&socket).unwrap());
        let launcher = Launcher::open(&socket, "a", TokenKind::Pki).unwrap();
        let deaf = launcher.attest(&[1; 32], &[2; 32]).unwrap_err().to_string();
        assert!(deaf.contains("one that nobody listens on"), "{deaf}");
        std::fs::remove_file(&socket).unwrap();
        let gone = launcher.attest(&[1; 32], &[2; 32]).unwrap_err().to_string();
        assert!(gone.contains("found none"), "{gone}");
        for audience in ["", &"a".repeat(MAX_AUDIENCE + 1)] {
            let error = Launcher::open(folder.path(), audience, TokenKind::Pki).unwrap_err();
            assert!(error.to_string().contains("SEALFOLD_AUDIENCE"), "{error}");
        }
    }

    #[test]
    fn a_slow_launcher_is_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("teeserver.sock");
        // It accepts and says nothing; or begins to answer and goes on for ever.
        let listener = UnixListener::bind(&socket).unwrap();
        let mut launcher = Launcher::open(&socket, "a", TokenKind::Pki).unwrap();
        launcher.timeout = Duration::from_millis(50);
        let slow = launcher.attest(&[1; 32], &[2; 32]).unwrap_err().to_string();
        assert!(slow.contains("within 0.05 s, found a slower launcher"), "{slow}");
        std::thread::spawn(move || {
            let (_first, (mut second, _)) = (listener.accept(), listener.accept().unwrap());
            let head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
            second.write_all(head).unwrap();
            while second.write_all(b"1\r\ne\r\n").is_ok() {
                std::thread::sleep(Duration::from_millis(10));
            }
        });
        let slow = launcher.attest(&[1; 32], &[2; 32]).unwrap_err().to_string();
        assert!(slow.contains("a slower launcher"), "{slow}");
    }

    #[test]
    fn randomness_is_the_systems() {
        let (_folder, launcher, asked) = saying(http("200 OK", TOKEN));
        assert_ne!(launcher.random().unwrap().as_bytes(), launcher.random().unwrap().as_bytes());
        launcher.attest(&[1; 32], &[2; 32]).unwrap();
        asked.join().unwrap();
    }
}
