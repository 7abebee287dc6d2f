//! The host's machine: the real host proxy, that can be killed at any write.

use crate::disk::{Platter, Power, Shelf};
use crate::door::Door;
use crate::enclaves::Enclaves;
use crate::fate::Fate;
use axum::Router;
use axum::body::Body;
use axum::http::{Request, Response};
use futures_util::FutureExt;
use jiff::Timestamp;
use metrics_exporter_prometheus::PrometheusBuilder;
use sealfold_attestation::log::NoteKey;
use sealfold_host::access::nonces::Nonces;
use sealfold_host::conductor::Conductor;
use sealfold_host::enclave::Enclave;
use sealfold_host::host::{Host, Terms};
use sealfold_host::log::Log;
use sealfold_host::staging::Staging;
use sealfold_host::store::Store;
use sealfold_protocol::offer::Offer;
use sealfold_protocol::{Digest, Signed};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Runtime;
use tower::ServiceExt;

/// The most that a reply of the host may be long.
const LONGEST: usize = 64 << 20;

/// Runs what does not wait for anything.
pub fn at_once<T>(what: impl Future<Output = T>) -> T {
    what.now_or_never().expect("memory does not wait")
}

/// The proxy while it runs.
struct Running {
    runtime: Runtime,
    host: Arc<Host>,
    router: Router,
    conductor: Conductor,
}

/// The machine, with what survives its crashes.
pub struct Machine {
    folder: PathBuf,
    /// What it runs on.
    pub power: Arc<Power>,
    /// Its object store.
    pub shelf: Arc<Shelf>,
    platter: Arc<Platter>,
    /// The record door that enclaves find at it.
    pub door: Arc<Door>,
    enclaves: Arc<Enclaves>,
    fate: Fate,
    running: Option<Running>,
}

impl Machine {
    /// A machine in that folder; nothing runs yet. `lies` if its disks
    /// acknowledge what is not durable.
    #[must_use]
    pub fn new(
        folder: &Path,
        enclaves: Arc<Enclaves>,
        door: Arc<Door>,
        fate: Fate,
        lies: bool,
    ) -> Self {
        let power = Power::new();
        let shelf = Shelf::new(power.clone(), fate.clone(), lies);
        let platter = Platter::new(power.clone(), lies);
        let folder = folder.to_owned();
        Self { folder, power, shelf, platter, door, enclaves, fate, running: None }
    }

    /// Whether the proxy runs.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.running.is_some()
    }

    /// Starts the proxy on what is on disk.
    ///
    /// # Errors
    /// What kept it from starting: a store that fails is tried again later.
    pub fn start(&mut self) -> anyhow::Result<()> {
        self.power.restore();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let staging = Staging::on(&self.folder.join("staging"), self.platter.clone())?;
        let store = Store::over(self.shelf.clone());
        let enclave = Enclave::over(self.enclaves.clone());
        let metrics = PrometheusBuilder::new().build_recorder().handle();
        // As many requests as a schedule has: time passes without being waited for.
        let (site_rate, stranger_rate, evidence_rate) = (1 << 20, 1 << 20, 1 << 26);
        let any_study = true;
        let largest_model = 1 << 20;
        let terms = Terms {
            any_study,
            site_rate,
            stranger_rate,
            evidence_rate,
            largest_model,
            ..Terms::default()
        };
        let nonces = Nonces::open(&self.folder.join("nonces"), Timestamp::now().as_second())?;
        let host = runtime.block_on(async {
            let log = Log::open(&store, &self.folder, None).await?;
            Host::open(store, staging.clone(), enclave, metrics, terms, log, nonces).await
        })?;
        self.door.behind(Some(staging));
        let (router, conductor) =
            (sealfold_host::routes::router(host.clone()), Conductor::new(host.clone()));
        self.running = Some(Running { runtime, host, router, conductor });
        self.fate.note("the host starts");
        Ok(())
    }

    /// Kills the proxy, and takes from its disks what was not durable.
    pub fn crash(&mut self) {
        self.door.behind(None);
        let Some(Running { runtime, host, router, conductor }) = self.running.take() else {
            return;
        };
        runtime.shutdown_timeout(Duration::from_secs(5));
        drop((host, router, conductor));
        self.fate.note("the host is killed");
        self.platter.forget_unsynced();
        at_once(self.shelf.forget_unsynced());
    }

    /// Runs something of the proxy's, unless the machine goes out meanwhile.
    fn run<T>(&mut self, what: impl AsyncFnOnce(&mut Router, &mut Conductor) -> T) -> Option<T> {
        let power = self.power.clone();
        let running = self.running.as_mut()?;
        let (router, conductor) = (&mut running.router, &mut running.conductor);
        let outcome = running.runtime.block_on(async {
            tokio::select! {
                biased;
                () = power.out() => None,
                outcome = what(router, conductor) => Some(outcome),
            }
        });
        if self.power.is_out() {
            self.crash();
            return None;
        }
        outcome
    }

    /// A request of a site, and the reply, unless there is none.
    pub fn request(&mut self, request: Request<Vec<u8>>) -> Option<Response<Vec<u8>>> {
        self.run(async |router, _| {
            let reply = router.clone().oneshot(request.map(Body::from)).await.unwrap();
            let (parts, body) = reply.into_parts();
            // A body that breaks off is a reply that did not come.
            let bytes = axum::body::to_bytes(body, LONGEST).await.ok()?;
            Some(Response::from_parts(parts, bytes.to_vec()))
        })
        .flatten()
    }

    /// Lets the conductor do the next thing. Whether there is more to do.
    pub fn conduct(&mut self) -> bool {
        self.run(async |_, conductor| conductor.look().await).unwrap_or(false)
    }

    /// What the studies wait for, in the host's words.
    #[must_use]
    pub fn waiting_for(&self) -> Option<String> {
        let running = self.running.as_ref()?;
        running.runtime.block_on(async {
            let state = running.host.state.lock().await;
            state.studies.values().next().map(|study| study.waiting_for.clone())
        })
    }

    /// The offer that stands in a round.
    #[must_use]
    pub fn offer(&self, round: u32) -> Option<Signed<Offer>> {
        let running = self.running.as_ref()?;
        running.runtime.block_on(async {
            let state = running.host.state.lock().await;
            state.studies.values().next()?.rounds.get(&round)?.offer.clone()
        })
    }

    /// The key of the log.
    #[must_use]
    pub fn log_key(&self) -> Option<NoteKey> {
        Some(self.running.as_ref()?.host.log.key().clone())
    }

    /// The bytes of an upload that the host has, if it knows the upload and its
    /// round still waits for it.
    #[must_use]
    pub fn received(&self, header: &Digest) -> Option<u64> {
        let running = self.running.as_ref()?;
        running.runtime.block_on(async {
            let state = running.host.state.lock().await;
            let upload = state.uploads.get(header)?;
            let statement = upload.header.statement();
            let round = state.studies.get(&statement.study)?.rounds.get(&statement.round)?;
            // A released round needs no uploads; one that is begun again then, by
            // a request that comes late, is forgotten by the conductor.
            round.release.is_none().then_some(upload.received)
        })
    }
}
