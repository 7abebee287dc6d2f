//! A double of the launcher of a Confidential Space: the socket that a workload
//! asks for tokens, with the request format, errors and limits of Google's, and a
//! test authority in the place of Google's attestation service.
//!
//! Format and errors follow the launcher's published server (google/go-tpm-tools,
//! `launcher/teeserver`), the limits Google's documentation. The words of errors
//! that the attestation service answers are not published, and made up here.

use crate::workload::Workload;
use sealfold_attestation::simulation::token::TokenAuthority;
use serde::Deserialize;
use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// The audience that the tests' sites name.
pub const AUDIENCE: &str = "https://sealfold.example.org";
/// The audience of the default token.
const DEFAULT_AUDIENCE: &str = "https://sts.googleapis.com";
/// Limits of the attestation service: what old and new documents agree on.
const MAX_AUDIENCE: usize = 512;
const MAX_NONCES: usize = 6;
const NONCE: std::ops::RangeInclusive<usize> = 10..=74;
/// The longest request of this double.
const MAX_BODY: u64 = 64 << 10;

/// How it behaves.
#[derive(Default)]
pub enum Manner {
    /// As Google's.
    #[default]
    Honest,
    /// It says what no machine of Google's says, or signs another's claims.
    Lying(Box<dyn Fn(&mut Value) + Send>),
    /// It takes a request and never answers.
    Silent,
    /// It answers everything with this status and text.
    Failing(u16, &'static str),
    /// It signs so many tokens a minute, and no more.
    Limited(usize),
}

struct State {
    workload: Workload,
    authority: TokenAuthority,
    manner: Mutex<Manner>,
    asked: Mutex<Vec<(Instant, String)>>,
}

/// The double.
#[derive(Clone)]
pub struct Launcher {
    state: Arc<State>,
    socket: PathBuf,
}

/// What a request says; nothing else may be in it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TokenOptions {
    #[serde(default)]
    audience: String,
    #[serde(default)]
    nonces: Vec<String>,
    #[serde(default)]
    token_type: String,
    #[serde(default, rename = "aws_principal_tag_options")]
    _tags: Option<Value>,
}

/// An answer: status and text.
type Answer = (u16, String);

/// The test authority, whose root the tests' policies name.
#[must_use]
pub fn authority() -> TokenAuthority {
    macro_rules! key {
        ($name:literal) => {
            include_str!(concat!(
                "../../attestation/tests/vectors/confidential-space/test-authority/",
                $name
            ))
        };
    }
    TokenAuthority::from_keys(key!("root.pem"), key!("intermediate.pem"), key!("signer.pem"))
        .unwrap()
}

impl Launcher {
    /// Serves in a folder of its own, as Google's does in `/run/container_launcher`.
    #[must_use]
    pub fn start(folder: &Path, workload: Workload) -> Self {
        let socket = folder.join("teeserver.sock");
        let _ = std::fs::remove_file(&socket);
        let listener = UnixListener::bind(&socket).unwrap();
        // What Go's net.Listen makes under the launcher's umask: who may write,
        // and so connect, is root alone.
        std::fs::set_permissions(&socket, std::fs::Permissions::from_mode(0o755)).unwrap();
        let state = Arc::new(State {
            workload,
            authority: authority(),
            manner: Mutex::default(),
            asked: Mutex::default(),
        });
        let serving = state.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let state = serving.clone();
                std::thread::spawn(move || {
                    // A workload that hangs up is its own affair.
                    let _ = serve(&state, &stream);
                });
            }
        });
        Self { state, socket }
    }

    /// Where it serves.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Behaves differently from now on.
    pub fn behave(&self, manner: Manner) {
        *self.state.manner.lock().unwrap() = manner;
    }

    /// The bodies of the requests so far.
    #[must_use]
    pub fn asked(&self) -> Vec<String> {
        self.state.asked.lock().unwrap().iter().map(|(_, body)| body.clone()).collect()
    }
}

fn serve(state: &State, stream: &UnixStream) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    let (mut line, mut length) = (String::new(), 0);
    reader.read_line(&mut line)?;
    loop {
        let mut field = String::new();
        if reader.read_line(&mut field)? <= 2 {
            break;
        }
        if let Some(value) = field.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
    }
    let mut body = String::new();
    reader.take(length).take(MAX_BODY).read_to_string(&mut body)?;
    let mut words = line.split(' ');
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let Some((status, text)) = answer(state, method, path, &body) else {
        // As long as anybody waits.
        std::thread::sleep(Duration::from_mins(2));
        return Ok(());
    };
    let mut stream = stream;
    write!(
        stream,
        "HTTP/1.1 {status} X\r\nContent-Type: text/html\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{text}",
        text.len()
    )
}

/// The answer; none if there never is one.
fn answer(state: &State, method: &str, path: &str, body: &str) -> Option<Answer> {
    let now = Instant::now();
    let mut asked = state.asked.lock().unwrap();
    asked.push((now, body.to_owned()));
    let minute = asked.iter().filter(|(at, _)| now - *at < Duration::from_mins(1)).count();
    drop(asked);
    let manner = state.manner.lock().unwrap();
    match &*manner {
        Manner::Silent => return None,
        Manner::Failing(status, text) => return Some((*status, (*text).to_owned())),
        Manner::Limited(most) if minute > *most => {
            let text = format!("rate limit exceeded: max {most} requests per 1m0s");
            return Some((429, text));
        }
        _ => {}
    }
    let lie = |claims: &mut Value| {
        if let Manner::Lying(lie) = &*manner {
            lie(claims);
        }
    };
    Some(match (method, path) {
        ("GET", "/v1/token") => sign(state, DEFAULT_AUDIENCE, &[], "OIDC", lie),
        ("POST", "/v1/token") => match options(body) {
            Ok(options) => {
                sign(state, &options.audience, &options.nonces, &options.token_type, lie)
            }
            Err(refused) => refused,
        },
        (_, "/v1/token") => (400, format!("TEE server received an invalid HTTP method: {method}")),
        ("POST", "/v1/intel/token") => {
            let text = "no ITA verifier client present - ensure ITA Region and Key are defined in \
                        metadata";
            (412, text.to_owned())
        }
        _ => (404, "404 page not found\n".to_owned()),
    })
}

