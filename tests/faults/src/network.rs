//! The network between the sites and the host.

use crate::clock::Clock;
use crate::fate::{Fate, Passage};
use crate::ledger::Ledger;
use crate::machine::Machine;
use sealfold_protocol::api::{EnvelopeBody, RoundStatus, UploadStatus};
use sealfold_protocol::roster::Commit;
use sealfold_protocol::{Digest, Signed, VerifyingKey};
use std::io::{self, Read};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use ureq::http::{Request, Response};
use ureq::middleware::{Middleware, MiddlewareNext};
use ureq::{Body, SendBody};

/// How long a site waits for an answer, in milliseconds.
const ANSWER: u64 = 120_000;

/// The network, with the host behind it.
pub struct Network {
    /// The host's machine.
    pub machine: Mutex<Machine>,
    clock: Clock,
    fate: Fate,
    ledger: Ledger,
    late: Mutex<Vec<(String, Request<Vec<u8>>)>>,
}

impl Network {
    /// A network in front of a machine.
    #[must_use]
    pub fn new(machine: Machine, clock: Clock, fate: Fate, ledger: Ledger) -> Arc<Self> {
        let (machine, late) = (Mutex::new(machine), Mutex::default());
        Arc::new(Self { machine, clock, fate, ledger, late })
    }

    /// Delivers the requests that were held up, the latest first.
    pub fn deliver_late(&self) {
        let late = std::mem::take(&mut *self.late.lock().unwrap());
        for (site, request) in late.into_iter().rev() {
            self.fate.note(format!("{site}: {} arrives late", shape(&request)));
            let _ = self.machine.lock().unwrap().request(request);
        }
    }
}

/// A request without what differs from one run to the next.
fn shape(request: &Request<Vec<u8>>) -> String {
    let digest = |part: &str| part.len() == 64 && part.bytes().all(|b| b.is_ascii_hexdigit());
    let parts: Vec<_> =
        request.uri().path().split('/').map(|part| if digest(part) { "-" } else { part }).collect();
    format!("{} {}", request.method(), parts.join("/"))
}

/// A site's way to the host.
pub struct Link {
    /// The site's name.
    pub site: String,
    /// Its signing key.
    pub key: VerifyingKey,
    network: Arc<Network>,
    is_cut: AtomicBool,
    /// Requests until the site's own machine goes out; below zero, never.
    left: AtomicI64,
    is_out: AtomicBool,
}

/// A link, as the client takes it.
pub struct Carrier(pub Arc<Link>);

impl Link {
    /// A link of a site.
    #[must_use]
    pub fn new(site: &str, key: VerifyingKey, network: Arc<Network>) -> Arc<Self> {
        let (is_cut, left, is_out) =
            (AtomicBool::new(false), AtomicI64::new(-1), AtomicBool::new(false));
        Arc::new(Self { site: site.to_owned(), key, network, is_cut, left, is_out })
    }

    /// Cuts or mends it.
    pub fn cut(&self, cut: bool) {
        self.is_cut.store(cut, Ordering::Relaxed);
    }

    /// The site's machine goes out at the n-th request from now on.
    pub fn fail_after(&self, requests: u64) {
        self.left.store(i64::try_from(requests).unwrap(), Ordering::Relaxed);
    }

    /// Whether the site's machine went out; it is on again.
    #[must_use]
    pub fn went_out(&self) -> bool {
        self.is_out.swap(false, Ordering::Relaxed)
    }

    /// It does not go out any more.
    pub fn calm(&self) {
        self.left.store(-1, Ordering::Relaxed);
    }

    fn deliver(&self, request: Request<Vec<u8>>) -> io::Result<Response<Vec<u8>>> {
        let lost = || io::Error::from(io::ErrorKind::ConnectionReset);
        self.network.machine.lock().unwrap().request(request).ok_or_else(lost)
    }

