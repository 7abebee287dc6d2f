//! The enclave instances, and the wire from the host to the one that it talks to.
//!
//! The operator's power over instances is theirs to use: to stop them, to run
//! several, to lead the wire from one to another, and to feed an instance
//! whatever was said to any other.

use crate::clock::Clock;
use crate::fate::{Fate, Passage};
use crate::ledger::{Ledger, Observed};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http_body_util::BodyExt;
use hyper::Method;
use hyper::body::Bytes;
use sealfold_enclave::attester::simulated::Simulated;
use sealfold_enclave::attester::{Attester, EvidenceError};
use sealfold_enclave::engine::Engine;
use sealfold_enclave::server;
use sealfold_host::enclave::Wire;
use sealfold_protocol::api::EnvelopeBody;
use sealfold_protocol::endpoint::Endpoint;
use sealfold_protocol::offer::Offer;
use sealfold_protocol::release::Release;
use sealfold_protocol::{Secret, Signed};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex};

/// One platform for all worlds: to measure the binary takes its time.
pub static PLATFORM: LazyLock<Platform> = LazyLock::new(Platform::new);

/// The simulated platform.
#[derive(Clone)]
pub struct Platform(Arc<Simulated>);

impl Platform {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self(Arc::new(Simulated::open(&folder.path().join("root.pem")).unwrap()))
    }

    /// The policy section that accepts its evidence.
    #[must_use]
    pub fn policy(&self) -> String {
        self.0.policy_section()
    }
}

impl Attester for Platform {
    fn attest(&self, user_data: &[u8; 32], nonce: &[u8; 32]) -> Result<Vec<u8>, EvidenceError> {
        self.0.attest(user_data, nonce)
    }

    fn random(&self) -> Result<Secret, EvidenceError> {
        self.0.random()
    }
}

struct Instance {
    number: usize,
    engine: Engine,
}

/// A request that arrives late.
struct Late {
    instance: usize,
    path: String,
    body: Vec<u8>,
}

#[derive(Default)]
struct Inner {
    running: Vec<Instance>,
    /// The instance at the end of the wire.
    active: Option<usize>,
    started: usize,
    late: Vec<Late>,
    /// Every request that anything was asked with, in order.
    said: Vec<(String, Vec<u8>)>,
}

/// The machines that run instances.
pub struct Enclaves {
    inner: Mutex<Inner>,
    clock: Clock,
    fate: Fate,
    door: Endpoint,
    ledger: Ledger,
    /// The host's staging folder, where aggregates lie.
    staging: PathBuf,
}

impl fmt::Debug for Enclaves {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("simulated enclaves")
    }
}

impl Enclaves {
    /// None runs yet.
    #[must_use]
    pub fn new(clock: Clock, fate: Fate, door: Endpoint, ledger: Ledger, staging: &Path) -> Self {
        let (inner, staging) = (Mutex::default(), staging.to_owned());
        Self { inner, clock, fate, door, ledger, staging }
    }

    /// Starts an instance and leads the wire to it.
    pub fn start(&self) {
        let clock = self.clock.clone();
        let engine = Engine::new(Box::new(PLATFORM.clone()), self.door.clone(), 1).unwrap();
        let engine = engine.on_clock(move || clock.now());
        let mut inner = self.inner.lock().unwrap();
        inner.started += 1;
        let number = inner.started;
        inner.running.push(Instance { number, engine });
        inner.active = Some(number);
        self.fate.note(format!("instance {number} starts"));
    }

    /// Ends the instance at the end of the wire, with all that it knows.
    pub fn stop(&self) {
        let mut inner = self.inner.lock().unwrap();
        let Some(active) = inner.active.take() else { return };
        inner.running.retain(|instance| instance.number != active);
        self.fate.note(format!("instance {active} ends"));
    }

    /// Leads the wire to another instance that runs.
    pub fn switch(&self) {
        let mut inner = self.inner.lock().unwrap();
        let active = inner.active;
        let others = inner.running.iter().map(|instance| instance.number);
        let others: Vec<_> = others.filter(|number| Some(*number) != active).collect();
        if let Some(other) = others.last() {
            inner.active = Some(*other);
            self.fate.note(format!("the wire leads to instance {other}"));
        }
    }

