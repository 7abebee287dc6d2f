//! The status page: what runs here, and what it waits for, for people. No
//! script, no build step; it refreshes itself, and says of itself that it proves
//! nothing.

use crate::host::{Host, round_folder};
use crate::routes::Shared;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use html::Html;
use jiff::Timestamp;
use sealfold_attestation::Evidence;
use sealfold_attestation::log::SignedCheckpoint;
use sealfold_protocol::access::content_digest;
use sealfold_protocol::api::EvidenceReply;
use sealfold_protocol::{Digest, Signed};
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

mod html;
mod study;
mod timeline;

/// The style, which stands in the page; its digest in the policy of what may run.
const STYLE: &str = include_str!("style.css");

/// What the evidence of a study's standing offer says was measured.
type Measured = BTreeMap<Digest, (String, Vec<(&'static str, String)>)>;

/// The page.
pub async fn page(
    State(host): Shared,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> impl IntoResponse {
    let measured = measured(&host).await;
    let log = host.store.get(&format!("{}/checkpoint", crate::log::FOLDER)).await.ok().flatten();
    let is_still = query.as_deref() == Some("still");
    let mut page = Html::default();
    head(&mut page, is_still);
    page.markup("<header><h1>sealfold host</h1><p class=soft>");
    if host.enclave_answers.load(Ordering::Relaxed) {
        page.markup("<span class=good>✓ the enclave answers</span>");
    } else {
        page.markup("<span class=warn>✗ the enclave does not answer</span>");
    }
    page.within(" · version ", crate::VERSION, "");
    page.within(" · as of <time>", now(), "</time>, by this host’s clock");
    page.markup(if is_still {
        " · <a class=still href=\"/\">refresh by itself</a>"
    } else {
        " · <a class=still href=\"/?still\">do not refresh by itself</a>"
    });
    page.markup(
        "</p><p class=waits><strong>This page proves nothing.</strong> The host that shows it is \
         trusted with nothing: what it keeps is sealed, signed or public, and it may show you \
         whatever it likes. A site checks the enclave itself, as is said with each study; an \
         auditor replays the log.</p></header><main>",
    );
    let url = url(&host, &headers);
    let state = host.state.lock().await;
    for (id, known) in &state.studies {
        study::section(&mut page, &state, id, known, measured.get(id), &url);
    }
    if state.studies.is_empty() {
        page.markup(
            "<section><h2>No study yet</h2><p>The operator lets one in with <code>sealfold \
             operator introduce</code>; its parties publish it with <code>sealfold study \
             approve</code>.</p></section>",
        );
    }
    drop(state);
    log_section(&mut page, &host, log.as_deref());
    page.markup(
        "</main><footer class=soft><p><a href=\"/v1/health\">health</a> · <a href=\"/v1/openapi.json\">the API</a></p></footer>",
    );
    guarded(page.finish())
}

/// The current time, to the second.
fn now() -> String {
    let now = Timestamp::now().as_second();
    Timestamp::from_second(now).map_or_else(|_| String::new(), |now| now.to_string())
}

fn head(page: &mut Html, is_still: bool) {
    page.markup("<!doctype html><html lang=en><head><meta charset=utf-8>");
    page.markup("<meta name=viewport content=\"width=device-width,initial-scale=1\">");
    if !is_still {
        page.markup("<meta http-equiv=refresh content=10>");
    }
    page.markup("<title>sealfold host</title><link rel=icon href=\"data:,\"><style>");
    page.markup(STYLE).markup("</style></head><body>");
}

/// A reply that a browser runs nothing of and shows in no frame.
fn guarded(page: String) -> Response {
    let digest = content_digest(STYLE.as_bytes());
    let digest = digest.trim_start_matches("sha-256=:").trim_end_matches(':');
    let policy = format!(
        "default-src 'none'; style-src 'sha256-{digest}'; img-src data:; base-uri 'none'; \
         form-action 'none'; frame-ancestors 'none'"
    );
    let mut response = axum::response::Html(page).into_response();
    let headers = response.headers_mut();
    if let Ok(policy) = policy.parse() {
        headers.insert(header::CONTENT_SECURITY_POLICY, policy);
    }
    let fixed = [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-store"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    ];
    for (name, value) in fixed {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

/// Where sites reach this host: its own name, or the one it was asked under.
fn url(host: &Host, headers: &HeaderMap) -> String {
    let asked = headers.get(header::HOST).and_then(|value| value.to_str().ok());
    let name = host.terms.names.first().map(String::as_str).or(asked).unwrap_or("HOST");
    let is_local = ["127.0.0.1", "localhost", "[::1]"]
        .iter()
        .any(|local| name == *local || name.starts_with(&format!("{local}:")));
    format!("{}://{name}", if is_local { "http" } else { "https" })
}

/// What the evidence that was kept says, of each study's latest offer.
async fn measured(host: &Host) -> Measured {
    let offers: Vec<_> = {
        let state = host.state.lock().await;
        let latest = |(id, study): (&Digest, &crate::study::Study)| {
            let mut rounds = study.rounds.iter().rev();
            let (number, offer) =
                rounds.find_map(|(n, round)| Some((*n, round.offer.as_ref()?)))?;
            Some((*id, number, Signed::digest(offer)))
        };
        state.studies.iter().filter_map(latest).collect()
    };
    let mut measured = Measured::new();
    for (id, number, offer) in offers {
        let name = format!("{}/{offer}/evidence", round_folder(&id, number));
        let Ok(Some(bytes)) = host.store.get(&name).await else { continue };
        let Ok(reply) = serde_json::from_slice::<EvidenceReply>(&bytes) else { continue };
        let Ok(evidence) = Evidence::of(&reply.platform, &reply.document.0) else { continue };
        measured.insert(id, (reply.platform, evidence.unverified_measurements()));
    }
    measured
}

fn log_section(page: &mut Html, host: &Host, checkpoint: Option<&[u8]>) {
    page.markup("<section><h2>The log</h2>");
    let signed = checkpoint.and_then(|bytes| SignedCheckpoint::open(bytes, host.log.key()).ok());
    if let (Some(signed), Some(bytes)) = (signed, checkpoint) {
        page.within("<p>", signed.size(), " leaves: manifests, offers with their evidence, ");
        page.markup("rosters, commits, releases, abandonments. Nothing is ever taken out.</p><dl>");
        page.within("<dt>Key</dt><dd><code>", host.log.key(), "</code></dd></dl>");
        page.markup("<h3>Checkpoint</h3><pre>");
        page.text(String::from_utf8_lossy(bytes)).markup("</pre>");
    } else {
        page.markup("<p class=warn>The checkpoint cannot be read.</p>");
    }
    page.markup(
        "<p class=soft>Static files in the C2SP formats: <a href=\"/log/checkpoint\">checkpoint</a>. \
         An auditor takes a copy and replays it: <code>sealfold-audit replay LOG --policy \
         FILE</code>.</p></section>",
    );
}
