//! Who asks, how often, and what became of it.
//!
//! A request of a site, of an approver, of a witness or of the operator is
//! signed (RFC 9421, [`sealfold_protocol::access`]); readers of the log and of
//! the status page sign nothing. Nobody's safety rests on this: it keeps a host
//! available to its sites, and metadata from strangers. The enclave never hears
//! of it.
//!
//! [`accounted`] stands before every operation: it finds out who asks, counts
//! the request, and logs who did what, when, with which outcome, and never what
//! was in it. [`guard`](guard::guard) stands before each operation that is not
//! for everybody, and decides whether this caller may do it.

use crate::host::Host;
use crate::limits::counted;
use crate::routes::Refused;
use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::http::uri::PathAndQuery;
use axum::http::{HeaderMap, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http_body_util::BodyExt;
use jiff::Timestamp;
use rates::{Limits, Who};
use sealfold_protocol::VerifyingKey;
use sealfold_protocol::access::{
    CLOCK, CONTENT_DIGEST, Head, INPUT, LIFETIME, Role, SIGNATURE, Verified, verify,
};
use sealfold_protocol::api::{MAX_PIECE, UPLOAD_OFFSET};
use sealfold_protocol::refusal::{Check, Refusal};
use sealfold_protocol::text::shown;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub mod guard;
pub mod nonces;
pub mod rates;

/// How long a client may still send after it was refused.
const DRAIN: Duration = Duration::from_secs(30);

/// How long a signature may be valid, in seconds.
const LASTS: u64 = LIFETIME.unsigned_abs();

/// Where a connection comes from, if it has an address.
#[derive(Debug, Clone, Copy)]
pub struct Peer(pub Option<IpAddr>);

/// Who asks, as far as the signature says.
#[derive(Debug, Clone)]
pub struct Caller {
    /// The signature, if there is one; it verified.
    pub signed: Option<Verified>,
    /// Who that is here.
    pub known: Known,
}

/// Who a key belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Known {
    /// Nothing was signed.
    Nobody,
    /// Signed, with a key that this host does not know.
    Stranger(VerifyingKey),
    /// A site, an approver or a witness, in words.
    Party(String),
    /// The operator.
    Operator,
}

impl Known {
    /// Whether nonces are remembered. A stranger's are not: it can do nothing that
    /// matters, and must not fill the memory.
    const fn is_remembered(&self) -> bool {
        matches!(self, Self::Party(_) | Self::Operator)
    }
}

impl fmt::Display for Known {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nobody => f.write_str("nobody"),
            Self::Stranger(key) => write!(f, "stranger {key}"),
            Self::Party(name) => f.write_str(name),
            Self::Operator => f.write_str("operator"),
        }
    }
}

/// Counts and logs a request, and finds out who asks.
pub async fn accounted(
    State(host): State<Arc<Host>>,
    mut request: Request,
    next: Next,
) -> Response {
    let start = Instant::now();
    let peer = request.extensions().get::<Peer>().and_then(|peer| peer.0);
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let caller = match signature(&host, &request) {
        Ok(signed) => identify(&host, signed).await,
        Err(refusal) => Err(refusal),
    };
    let known = caller.as_ref().map_or(Known::Nobody, |caller| caller.known.clone());
    let (who, limits) = match (&caller, &known) {
        (Ok(Caller { signed: Some(signed), .. }), Known::Party(_) | Known::Operator) => {
            (Who::Key(signed.key), Limits::of_party(host.terms.site_rate))
        }
        _ => (Who::Address(peer.map(counted)), Limits::of_stranger(host.terms.stranger_rate)),
    };
    let entered = host.rates.enter(who, limits, Instant::now());
    let response = match entered {
        Err(wait) => {
            drain(request).await;
            too_many(&limits, wait)
        }
        Ok(_place) => match caller.and_then(|caller| take_nonce(&host, caller)) {
            Ok(caller) => {
                request.extensions_mut().insert(caller);
                next.run(request).await
            }
            Err(refusal) => {
                drain(request).await;
                Refused(refusal).into_response()
            }
        },
    };
    let outcome =
        response.extensions().get::<Check>().map_or("done".to_owned(), ToString::to_string);
    let (status, milliseconds) = (response.status().as_u16(), start.elapsed().as_millis());
    let address = peer.map_or("local".to_owned(), |address| address.to_string());
    let path = shown(&path);
    tracing::info!(
        target: "access",
        who = %known, %address, %method, %path, status, %outcome, milliseconds,
    );
    response
}

