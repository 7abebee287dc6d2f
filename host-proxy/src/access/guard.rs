//! Whether this caller may do this: one table of operations, one place that
//! decides.

use super::rates::{Limits, Place, Who};
use super::{Caller, drain, too_many};
use crate::host::Host;
use crate::routes::{Operation, Refused};
use crate::state::State as Known;
use crate::study::Standing;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::Method;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http_body_util::LengthLimitError;
use sealfold_protocol::access::{Role, Verified};
use sealfold_protocol::refusal::{Check, Refusal};
use sealfold_protocol::{Digest, VerifyingKey};
use std::error::Error as _;
use std::sync::Arc;
use std::time::Instant;

/// Who may use an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Everybody, without a signature.
    Anyone,
    /// Whoever signs with a key that the posted document knows.
    Signer,
    /// A site or an approver of the study, and the operator.
    Party,
    /// A site of the study; the operator may read.
    Site,
    /// A site of any study, or a witness of the log.
    Witness,
    /// The operator.
    Operator,
}

/// What an operation takes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// No body.
    Nothing,
    /// A body of at most so many bytes, whose digest is signed.
    Whole(usize),
    /// A body of any length, whose digest the study's manifest names.
    Named,
}

/// Who asks, for the handler.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asker {
    /// Anybody.
    Anyone,
    /// The holder of a key; the handler looks at it.
    Signer(VerifyingKey, Role),
    /// A party of the study that is no site of it.
    Party,
    /// A site of the study.
    Site(String),
    /// The operator.
    Operator,
}

impl Asker {
    /// Whether a statement's site is the one that asks.
    ///
    /// # Errors
    /// A refusal by `right`.
    pub fn expect_site(&self, site: &str) -> Result<(), Refusal> {
        match self {
            Self::Site(own) if own == site => Ok(()),
            Self::Site(own) => {
                Err(Refusal::new(Check::Right, format!("what is {own}'s own"), site))
            }
            _ => Err(Refusal::new(Check::Right, format!("a request signed by {site}"), "another")),
        }
    }
}

/// The key that a request is signed with, for the handler.
#[derive(Debug, Clone, Copy)]
pub struct Key(pub VerifyingKey);