    fn carry(&self, request: Request<Vec<u8>>) -> io::Result<Response<Vec<u8>>> {
        let (fate, what) = (&self.network.fate, shape(&request));
        if self.is_out.load(Ordering::Relaxed) || self.is_cut.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        let mut passage = fate.passage();
        if self.left.load(Ordering::Relaxed) >= 0 && self.left.fetch_sub(1, Ordering::Relaxed) == 0
        {
            // Before it was sent, or before the answer was read.
            self.is_out.store(true, Ordering::Relaxed);
            passage = if fate.happens(50) { Passage::Lost } else { Passage::Unanswered };
            fate.note(format!("{} is killed", self.site));
        }
        if passage != Passage::Delivered {
            fate.note(format!("{}: {what}: {passage:?}", self.site));
        }
        match passage {
            Passage::Lost => Err(io::ErrorKind::ConnectionReset.into()),
            Passage::Late => {
                let mut late = self.network.late.lock().unwrap();
                late.push((self.site.clone(), request));
                self.network.clock.advance(ANSWER);
                Err(io::ErrorKind::TimedOut.into())
            }
            Passage::Unanswered => {
                let _ = self.deliver(request);
                Err(io::ErrorKind::ConnectionReset.into())
            }
            Passage::Doubled => {
                // What comes second was signed for once only, and changes nothing.
                let first = self.deliver(request.clone());
                let _ = self.deliver(request.clone());
                Ok(self.answered(&request, first?))
            }
            Passage::Delivered => Ok(self.answered(&request.clone(), self.deliver(request)?)),
        }
    }

    /// Notes what an answer acknowledges.
    fn answered(&self, request: &Request<Vec<u8>>, reply: Response<Vec<u8>>) -> Response<Vec<u8>> {
        if !reply.status().is_success() {
            return reply;
        }
        let path: Vec<_> = request.uri().path().trim_matches('/').split('/').collect();
        let mut seen = self.network.ledger.lock().unwrap();
        match (request.method().as_str(), &path[..]) {
            ("PATCH", ["v1", "uploads", header]) => {
                let status: UploadStatus = serde_json::from_slice(reply.body()).unwrap();
                let header: Digest = header.parse().unwrap();
                seen.uploads.insert(header, status.received);
            }
            ("POST", ["v1", "studies", study, "rounds", round, "commits"]) => {
                let body: EnvelopeBody = serde_json::from_slice(request.body()).unwrap();
                let commit = Signed::<Commit>::open(&body.envelope.0, &self.key).unwrap();
                let commit = commit.statement();
                let round: u32 = round.parse().unwrap();
                let name = format!(
                    "studies/{study}/rounds/{round:07}/{}/commits/{}/{}",
                    commit.offer, commit.roster, commit.site
                );
                seen.commits.insert(name, body.envelope.0);
            }
            ("GET", ["v1", "studies", _, "rounds", round]) => {
                let status: RoundStatus = serde_json::from_slice(reply.body()).unwrap();
                let (round, served) = (round.parse().unwrap(), status.release);
                let served = served.map(|release| Digest::of(&[&release.0]));
                match (seen.served.get(&round).copied(), served) {
                    (Some(before), after) if after != Some(before) => {
                        let what = if after.is_some() { "another" } else { "none" };
                        let text = format!("lost: round {round} had a release, now it has {what}");
                        seen.violations.push(text);
                    }
                    (None, Some(served)) => _ = seen.served.insert(round, served),
                    _ => {}
                }
            }
            _ => {}
        }
        reply
    }
}

impl Middleware for Carrier {
    fn handle(
        &self,
        request: Request<SendBody>,
        _: MiddlewareNext,
    ) -> Result<Response<Body>, ureq::Error> {
        let (parts, body) = request.into_parts();
        let mut bytes = Vec::new();
        body.into_reader().read_to_end(&mut bytes)?;
        let reply = self.0.carry(Request::from_parts(parts, bytes))?;
        let (mut parts, bytes) = reply.into_parts();
        parts.headers.remove("content-length");
        Ok(Response::from_parts(parts, Body::builder().data(bytes)))
    }
}