    /// Whether an instance is at the end of the wire.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.inner.lock().unwrap().active.is_some()
    }

    /// Lets the round's deadlines strike, as an instance does every second.
    pub fn tick(&self) {
        let inner = self.inner.lock().unwrap();
        inner.running.iter().for_each(|instance| instance.engine.tick());
    }

    /// Delivers the requests that were held up, the latest first.
    pub fn deliver_late(&self) {
        let mut inner = self.inner.lock().unwrap();
        while let Some(late) = inner.late.pop() {
            self.fate.note(format!("{} arrives late at instance {}", late.path, late.instance));
            let _ = self.answer(&inner, late.instance, &Method::POST, &late.path, &late.body);
        }
    }

    /// Says to every instance whatever was said to any, and asks for a release:
    /// what an operator does who wants a second aggregate.
    pub fn feed(&self) {
        let inner = self.inner.lock().unwrap();
        self.fate.note("all that was said is said to all instances");
        for instance in &inner.running {
            let say = |path: &str, body: &[u8]| {
                let _ = self.answer(&inner, instance.number, &Method::POST, path, body);
            };
            let say_all = |path: &str| {
                let said = inner.said.iter().filter(|(said, _)| said == path);
                said.for_each(|(path, body)| say(path, body));
            };
            say_all("/v1/offer");
            say_all("/v1/updates");
            say("/v1/roster", b"null");
            say_all("/v1/checkpoint");
            say_all("/v1/commits");
            say("/v1/release", b"null");
        }
    }

    /// One request, as the instance's server answers it.
    fn answer(
        &self,
        inner: &Inner,
        number: usize,
        method: &Method,
        path: &str,
        body: &[u8],
    ) -> Option<(bool, Bytes)> {
        let instance = inner.running.iter().find(|instance| instance.number == number)?;
        let answer = server::answer(&instance.engine, method, path, body);
        let is_good = answer.status().is_success();
        let collected = answer.into_body().collect().now_or_never().unwrap().unwrap();
        let bytes = collected.to_bytes();
        if is_good && path == "/v1/release" {
            self.observe(instance, &bytes);
        }
        Some((is_good, bytes))
    }

    fn observe(&self, instance: &Instance, body: &[u8]) {
        let body: EnvelopeBody = serde_json::from_slice(body).unwrap();
        let status = instance.engine.status().unwrap();
        let offer = Offer::open(&status.offer.unwrap().0).unwrap();
        let key = offer.statement().instance_key;
        let release = Signed::<Release>::open(&body.envelope.0, &key).unwrap();
        let roster = Signed::open(&status.roster.unwrap().0, &key).unwrap();
        let mut seen = self.ledger.lock().unwrap();
        let object = release.statement().object;
        let place = self.staging.join("aggregates").join(object.to_string());
        let observed = seen.releases.entry(release.digest()).or_insert_with(|| {
            self.fate.note(format!("instance {} releases", instance.number));
            Observed { release, offer, roster, aggregate: None }
        });
        if observed.aggregate.is_none() {
            observed.aggregate = std::fs::read(place).ok();
        }
    }

    fn exchange_now(
        &self,
        method: &Method,
        path: &str,
        body: Vec<u8>,
    ) -> anyhow::Result<(bool, Bytes)> {
        let mut inner = self.inner.lock().unwrap();
        let Some(active) = inner.active else { anyhow::bail!("connection refused") };
        let passage = self.fate.passage();
        if passage != Passage::Delivered {
            self.fate.note(format!("host to instance {active}: {method} {path}: {passage:?}"));
        }
        let lost = || anyhow::anyhow!("the connection was lost");
        if passage == Passage::Lost {
            anyhow::bail!("the connection was lost");
        }
        if method == Method::POST {
            let said = (path.to_owned(), body.clone());
            if !inner.said.contains(&said) {
                inner.said.push(said);
            }
        }
        if passage == Passage::Late {
            if method == Method::POST {
                inner.late.push(Late { instance: active, path: path.to_owned(), body });
            }
            self.clock.advance(30_000);
            anyhow::bail!("no answer in 30 s");
        }
        if passage == Passage::Doubled {
            let _ = self.answer(&inner, active, method, path, &body);
        }
        let answer = self.answer(&inner, active, method, path, &body);
        if passage == Passage::Unanswered {
            return Err(lost());
        }
        answer.ok_or_else(lost)
    }
}

impl Wire for Enclaves {
    fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Vec<u8>,
    ) -> BoxFuture<'_, anyhow::Result<(bool, Bytes)>> {
        let path = path.to_owned();
        async move { self.exchange_now(&method, &path, body) }.boxed()
    }

    fn place(&self) -> String {
        "the simulation".to_owned()
    }
}