/// Lets a request through to its operation, or refuses it.
pub async fn guard(
    State((host, operation)): State<(Arc<Host>, &'static Operation)>,
    mut request: Request,
    next: Next,
) -> Response {
    let Some(caller) = request.extensions_mut().remove::<Caller>() else {
        return Refused(Refusal::new(Check::Access, "a caller", "none")).into_response();
    };
    let (reads, path) = (request.method() == Method::GET, request.uri().path().to_owned());
    let asker = match authorise(&host, operation, reads, &path, &caller).await {
        Ok(asker) => asker,
        Err(refusal) => {
            drain(request).await;
            return Refused(refusal).into_response();
        }
    };
    // Held while the piece is in memory.
    let mut _place: Option<Place> = None;
    if let (&Method::PATCH, Some(signed)) = (request.method(), &caller.signed) {
        let limits = Limits::of_pieces();
        match host.rates.enter(Who::Pieces(signed.key), limits, Instant::now()) {
            Ok(place) => _place = Some(place),
            Err(wait) => {
                drain(request).await;
                return too_many(&limits, wait);
            }
        }
    }
    let (mut head, body) = request.into_parts();
    let body = match taken(operation, body, caller.signed.as_ref()).await {
        Ok(body) => body,
        Err(refusal) => return Refused(refusal).into_response(),
    };
    head.extensions.insert(asker);
    if let Some(signed) = &caller.signed {
        head.extensions.insert(Key(signed.key));
    }
    next.run(Request::from_parts(head, body)).await
}

/// A request's body, as it was signed.
async fn taken(
    operation: &Operation,
    body: Body,
    signed: Option<&Verified>,
) -> Result<Body, Refusal> {
    let limit = match operation.content {
        Content::Named => return Ok(body),
        Content::Nothing => 0,
        Content::Whole(limit) => limit,
    };
    let bytes = to_bytes(body, limit).await.map_err(|error| {
        if error.source().is_some_and(<dyn std::error::Error>::is::<LengthLimitError>) {
            return Refusal::new(
                Check::Size,
                format!("a body of at most {limit} bytes"),
                "a longer one",
            );
        }
        Refusal::new(Check::Upload, "a whole body", error)
    })?;
    if let Some(signed) = signed {
        signed.expect_body(&bytes)?;
    }
    Ok(Body::from(bytes))
}

async fn authorise(
    host: &Host,
    operation: &Operation,
    reads: bool,
    path: &str,
    caller: &Caller,
) -> Result<Asker, Refusal> {
    if operation.access == Access::Anyone {
        return Ok(Asker::Anyone);
    }
    let Some(signed) = &caller.signed else {
        return Err(Refusal::new(
            Check::Access,
            operation.access.in_words(),
            "one without a signature",
        )
        .next("sign the request as docs/protocol.md says; sealfold does so by itself"));
    };
    let (key, is_operator) = (signed.key, signed.role == Role::Operator);
    if is_operator && !host.terms.operators.contains(&key) {
        let expected = "a key of this host's operator";
        return Err(Refusal::new(Check::Right, expected, key)
            .next("sealfold-host serve --operator KEY names the operator's keys"));
    }
    let state = host.state.lock().await;
    match operation.access {
        Access::Anyone => Ok(Asker::Anyone),
        Access::Signer => Ok(Asker::Signer(key, signed.role)),
        Access::Operator | Access::Party if is_operator => Ok(Asker::Operator),
        Access::Operator => Err(refused(operation.access, key)),
        Access::Site if is_operator && reads => Ok(Asker::Operator),
        Access::Witness => {
            let mut studies = state.studies.values();
            let is_site =
                studies.any(|study| matches!(study.standing(&key), Some(Standing::Site(_))));
            let mut witnesses = host.terms.witnesses.iter();
            if !is_operator && (is_site || witnesses.any(|w| w.key.key() == key.as_bytes())) {
                return Ok(Asker::Party);
            }
            Err(refused(operation.access, key))
        }
        Access::Party | Access::Site if operation.path.starts_with("/v1/uploads/") => {
            own_upload(&state, path, &key, is_operator)
        }
        Access::Party | Access::Site => {
            let id = segment(path, 3)?;
            let standing = state.study(&id)?.standing(&key).filter(|_| !is_operator);
            match standing {
                Some(Standing::Site(name)) => Ok(Asker::Site(name)),
                Some(Standing::Approver) if operation.access == Access::Party => Ok(Asker::Party),
                _ => Err(refused(operation.access, key)),
            }
        }
    }
}

/// An upload is its own site's; to anybody else there is none.
fn own_upload(
    state: &Known,
    path: &str,
    key: &VerifyingKey,
    is_operator: bool,
) -> Result<Asker, Refusal> {
    let header: Digest = segment(path, 3)?;
    if let Some(upload) = state.uploads.get(&header).filter(|_| !is_operator) {
        let statement = upload.header.statement();
        let standing = state.study(&statement.study)?.standing(key);
        if standing == Some(Standing::Site(statement.site.clone())) {
            return Ok(Asker::Site(statement.site.clone()));
        }
    }
    Err(Refusal::new(Check::NotFound, "an upload that this site began", header)
        .next("begin it with its signed header"))
}

fn segment(path: &str, place: usize) -> Result<Digest, Refusal> {
    let text = path.split('/').nth(place).unwrap_or_default();
    text.parse()
        .map_err(|error: String| Refusal::new(Check::Request, "a path of /v1/openapi.json", error))
}

fn refused(access: Access, key: VerifyingKey) -> Refusal {
    Refusal::new(Check::Right, access.in_words(), format!("one signed by {key}"))
        .next("use the key that the manifest in force lists; sealfold study show prints it")
}

impl Access {
    /// Who that is, in words.
    #[must_use]
    pub const fn in_words(self) -> &'static str {
        match self {
            Self::Anyone => "a request",
            Self::Signer => "a request signed by a party of the manifest",
            Self::Party => "a request signed by a site or an approver of the study",
            Self::Site => "a request signed by a site of the study",
            Self::Witness => "a request signed by a site or a witness of this host",
            Self::Operator => "a request signed by this host's operator",
        }
    }
}