/// The reply to one request too many, with the seconds to wait.
pub(crate) fn too_many(limits: &Limits, wait: Duration) -> Response {
    let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
    let found = format!("more; the next in {} s", seconds.max(1));
    let refusal = Refusal::new(Check::Rate, limits, found).next(
        "wait as retry-after says; the operator sets the limits: --site-rate, --stranger-rate, \
         --evidence-rate",
    );
    let mut response = Refused(refusal).into_response();
    response.headers_mut().insert(header::RETRY_AFTER, seconds.max(1).into());
    response
}

/// Lets a client that is refused send the rest of its piece, since one that is cut
/// off while it writes does not read the refusal. Nothing of it is kept, and it
/// has [`DRAIN`] for it.
async fn drain(request: Request) {
    let mut body = request.into_body();
    let mut left = MAX_PIECE;
    let discarded = async {
        while let Some(Ok(frame)) = body.frame().await {
            match left.checked_sub(frame.data_ref().map_or(0, Bytes::len)) {
                Some(rest) => left = rest,
                None => return,
            }
        }
    };
    let _ = tokio::time::timeout(DRAIN, discarded).await;
}

/// A field's values in one, as RFC 9110 joins them.
fn joined(headers: &HeaderMap, name: &str) -> Option<String> {
    let values: Vec<_> =
        headers.get_all(name).iter().map(|value| value.to_str().unwrap_or("\u{fffd}")).collect();
    (!values.is_empty()).then(|| values.join(", "))
}

/// A request's signature, if it has one; it verifies and was made now.
fn signature(host: &Host, request: &Request) -> Result<Option<Verified>, Refusal> {
    let headers = request.headers();
    let (input, signature) = (joined(headers, INPUT), joined(headers, SIGNATURE));
    let (Some(input), Some(signature)) = (&input, &signature) else {
        if input.is_none() && signature.is_none() {
            return Ok(None);
        }
        let expected = format!("{INPUT} and {SIGNATURE}");
        return Err(Refusal::new(Check::Access, expected, "one of them"));
    };
    let authority = joined(headers, "host").unwrap_or_default();
    host.terms.expect_name(&authority)?;
    let (digest, offset) = (joined(headers, CONTENT_DIGEST), joined(headers, UPLOAD_OFFSET));
    let head = Head {
        method: request.method().as_str(),
        authority: &authority,
        target: request.uri().path_and_query().map_or("/", PathAndQuery::as_str),
        content_digest: digest.as_deref(),
        upload_offset: offset.as_deref(),
    };
    let verified = verify(&head, input, signature)?;
    verified.expect_time(Timestamp::now())?;
    Ok(Some(verified))
}

/// Knows the key of a signature, and has not seen the request before.
async fn identify(host: &Host, signed: Option<Verified>) -> Result<Caller, Refusal> {
    let Some(signed) = signed else { return Ok(Caller { signed: None, known: Known::Nobody }) };
    let known = know(host, &signed).await;
    if known.is_remembered() {
        // Before its place is taken: who plays a request again spends nobody's share.
        host.nonces.expect_new(&signed, Timestamp::now().as_second())?;
    }
    Ok(Caller { signed: Some(signed), known })
}

/// Takes the nonce of a request that has its place among its key's.
fn take_nonce(host: &Host, caller: Caller) -> Result<Caller, Refusal> {
    if let Some(signed) = caller.signed.as_ref().filter(|_| caller.known.is_remembered()) {
        let most = Limits::of_party(host.terms.site_rate).within(CLOCK.unsigned_abs() + LASTS);
        host.nonces.take(signed, Timestamp::now().as_second(), most)?;
    }
    Ok(caller)
}

/// Who a key belongs to.
async fn know(host: &Host, verified: &Verified) -> Known {
    let key = verified.key;
    if verified.role == Role::Operator {
        let is_one = host.terms.operators.contains(&key);
        return if is_one { Known::Operator } else { Known::Stranger(key) };
    }
    for (id, study) in &host.state.lock().await.studies {
        if let Some(standing) = study.standing(&key) {
            return Known::Party(format!("{standing}@{}", id.short()));
        }
    }
    let witness = host.terms.witnesses.iter().find(|witness| witness.key.key() == key.as_bytes());
    witness.map_or(Known::Stranger(key), |witness| {
        Known::Party(format!("witness {}", witness.key.name()))
    })
}