/// What a request asks for, if launcher and service take it.
fn options(body: &str) -> Result<TokenOptions, Answer> {
    let bad = |text: String| (400, text);
    // An object; serde would take a list of the fields as well.
    let options: serde_json::Result<serde_json::Map<_, _>> = serde_json::from_str(body);
    let options: TokenOptions = options
        .and_then(|fields| serde_json::from_value(Value::Object(fields)))
        .map_err(|error| bad(format!("failed to parse POST body as TokenOptions: {error}")))?;
    if options.audience.is_empty() {
        return Err(bad("use GET request for the default identity token".to_owned()));
    }
    if options.token_type.is_empty() {
        return Err(bad("token_type is a required parameter".to_owned()));
    }
    let service = |text: &str| {
        bad(format!("failed to retrieve custom attestation service token: InvalidArgument: {text}"))
    };
    if options.audience.len() > MAX_AUDIENCE {
        return Err(service("audience is too long"));
    }
    if options.nonces.len() > MAX_NONCES {
        return Err(service("too many nonces"));
    }
    if options.nonces.iter().any(|nonce| !NONCE.contains(&nonce.len())) {
        return Err(service("nonce has a wrong length"));
    }
    if !["OIDC", "PKI"].contains(&options.token_type.as_str()) {
        return Err(service("unknown token type"));
    }
    Ok(options)
}

fn sign(
    state: &State,
    audience: &str,
    nonces: &[String],
    kind: &str,
    lie: impl Fn(&mut Value),
) -> Answer {
    let now = jiff::Timestamp::now().as_second();
    let mut claims = state.workload.claims(audience, nonces, now);
    lie(&mut claims);
    let token = match kind {
        "PKI" => state.authority.pki(&claims),
        _ => state.authority.oidc(&claims),
    };
    (200, token.unwrap())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http;
    use sealfold_attestation::confidential_space::Token;
    use sealfold_protocol::endpoint::Endpoint;
    use serde_json::json;

    fn launcher(folder: &Path) -> (Launcher, Endpoint) {
        let workload = Workload::process(Path::new("/proc/self/exe"), &[], &[]);
        let launcher = Launcher::start(folder, workload);
        let endpoint = Endpoint::Unix(launcher.socket().to_owned());
        (launcher, endpoint)
    }

    #[test]
    fn requests_are_taken_and_refused_as_by_googles() {
        let folder = tempfile::tempdir().unwrap();
        let (_launcher, at) = launcher(folder.path());
        let post = |body: &Value| {
            let body = body.to_string();
            let reply = http::send(&at, "POST", "/v1/token", &[], body.as_bytes()).unwrap();
            (reply.status, String::from_utf8(reply.body).unwrap())
        };
        let nonce = "ab".repeat(32);
        let asked = |kind: &str, nonces: &[&str]| json!({ "audience": "us", "token_type": kind, "nonces": nonces });
        for (kind, certificates) in [("PKI", 3), ("OIDC", 0)] {
            let (status, token) = post(&asked(kind, &[&nonce, &nonce]));
            assert_eq!(status, 200, "{token}");
            let token = Token::parse(token.as_bytes()).unwrap();
            assert_eq!(token.certificates().len(), certificates);
            assert_eq!(token.claims().eat_nonce, [nonce.clone(), nonce.clone()]);
            assert_eq!(token.claims().aud.as_deref(), Some("us"));
        }
        let mut unknown = asked("PKI", &[&nonce]);
        unknown["nonce"] = json!("x");
        for (body, expected) in [
            (unknown, "unknown field"),
            (json!([]), "failed to parse POST body"),
            (json!({ "token_type": "PKI" }), "use GET request"),
            (json!({ "audience": "us" }), "token_type is a required parameter"),
            (asked("PKI", &["short"]), "wrong length"),
            (asked("PKI", &[&"a".repeat(75)]), "wrong length"),
            (asked("PKI", &[nonce.as_str(); 7]), "too many nonces"),
            (asked("JWT", &[&nonce]), "unknown token type"),
            (json!({ "audience": "u".repeat(513), "token_type": "PKI" }), "too long"),
        ] {
            let (status, text) = post(&body);
            assert!(status == 400 && text.contains(expected), "{status} {text}");
        }
        let get = http::send(&at, "GET", "/v1/token", &[], b"").unwrap();
        let token = Token::parse(&get.body).unwrap();
        assert_eq!(token.claims().aud.as_deref(), Some(DEFAULT_AUDIENCE));
        assert!(token.claims().eat_nonce.is_empty());
        for (method, path, status) in
            [("PUT", "/v1/token", 400), ("GET", "/v2/token", 404), ("POST", "/v1/intel/token", 412)]
        {
            assert_eq!(http::send(&at, method, path, &[], b"").unwrap().status, status);
        }
    }

    #[test]
    fn so_many_tokens_a_minute_and_no_more() {
        let folder = tempfile::tempdir().unwrap();
        let (launcher, at) = launcher(folder.path());
        launcher.behave(Manner::Limited(2));
        let get = || http::send(&at, "GET", "/v1/token", &[], b"").unwrap().status;
        assert_eq!([get(), get(), get()], [200, 200, 429]);
        assert_eq!(launcher.asked().len(), 3);
    }
}
